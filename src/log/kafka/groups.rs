//! Commits of groups, read and written from outside.
//!
//! A group that has a member in this process is asked through that member's client. Any other
//! needs a client of its own for the time of the call, since a client belongs to one group.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::consumer::drop_alone;
use super::member::Consumption;
use super::report::{Reporter, Reporting};
use super::{blocking, commits, error};
use crate::log::{Commit, GroupId, LogError, TopicPartition};

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

/// A client that belongs to a group without joining it. Its end, which blocks, is not waited for.
pub(super) struct IdleGroup(Option<Arc<BaseConsumer<Reporting>>>);

impl IdleGroup {
    pub(super) fn try_new(config: &ClientConfig, report: Reporter) -> Result<Self, LogError> {
        BaseConsumer::from_config_and_context(config, Reporting { report })
            .map(|client| Self(Some(Arc::new(client))))
            .map_err(|error| error::client(&error))
    }

    pub(super) fn client(&self) -> &Arc<BaseConsumer<Reporting>> {
        self.0.as_ref().expect("taken only when dropped")
    }
}

impl Drop for IdleGroup {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            blocking::detached("kafka-drop-group", move || drop_alone(client));
        }
    }
}

/// Reads a group's commits. Blocks for `limit` at most.
pub(super) fn committed(
    members: &Members,
    group: &GroupId,
    idle: impl FnOnce() -> Result<IdleGroup, LogError>,
    partitions: &[TopicPartition],
    limit: Duration,
) -> Result<Vec<Option<Commit>>, LogError> {
    if let Some(member) = members.get(group) {
        return commits::read(&member, partitions, limit);
    }
    commits::read(idle()?.client(), partitions, limit)
}

/// To a stranger the broker says of a group with members that it does not know the stranger.
pub(super) fn has_members(failure: LogError) -> LogError {
    match failure {
        LogError::MembershipLost(text) => {
            LogError::Refused(format!("the group has members: {text}"))
        }
        other => other,
    }
}
