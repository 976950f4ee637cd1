//! How far the subscriptions of this node are behind, looked at every few seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::dispatch::DispatchMetrics;
use crate::log::{EventLog, Offset, Partition, TopicName, Watermarks};
use crate::status::Board;

const INTERVAL: Duration = Duration::from_secs(2);

pub(super) async fn watch(
    log: Arc<dyn EventLog>,
    board: Board,
    metrics: DispatchMetrics,
    stop: CancellationToken,
) {
    // A stop does not wait for a log that does not answer.
    stop.run_until_cancelled(async {
        loop {
            sleep(INTERVAL).await;
            look(&*log, &board, &metrics).await;
        }
    })
    .await;
}

async fn look(log: &dyn EventLog, board: &Board, metrics: &DispatchMetrics) {
    let mut topics: BTreeMap<TopicName, Option<Vec<Watermarks>>> = BTreeMap::new();
    for (subscription, commits) in board.progress() {
        if !topics.contains_key(&subscription.topic) {
            let marks = log.watermarks(&subscription.topic).await.ok();
            topics.insert(subscription.topic.clone(), marks);
        }
        if let Some(Some(marks)) = topics.get(&subscription.topic) {
            let records = records(&commits, marks);
            metrics.lag(&subscription.name, records);
            board.lag(&subscription.name, records);
        }
    }
    board.refresh();
}

/// Newest offsets minus commits.
fn records(commits: &BTreeMap<Partition, Offset>, marks: &[Watermarks]) -> i64 {
    commits
        .iter()
        .filter_map(|(partition, commit)| Some((marks.get(partition.index())?, commit)))
        .map(|(marks, commit)| (marks.high.0 - commit.0.max(marks.low.0)).max(0))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_counts_what_is_still_there() {
        let marks = |low, high| Watermarks {
            low: Offset(low),
            high: Offset(high),
        };
        let commits = BTreeMap::from([
            (Partition(0), Offset(5)),
            (Partition(1), Offset(0)),
            (Partition(9), Offset(0)),
        ]);
        assert_eq!(records(&commits, &[marks(0, 7), marks(3, 4)]), 2 + 1);
        assert_eq!(records(&commits, &[marks(0, 4), marks(0, 0)]), 0);
    }
}
