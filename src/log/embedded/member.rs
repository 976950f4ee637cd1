//! A membership of a group and its sources.

use std::sync::Arc;

use tokio::sync::Notify;

use super::Shared;
use super::catalog::Topic;
use super::groups::Member;
use super::store::{Limit, Stop};
use super::writer::CommitAs;
use crate::log::{
    Commits, GroupEvent, LogError, LogFuture, Membership, Offset, Partition, Source, StoredRecord,
    TopicPartition,
};

/// What one [`Source::take`] reads at most, so that it never holds up its thread for long.
const TAKE_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct EmbeddedMembership {
    shared: Arc<Shared>,
    member: Arc<Member>,
}

impl EmbeddedMembership {
    pub(super) fn new(shared: Arc<Shared>, member: Arc<Member>) -> Self {
        Self { shared, member }
    }

    fn source(
        &self,
        partition: &TopicPartition,
        from: Offset,
    ) -> Result<Box<dyn Source>, LogError> {
        self.member.check_assigned(partition)?;
        let topic = self.shared.catalog.get(&partition.topic)?;
        topic.bounds(partition.partition)?;
        Ok(Box::new(EmbeddedSource {
            shared: Arc::clone(&self.shared),
            wake: Arc::clone(&self.member.wake),
            topic,
            partition: partition.partition,
            next: from.0,
        }))
    }
}

impl Membership for EmbeddedMembership {
    fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.member.wake)
    }

    fn next_event(&mut self) -> Option<GroupEvent> {
        self.member.next_event()
    }

    fn start(
        &mut self,
        partitions: Vec<(TopicPartition, Offset)>,
    ) -> Result<Vec<(TopicPartition, Box<dyn Source>)>, LogError> {
        let start = |(partition, from): (TopicPartition, Offset)| {
            let source = self.source(&partition, from)?;
            Ok((partition, source))
        };
        let sources = partitions.into_iter().map(start).collect();
        self.member.wake.notify_one();
        sources
    }

    fn release(&mut self, _partitions: Vec<TopicPartition>) {
        // They were taken back when the event was made; nothing waits for this answer.
    }

    fn commit(&self, commits: Commits) -> LogFuture<'static, ()> {
        let by = CommitAs::Member(self.member.id);
        self.shared.commit(self.member.group.clone(), by, commits)
    }

    fn unowned(&self) -> LogFuture<'static, usize> {
        // Partitions are shared at once, in one step.
        Box::pin(std::future::ready(Ok(0)))
    }

    fn leave(self: Box<Self>, _stay: bool) -> LogFuture<'static, ()> {
        // By way of the writer: commits given to it before are still this member's. A successor
        // never has to wait, so there is no place to keep.
        let shared = Arc::clone(&self.shared);
        let left = shared.ask(|_| Ok(()));
        Box::pin(async move {
            let answer = left.await;
            drop(self);
            // The log is closed or in trouble: the membership is over all the same.
            drop(answer);
            Ok(())
        })
    }
}

impl Drop for EmbeddedMembership {
    fn drop(&mut self) {
        self.shared.groups.leave(&self.member, &self.shared.catalog);
    }
}

#[derive(Debug)]
struct EmbeddedSource {
    shared: Arc<Shared>,
    wake: Arc<Notify>,
    topic: Arc<Topic>,
    partition: Partition,
    next: i64,
}

impl Source for EmbeddedSource {
    fn take(&mut self, max: usize, out: &mut Vec<StoredRecord>) -> Result<usize, LogError> {
        if self.topic.is_deleted() {
            return Err(LogError::UnknownTopic(self.topic.name.clone()));
        }
        let bounds = self.topic.bounds(self.partition)?;
        let marks = bounds.watermarks();
        self.next = self.next.max(marks.low.0);
        if self.next >= marks.high.0 || max == 0 {
            return Ok(0);
        }
        let before = out.len();
        let limit = Limit {
            records: max,
            bytes: TAKE_BYTES,
        };
        let span = self.next..marks.high.0;
        let read = |store: &super::Store| {
            store.read(self.topic.entry.id, self.partition, span, limit, out)
        };
        match self.shared.with_store(read) {
            Ok(stop) => {
                if stop == Stop::Bytes {
                    self.wake.notify_one();
                }
            }
            Err(error) => {
                out.truncate(before);
                return Err(error);
            }
        }
        if let Some(last) = out[before..].last() {
            self.next = last.offset.0 + 1;
        } else if bounds.watermarks().low.0 <= self.next {
            return Err(LogError::Damaged(format!(
                "{} has no record at offset {} where there must be one",
                self.topic.at(self.partition),
                self.next
            )));
        }
        Ok(out.len() - before)
    }
}
