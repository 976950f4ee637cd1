//! What is answered: an empty 202, or a problem document that says what to do.

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    RETRY_AFTER,
};
use http::{Response, StatusCode, Version};
use http_body_util::Full;
use serde::Serialize;

use super::body::BodyError;
use super::routes::NoRoute;
use crate::event::{EventError, EventErrorKind, Place};
use crate::log::LogError;

pub(super) type Answer = Response<Full<Bytes>>;

const METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

/// Why a request was refused.
#[derive(Debug)]
pub(super) enum Refusal {
    Method,
    NoRoute(NoRoute),
    ContentEncoding,
    Body(BodyError),
    /// The event has so many bytes, more than the limit.
    EventTooLarge {
        bytes: usize,
        limit: usize,
    },
    Event(EventError),
    Log(LogError),
}

/// RFC 9457, with what is at fault.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attribute: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<&'a str>,
}

/// All events are stored.
pub(super) fn accepted() -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::ACCEPTED;
    answer
}

/// The answer to OPTIONS: the methods, and permission to a webhook sender that asks for it.
pub(super) fn options(request: &HeaderMap) -> Answer {
    const ANY: HeaderValue = HeaderValue::from_static("*");
    let mut answer = Answer::default();
    let headers = answer.headers_mut();
    headers.insert(ALLOW, METHODS);
    if request.contains_key("webhook-request-origin") {
        headers.insert(HeaderName::from_static("webhook-allowed-origin"), ANY);
        if request.contains_key("webhook-request-rate") {
            headers.insert(HeaderName::from_static("webhook-allowed-rate"), ANY);
        }
    }
    answer
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute(NoRoute::Malformed(_)) => StatusCode::BAD_REQUEST,
            Self::NoRoute(NoRoute::Unknown) => StatusCode::NOT_FOUND,
            Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Body(BodyError::TooLarge { .. }) | Self::EventTooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::Body(BodyError::TimedOut(_)) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::Incomplete(_)) => StatusCode::BAD_REQUEST,
            Self::Body(BodyError::Overloaded) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Event(error) => match error.kind() {
                EventErrorKind::Invalid => StatusCode::BAD_REQUEST,
                EventErrorKind::UnsupportedFormat => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            },
            Self::Log(LogError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Log(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Method => "events are sent with POST".into(),
            Self::NoRoute(NoRoute::Malformed(problem)) => (*problem).into(),
            Self::NoRoute(NoRoute::Unknown) => "there is no such channel; send to the host \
                <channel>.<namespace> or to the path /<namespace>/<channel>"
                .into(),
            Self::ContentEncoding => {
                "an encoded body is not supported; send it without Content-Encoding".into()
            }
            Self::Body(error) => error.to_string(),
            Self::EventTooLarge { bytes, limit } => {
                format!(
                    "the event has {bytes} bytes with its attributes, at most {limit} are taken"
                )
            }
            Self::Event(error) => error.to_string(),
            Self::Log(error) => format!("not stored: {error}"),
        }
    }

    /// Seconds after which a sender may try again.
    fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Self::Body(BodyError::Overloaded) | Self::Log(LogError::Overloaded) => {
                Some(HeaderValue::from_static("1"))
            }
            Self::Log(error) if error.is_retryable() => Some(HeaderValue::from_static("5")),
            _ => None,
        }
    }

    /// The attribute or header that is at fault.
    fn culprit(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Event(error) => match error.place() {
                Place::Attribute(name) => (Some(name), None),
                Place::Header(name) => (None, Some(name)),
                Place::Body => (None, None),
            },
            Self::ContentEncoding => (None, Some("content-encoding")),
            Self::NoRoute(NoRoute::Malformed(_)) => (None, Some("host")),
            _ => (None, None),
        }
    }

    /// The answer to a request of this version.
    pub(super) fn answer(&self, version: Version) -> Answer {
        let (status, detail) = (self.status(), self.detail());
        let (attribute, header) = self.culprit();
        let problem = Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: &detail,
            attribute,
            header,
        };
        let body = serde_json::to_vec(&problem).expect("a struct of strings is always JSON");
        let mut answer = Response::new(Full::from(body));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        let media_type = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, media_type);
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, seconds);
        }
        match self {
            Self::Method => drop(headers.insert(ALLOW, METHODS)),
            Self::ContentEncoding => {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            // The rest of the body may still be on its way and will not be read.
            Self::Body(BodyError::TimedOut(_) | BodyError::TooLarge { .. })
                if version <= Version::HTTP_11 =>
            {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        answer
    }
}
