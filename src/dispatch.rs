//! Dispatch: a consumer group per subscription, and what becomes of its events.
//!
//! The [`Supervisor`] follows the registry and runs one member per subscription, each in a task of
//! its own, so that one that fails or waits costs the others nothing.

mod budget;
mod dead_letter;
mod dispatcher;
mod engine;
mod lane;
mod member;
mod metrics;
pub mod offsets;
mod parked;
mod perform;
mod prepare;
mod progress;
mod rate;
mod retry_record;
mod start;
mod supervisor;
#[cfg(test)]
pub(crate) mod testing;
mod timers;
mod tools;

use std::time::Duration;

pub(crate) use dead_letter::Origin;
pub use engine::DueCounts;
pub(crate) use engine::Look;
#[cfg(test)]
pub(crate) use engine::PartitionLook;
pub use member::SubscriptionState;
pub use metrics::DispatchMetrics;
pub(crate) use progress::Progress;
pub(crate) use retry_record::{redrive, wish};
pub use supervisor::{Duties, Supervisor};
pub use tools::Tools;

/// How dispatch behaves on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time between two commits of a subscription while something changes.
    pub commit_interval: Duration,
    /// How long attempts in flight may go on when a partition is given up.
    pub revocation_timeout: Duration,
    /// How long attempts in flight may go on when the process stops.
    pub drain_timeout: Duration,
    /// How long leaving a group may take.
    pub leave_timeout: Duration,
    /// Whether static members keep their place in the group when the process stops.
    pub stay_in_group: bool,
    /// Bytes of events that one subscription holds in memory.
    pub max_subscription_bytes: usize,
    /// Bytes of events that all subscriptions hold in memory.
    pub max_total_bytes: usize,
    /// A shorter delay waits in memory, a longer one in the retry topic.
    pub inline_retry_max: Duration,
    /// Bytes of the indexes of what waits in retry topics.
    pub parked_index_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_millis(100),
            revocation_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(20),
            leave_timeout: Duration::from_secs(5),
            stay_in_group: true,
            max_subscription_bytes: 32 << 20,
            max_total_bytes: 256 << 20,
            inline_retry_max: Duration::from_secs(1),
            parked_index_bytes: 128 << 20,
        }
    }
}
