//! Consumer groups: one member each, in this process.
//!
//! The newest member of a group is the member: when a second one joins, the first is fenced, as
//! Kafka does it with static members. Its commits are refused from then on, so the successor can
//! rely on what it finds committed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::catalog::{Catalog, Topic};
use crate::log::{GroupEvent, GroupId, GroupSpec, LogError, Partition, TopicName, TopicPartition};

/// Tells the members of a group, one after the other, apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct MemberId(u64);

/// A member, as the log and its membership share it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) group: GroupId,
    pub(super) wake: Arc<Notify>,
    topics: Vec<TopicName>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<GroupEvent>,
    assigned: HashSet<TopicPartition>,
    fenced: bool,
}

impl Member {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_event(&self) -> Option<GroupEvent> {
        self.lock().events.pop_front()
    }

    /// Whether the partition is this member's to read.
    pub(super) fn check_assigned(&self, partition: &TopicPartition) -> Result<(), LogError> {
        let state = self.lock();
        if state.fenced {
            Err(fenced(&self.group))
        } else if state.assigned.contains(partition) {
            Ok(())
        } else {
            Err(LogError::Refused(format!(
                "partition {partition} is not assigned to this member of group {}",
                self.group
            )))
        }
    }

    /// Assigns all partitions of topics that it subscribes to and does not have yet. The first
    /// event is an assignment even where no topic exists.
    fn assign(&self, topics: &[Arc<Topic>]) {
        let mut state = self.lock();
        let mut partitions = Vec::new();
        for topic in topics {
            let (first, all) = (topic.at(Partition(0)), topic.all());
            if !state.assigned.contains(&first) {
                topic.watch(self.id, &self.wake);
                partitions.extend(all.map(|(partition, _)| topic.at(partition)));
            }
        }
        if partitions.is_empty() && !state.assigned.is_empty() {
            return;
        }
        state.assigned.extend(partitions.iter().cloned());
        state.events.push_back(GroupEvent::Assigned(partitions));
        drop(state);
        self.wake.notify_one();
    }

    fn revoke(&self, topic: &TopicName) {
        let mut state = self.lock();
        let mut partitions: Vec<_> = state
            .assigned
            .extract_if(|partition| partition.topic == *topic)
            .collect();
        partitions.sort();
        state.events.push_back(GroupEvent::Revoked {
            partitions,
            lost: true,
        });
        drop(state);
        self.wake.notify_one();
    }

    fn fence(&self) {
        let mut state = self.lock();
        state.fenced = true;
        let mut partitions: Vec<_> = state.assigned.drain().collect();
        partitions.sort();
        let lost = GroupEvent::Revoked {
            partitions,
            lost: true,
        };
        state.events = [lost, GroupEvent::Failed(fenced(&self.group))].into();
        drop(state);
        self.wake.notify_one();
    }
}

fn fenced(group: &GroupId) -> LogError {
    LogError::MembershipLost(format!("a newer member took over group {group}"))
}

/// The members there are.
#[derive(Debug, Default)]
pub(super) struct Groups {
    members: Mutex<HashMap<GroupId, Arc<Member>>>,
    next: AtomicU64,
}

impl Groups {
    fn lock(&self) -> MutexGuard<'_, HashMap<GroupId, Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a member, which gets all partitions of the topics that exist; fences the one before.
    pub(super) fn join(&self, spec: &GroupSpec, catalog: &Catalog) -> Arc<Member> {
        let member = Arc::new(Member {
            id: MemberId(self.next.fetch_add(1, Ordering::Relaxed)),
            group: spec.group.clone(),
            wake: Arc::new(Notify::new()),
            topics: spec.topics.clone(),
            state: Mutex::default(),
        });
        let mut members = self.lock();
        let before = members.insert(spec.group.clone(), Arc::clone(&member));
        if let Some(before) = before {
            unwatch(&before, catalog);
            before.fence();
        }
        // With the lock held: a topic made meanwhile is found here or announced after.
        let names = spec.topics.iter();
        let topics: Vec<_> = names.filter_map(|name| catalog.find(name)).collect();
        member.assign(&topics);
        member
    }

    /// Ends a membership; one that was fenced has nothing left to end.
    pub(super) fn leave(&self, member: &Member, catalog: &Catalog) {
        let mut members = self.lock();
        if members.get(&member.group).map(|m| m.id) == Some(member.id) {
            members.remove(&member.group);
        }
        unwatch(member, catalog);
    }

    /// Whether the group has a member.
    pub(super) fn is_live(&self, group: &GroupId) -> bool {
        self.lock().contains_key(group)
    }

    /// Refuses a member that is no longer its group's.
    pub(super) fn check_member(&self, group: &GroupId, id: MemberId) -> Result<(), LogError> {
        match self.lock().get(group) {
            Some(member) if member.id == id => Ok(()),
            Some(_) => Err(fenced(group)),
            None => Err(LogError::MembershipLost(format!("it left group {group}"))),
        }
    }

    /// Assigns a new topic to the members that subscribe to it.
    pub(super) fn topic_created(&self, topic: &Arc<Topic>) {
        for member in self.subscribers(&topic.name) {
            member.assign(std::slice::from_ref(topic));
        }
    }

    /// Takes a topic that is gone from the members that have it.
    pub(super) fn topic_deleted(&self, topic: &TopicName) {
        for member in self.subscribers(topic) {
            member.revoke(topic);
        }
    }

    fn subscribers(&self, topic: &TopicName) -> Vec<Arc<Member>> {
        let members = self.lock();
        let subscribed = members.values().filter(|m| m.topics.contains(topic));
        subscribed.cloned().collect()
    }
}

fn unwatch(member: &Member, catalog: &Catalog) {
    for name in &member.topics {
        if let Some(topic) = catalog.find(name) {
            topic.unwatch(member.id);
        }
    }
}
