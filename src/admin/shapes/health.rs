//! How the node and its subscriptions are doing.

use schemars::JsonSchema;
use serde::Serialize;

use super::{ReasonName, Time};
use crate::admin::ReadinessCheck;
use crate::health::{State, SubscriptionReport};
use crate::journal::{self, Bucket};

/// The process lives.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Live {
    /// `ok`
    #[schemars(extend("enum" = ["ok"]))]
    pub(in crate::admin) status: &'static str,
}

/// Whether the node can serve.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Ready {
    /// In one word.
    #[schemars(extend("enum" = ["ready", "not ready"]))]
    pub(in crate::admin) status: &'static str,
    /// What that rests on.
    pub(in crate::admin) checks: Vec<ReadinessCheck>,
}

/// How everything is doing.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Health {
    /// As of when.
    pub(in crate::admin) at: Time,
    /// The subscriptions, the worst first.
    pub(in crate::admin) subscriptions: Vec<SubscriptionHealth>,
    /// The journal.
    pub(in crate::admin) journal: JournalHealth,
}

/// How a subscription is doing.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct SubscriptionHealth {
    /// Which, as `<namespace>/<name>`.
    subscription: String,
    /// The channel it reads, as `<namespace>/<name>`.
    channel: String,
    /// In one word.
    #[schemars(extend("enum" = State::ALL.map(State::name)))]
    state: &'static str,
    /// Why; empty where the state says it all.
    reason: String,
    /// Since when it is in this state.
    since: Time,
    /// Events that are not finished; null: not known, as the three after it.
    lag: Option<u64>,
    /// Events that were not tried yet.
    untried: Option<u64>,
    /// When the channel took the oldest of them; null as well without any.
    oldest_untried_at: Option<Time>,
    /// When the next of those that wait for a retry is due; null as well without any.
    next_due_at: Option<Time>,
    /// Attempts being made.
    in_flight: u64,
    /// Events that wait in the retry topic.
    parked: u64,
}

impl From<&SubscriptionReport> for SubscriptionHealth {
    fn from(one: &SubscriptionReport) -> Self {
        Self {
            subscription: one.name.to_string(),
            channel: one.channel.clone(),
            state: one.state().name(),
            reason: one.verdict.reason.clone(),
            since: one.since.into(),
            lag: one.unfinished(),
            untried: one.lag.as_ref().map(|lag| lag.untried),
            oldest_untried_at: one
                .lag
                .as_ref()
                .and_then(|lag| Some(lag.oldest_untried?.into())),
            next_due_at: one.lag.as_ref().and_then(|lag| Some(lag.next_due?.into())),
            in_flight: one.in_flight,
            parked: one.parked,
        }
    }
}

/// What the journal says of itself.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(in crate::admin) enum JournalHealth {
    /// This node keeps none.
    Off,
    /// It does not answer. Deliveries go on.
    Unavailable {
        /// Why.
        reason: String,
    },
    /// It answers.
    Ok {
        /// When its oldest message was accepted; null: it has none.
        reaches_back_to: Option<Time>,
        /// About how many messages it holds.
        messages: u64,
        /// Bytes on disk.
        bytes: u64,
        /// Changes that wait to be written.
        queued: u64,
        /// What it missed lately, the newest first.
        gaps: Vec<Gap>,
    },
}

/// Changes that the journal missed.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Gap {
    /// From when.
    from: Time,
    /// Until when; null: it goes on.
    to: Option<Time>,
    /// How many.
    changes: u64,
}

impl From<journal::Reach> for JournalHealth {
    fn from(reach: journal::Reach) -> Self {
        let gap = |gap: &journal::Gap| Gap {
            from: gap.from.into(),
            to: gap.to.map(Time::from),
            changes: gap.changes,
        };
        Self::Ok {
            reaches_back_to: reach.oldest.map(Time::from),
            messages: reach.messages,
            bytes: reach.bytes,
            queued: reach.queued,
            gaps: reach.gaps.iter().map(gap).collect(),
        }
    }
}

/// What became of a subscription's attempts over a span of time.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Stats {
    /// Which, as `<namespace>/<name>`.
    pub(in crate::admin) subscription: String,
    /// From.
    pub(in crate::admin) from: Time,
    /// To, not included.
    pub(in crate::admin) to: Time,
    /// Minutes that one entry of `attempts` covers.
    pub(in crate::admin) step_minutes: u32,
    /// The attempts on the subscriber, the oldest first, without holes.
    pub(in crate::admin) attempts: Vec<Span>,
    /// Why attempts failed, the most frequent reason first.
    pub(in crate::admin) reasons: Vec<ReasonCount>,
}

/// The attempts of one span.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Span {
    /// When it began.
    at: Time,
    /// Attempts that succeeded.
    ok: u64,
    /// Attempts that failed and may be repeated.
    retryable: u64,
    /// Attempts that failed for good.
    permanent: u64,
    /// Half of them took no longer, in milliseconds; null without attempts.
    p50_ms: Option<f64>,
    /// 95 % took no longer.
    p95_ms: Option<f64>,
    /// 99 % took no longer.
    p99_ms: Option<f64>,
}

impl From<&Bucket> for Span {
    fn from(bucket: &Bucket) -> Self {
        Self {
            at: bucket.start.into(),
            ok: bucket.ok,
            retryable: bucket.retryable,
            permanent: bucket.permanent,
            p50_ms: bucket.p50_ms,
            p95_ms: bucket.p95_ms,
            p99_ms: bucket.p99_ms,
        }
    }
}

/// How often attempts failed for one reason.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct ReasonCount {
    /// The reason.
    reason: ReasonName,
    /// How many attempts.
    attempts: u64,
    /// The minute it was seen first.
    first_seen_at: Time,
    /// When it was seen last.
    last_seen_at: Time,
    /// The beginning of one answer, or the error in words.
    sample: String,
}

impl From<&journal::ReasonCount> for ReasonCount {
    fn from(count: &journal::ReasonCount) -> Self {
        Self {
            reason: ReasonName(count.reason.clone()),
            attempts: count.attempts,
            first_seen_at: count.first.into(),
            last_seen_at: count.last.into(),
            sample: count.sample.clone(),
        }
    }
}
