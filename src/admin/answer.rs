//! Answers: JSON, problems, metrics.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::{Value, json};

/// An answer that stands as a whole.
pub(super) type Answer = Response<Full<Bytes>>;

pub(super) fn answer(status: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(body) => answer(status, "application/json", body),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// `{"items": [...], "page_info": {...}}` with everything on one page.
pub(super) fn list(items: Vec<Value>) -> Answer {
    let page = json!({ "page_size": items.len(), "after": null, "before": null });
    json(
        StatusCode::OK,
        &json!({ "items": items, "page_info": page }),
    )
}

/// RFC 9457.
pub(super) fn problem(status: StatusCode, detail: &str) -> Answer {
    let body = json!({
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    let mut answer = answer(status, "application/problem+json", body.to_string());
    if status == StatusCode::UNAUTHORIZED {
        answer
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

pub(super) fn method_not_allowed(allowed: &'static str) -> Answer {
    let detail = format!("this address takes {allowed}");
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, &detail);
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}
