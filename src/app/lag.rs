//! How far the subscriptions of this node are behind, looked at every few seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::channel::Subscription;
use crate::clock::{Clock, UnixMillis};
use crate::dispatch::{DispatchMetrics, Look};
use crate::log::{EventLog, Offset, Partition, TopicName, TopicPartition, Watermarks};
use crate::status::{Board, Lag, PartitionLag};

const INTERVAL: Duration = Duration::from_secs(2);
/// Partitions of a subscription whose next record is read to learn how old it is, at most.
const READS: usize = 8;

/// What the lag is told by and to.
pub(super) struct Watcher {
    pub(super) log: Arc<dyn EventLog>,
    pub(super) board: Board,
    pub(super) metrics: DispatchMetrics,
    pub(super) clock: Clock,
}

impl Watcher {
    pub(super) async fn run(self, stop: CancellationToken) {
        // A stop does not wait for a log that does not answer.
        stop.run_until_cancelled(async {
            loop {
                sleep(INTERVAL).await;
                self.look().await;
            }
        })
        .await;
    }

    async fn look(&self) {
        let mut topics: BTreeMap<TopicName, Option<Vec<Watermarks>>> = BTreeMap::new();
        for (subscription, progress) in self.board.progress() {
            if !topics.contains_key(&subscription.topic) {
                let marks = self.log.watermarks(&subscription.topic).await.ok();
                topics.insert(subscription.topic.clone(), marks);
            }
            if let Some(Some(marks)) = topics.get(&subscription.topic) {
                let look = progress.seen();
                let mut lag = lag(&progress.commits(), &look, marks, self.clock.now());
                let oldest = self.oldest(&subscription, &lag, &look).await;
                lag.oldest_untried = oldest.into_iter().chain(lag.oldest_untried).min();
                self.metrics.lag(&subscription.name, &lag);
                self.board.lag(&subscription.name, lag);
            }
        }
        self.board.refresh();
    }

    /// When the channel took the oldest event that was not even taken; what is in memory of the
    /// same partition is older.
    async fn oldest(
        &self,
        subscription: &Subscription,
        lag: &Lag,
        look: &Look,
    ) -> Option<UnixMillis> {
        let in_memory = |partition| {
            let look = look.partitions.get(&partition);
            look.is_some_and(|look| look.oldest_untried.is_some())
        };
        let left = lag.partitions.iter().filter(|(partition, one)| {
            one.taken.is_some_and(|taken| taken < one.end) && !in_memory(**partition)
        });
        let mut oldest = None;
        for (partition, one) in left.take(READS) {
            let at = TopicPartition {
                topic: subscription.topic.clone(),
                partition: *partition,
            };
            let next = one.taken.unwrap_or(one.end);
            let records = self.log.read(&at, next, 1).await.unwrap_or_default();
            let time = records.first().map(|stored| stored.time);
            oldest = oldest.into_iter().chain(time).min();
        }
        oldest
    }
}

/// Newest offsets minus commits, and what of that was not tried yet.
fn lag(
    commits: &BTreeMap<Partition, Offset>,
    look: &Look,
    marks: &[Watermarks],
    at: UnixMillis,
) -> Lag {
    let mut lag = Lag {
        at,
        next_due: look.next_due,
        due: look.due,
        ..Lag::default()
    };
    for (partition, committed) in commits {
        let Some(marks) = marks.get(partition.index()) else {
            continue;
        };
        let committed = committed.0.max(marks.low.0);
        let seen = look.partitions.get(partition);
        let taken = seen.map(|seen| Offset(seen.taken.0.max(marks.low.0)));
        let one = PartitionLag {
            end: marks.high,
            committed: Offset(committed),
            taken,
            unfinished: seen.map_or(0, |seen| seen.unfinished as u64),
            paused: seen.is_some_and(|seen| seen.paused),
        };
        lag.records += (marks.high.0 - committed).max(0);
        if let (Some(seen), Some(taken)) = (seen, taken) {
            let left = u64::try_from(marks.high.0 - taken.0).unwrap_or(0);
            lag.untried += seen.untried + left;
            let oldest = seen.oldest_untried;
            lag.oldest_untried = lag.oldest_untried.into_iter().chain(oldest).min();
        }
        lag.partitions.insert(*partition, one);
    }
    lag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::PartitionLook;

    fn marks(low: i64, high: i64) -> Watermarks {
        Watermarks {
            low: Offset(low),
            high: Offset(high),
        }
    }

    #[test]
    fn lag_counts_what_is_still_there() {
        let commits = BTreeMap::from([
            (Partition(0), Offset(5)),
            (Partition(1), Offset(0)),
            (Partition(9), Offset(0)),
        ]);
        let records =
            |marks: &[Watermarks]| lag(&commits, &Look::default(), marks, UnixMillis(0)).records;
        assert_eq!(records(&[marks(0, 7), marks(3, 4)]), 2 + 1);
        assert_eq!(records(&[marks(0, 4), marks(0, 0)]), 0);
    }

    #[test]
    fn what_was_not_tried_is_in_memory_or_not_even_taken() {
        let partition = |taken, untried, oldest: Option<i64>| PartitionLook {
            taken: Offset(taken),
            untried,
            oldest_untried: oldest.map(UnixMillis),
            ..PartitionLook::default()
        };
        let look = Look {
            partitions: BTreeMap::from([
                (Partition(0), partition(8, 3, Some(70))),
                (Partition(1), partition(5, 0, None)),
            ]),
            ..Look::default()
        };
        let commits = BTreeMap::from([(Partition(0), Offset(2)), (Partition(1), Offset(5))]);
        let lag = lag(&commits, &look, &[marks(0, 10), marks(6, 9)], UnixMillis(1));
        assert_eq!((lag.records, lag.untried), (8 + 3, 3 + 2 + 3));
        assert_eq!(lag.oldest_untried, Some(UnixMillis(70)));
        assert_eq!(lag.partitions[&Partition(1)].taken, Some(Offset(6)));
    }
}
