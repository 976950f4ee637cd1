//! What can be asked of the journal.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;

use super::model::{FinalReason, LogKind, Status, Trigger, Wait};
use crate::channel::ResourceName;
use crate::clock::UnixMillis;
use crate::message::MessageId;

/// The answer of a [`Reader`].
pub type ReadFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, JournalError>> + Send + 'a>>;

/// The journal did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The store failed, is locked or gone.
    #[error("the journal cannot be read: {0}")]
    Unavailable(String),
    /// A cursor that is none of ours.
    #[error("{0:?} is no cursor of this list: begin without it")]
    Cursor(String),
}

/// Which messages. Several values of one field mean "or", fields mean "and".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Statuses.
    pub status: Vec<Status>,
    /// Queued after at least one attempt.
    pub retrying: bool,
    /// Whether nothing more will happen by itself.
    pub is_final: Option<bool>,
    /// Subscriptions.
    pub subscription: Vec<ResourceName>,
    /// Channels.
    pub channel: Vec<ResourceName>,
    /// The last reason.
    pub reason: Vec<String>,
    /// The event's id, exact.
    pub event_id: Option<String>,
    /// The event's type, exact.
    pub event_type: Option<String>,
    /// The event's source, exact.
    pub event_source: Option<String>,
    /// Accepted at this time or later.
    pub from: Option<UnixMillis>,
    /// Accepted before this time.
    pub to: Option<UnixMillis>,
}

/// A place in a list: the message with this time of acceptance and this id. Opaque to users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// When the message was accepted.
    pub accepted: UnixMillis,
    /// Its id.
    pub id: String,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.accepted.0, self.id)
    }
}

impl FromStr for Cursor {
    type Err = JournalError;

    fn from_str(text: &str) -> Result<Self, JournalError> {
        let read = || {
            let (accepted, id) = text.split_once('.')?;
            id.parse::<MessageId>().ok()?;
            Some(Self {
                accepted: UnixMillis(accepted.parse().ok()?),
                id: id.to_owned(),
            })
        };
        read().ok_or_else(|| JournalError::Cursor(text.to_owned()))
    }
}

/// Which page of a list, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Older than this.
    pub after: Option<Cursor>,
    /// Newer than this: the page that ends just before it.
    pub before: Option<Cursor>,
    /// 1 to 250.
    pub size: usize,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Newest first.
    pub items: Vec<T>,
    /// Where older ones go on; `None`: there are none.
    pub after: Option<Cursor>,
    /// Where newer ones go on; `None`: this is the first page.
    pub before: Option<Cursor>,
    /// A bounded search stopped here: what is older was not looked at.
    pub searched_to: Option<UnixMillis>,
}

/// What the journal keeps of an event; its data is in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFacts {
    /// `id`
    pub id: String,
    /// `source`
    pub source: String,
    /// `type`
    pub r#type: String,
    /// `subject`
    pub subject: Option<String>,
    /// `time` as it was sent.
    pub time: Option<String>,
}

/// A message as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: String,
    /// Its channel.
    pub channel: ResourceName,
    /// Its subscription.
    pub subscription: ResourceName,
    /// The status.
    pub status: Status,
    /// Whether nothing more will happen by itself.
    pub is_final: bool,
    /// Why it ended undelivered.
    pub failure: Option<FinalReason>,
    /// Why the last attempt or check failed.
    pub last_reason: Option<String>,
    /// Attempts made, in all rounds.
    pub attempts: u32,
    /// Attempts that this round may have.
    pub max_attempts: u32,
    /// When the next attempt or check is due.
    pub next_attempt: Option<UnixMillis>,
    /// The round, from 1.
    pub round: u32,
    /// When the channel topic took the event.
    pub accepted: UnixMillis,
    /// When the last change came.
    pub updated: UnixMillis,
    /// The event.
    pub event: EventFacts,
    /// The channel topic.
    pub topic: String,
    /// The partition there.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
}

/// A stored change of status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredStatus {
    /// From 1, in the order of the message's changes.
    pub number: u32,
    /// What it became.
    pub status: Status,
    /// When.
    pub at: UnixMillis,
    /// The attempt or check that made it so; 0 before the first.
    pub attempt: u32,
    /// Attempts that the round may have.
    pub max_attempts: u32,
    /// Whether another attempt may follow.
    pub retryable: bool,
    /// Why, for a failure.
    pub reason: Option<String>,
}

/// A stored request with its answer. Secrets are masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLog {
    /// From 1, in the order of the message's requests.
    pub number: u32,
    /// Attempt or status check.
    pub kind: LogKind,
    /// `subscriber`, `reply`, `dead-letter` or `check`.
    pub phase: String,
    /// What led to it.
    pub trigger: Trigger,
    /// The round, from 1.
    pub round: u32,
    /// The number of the attempt or check, from 1, in all rounds.
    pub attempt: u32,
    /// When it began.
    pub started: UnixMillis,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// Why it failed; `None`: it succeeded.
    pub reason: Option<String>,
    /// The node that made it.
    pub node: String,
    /// `POST`, `GET` or `APPEND`.
    pub method: String,
    /// The address it went to.
    pub url: String,
    /// The request's headers.
    pub request_headers: Vec<(String, String)>,
    /// The answer's status code.
    pub code: Option<u16>,
    /// The answer's headers.
    pub response_headers: Vec<(String, String)>,
    /// The beginning of the answer's body.
    pub body: Vec<u8>,
    /// Whether the body was longer.
    pub truncated: bool,
    /// Why there was no answer: kind and words.
    pub error: Option<(String, String)>,
    /// What follows it.
    pub wait: Option<Wait>,
}

/// Everything about one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// The message.
    pub message: Message,
    /// Its changes of status, oldest first.
    pub statuses: Vec<StoredStatus>,
    /// Its requests, oldest first; at most the first 50 and the last 200.
    pub logs: Vec<StoredLog>,
}

/// A span of time, the end not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From.
    pub from: UnixMillis,
    /// To.
    pub to: UnixMillis,
}

/// What happened in one span of a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bucket {
    /// Its beginning.
    pub start: UnixMillis,
    /// Attempts that succeeded.
    pub ok: u64,
    /// Attempts that failed and may be repeated.
    pub retryable: u64,
    /// Attempts that failed for good.
    pub permanent: u64,
    /// The median of the attempts' durations, in milliseconds; absent without attempts.
    pub p50_ms: Option<f64>,
    /// The same, 95 %.
    pub p95_ms: Option<f64>,
    /// The same, 99 %.
    pub p99_ms: Option<f64>,
}

/// How often attempts failed for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonCount {
    /// The reason.
    pub reason: String,
    /// Attempts.
    pub attempts: u64,
    /// The first minute it was seen in the span.
    pub first: UnixMillis,
    /// The last time it was seen.
    pub last: UnixMillis,
    /// The beginning of one answer, or the error in words.
    pub sample: String,
}

/// Changes that were not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// From.
    pub from: UnixMillis,
    /// To; `None`: it goes on.
    pub to: Option<UnixMillis>,
    /// How many changes.
    pub changes: u64,
}

/// How far the journal reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The oldest message it holds.
    pub oldest: Option<UnixMillis>,
    /// About how many messages it holds.
    pub messages: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Changes that wait to be written.
    pub queued: u64,
    /// The latest gaps, newest first.
    pub gaps: Vec<Gap>,
}

/// What can be asked. Every answer is bounded in time and size.
pub trait Reader: Send + Sync + fmt::Debug {
    /// A page of messages, newest first. A search walks a bounded way and says how far it came.
    fn list<'a>(
        &'a self,
        filter: &'a Filter,
        page: &'a PageRequest,
    ) -> ReadFuture<'a, Page<Message>>;

    /// How many newer messages than `than` fit the filter, at most `limit`.
    fn count_newer<'a>(
        &'a self,
        filter: &'a Filter,
        than: &'a Cursor,
        limit: usize,
    ) -> ReadFuture<'a, usize>;

    /// About how many messages fit the filter, counted up to `limit`; `None`: more than an index
    /// would have to be looked at. A store that cannot tell soon says so.
    fn count<'a>(&'a self, _filter: &'a Filter, _limit: usize) -> ReadFuture<'a, Option<usize>> {
        Box::pin(async { Ok(None) })
    }

    /// One message with all there is about it.
    fn story<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Story>>;

    /// One message.
    fn message<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Message>>;

    /// The messages of the event with this id, of all subscriptions, newest first, at most `limit`.
    fn siblings<'a>(&'a self, event_id: &'a str, limit: usize) -> ReadFuture<'a, Vec<Message>>;

    /// The attempts of a subscription in `span`, in buckets of `step_minutes`, oldest first, without
    /// holes. `None`: of all subscriptions together.
    fn chart<'a>(
        &'a self,
        subscription: Option<&'a ResourceName>,
        span: Span,
        step_minutes: u32,
    ) -> ReadFuture<'a, Vec<Bucket>>;

    /// Why attempts of a subscription failed in `span`, most frequent first.
    fn reasons<'a>(
        &'a self,
        subscription: &'a ResourceName,
        span: Span,
    ) -> ReadFuture<'a, Vec<ReasonCount>>;

    /// How far the journal reaches, and its gaps.
    fn reach(&self) -> ReadFuture<'_, Reach>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_from_text() {
        let text = "-5.ae0c19cbe0315e6b-3-1042";
        let cursor: Cursor = text.parse().unwrap();
        assert_eq!(cursor.accepted, UnixMillis(-5));
        assert_eq!(cursor.to_string(), text);
        for bad in [
            "",
            "5",
            "5.",
            "x.ae0c19cbe0315e6b-3-1042",
            "5.a",
            "5.ae0c19cbe0315e6b-3",
        ] {
            let refused = bad.parse::<Cursor>();
            assert_eq!(refused, Err(JournalError::Cursor(bad.into())));
        }
    }
}
