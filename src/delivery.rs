//! One HTTP attempt: the request, its outcome, and what follows a failure.
//!
//! The dispatcher hands an [`Attempt`] to a [`Deliver`] and gets an [`AttemptReport`]; whether and
//! when another attempt follows is decided by [`retry::decide`]. [`Client`] is the `Deliver` that
//! speaks HTTP. Nothing here knows of offsets, lanes or the log.

mod answer;
pub mod check;
mod client;
mod connect;
mod reason;
mod request;
pub mod retry;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

pub use client::{Client, Settings};
pub(crate) use connect::tls;
pub use reason::{Reason, UnknownReason};

use crate::channel::{Format, HttpSink, RetryCodes};
use crate::clock::UnixMillis;
use crate::event::Event;

/// So much of a failed answer's body goes into `knativeerrordata`, in bytes.
pub const ERROR_BODY_BYTES: usize = 1024;

/// Makes attempts: over HTTP, or as a test scripts them.
pub trait Deliver: Send + Sync + 'static {
    /// Makes one attempt. Never fails as such: what went wrong is in the report. Dropping the
    /// future aborts the attempt; the sink may or may not have had it.
    fn attempt(&self, attempt: Attempt) -> impl Future<Output = AttemptReport> + Send;

    /// Asks a provider what became of a message: a GET of the sink. Never fails as such.
    fn ask(&self, sink: HttpSink, timeout: Duration) -> impl Future<Output = AttemptReport> + Send;
}

/// One call of one sink with one event.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Where to.
    pub sink: HttpSink,
    /// What.
    pub event: Arc<Event>,
    /// The content mode.
    pub format: Format,
    /// The time for all of it: connection, request, answer with its body.
    pub timeout: Duration,
    /// Which codes are worth another attempt.
    pub retry_codes: RetryCodes,
    /// Whether an event in the answer is wanted. Without it only a little of a success's body is
    /// read.
    pub take_reply: bool,
    /// Headers to send besides those that travel with the event and those of the sink, for an
    /// event that lost its own on the way. Usually empty.
    pub pass_through: Vec<(HeaderName, HeaderValue)>,
    /// Whether the report is to hold the headers of the request.
    pub tell_request: bool,
}

/// What became of an attempt.
#[derive(Clone, Debug)]
pub struct AttemptReport {
    /// When it began.
    pub started: UnixMillis,
    /// How long it took.
    pub duration: Duration,
    /// The headers of the request as they went out, if they were asked for. Secrets are not masked.
    pub request: Option<HeaderMap>,
    /// What the sink answered, when it did; for the journal and for status checks.
    pub answer: Option<Answer>,
    /// The outcome.
    pub result: Result<Success, Failure>,
}

/// The answer of a sink as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The beginning of the body, at most [`Settings::kept_body_bytes`].
    pub body: Bytes,
    /// Whether the body was longer, or broke off.
    pub truncated: bool,
}

/// The sink took the event (2xx).
#[derive(Clone, Debug, PartialEq)]
pub struct Success {
    /// The status code.
    pub code: u16,
    /// The event in a 200, when it was asked for and is valid. The headers of the answer that
    /// travel along are among its [`Event::forwarded_headers`].
    pub reply: Option<Event>,
}

/// The sink did not take the event, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why, from the closed list.
    pub reason: Reason,
    /// The status code of a complete answer head that is no success.
    pub code: Option<u16>,
    /// The first [`ERROR_BODY_BYTES`] of that answer's body.
    pub body: Bytes,
    /// Whether another attempt may succeed.
    pub retryable: bool,
    /// `Retry-After` of a 429 or 503: how long from the time of the answer.
    pub retry_after: Option<Duration>,
    /// Attributes for the dead letter, from the answer's `kne-<name>` headers.
    pub attributes: Vec<(String, String)>,
    /// What happened, for people.
    pub detail: String,
}

impl Failure {
    /// A failure without an answer.
    #[must_use]
    pub fn without_answer(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            code: None,
            body: Bytes::new(),
            retryable: true,
            retry_after: None,
            attributes: Vec::new(),
            detail: detail.into(),
        }
    }

    /// The attempt was cut by a drain or a rebalance.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::without_answer(Reason::Interrupted, "cut before the sink had answered")
    }
}
