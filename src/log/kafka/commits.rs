//! Commits, by members and for groups without any.
//!
//! librdkafka tells the outcome of a commit only to a call that waits for it: the asynchronous
//! one has a callback that this client never runs. So a commit occupies a blocking thread for its
//! round trip, and a bound on them keeps an outage from occupying all.
//!
//! The call also says nothing of a partition that was refused while others were not, which
//! happens to metadata that is too long for the broker. Longer metadata than was ever proven to
//! be taken is therefore read back once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{blocking, convert, error};
use crate::log::{Commit, Commits, LogError, TopicPartition};

/// The longest metadata that a broker takes unless it is set otherwise.
const LONGEST_METADATA: usize = 4095;
/// Commits that wait for their answer at once.
const AT_ONCE: usize = 64;

/// Sends commits and waits for their outcome.
#[derive(Debug)]
pub(super) struct Committer {
    permits: Arc<Semaphore>,
    /// Length of the longest metadata that a broker was seen to keep.
    proven: AtomicUsize,
}

impl Committer {
    pub(super) fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            proven: AtomicUsize::new(0),
        }
    }

    /// Commits as the member that `client` is; answers at most after `limit`.
    pub(super) async fn commit<C: ConsumerContext + 'static>(
        self: Arc<Self>,
        client: Arc<BaseConsumer<C>>,
        commits: Commits,
        limit: Duration,
    ) -> Result<(), LogError> {
        let committer = Arc::clone(&self);
        let work = move || committer.commit_and_prove(&client, &commits, limit);
        self.with_permit(limit, work).await
    }

    /// Commits for a group without members, whose coordinator may still have to appear.
    pub(super) async fn commit_idle<C: ConsumerContext + 'static>(
        self: Arc<Self>,
        client: Arc<BaseConsumer<C>>,
        commits: Commits,
        limit: Duration,
    ) -> Result<(), LogError> {
        let committer = Arc::clone(&self);
        let work = move || {
            blocking::until_available(limit, |left| {
                committer.commit_and_prove(&client, &commits, left)
            })
        };
        self.with_permit(limit, work).await
    }

    async fn with_permit(
        &self,
        limit: Duration,
        work: impl FnOnce() -> Result<(), LogError> + Send + 'static,
    ) -> Result<(), LogError> {
        let permit = timeout(limit, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = permit
            .map_err(|_| LogError::TimedOut("too many commits wait for an answer".into()))?
            .map_err(|_| LogError::Unavailable("the log is closed".into()))?;
        blocking::within(limit, "a commit", move || {
            let result = work();
            // Held until here: the thread is occupied also after its caller gave up.
            drop(permit);
            result
        })
        .await
    }

    fn commit_and_prove<C: ConsumerContext>(
        &self,
        client: &BaseConsumer<C>,
        commits: &Commits,
        limit: Duration,
    ) -> Result<(), LogError> {
        check(commits)?;
        client
            .commit(&list(commits), CommitMode::Sync)
            .map_err(|failure| error::commit(error::code(&failure)))?;
        let proven = self.proven.load(Ordering::Relaxed);
        let new: Vec<_> = commits
            .iter()
            .filter(|(_, commit)| commit.metadata.len() > proven)
            .collect();
        let Some(longest) = new.iter().map(|(_, commit)| commit.metadata.len()).max() else {
            return Ok(());
        };
        // Alone it would have been refused aloud.
        if commits.len() > 1 {
            prove(client, &new, limit)?;
        }
        self.proven.fetch_max(longest, Ordering::Relaxed);
        Ok(())
    }
}

fn check(commits: &Commits) -> Result<(), LogError> {
    let too_long = commits
        .iter()
        .find(|(_, commit)| commit.metadata.len() > LONGEST_METADATA);
    too_long.map_or(Ok(()), |(at, commit)| {
        Err(LogError::MetadataRefused(format!(
            "{at}: {} characters where at most {LONGEST_METADATA} fit",
            commit.metadata.len()
        )))
    })
}

/// Reads back what was committed.
fn prove<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    commits: &[&(TopicPartition, Commit)],
    limit: Duration,
) -> Result<(), LogError> {
    let partitions: Vec<_> = commits.iter().map(|(at, _)| at.clone()).collect();
    let found = read(client, &partitions, limit)?;
    for ((at, commit), found) in commits.iter().zip(found) {
        if found.as_ref() != Some(commit) {
            let length = commit.metadata.len();
            return Err(LogError::MetadataRefused(format!(
                "{at}: the broker did not keep {length} characters"
            )));
        }
    }
    Ok(())
}

/// Reads commits of the client's group. Blocks for at most `limit`.
pub(super) fn read<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    limit: Duration,
) -> Result<Vec<Option<Commit>>, LogError> {
    let failed = |failure| error::call(error::code(&failure), "reading commits");
    let list = blocking::until_available(limit, |left| {
        let list = convert::list(partitions);
        client.committed_offsets(list, left).map_err(failed)
    })?;
    let commit = |at: &TopicPartition| {
        let found = list.find_partition(at.topic.as_str(), at.partition.0);
        let Some(element) = found else {
            return Ok(None);
        };
        element.error().map_err(failed)?;
        Ok(convert::commit(&element))
    };
    partitions.iter().map(commit).collect()
}

/// What is committed, as librdkafka's list.
fn list(commits: &Commits) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(commits.len());
    for (at, commit) in commits {
        let mut element = list.add_partition(at.topic.as_str(), at.partition.0);
        // The offset is never negative, the one thing that is refused.
        drop(element.set_offset(convert::raw_offset(commit.offset)));
        // Without it the broker forgets the metadata of the commit before, which is meant.
        if !commit.metadata.is_empty() {
            element.set_metadata(&commit.metadata);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Offset, Partition, TopicName};

    #[test]
    fn metadata_that_no_broker_takes_is_refused_at_once() {
        let commits = |length| {
            let at = TopicPartition {
                topic: TopicName::try_new("t").unwrap(),
                partition: Partition(0),
            };
            let commit = Commit {
                offset: Offset(1),
                metadata: "m".repeat(length),
            };
            vec![(at, commit)]
        };
        assert_eq!(check(&commits(LONGEST_METADATA)), Ok(()));
        let refused = check(&commits(LONGEST_METADATA + 1)).unwrap_err();
        assert!(matches!(refused, LogError::MetadataRefused(_)), "{refused}");
    }
}
