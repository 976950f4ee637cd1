//! Assignments and revocations: from the group's word to sources that are read, and back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Dispatcher, FINAL_COMMIT};
use crate::channel::Subscription;
use crate::delivery::Deliver;
use crate::dispatch::engine::SlotId;
use crate::dispatch::start::{Basis, start};
use crate::log::{Commit, EventLog, GroupEvent, LogError, TopicPartition, Watermarks};

pub(super) type Found = Vec<(TopicPartition, Option<Commit>, Watermarks)>;
pub(super) type Lookup = std::pin::Pin<Box<dyn Future<Output = Found> + Send>>;

/// Partitions that are being given up.
pub(super) struct Revocation {
    pub(super) partitions: Vec<TopicPartition>,
    pub(super) slots: Vec<SlotId>,
    /// Until then what is in flight may finish, and the last commit get through.
    pub(super) deadline: Instant,
    pub(super) lost: bool,
    pub(super) last_commit: LastCommit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastCommit {
    /// To be sent, not before this time.
    Due(Instant),
    /// It went out, or there is no time for another try.
    Made,
}

impl Revocation {
    /// When there is something to do about it although nothing comes in.
    pub(super) fn due(&self, now: Instant) -> Instant {
        match self.last_commit {
            _ if now < self.deadline => self.deadline,
            LastCommit::Due(time) if now < time => time,
            LastCommit::Due(_) | LastCommit::Made => self.deadline + FINAL_COMMIT,
        }
    }
}

impl<D: Deliver> Dispatcher<D> {
    pub(super) fn group_events(&mut self) {
        while let Some(event) = self.membership.next_event() {
            if !matches!(event, GroupEvent::Failed(_)) {
                self.watch.moved(Instant::now());
            }
            match event {
                GroupEvent::Assigned(partitions) => {
                    self.metrics.rebalanced();
                    tracing::info!(
                        subscription = %self.subscription.name, partitions = partitions.len(),
                        "partitions assigned"
                    );
                    self.look_up(partitions);
                }
                GroupEvent::Revoked { partitions, lost } => self.revoked(partitions, lost),
                GroupEvent::Failed(error @ LogError::MembershipLost(_)) => {
                    self.lost.get_or_insert(error);
                }
                GroupEvent::Failed(error) => {
                    tracing::warn!(subscription = %self.subscription.name, %error, "the consumer group");
                }
            }
        }
    }

    pub(super) fn look_up(&mut self, partitions: Vec<TopicPartition>) {
        let log = Arc::clone(&self.tools.log);
        let lookup = look_up(log, Arc::clone(&self.subscription), partitions.clone());
        self.lookups.push_back((partitions, Box::pin(lookup)));
    }

    pub(super) fn start(&mut self, found: Found) {
        let Some((wanted, _)) = self.lookups.pop_front() else {
            return;
        };
        // What was revoked while its commits were looked up is not ours to start.
        let mut starts = Vec::with_capacity(found.len());
        let mut commits = HashMap::new();
        for (at, commit, marks) in found.into_iter().filter(|(at, ..)| wanted.contains(at)) {
            let begin = start(commit.as_ref(), marks);
            self.report_start(&at, begin.basis);
            let kept = commit.filter(|_| begin.basis == Basis::Commit);
            commits.insert(at.clone(), (begin.offset, marks.high, kept));
            starts.push((at, begin.offset));
        }
        match self.membership.start(starts) {
            Ok(sources) => {
                for (at, source) in sources {
                    let Some((offset, end, commit)) = commits.remove(&at) else {
                        continue;
                    };
                    self.note_commit(&at, commit.as_ref().map_or(offset, |c| c.offset));
                    let slot = self.engine.open(at, offset, end, commit);
                    self.sources.push((slot, source));
                }
            }
            Err(error) => {
                self.lost.get_or_insert(error);
            }
        }
    }

    pub(super) fn report_start(&self, at: &TopicPartition, basis: Basis) {
        let subscription = &self.subscription.name;
        match basis {
            Basis::Commit => {}
            Basis::Missing => tracing::info!(
                %subscription, partition = %at, "no commit: reading begins at the earliest record"
            ),
            Basis::Beyond => tracing::warn!(
                %subscription, partition = %at,
                "the commit lies beyond the end, the topic was made anew: reading begins at the earliest record"
            ),
            Basis::Expired(records) => {
                self.metrics.expired(records);
                self.progress.expired(records);
                tracing::error!(
                    %subscription, partition = %at, records,
                    "records were deleted by retention before they were delivered"
                );
            }
        }
    }

    pub(super) fn revoked(&mut self, partitions: Vec<TopicPartition>, lost: bool) {
        self.metrics.rebalanced();
        tracing::info!(
            subscription = %self.subscription.name, partitions = partitions.len(), lost,
            "partitions revoked"
        );
        for (wanted, lookup) in &mut self.lookups {
            let before = wanted.len();
            wanted.retain(|at| !partitions.contains(at));
            if wanted.len() < before {
                // About what is gone there may be no answer any more, and others wait behind it.
                let (log, of) = (Arc::clone(&self.tools.log), Arc::clone(&self.subscription));
                *lookup = Box::pin(look_up(log, of, wanted.clone()));
            }
        }
        let slots: Vec<SlotId> = self
            .engine
            .live_slots()
            .into_iter()
            .filter(|slot| partitions.contains(self.engine.partition(*slot)))
            .collect();
        for slot in &slots {
            self.engine.close(*slot);
        }
        if lost {
            // Nothing is left to wait for in an earlier revocation either.
            for before in &mut self.revocations {
                before.lost |= before.partitions.iter().all(|at| partitions.contains(at));
            }
        }
        let deadline = Instant::now() + self.tools.settings.revocation_timeout;
        self.revocations.push(Revocation {
            partitions,
            slots,
            deadline,
            lost,
            last_commit: LastCommit::Due(Instant::now()),
        });
    }

    /// Ends the revocations whose attempts are over, after a last commit.
    pub(super) fn end_revocations(&mut self, now: Instant) {
        let mut index = 0;
        while index < self.revocations.len() {
            let revocation = &self.revocations[index];
            let quiet = revocation
                .slots
                .iter()
                .all(|slot| self.engine.is_quiet(*slot));
            let late = now >= revocation.deadline + FINAL_COMMIT;
            if !revocation.lost && !late {
                let in_time = now < revocation.deadline;
                if (!quiet && in_time) || self.committing.is_some() {
                    index += 1;
                    continue;
                }
                if let LastCommit::Due(time) = revocation.last_commit {
                    let slots = revocation.slots.clone();
                    if now >= time {
                        self.revocations[index].last_commit = LastCommit::Made;
                    }
                    if now < time || self.commit(&slots) {
                        index += 1;
                        continue;
                    }
                }
            }
            let revocation = self.revocations.remove(index);
            self.interrupt(&revocation.slots);
            for slot in &revocation.slots {
                self.engine.drop_slot(*slot);
                let at = self.engine.partition(*slot);
                if at.topic == self.subscription.retry_topic {
                    self.trims.remove(&at.partition);
                } else {
                    self.progress.gone(at);
                }
            }
            self.sources
                .retain(|(slot, _)| !revocation.slots.contains(slot));
            self.membership.release(revocation.partitions);
        }
    }
}

pub(super) async fn found_by(lookups: &mut VecDeque<(Vec<TopicPartition>, Lookup)>) -> Found {
    match lookups.front_mut() {
        Some((_, lookup)) => lookup.await,
        None => std::future::pending().await,
    }
}

/// Commits and watermarks of the partitions; tries until the log answers.
async fn look_up(
    log: Arc<dyn EventLog>,
    subscription: Arc<Subscription>,
    partitions: Vec<TopicPartition>,
) -> Found {
    let mut pause = Duration::from_millis(50);
    while !partitions.is_empty() {
        match look_up_once(&*log, &subscription, &partitions).await {
            Ok(found) => return found,
            Err(error) => tracing::warn!(
                subscription = %subscription.name, %error,
                "the group's commits could not be read, trying again"
            ),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
    Vec::new()
}

async fn look_up_once(
    log: &dyn EventLog,
    subscription: &Subscription,
    partitions: &[TopicPartition],
) -> Result<Found, LogError> {
    let commits = log.committed(&subscription.group, partitions).await?;
    let mut marks = HashMap::new();
    for topic in [&subscription.topic, &subscription.retry_topic] {
        if partitions.iter().any(|at| at.topic == *topic) {
            marks.insert(topic.clone(), log.watermarks(topic).await?);
        }
    }
    // A channel that got more partitions has no retry partitions for them. The watermarks of the
    // channel itself may be of a time before a partition was there: then they are asked anew.
    let known = |at: &TopicPartition| {
        let marks = marks.get(&at.topic).map_or(&[][..], Vec::as_slice);
        marks.get(at.partition.index()).copied()
    };
    let mut found = Vec::with_capacity(partitions.len());
    for (at, commit) in partitions.iter().zip(commits) {
        match known(at) {
            Some(marks) => found.push((at.clone(), commit, marks)),
            None if at.topic == subscription.retry_topic => {}
            None => return Err(LogError::UnknownPartition(at.clone())),
        }
    }
    Ok(found)
}
