//! A member of a group as the cases use it: answers group events, collects records.

use std::collections::BTreeMap;
use std::sync::Arc;

use levada::log::{
    Commit, Commits, EventLog, GroupEvent, GroupId, GroupSpec, LogError, Membership, Offset,
    Source, StoredRecord, TopicName, TopicPartition,
};
use tokio::sync::Notify;

use super::within;

/// A member that reads what it is told to.
pub struct Member {
    membership: Box<dyn Membership>,
    wake: Arc<Notify>,
    /// What it reads, by partition.
    pub sources: BTreeMap<TopicPartition, Box<dyn Source>>,
}

/// Partitions and the offsets to start them at.
pub type Starts<'a> = &'a [(TopicPartition, i64)];

/// A dynamic member's spec.
pub fn dynamic(group: &GroupId, topics: &[&TopicName]) -> GroupSpec {
    GroupSpec {
        group: group.clone(),
        topics: topics.iter().map(|&topic| topic.clone()).collect(),
        instance: None,
    }
}

impl Member {
    /// Joins.
    pub fn join(log: &dyn EventLog, spec: GroupSpec) -> Self {
        let membership = log.join(&spec).unwrap();
        let wake = membership.wake();
        assert!(Arc::ptr_eq(&wake, &membership.wake()));
        let sources = BTreeMap::new();
        Self {
            membership,
            wake,
            sources,
        }
    }

    /// Waits until exactly the partitions given are assigned, and starts each at its offset.
    pub async fn start_at(&mut self, starts: Starts<'_>) {
        let offsets: BTreeMap<_, _> = starts.iter().cloned().collect();
        let assigned = async {
            while self.sources.len() < offsets.len() {
                self.answer_events(&offsets);
                if self.sources.len() < offsets.len() {
                    self.wake.notified().await;
                }
            }
        };
        within("the assignment", assigned).await;
    }

    fn answer_events(&mut self, offsets: &BTreeMap<TopicPartition, i64>) {
        while let Some(event) = self.membership.next_event() {
            match event {
                GroupEvent::Assigned(partitions) => {
                    let starts = partitions.into_iter().map(|partition| {
                        let offset = offsets.get(&partition);
                        let offset = *offset.unwrap_or_else(|| panic!("assigned {partition}"));
                        (partition, Offset(offset))
                    });
                    let starts: Vec<_> = starts.collect();
                    let wanted = starts.len();
                    let sources = self.membership.start(starts).unwrap();
                    assert_eq!(sources.len(), wanted);
                    self.sources.extend(sources);
                }
                GroupEvent::Revoked { partitions, .. } => {
                    for partition in &partitions {
                        self.sources.remove(partition);
                    }
                    self.membership.release(partitions);
                }
                // A cluster may stumble while a group forms.
                GroupEvent::Failed(error) if error.is_retryable() => {
                    assert!(!matches!(error, LogError::MembershipLost(_)), "{error}");
                }
                GroupEvent::Failed(error) => panic!("{error}"),
            }
        }
    }

    /// Takes from one source, `batch` at a time, until `count` records have come.
    pub async fn take(
        &mut self,
        from: &TopicPartition,
        count: usize,
        batch: usize,
    ) -> Vec<StoredRecord> {
        let mut records = Vec::new();
        let all_came = async {
            while records.len() < count {
                let max = batch.min(count - records.len());
                let before = records.len();
                let source = self.sources.get_mut(from).unwrap();
                let taken = source.take(max, &mut records).unwrap();
                assert_eq!(taken, records.len() - before);
                assert!(taken <= max, "{taken} came where {max} were asked for");
                if taken == 0 {
                    self.wake.notified().await;
                    self.answer_events(&BTreeMap::new());
                }
            }
        };
        within("the records", all_came).await;
        records
    }

    /// What a source has just now.
    pub fn take_now(&mut self, from: &TopicPartition, max: usize) -> Vec<StoredRecord> {
        let mut records = Vec::new();
        let source = self.sources.get_mut(from).unwrap();
        source.take(max, &mut records).unwrap();
        records
    }

    /// Commits as this member.
    pub async fn commit(&self, commits: &[(&TopicPartition, Commit)]) -> Result<(), LogError> {
        let commits: Commits = commits
            .iter()
            .map(|(partition, commit)| ((*partition).clone(), commit.clone()))
            .collect();
        within("the commit", self.membership.commit(commits)).await
    }

    /// Waits until `work` is done by others.
    pub async fn woken(&self) {
        within("the wake-up", self.wake.notified()).await;
    }

    /// Leaves.
    pub async fn leave(self, stay: bool) {
        drop(self.sources);
        within("leaving", self.membership.leave(stay))
            .await
            .unwrap();
    }
}
