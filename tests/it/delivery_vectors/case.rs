//! The format of `tests/vectors/delivery.json`. A field that is not listed here is an error, so
//! that nothing a vector expects goes unchecked.
//!
//! Text may hold `{{id}}` (the event's id), `{{trap_url}}` (a place that must not be called),
//! `{{subscriber_url}}`, `{{reply_url}}`, and `{{http_date:+2}}` (now and so many seconds).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vectors {
    #[serde(rename = "about")]
    _about: String,
    pub(super) cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    #[serde(rename = "notes")]
    _notes: Option<String>,
    /// Cases with the same group share channel and subscriptions.
    pub(super) group: Option<String>,
    /// `spec` of the channel, besides the defaults.
    pub(super) channel: Option<Value>,
    #[serde(default)]
    pub(super) needs: Vec<Need>,
    pub(super) subscriptions: BTreeMap<String, Subscription>,
    pub(super) events: Vec<EventSpec>,
    pub(super) expect: BTreeMap<String, Expect>,
}

impl Case {
    pub(super) fn needs_restart(&self) -> bool {
        self.needs.contains(&Need::Restart)
    }
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Need {
    /// The broker is killed and started while the events are on their way.
    Restart,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscription {
    /// `spec.delivery`, without the dead-letter sink.
    #[serde(default)]
    pub(super) delivery: Value,
    #[serde(default)]
    pub(super) annotations: Value,
    pub(super) subscriber: Script,
    pub(super) dead_letter: Option<Script>,
    pub(super) reply: Option<Script>,
}

/// A scripted destination.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    /// The answers to an event's attempts, in order.
    #[serde(default)]
    pub(super) script: Vec<Step>,
    /// The same for single events, by key.
    #[serde(default)]
    pub(super) scripts: BTreeMap<String, Vec<Step>>,
    pub(super) unreachable: Option<Unreachable>,
    pub(super) via: Option<Via>,
    pub(super) on: Option<On>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unreachable {
    /// Nothing listens there.
    Refused,
    /// The name does not resolve.
    Dns,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Via {
    /// The destination is a channel, and a subscription of it calls the sink.
    Channel,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum On {
    /// The sink stands in the channel's `spec.delivery`, not in the subscription's.
    Channel,
}

/// One answer; after the last one 200.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    #[serde(default)]
    pub(super) status: u16,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Option<Text>,
    #[serde(default)]
    pub(super) delay_ms: u64,
    pub(super) action: Option<Action>,
    /// How long `hang` lasts.
    pub(super) ms: Option<u64>,
    /// An interim answer that comes first.
    pub(super) early: Option<u16>,
    /// The answer is an event.
    pub(super) ce: Option<Reply>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Reset,
    Close,
    Garbage,
    Partial,
    Hang,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reply {
    pub(super) mode: Mode,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) datacontenttype: Option<String>,
    pub(super) data: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    Binary,
    Structured,
}

/// Text as it is, or `before + unit * count + after`.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Text {
    Plain(String),
    Repeated {
        repeat: (String, String, usize, String),
    },
}

impl Text {
    pub(super) fn expand(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Repeated {
                repeat: (before, unit, count, after),
            } => format!("{before}{}{after}", unit.repeat(*count)),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventSpec {
    pub(super) key: String,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) datacontenttype: Option<String>,
    pub(super) data: Option<String>,
    pub(super) mode: Option<Mode>,
    #[serde(default)]
    pub(super) http_headers: Vec<(String, String)>,
    #[serde(default)]
    pub(super) pause_before_ms: u64,
}

/// What must have happened to the events of a subscription. Times are in milliseconds, from and
/// to; gaps are from arrival to arrival.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// Of the first event.
    pub(super) attempts: Option<Count>,
    #[serde(default)]
    pub(super) attempts_by_event: BTreeMap<String, usize>,
    #[serde(default)]
    pub(super) gaps_ms: Vec<(f64, f64)>,
    /// Events by key, one for each attempt, in order of arrival.
    pub(super) sequence: Option<Vec<String>>,
    pub(super) last_arrival: Option<String>,
    pub(super) first_within_ms: Option<f64>,
    pub(super) delivered_ok_at_least: Option<usize>,
    pub(super) delivered_unchanged: Option<bool>,
    pub(super) request_method: Option<String>,
    #[serde(default)]
    pub(super) request_headers: BTreeMap<String, Rule>,
    /// Checked when the event came in binary mode.
    #[serde(default)]
    pub(super) binary_headers: BTreeMap<String, Rule>,
    #[serde(default)]
    pub(super) absent_headers: Vec<String>,
    /// Events that the dead-letter sink took.
    pub(super) dead_letters: Option<usize>,
    pub(super) dead_letter_attempts: Option<usize>,
    #[serde(default)]
    pub(super) dead_letter_gaps_ms: Vec<(f64, f64)>,
    /// After the first event was posted.
    pub(super) dead_letter_after_ms: Option<(f64, f64)>,
    #[serde(default)]
    pub(super) dead_letter_attributes: BTreeMap<String, Rule>,
    /// The dead letter is the first event, but for what a dead letter adds.
    pub(super) dead_letter_unchanged: Option<bool>,
    /// Events that the reply sink took.
    pub(super) replies: Option<usize>,
    pub(super) reply_attempts: Option<usize>,
    #[serde(default)]
    pub(super) reply_attributes: BTreeMap<String, Rule>,
    /// JSON.
    #[serde(default, deserialize_with = "present")]
    pub(super) reply_data: Option<Option<String>>,
    /// Requests to `{{trap_url}}`.
    pub(super) trap_hits: Option<usize>,
}

/// Tells `null`, which means that there is no data, from a field that is left out.
fn present<'de, D>(input: D) -> Result<Option<Option<String>>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    Option::deserialize(input).map(Some)
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
pub(super) enum Count {
    Exactly(usize),
    Between { min: usize, max: usize },
}

impl Count {
    pub(super) fn min(self) -> usize {
        match self {
            Self::Exactly(count) => count,
            Self::Between { min, .. } => min,
        }
    }

    pub(super) fn allows(self, count: usize) -> bool {
        match self {
            Self::Exactly(wanted) => count == wanted,
            Self::Between { min, max } => (min..=max).contains(&count),
        }
    }
}

/// What a header or an attribute must be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(default)]
    pub(super) absent: bool,
    pub(super) eq: Option<String>,
    pub(super) one_of: Option<Vec<String>>,
    pub(super) prefix: Option<String>,
    /// One of these, whatever its parameters are.
    pub(super) media_type: Option<Vec<String>>,
    /// The base64 form of this text.
    pub(super) b64_of: Option<Text>,
    /// The base64 form of the first `min_bytes` to `max_bytes` of this text.
    pub(super) b64_prefix_of: Option<Text>,
    #[serde(default)]
    pub(super) min_bytes: usize,
    #[serde(default)]
    pub(super) max_bytes: usize,
}
