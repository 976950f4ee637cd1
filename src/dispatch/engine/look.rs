//! How the messages of a subscription stand on this node, for people who look.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Activity, Engine, Message, Now, Phase};
use crate::clock::UnixMillis;
use crate::log::{Offset, Partition};

/// Of more messages that wait it is not looked at when each is due: that would hold them up.
const COUNTED: usize = 200_000;

/// How a subscription stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Partitions of the channel's topic that this node reads.
    pub(crate) partitions: BTreeMap<Partition, PartitionLook>,
    /// When the next of those that wait is due.
    pub(crate) next_due: Option<UnixMillis>,
    /// How many are due when; `None`: they are too many to count.
    pub(crate) due: Option<DueCounts>,
}

/// How a partition of the channel's topic stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionLook {
    /// What is taken next: what comes before is finished, or in memory.
    pub(crate) taken: Offset,
    /// Messages from the first unfinished one on that are not finished.
    pub(crate) unfinished: usize,
    /// It takes nothing because too many are unfinished.
    pub(crate) paused: bool,
    /// Messages in memory that were not tried yet, nor are being tried.
    pub(crate) untried: u64,
    /// When the channel took the oldest of them.
    pub(crate) oldest_untried: Option<UnixMillis>,
}

/// Messages by how soon they are due: within the times of [`DueCounts::WITHIN`], or later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DueCounts(pub [u64; 6]);

impl DueCounts {
    /// The bounds of all but the last count; zero: due now.
    pub const WITHIN: [Duration; 5] = [
        Duration::ZERO,
        Duration::from_secs(10),
        Duration::from_secs(60),
        Duration::from_secs(300),
        Duration::from_secs(1800),
    ];

    fn count(&mut self, wait: Duration) {
        let place = Self::WITHIN.iter().position(|within| wait <= *within);
        self.0[place.unwrap_or(Self::WITHIN.len())] += 1;
    }
}

impl Engine {
    /// Looks at everything; what that costs grows with what there is.
    pub(crate) fn look(&self, now: Now) -> Look {
        let mut look = Look::default();
        for id in &self.live {
            let slot = &self.slots[id.0];
            if slot.retry.is_none() {
                let partition = PartitionLook {
                    taken: slot.tracker.next(),
                    unfinished: slot.tracker.unfinished(),
                    paused: self.window_is_full(*id),
                    ..PartitionLook::default()
                };
                look.partitions.insert(slot.at.partition, partition);
            }
        }
        for (_, message) in self.messages.iter().filter(|(_, message)| untried(message)) {
            let at = self.slots[message.slot.0].at.partition;
            if let Some(partition) = look.partitions.get_mut(&at) {
                partition.untried += 1;
                let oldest = partition.oldest_untried.get_or_insert(message.time);
                *oldest = message.time.min(*oldest);
            }
        }
        let retries = self.live().filter_map(|slot| slot.retry.as_deref());
        let indexes: Vec<_> = retries.map(|retry| &retry.index).collect();
        let next = indexes.iter().filter_map(|index| index.next_due());
        let next = next.chain(self.timers.next()).min();
        look.next_due = next.map(|due| now.wall_of(due));
        let waiting =
            self.timers.len() + indexes.iter().map(|index| index.waiting()).sum::<usize>();
        if waiting <= COUNTED {
            let mut counts = DueCounts::default();
            let all = indexes
                .iter()
                .flat_map(|index| index.due())
                .chain(self.timers.due());
            all.for_each(|due| counts.count(due.saturating_duration_since(now.mono)));
            look.due = Some(counts);
        }
        look
    }
}

impl Now {
    /// A time of the timers as it is stored.
    fn wall_of(self, due: Instant) -> UnixMillis {
        self.wall.plus(due.saturating_duration_since(self.mono))
    }
}

fn untried(message: &Message) -> bool {
    message.attempts == 0
        && message.origin.is_none()
        && message.activity != Activity::Attempting
        && matches!(message.phase, Phase::Subscriber(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_by_how_soon_they_are_due() {
        let mut counts = DueCounts::default();
        for seconds in [0, 1, 10, 11, 60, 61, 300, 1800, 1801, 1_000_000] {
            counts.count(Duration::from_secs(seconds));
        }
        assert_eq!(counts.0, [1, 2, 2, 2, 1, 2]);
    }
}
