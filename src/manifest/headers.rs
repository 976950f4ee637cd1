//! Static request headers.

use std::path::Path;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::fields::{Context, Fields, Others};
use super::secrets::{Piece, SecretRef, pieces};
use super::yaml::Node;

/// Request headers that are made for each request and cannot be set.
const RESERVED: [&str; 13] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "prefer",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// `headers`: names with values that may refer to secrets.
pub(super) fn read_headers(
    node: &Node,
    path: &str,
    cx: &mut Context<'_>,
) -> Vec<(HeaderName, HeaderValue)> {
    let Some(fields) = Fields::open(node, path, &[], Others::Ignored, cx) else {
        return Vec::new();
    };
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for entry in fields.entries() {
        let key = entry.key.as_str();
        let Ok(name) = HeaderName::from_bytes(key.as_bytes()) else {
            fields.problem(key, "not a header name", cx);
            continue;
        };
        if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("ce-") {
            fields.problem(
                key,
                "this header is made for each request and cannot be set",
                cx,
            );
        } else if headers.iter().any(|(other, _)| *other == name) {
            fields.problem(key, "given twice (case does not matter)", cx);
        } else if entry.value.is_null() {
            fields.problem(key, "missing value", cx);
        } else if let Some(text) = fields.text(key, cx) {
            match header_value(text, cx) {
                Ok(value) => headers.push((name, value)),
                Err(message) => fields.problem(key, message, cx),
            }
        }
    }
    headers
}

/// Fills in the secrets; a value that holds one is marked as sensitive.
fn header_value(text: &str, cx: &mut Context<'_>) -> Result<HeaderValue, String> {
    let file = Arc::clone(&cx.file);
    let directory = Path::new(&*file).parent().unwrap_or(Path::new(""));
    let (mut value, mut secret) = (String::new(), false);
    for piece in pieces(text, directory)? {
        match piece {
            Piece::Text(text) => value.push_str(text),
            Piece::Secret(reference) => {
                if let SecretRef::File(path) = &reference {
                    cx.secret_files.push(path.clone());
                }
                let found = cx.secrets.resolve(&reference);
                value.push_str(&found.map_err(|error| format!("{reference}: {error}"))?);
                secret = true;
            }
        }
    }
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| "not a header value: only visible ASCII characters and blanks".to_owned())?;
    value.set_sensitive(secret);
    Ok(value)
}
