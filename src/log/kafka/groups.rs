//! Commits of groups, read and written from outside.
//!
//! A group that has a member in this process is asked through that member's client. Any other
//! needs a client of its own for the time of the call, since a client belongs to one group.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{
    Offset as RawOffset, TopicPartitionList, TopicPartitionListElem,
};
use tokio::time::Instant;

use super::consumer::drop_alone;
use super::member::{Consumption, commit_list, commit_result};
use super::report::Reporter;
use super::{blocking, convert, error};
use crate::log::{Commit, Commits, GroupId, LogError, Offset, TopicPartition};

/// How long a group's coordinator may take to appear when it is asked the first time.
const PAUSE: Duration = Duration::from_millis(50);

/// The members of this process by their group.
#[derive(Debug, Default)]
pub(super) struct Members(Mutex<HashMap<GroupId, Weak<Consumption>>>);

impl Members {
    pub(super) fn add(&self, group: &GroupId, consumer: &Arc<Consumption>) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|_, member| member.strong_count() > 0);
        members.insert(group.clone(), Arc::downgrade(consumer));
    }

    /// A member of the group that is not about to end.
    fn get(&self, group: &GroupId) -> Option<Arc<Consumption>> {
        let members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let member = members.get(group)?.upgrade()?;
        (!member.context().is_closing()).then_some(member)
    }
}

/// Reads the group's commits. Blocks, a few times `limit` at most.
pub(super) fn committed(
    members: &Members,
    group: &GroupId,
    idle: impl FnOnce() -> Result<IdleGroup, LogError>,
    partitions: &[TopicPartition],
    limit: Duration,
) -> Result<Vec<Option<Commit>>, LogError> {
    if let Some(member) = members.get(group) {
        let answer = read(&*member, group, partitions, limit);
        // The member may have been left meanwhile; then its end is ours to wait for.
        drop(member);
        return answer;
    }
    let client = idle()?;
    let answer = read(&*client.0, group, partitions, limit);
    client.end();
    answer
}

fn read<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    group: &GroupId,
    partitions: &[TopicPartition],
    limit: Duration,
) -> Result<Vec<Option<Commit>>, LogError> {
    let about = || format!("commits of group {group}");
    let list = client
        .committed_offsets(convert::list(partitions), limit)
        .map_err(|failure| error::call(error::code(&failure), about()))?;
    partitions
        .iter()
        .map(|at| {
            let found = list.find_partition(at.topic.as_str(), at.partition.0);
            let Some(element) = found else {
                return Ok(None);
            };
            element
                .error()
                .map_err(|failure| error::call(error::code(&failure), about()))?;
            Ok(commit_of(&element))
        })
        .collect()
}

fn commit_of(element: &TopicPartitionListElem<'_>) -> Option<Commit> {
    let RawOffset::Offset(offset) = element.offset() else {
        return None;
    };
    // The crate panics on metadata that is not UTF-8, which another program may have left; to us
    // it says nothing.
    let metadata = catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned()));
    Some(Commit {
        offset: Offset(offset),
        metadata: metadata.unwrap_or_default(),
    })
}

/// A client that belongs to a group without joining it.
pub(super) struct IdleGroup(Arc<BaseConsumer<Outcome>>);

/// Where the result of its one commit arrives.
pub(super) struct Outcome {
    report: Reporter,
    result: Mutex<Option<Result<(), LogError>>>,
}

super::report::report_as_client!(Outcome);

impl ConsumerContext for Outcome {
    fn commit_callback(&self, result: KafkaResult<()>, list: &TopicPartitionList) {
        let result = commit_result(&result, list);
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }
}

impl IdleGroup {
    pub(super) fn try_new(config: &ClientConfig, report: Reporter) -> Result<Self, LogError> {
        let outcome = Outcome {
            report,
            result: Mutex::new(None),
        };
        BaseConsumer::from_config_and_context(config, outcome)
            .map(|client| Self(Arc::new(client)))
            .map_err(|error| error::client(&error))
    }

    /// Commits for a group without members. Blocks for at most `limit`.
    pub(super) fn commit(self, commits: &Commits, limit: Duration) -> Result<(), LogError> {
        let result = self.try_commit(&commit_list(commits), limit);
        self.end();
        // To a stranger the broker says of a group with members that it does not know us.
        result.map_err(|failure| match failure {
            LogError::MembershipLost(text) => {
                LogError::Refused(format!("the group has members: {text}"))
            }
            other => other,
        })
    }

    fn try_commit(&self, list: &TopicPartitionList, limit: Duration) -> Result<(), LogError> {
        let deadline = Instant::now() + limit;
        self.0
            .commit(list, CommitMode::Async)
            .map_err(|failure| error::commit(error::code(&failure)))?;
        while Instant::now() < deadline {
            if let Some(Err(failure)) = self.0.poll(PAUSE) {
                self.give_up_on(&failure)?;
            }
            let mut result = self
                .0
                .context()
                .result
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(result) = result.take() {
                return result;
            }
        }
        Err(LogError::TimedOut(format!(
            "commit: no answer in {limit:?}"
        )))
    }

    /// Errors after which no result would come.
    fn give_up_on(&self, failure: &KafkaError) -> Result<(), LogError> {
        let code = error::code(failure);
        match error::call(code, "commit") {
            refused @ LogError::Refused(_) if code != RDKafkaErrorCode::InvalidArgument => {
                Err(refused)
            }
            _ => Ok(()),
        }
    }

    /// Drops the client where nobody waits for it.
    fn end(self) {
        blocking::detached("kafka-drop-group", move || drop_alone(self.0));
    }
}
