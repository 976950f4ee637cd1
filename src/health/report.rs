//! One look at everything, the same for everybody.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Counts, State, Verdict};
use crate::channel::ResourceName;
use crate::clock::UnixMillis;
use crate::status::Lag;

/// How things stood at one time.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// When.
    pub at: UnixMillis,
    /// Since when this node counts: earlier is not known.
    pub since: UnixMillis,
    /// The subscriptions, the worst first, then by name.
    pub subscriptions: Vec<SubscriptionReport>,
    /// The channels, by name.
    pub channels: BTreeMap<ResourceName, ChannelReport>,
    /// The ingress, all channels together.
    pub ingress: IngressReport,
}

impl Report {
    /// One subscription.
    #[must_use]
    pub fn subscription(&self, name: &ResourceName) -> Option<&SubscriptionReport> {
        self.subscriptions.iter().find(|one| one.name == *name)
    }

    /// How many events wait for their first attempt, in these subscriptions, of these channels;
    /// none of either means all. `None`: this node does not know.
    #[must_use]
    pub fn untried(
        &self,
        subscriptions: &[ResourceName],
        channels: &[ResourceName],
    ) -> Option<u64> {
        let asked = |one: &&SubscriptionReport| {
            let channel = |name: &ResourceName| name.to_string() == one.channel;
            (subscriptions.is_empty() || subscriptions.contains(&one.name))
                && (channels.is_empty() || channels.iter().any(channel))
        };
        let known = self.subscriptions.iter().filter(asked);
        let known = known.filter_map(|one| Some(one.lag.as_ref()?.untried));
        known.fold(None, |sum, untried| Some(sum.unwrap_or(0) + untried))
    }

    /// How many subscriptions somebody should look at.
    #[must_use]
    pub fn need_attention(&self) -> usize {
        let states = self.subscriptions.iter().map(|one| one.verdict.state);
        states.filter(|state| state.needs_attention()).count()
    }
}

/// How a subscription is doing.
#[derive(Clone, Debug)]
pub struct SubscriptionReport {
    /// Which.
    pub name: ResourceName,
    /// The channel it reads.
    pub channel: String,
    /// In one word, with the reason.
    pub verdict: Verdict,
    /// Since when it is in this state.
    pub since: UnixMillis,
    /// Attempts of the last 60 minutes, one entry a minute, the last one still filling.
    pub minutes: Vec<MinuteCounts>,
    /// Attempts of the last 5 minutes.
    pub recent: Counts,
    /// Attempts a second over the last minute.
    pub rate: f64,
    /// 95 % of the attempts of the last 5 minutes took no longer.
    pub p95: Option<Duration>,
    /// How far it is behind; `None`: not known on this node.
    pub lag: Option<Lag>,
    /// How long there was always something unfinished.
    pub behind_for: Option<Duration>,
    /// Attempts being made.
    pub in_flight: u64,
    /// Events that wait in the retry topic.
    pub parked: u64,
    /// Partitions that take nothing because their window is full.
    pub paused: u64,
}

impl SubscriptionReport {
    /// Events that are not finished.
    #[must_use]
    pub fn unfinished(&self) -> Option<u64> {
        let records = self.lag.as_ref()?.records;
        Some(u64::try_from(records).unwrap_or(0))
    }

    /// How long the oldest event waits that was not tried yet.
    #[must_use]
    pub fn untried_for(&self) -> Option<Duration> {
        self.lag.as_ref()?.untried_for()
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        self.verdict.state
    }
}

/// A minute of the sparkline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MinuteCounts {
    /// Attempts that succeeded.
    pub ok: u64,
    /// Attempts that failed.
    pub failed: u64,
}

/// How a channel is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelReport {
    /// Events (or batches) stored a second, over the last minute.
    pub rate: f64,
    /// The subscriptions that read it.
    pub subscriptions: usize,
}

/// How the ingress is doing, over the last minute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IngressReport {
    /// Requests stored a second.
    pub rate: f64,
    /// Requests refused as invalid.
    pub refused: u64,
    /// Requests that could not be stored.
    pub not_stored: u64,
}
