//! The request of an attempt.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;

use super::Attempt;
use crate::channel::Format;

pub(super) const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("levada/", env!("CARGO_PKG_VERSION")));
const STRUCTURED: HeaderValue = HeaderValue::from_static("application/cloudevents+json");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const REPLY: HeaderValue = HeaderValue::from_static("reply");

/// The request: the event with the headers that travel along, and the sink's own.
pub(super) fn build(attempt: &Attempt) -> Request<Full<Bytes>> {
    let (mut headers, body) = match attempt.format {
        Format::Binary => attempt.event.to_http_binary(),
        Format::Json => structured(attempt),
    };
    replace(&mut headers, &attempt.pass_through);
    headers.insert(header::USER_AGENT, USER_AGENT);
    headers.insert(PREFER, REPLY);
    replace(&mut headers, &attempt.sink.headers);
    post(attempt.sink.uri.clone(), headers, body)
}

fn structured(attempt: &Attempt) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(header::CONTENT_TYPE, STRUCTURED);
    for (name, value) in attempt.event.forwarded_headers() {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    (headers, attempt.event.to_structured_json())
}

/// A POST. `Host` and the length of a body are added as it is sent.
pub(super) fn post(uri: Uri, mut headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    if body.is_empty() {
        // Hyper says nothing of a body that is empty, and some servers then answer 411.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

/// Adds headers in place of those of the same name, except where the event decides.
fn replace(headers: &mut HeaderMap, with: &[(HeaderName, HeaderValue)]) {
    let with = || with.iter().filter(|(name, _)| !is_fixed(name));
    for (name, _) in with() {
        headers.remove(name);
    }
    for (name, value) in with() {
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
