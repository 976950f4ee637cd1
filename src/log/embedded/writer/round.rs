//! A round: the appends and commits that are written and confirmed together.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Answer, Append, CommitAs, GroupCommit};
use crate::clock::UnixMillis;
use crate::log::embedded::catalog::Topic;
use crate::log::embedded::store::{Change, Key, encode_commit};
use crate::log::embedded::{Shared, codec};
use crate::log::{Commit, LogError, Offset, Partition, Position, TopicPartition};

/// The longest metadata, in bytes; the same as Kafka's with its default settings.
const MAX_METADATA: usize = 4095;

#[derive(Default)]
pub(super) struct Round {
    changes: Vec<Change>,
    touched: Vec<(Arc<Topic>, Partition)>,
    appends: Vec<(Answer<Position>, Position)>,
    commits: Vec<Answer<()>>,
}

impl Round {
    /// Gives the record its offset and its time.
    pub(super) fn append(&mut self, append: Append, now: UnixMillis) {
        let Append {
            topic,
            partition,
            mut record,
            answer,
        } = append;
        if topic.is_deleted() {
            reply(answer, Err(LogError::UnknownTopic(topic.name.clone())));
            return;
        }
        let bounds = match topic.bounds(partition) {
            Ok(bounds) => bounds,
            Err(error) => return reply(answer, Err(error)),
        };
        let next = bounds.next.fetch_add(1, Ordering::Relaxed);
        codec::stamp(&mut record, now);
        let offset = Offset(next);
        let key = Key::record(topic.entry.id, partition, offset);
        self.changes.push(Change::Put(key, record));
        self.appends.push((answer, Position { partition, offset }));
        if next == bounds.high.load(Ordering::Relaxed) {
            self.touched.push((topic, partition));
        }
    }

    /// Takes all commits of a group, or refuses all.
    pub(super) fn commit(&mut self, commit: GroupCommit, shared: &Shared) {
        match check(&commit, shared) {
            Ok(changes) => {
                self.changes.extend(changes);
                self.commits.push(commit.answer);
            }
            Err(error) => reply(commit.answer, Err(error)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.appends.is_empty()
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Tells everyone how it went. Watermarks first: who was answered can read what it appended.
    pub(super) fn answer(self, written: Result<(), LogError>) {
        for (topic, partition) in &self.touched {
            let Ok(bounds) = topic.bounds(*partition) else {
                continue;
            };
            if written.is_ok() {
                let next = bounds.next.load(Ordering::Relaxed);
                bounds.high.store(next, Ordering::Release);
                topic.wake_watchers();
            } else {
                let high = bounds.high.load(Ordering::Relaxed);
                bounds.next.store(high, Ordering::Relaxed);
            }
        }
        for (answer, position) in self.appends {
            reply(answer, written.clone().map(|()| position));
        }
        for answer in self.commits {
            reply(answer, written.clone());
        }
    }
}

/// Answers; a caller that does not wait any more is none of our business.
fn reply<T>(answer: Answer<T>, result: Result<T, LogError>) {
    drop(answer.send(result));
}

fn check(commit: &GroupCommit, shared: &Shared) -> Result<Vec<Change>, LogError> {
    match commit.by {
        CommitAs::Member(id) => shared.groups.check_member(&commit.group, id)?,
        CommitAs::Nobody if shared.groups.is_live(&commit.group) => {
            return Err(LogError::Refused(format!(
                "group {} has a member; only that can commit",
                commit.group
            )));
        }
        CommitAs::Nobody => {}
    }
    let change = |(at, to): &(TopicPartition, Commit)| {
        let topic = shared.catalog.get(&at.topic)?;
        topic.bounds(at.partition)?;
        if to.metadata.len() > MAX_METADATA {
            return Err(LogError::MetadataRefused(format!(
                "{} bytes for {at}, {MAX_METADATA} are allowed",
                to.metadata.len()
            )));
        }
        let key = Key::commit(&commit.group, topic.entry.id, at.partition);
        Ok(Change::Put(key, encode_commit(to)))
    };
    commit.commits.iter().map(change).collect()
}
