//! `statusCheck`: how a provider is asked what became of a message.

use http::HeaderName;

use super::destination::HttpUrl;
use super::fields::{Context, Fields, Others};
use super::headers::read_headers;
use super::yaml::{Node, Value};
use crate::channel::{ReceiptFrom, StatusCheck, StatusUrl};

const FIELDS: [&str; 7] = [
    "url",
    "receipt",
    "headers",
    "status",
    "delivered",
    "bounced",
    "undelivered",
];

/// Reads the field; what is wrong is reported.
pub(super) fn read(node: &Node, path: &str, cx: &mut Context<'_>) -> Option<StatusCheck> {
    let before = cx.found();
    let fields = Fields::open(node, path, &FIELDS, Others::Refused, cx)?;
    let receipt = fields
        .get("receipt")
        .and_then(|node| receipt(node, &fields, cx));
    let url = url(&fields, fields.get("receipt").is_some(), cx);
    let status = pointer(&fields, "status", cx);
    let delivered = list(&fields, "delivered", cx);
    if delivered.is_empty() && cx.found() == before {
        fields.problem(
            "delivered",
            "missing field: say which statuses mean delivered",
            cx,
        );
    }
    let headers = fields
        .get("headers")
        .map(|node| read_headers(node, &fields.path_of("headers"), cx));
    let check = StatusCheck {
        url: url?,
        receipt,
        headers: headers.unwrap_or_default().into(),
        status: status?,
        delivered,
        bounced: list(&fields, "bounced", cx),
        undelivered: list(&fields, "undelivered", cx),
    };
    (cx.found() == before).then_some(check)
}

/// An address with `{receipt}`; without a field it is what `Location` says.
fn url(fields: &Fields<'_>, has_receipt: bool, cx: &mut Context<'_>) -> Option<StatusUrl> {
    if fields.get("url").is_none() {
        if has_receipt {
            fields.problem(
                "url",
                "missing field: say where the receipt goes, as {receipt}",
                cx,
            );
        }
        return Some(StatusUrl::Location);
    }
    let text = fields.required_text("url", cx)?;
    if text.contains("{receipt}") != has_receipt {
        let message =
            "url has {receipt} exactly when there is a receipt field that says where it comes from";
        fields.problem("url", message, cx);
        return None;
    }
    if let Err(message) = HttpUrl::try_new(&text.replace("{receipt}", "r")) {
        fields.problem("url", message, cx);
        return None;
    }
    Some(StatusUrl::Template(text.to_owned()))
}

/// `{pointer: /id}` or `{header: X-Receipt}`.
fn receipt(node: &Node, parent: &Fields<'_>, cx: &mut Context<'_>) -> Option<ReceiptFrom> {
    let path = parent.path_of("receipt");
    let fields = Fields::open(node, &path, &["pointer", "header"], Others::Refused, cx)?;
    match (fields.get("pointer"), fields.get("header")) {
        (Some(_), None) => pointer(&fields, "pointer", cx).map(ReceiptFrom::Pointer),
        (None, Some(_)) => {
            let text = fields.required_text("header", cx)?;
            let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
                fields.problem("header", "not a header name", cx);
                return None;
            };
            Some(ReceiptFrom::Header(name))
        }
        _ => {
            let message = "must have either pointer (into the JSON of the answer) or header";
            parent.problem("receipt", message, cx);
            None
        }
    }
}

fn pointer(fields: &Fields<'_>, name: &str, cx: &mut Context<'_>) -> Option<String> {
    let text = fields.required_text(name, cx)?;
    if !text.starts_with('/') {
        fields.problem(
            name,
            "must be a JSON pointer such as /message/status (RFC 6901)",
            cx,
        );
        return None;
    }
    Some(text.to_owned())
}

/// A list of texts, or one.
fn list(fields: &Fields<'_>, name: &str, cx: &mut Context<'_>) -> Vec<String> {
    let Some(node) = fields.get(name) else {
        return Vec::new();
    };
    let text = |node: &Node| match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    };
    let texts = match &node.value {
        Value::List(items) => items.iter().map(text).collect::<Option<Vec<_>>>(),
        _ => text(node).map(|text| vec![text]),
    };
    if texts.is_none() {
        fields.problem(name, "must be a list of statuses", cx);
    }
    texts.unwrap_or_default()
}
