//! What is told to the journal.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use crate::channel::Subscription;
use crate::clock::UnixMillis;
use crate::delivery::{Answer, Reason};
use crate::event::Event;
use crate::log::{Offset, TopicPartition};
use crate::message::MessageId;

/// The status of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// It waits for its first or its next attempt.
    Queued,
    /// The sink took it, and what became of it there is not known (yet).
    Sent,
    /// The subscriber has it.
    Delivered,
    /// The last attempt failed; the end when it is final.
    Undelivered,
    /// The provider could not hand it to the recipient.
    Bounced,
    /// Nothing was to be sent.
    NotSent,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Sent,
        Self::Delivered,
        Self::Undelivered,
        Self::Bounced,
        Self::NotSent,
    ];

    /// As the API writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Undelivered => "undelivered",
            Self::Bounced => "bounced",
            Self::NotSent => "not_sent",
        }
    }

    /// The status with that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// Why a message ended without being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinalReason {
    /// All retries were made, or the window for them was over.
    RetriesExhausted,
    /// The answer said that another attempt is pointless.
    FatalError,
    /// No dead-letter sink took it and the subscription keeps no dead letters.
    Dropped,
    /// The log let it go before it was finished.
    Expired,
}

impl FinalReason {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::RetriesExhausted,
        Self::FatalError,
        Self::Dropped,
        Self::Expired,
    ];

    /// As the API writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RetriesExhausted => "retries_exhausted",
            Self::FatalError => "fatal_error",
            Self::Dropped => "dropped",
            Self::Expired => "expired",
        }
    }

    /// The reason with that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// Which message: one event for one subscription.
#[derive(Clone, Debug)]
pub struct MessageKey {
    /// Its id.
    pub id: MessageId,
    /// Whose it is.
    pub subscription: Arc<Subscription>,
    /// Its partition of the channel topic.
    pub at: TopicPartition,
    /// Its offset there.
    pub offset: Offset,
    /// When the channel topic took it.
    pub accepted: UnixMillis,
}

/// How a message stands after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageState {
    /// The status.
    pub status: Status,
    /// Whether nothing more will happen by itself.
    pub is_final: bool,
    /// Why it ended undelivered.
    pub failure: Option<FinalReason>,
    /// Why the last attempt or check failed.
    pub last_reason: Option<Reason>,
    /// Attempts made, in all rounds.
    pub attempts: u32,
    /// Attempts that this round may have: retry + 1.
    pub max_attempts: u32,
    /// When the next attempt or check is due.
    pub next_attempt: Option<UnixMillis>,
    /// 1, and one more for each redeliver or redrive.
    pub round: u32,
}

/// A change of status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusEvent {
    /// What it became.
    pub status: Status,
    /// When.
    pub at: UnixMillis,
    /// The attempt or check that made it so; 0 before the first.
    pub attempt: u32,
    /// Attempts that this round may have.
    pub max_attempts: u32,
    /// Whether another attempt may follow.
    pub retryable: bool,
    /// Why, for a failure.
    pub reason: Option<Reason>,
}

/// What kind of request a log entry tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogKind {
    /// The event was sent to the subscriber (or reply or dead-letter sink).
    Attempt,
    /// The provider was asked what became of it.
    StatusCheck,
}

/// What led to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// It is the first.
    First,
    /// The one before failed.
    Retry,
    /// Somebody asked for this message to be sent again.
    Redeliver,
    /// Dead letters were sent round again.
    Redrive,
}

/// The request of an attempt or check.
#[derive(Clone, Debug)]
pub struct LogRequest {
    /// `POST`, `GET`, or `APPEND` where the sink is a channel.
    pub method: &'static str,
    /// The address it went to.
    pub url: Arc<str>,
    /// Its headers, secrets not masked: the journal masks before it stores.
    pub headers: HeaderMap,
}

/// What was answered, as it came.
pub type LogResponse = Answer;

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError {
    /// From the closed list of reasons.
    pub kind: Reason,
    /// In words.
    pub message: String,
}

/// How the wait after an attempt came about, for the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// How long the next attempt waits.
    pub delay: Duration,
    /// The delay before jitter.
    pub planned: Duration,
    /// Whether `Retry-After` set it.
    pub retry_after: bool,
    /// Whether it waits in the retry topic.
    pub parked: bool,
}

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct DeliveryLog {
    /// Attempt or status check.
    pub kind: LogKind,
    /// `subscriber`, `reply`, `dead-letter` or `check`.
    pub phase: &'static str,
    /// What led to it.
    pub trigger: Trigger,
    /// The round, from 1.
    pub round: u32,
    /// The number of the attempt or check, from 1, in all rounds.
    pub attempt: u32,
    /// When it began.
    pub started: UnixMillis,
    /// How long it took.
    pub duration: Duration,
    /// Why it failed; `None`: it succeeded.
    pub reason: Option<Reason>,
    /// Whether another attempt may follow.
    pub retryable: bool,
    /// The request.
    pub request: LogRequest,
    /// The answer.
    pub response: Option<LogResponse>,
    /// Why there was none.
    pub error: Option<LogError>,
    /// What follows it.
    pub wait: Option<Wait>,
}

/// What happened to one message, with how it stands then.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which message.
    pub key: MessageKey,
    /// Its event; `None` for a record that is none.
    pub event: Option<Arc<Event>>,
    /// When.
    pub at: UnixMillis,
    /// How it stands now; `None`: as before.
    pub state: Option<MessageState>,
    /// Its changes of status, oldest first.
    pub events: Vec<StatusEvent>,
    /// The request that led to it.
    pub log: Option<Box<DeliveryLog>>,
}
