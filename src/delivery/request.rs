//! The request of an attempt.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;

use super::Attempt;
use crate::channel::Format;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("levada/", env!("CARGO_PKG_VERSION")));
const PREFER: HeaderName = HeaderName::from_static("prefer");
const REPLY: HeaderValue = HeaderValue::from_static("reply");

/// A request, or what about the event does not go into one.
pub(super) fn build(attempt: &Attempt) -> Result<Request<Full<Bytes>>, String> {
    let mut headers = HeaderMap::with_capacity(24);
    let body = match attempt.format {
        Format::Binary | Format::Json => Bytes::new(),
    };
    for (name, value) in &attempt.pass_through {
        headers.append(name, value.clone());
    }
    headers.insert(header::USER_AGENT, USER_AGENT);
    headers.insert(PREFER, REPLY);
    add_static(&mut headers, &attempt.sink.headers);
    Ok(post(attempt.sink.uri.clone(), headers, body))
}

/// A POST. `Host` and `Content-Length` are added as it is sent.
pub(super) fn post(uri: Uri, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

/// Adds the sink's own headers: they win over those that travel along, never over the event.
fn add_static(headers: &mut HeaderMap, own: &[(HeaderName, HeaderValue)]) {
    let own = || own.iter().filter(|(name, _)| !is_fixed(name));
    for (name, _) in own() {
        headers.remove(name);
    }
    for (name, value) in own() {
        headers.append(name, value.clone());
    }
}

/// Headers that the event or the connection decides.
fn is_fixed(name: &HeaderName) -> bool {
    name.as_str().starts_with("ce-")
        || [
            header::CONTENT_TYPE,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::CONNECTION,
            header::UPGRADE,
            PREFER,
        ]
        .contains(name)
}
