//! Messages and what became of them.

use schemars::JsonSchema;
use serde::Serialize;

use super::{EventFacts, Position, ReasonName, Time};
use crate::journal::{self, FinalReason, LogKind, Status, StoredLog, StoredStatus, Trigger};

/// One event for one subscription.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Message {
    /// Made of the subscription's uid and the event's place in the log: the same in every round.
    pub(in crate::admin) id: String,
    /// The channel, as `<namespace>/<name>`.
    pub(in crate::admin) channel: String,
    /// The subscription, as `<namespace>/<name>`.
    pub(in crate::admin) subscription: String,
    /// Where it stands.
    #[schemars(extend("enum" = Status::ALL.map(Status::name)))]
    pub(in crate::admin) status: &'static str,
    /// Whether nothing more will happen by itself.
    pub(in crate::admin) r#final: bool,
    /// Why it ended undelivered.
    pub(in crate::admin) failure_reason: Option<FailureReason>,
    /// Why the last attempt or check failed.
    pub(in crate::admin) last_reason: Option<ReasonName>,
    /// Attempts made, in all rounds.
    pub(in crate::admin) attempts: u32,
    /// Attempts that this round may have.
    pub(in crate::admin) max_attempts: u32,
    /// 1, and one more for each redeliver or redrive.
    pub(in crate::admin) round: u32,
    /// When the next attempt or check is due.
    pub(in crate::admin) next_attempt_at: Option<Time>,
    /// When the channel took the event.
    pub(in crate::admin) inserted_at: Time,
    /// When something changed last.
    pub(in crate::admin) updated_at: Time,
    /// The event.
    pub(in crate::admin) event: EventFacts,
    /// Where the event is in its channel's topic.
    pub(in crate::admin) position: Position,
}

/// Why a message ended undelivered.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub(in crate::admin) struct FailureReason(
    #[schemars(extend("enum" = FinalReason::ALL.map(FinalReason::name)))] &'static str,
);

impl From<&journal::Message> for Message {
    fn from(message: &journal::Message) -> Self {
        let event = &message.event;
        let known = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Self {
            id: message.id.clone(),
            channel: message.channel.to_string(),
            subscription: message.subscription.to_string(),
            status: message.status.name(),
            r#final: message.is_final,
            failure_reason: message.failure.map(|why| FailureReason(why.name())),
            last_reason: message.last_reason.clone().map(ReasonName),
            attempts: message.attempts,
            max_attempts: message.max_attempts,
            round: message.round,
            next_attempt_at: message.next_attempt.map(Time::from),
            inserted_at: message.accepted.into(),
            updated_at: message.updated.into(),
            event: EventFacts {
                id: known(&event.id),
                source: known(&event.source),
                r#type: known(&event.r#type),
                subject: event.subject.clone(),
                time: event.time.clone(),
            },
            position: Position {
                topic: message.topic.clone(),
                partition: message.partition,
                offset: message.offset,
            },
        }
    }
}

/// A change of a message's status.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct MessageEvent {
    /// Its id.
    id: String,
    /// `message.` with the status that it became.
    #[schemars(extend("enum" = Status::ALL.map(event_type)))]
    r#type: String,
    /// When.
    inserted_at: Time,
    /// What led to it.
    data: EventData,
}

/// What led to a change of status.
#[derive(Debug, Serialize, JsonSchema)]
struct EventData {
    /// The attempt or check that made it so; 0 before the first.
    attempt: u32,
    /// Attempts that the round may have.
    max_attempts: u32,
    /// Whether another attempt may follow.
    retryable: bool,
    /// Why, for a failure.
    reason: Option<ReasonName>,
}

fn event_type(status: Status) -> String {
    format!("message.{}", status.name())
}

impl MessageEvent {
    pub(in crate::admin) fn new(message: &str, status: &StoredStatus) -> Self {
        Self {
            id: format!("{message}-e{}", status.number),
            r#type: event_type(status.status),
            inserted_at: status.at.into(),
            data: EventData {
                attempt: status.attempt,
                max_attempts: status.max_attempts,
                retryable: status.retryable,
                reason: status.reason.clone().map(ReasonName),
            },
        }
    }
}

/// One request and its answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct DeliveryLog {
    /// Its id.
    id: String,
    /// An attempt, or a question to the provider what became of the message.
    #[schemars(extend("enum" = ["attempt", "status_check"]))]
    kind: &'static str,
    /// Who was called: `subscriber`, `reply`, `dead-letter` or `check`.
    #[schemars(extend("enum" = ["subscriber", "reply", "dead-letter", "check"]))]
    phase: String,
    /// What led to it.
    #[schemars(extend("enum" = ["first", "retry", "redeliver", "redrive"]))]
    trigger: &'static str,
    /// The round, from 1.
    round: u32,
    /// The number of the attempt or check, from 1, in all rounds.
    attempt: u32,
    /// Why it failed; null: it did not.
    reason: Option<ReasonName>,
    /// When it began.
    inserted_at: Time,
    /// How long it took, in milliseconds.
    duration_ms: f64,
    /// The node that made it.
    node: String,
    /// What was sent; the body is the event's.
    request: Request,
    /// What was answered; null: nothing.
    response: Option<Response>,
    /// Why there was no answer, or none that was of use.
    error: Option<Failure>,
}

/// A header: its name and its value. Secrets are masked.
type Header = (String, String);

/// What was sent.
#[derive(Debug, Serialize, JsonSchema)]
struct Request {
    /// `POST`, `GET`, or `APPEND` where the sink is a channel.
    method: String,
    /// The address.
    url: String,
    /// The headers.
    headers: Vec<Header>,
}

/// What was answered.
#[derive(Debug, Serialize, JsonSchema)]
struct Response {
    /// The status code.
    status: u16,
    /// The headers.
    headers: Vec<Header>,
    /// The beginning of the body, as text.
    body: String,
    /// Whether the body was longer.
    truncated: bool,
}

/// Why there was no answer.
#[derive(Debug, Serialize, JsonSchema)]
struct Failure {
    /// The reason.
    kind: ReasonName,
    /// In words.
    message: String,
}

impl DeliveryLog {
    pub(in crate::admin) fn new(message: &str, log: &StoredLog) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "no attempt takes that long")]
        let duration_ms = log.duration_us as f64 / 1000.0;
        let error = log.error.clone();
        Self {
            id: format!("{message}-l{}", log.number),
            kind: match log.kind {
                LogKind::Attempt => "attempt",
                LogKind::StatusCheck => "status_check",
            },
            phase: log.phase.clone(),
            trigger: match log.trigger {
                Trigger::First => "first",
                Trigger::Retry => "retry",
                Trigger::Redeliver => "redeliver",
                Trigger::Redrive => "redrive",
            },
            round: log.round,
            attempt: log.attempt,
            reason: log.reason.clone().map(ReasonName),
            inserted_at: log.started.into(),
            duration_ms,
            node: log.node.clone(),
            request: Request {
                method: log.method.clone(),
                url: log.url.clone(),
                headers: log.request_headers.clone(),
            },
            response: log.code.map(|status| Response {
                status,
                headers: log.response_headers.clone(),
                body: String::from_utf8_lossy(&log.body).into_owned(),
                truncated: log.truncated,
            }),
            error: error.map(|(kind, message)| Failure {
                kind: ReasonName(kind),
                message,
            }),
        }
    }
}
