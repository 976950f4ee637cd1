//! Dead letters and redrives.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{EventFacts, Position, ReasonName, Time};
use crate::channel::ResourceName;
use crate::dead_letters::{self, Listed, Planned};

/// A message that was given up.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct DeadLetter {
    /// The id of the message.
    id: String,
    /// The subscription, as `<namespace>/<name>`.
    subscription: String,
    /// When it was given up.
    inserted_at: Time,
    /// The event.
    event: EventFacts,
    /// Why it was given up.
    reason: ReasonName,
    /// What was answered last.
    error: LetterError,
    /// Whose attempts failed: `subscriber` or `reply`; empty for a record that is no event.
    phase: String,
    /// How many attempts were made in the last round.
    attempts: Option<u32>,
    /// When the first of them ended.
    first_attempt_at: Option<Time>,
    /// How often it had been sent again before.
    redriven: u32,
    /// Whether it was sent again since.
    sent_again: bool,
    /// Whether it can be sent again: it is an event, and came from the channel.
    redrivable: bool,
    /// Where the event is, or was, in the channel's topic.
    origin: Origin,
    /// Where it is in the dead-letter topic.
    position: LetterPosition,
}

/// What was answered last.
#[derive(Debug, Serialize, JsonSchema)]
struct LetterError {
    /// The address that was called.
    dest: Option<String>,
    /// The status code; null: there was no answer.
    code: Option<u16>,
    /// Base64 of the beginning of the answer's body.
    data: Option<String>,
}

/// Where an event came from.
#[derive(Debug, Serialize, JsonSchema)]
struct Origin {
    #[serde(flatten)]
    at: Position,
    /// When the channel took it.
    time: Time,
}

/// A place in the dead-letter topic.
#[derive(Debug, Serialize, JsonSchema)]
struct LetterPosition {
    /// The partition.
    partition: i32,
    /// The offset.
    offset: i64,
}

impl DeadLetter {
    pub(in crate::admin) fn new(subscription: &ResourceName, listed: &Listed) -> Self {
        let letter = &listed.letter;
        let (at, offset, time) = letter.origin();
        let attribute = |name| letter.attribute(name).map(str::to_owned);
        Self {
            id: letter.id.to_string(),
            subscription: subscription.to_string(),
            inserted_at: letter.inserted_at.into(),
            event: EventFacts {
                id: attribute("id"),
                source: attribute("source"),
                r#type: attribute("type"),
                subject: attribute("subject"),
                time: attribute("time"),
            },
            reason: ReasonName(letter.outcome.clone()),
            error: LetterError {
                dest: letter.dest.clone(),
                code: letter.code,
                data: letter.data.clone(),
            },
            phase: letter.phase.clone(),
            attempts: letter.attempts,
            first_attempt_at: letter.first_attempt.map(Time::from),
            redriven: letter.redriven(),
            sent_again: listed.is_sent,
            redrivable: listed.is_redrivable,
            origin: Origin {
                at: Position {
                    topic: at.topic.to_string(),
                    partition: at.partition.0,
                    offset: offset.0,
                },
                time: time.into(),
            },
            position: LetterPosition {
                partition: letter.position.partition.0,
                offset: letter.position.offset.0,
            },
        }
    }
}

/// A dead letter with its event.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Letter {
    #[serde(flatten)]
    letter: DeadLetter,
    /// The event in CloudEvents' JSON format; null for a record that is none.
    content: Value,
}

impl Letter {
    pub(in crate::admin) fn new(subscription: &ResourceName, listed: &Listed) -> Self {
        Self {
            letter: DeadLetter::new(subscription, listed),
            content: content(listed),
        }
    }
}

/// The event as it was, all of it: JSON data as it is, text as text, anything else as base64.
fn content(listed: &Listed) -> Value {
    let Some(event) = listed.letter.event() else {
        return Value::Null;
    };
    serde_json::from_slice(&event.to_structured_json())
        // JSON data that serde_json cannot hold, such as numbers beyond its range.
        .unwrap_or_else(
            |_| json!({ "data_base64": event.data().map(|data| STANDARD.encode(data)) }),
        )
}

/// Which dead letters to send again, and how.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct Wish {
    /// Those that were given up at this time or later.
    #[serde(rename = "inserted_at.gte")]
    #[schemars(extend("format" = "date-time"))]
    pub(in crate::admin) since: Option<String>,
    /// Those that were given up before this time.
    #[serde(rename = "inserted_at.lt")]
    #[schemars(extend("format" = "date-time"))]
    pub(in crate::admin) until: Option<String>,
    /// Those of events of this type.
    pub(in crate::admin) event_type: Option<String>,
    /// That of the event with this id.
    pub(in crate::admin) event_id: Option<String>,
    /// Those whose last answer had this status code.
    pub(in crate::admin) error_code: Option<u16>,
    /// At most so many, the oldest.
    #[schemars(range(min = 1))]
    pub(in crate::admin) limit: Option<u64>,
    /// At most so many a second.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(in crate::admin) rate: Option<f64>,
    /// Also those that were sent again before.
    pub(in crate::admin) again: bool,
    /// All of them: asked for where nothing else says which.
    pub(in crate::admin) all: bool,
    /// Only count and freeze them.
    pub(in crate::admin) dry_run: bool,
    /// Those that a dry run counted; nothing else may then say which.
    pub(in crate::admin) plan: Option<String>,
}

/// What a dry run counted.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Plan {
    /// What starts it: good for 15 minutes, on this node.
    plan: String,
    /// How many dead letters it means.
    count: u64,
    /// Until when it is good.
    expires_at: Time,
}

impl From<Planned> for Plan {
    fn from(planned: Planned) -> Self {
        Self {
            plan: planned.plan,
            count: planned.count,
            expires_at: planned.expires_at.into(),
        }
    }
}

/// Dead letters that are sent again.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Redrive {
    /// Its id.
    id: String,
    /// The subscription, as `<namespace>/<name>`.
    subscription: String,
    /// How it stands.
    state: dead_letters::State,
    /// Why it paused by itself; null: it did not.
    reason: Option<String>,
    /// How many dead letters it means.
    count: u64,
    /// How many of them were sent.
    sent: u64,
    /// How many the log refused.
    failed: u64,
    /// Which ones it means.
    filter: RedriveFilter,
    /// At most so many.
    limit: Option<u64>,
    /// At most so many a second.
    rate: Option<f64>,
    /// Also those that were sent again before.
    again: bool,
    /// The node that works on it.
    node: String,
    /// When it was begun.
    created_at: Time,
    /// When something was written down about it last.
    updated_at: Time,
}

/// Which dead letters a redrive means.
#[derive(Debug, Serialize, JsonSchema)]
struct RedriveFilter {
    /// Not older than this.
    #[serde(rename = "inserted_at.gte")]
    since: Option<Time>,
    /// Older than this.
    #[serde(rename = "inserted_at.lt")]
    until: Option<Time>,
    /// The event's type.
    event_type: Option<String>,
    /// The event's id.
    event_id: Option<String>,
    /// The status code of the last answer.
    error_code: Option<u16>,
    /// Why they were given up; empty: any reason.
    reasons: Vec<ReasonName>,
}

impl From<&dead_letters::Redrive> for Redrive {
    fn from(redrive: &dead_letters::Redrive) -> Self {
        let terms = &redrive.terms;
        let filter = &terms.filter;
        Self {
            id: redrive.id.to_string(),
            subscription: redrive.id.subscription.to_string(),
            state: redrive.state,
            reason: redrive.why.clone(),
            count: terms.count,
            sent: redrive.sent,
            failed: redrive.failed,
            filter: RedriveFilter {
                since: filter.since.map(Time::from),
                until: filter.until.map(Time::from),
                event_type: filter.event_type.clone(),
                event_id: filter.event_id.clone(),
                error_code: filter.error_code,
                reasons: filter.reasons.iter().cloned().map(ReasonName).collect(),
            },
            limit: terms.limit,
            rate: terms.rate,
            again: terms.again,
            node: terms.node.clone(),
            created_at: redrive.created_at.into(),
            updated_at: redrive.updated_at.into(),
        }
    }
}
