//! A member of a group of the log in memory.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::log::TestLog;
use super::{Happening, Story};
use crate::log::{
    Commits, GroupEvent, GroupId, LogError, LogFuture, Membership, Offset, Source, Started,
    StoredRecord, TopicPartition,
};

/// So often may a member be asked for events without time going by. A loop that does not sleep
/// asks more often; under a paused clock it would stop time for good.
const SPINNING: u32 = 50_000;

/// A member as the log knows it.
#[derive(Debug, Default)]
pub(crate) struct Membered {
    pub(super) wake: Arc<Notify>,
    events: Mutex<VecDeque<GroupEvent>>,
}

impl Membered {
    pub(super) fn push(&self, event: GroupEvent) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push_back(event);
        drop(events);
        self.wake.notify_one();
    }
}

#[derive(Debug)]
pub(super) struct TestMembership {
    log: Arc<TestLog>,
    story: Story,
    group: GroupId,
    member: Arc<Membered>,
    asked: (Instant, u32),
}

impl TestMembership {
    pub(super) fn new(
        log: Arc<TestLog>,
        story: Story,
        group: GroupId,
        member: Arc<Membered>,
    ) -> Self {
        Self {
            log,
            story,
            group,
            member,
            asked: (Instant::now(), 0),
        }
    }
}

impl Drop for TestMembership {
    fn drop(&mut self) {
        self.log.left(&self.group, &self.member);
    }
}

impl Membership for TestMembership {
    fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.member.wake)
    }

    fn next_event(&mut self) -> Option<GroupEvent> {
        if self.asked.0 != Instant::now() {
            self.asked = (Instant::now(), 0);
        }
        self.asked.1 += 1;
        assert!(self.asked.1 < SPINNING, "the loop does not sleep");
        let events = &self.member.events;
        let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
        events.pop_front()
    }

    fn start(
        &mut self,
        partitions: Vec<(TopicPartition, Offset)>,
    ) -> Result<Vec<Started>, LogError> {
        let start = |(at, offset): (TopicPartition, Offset)| {
            self.story.tell(Happening::Started(at.clone(), offset));
            let source: Box<dyn Source> = Box::new(TestSource {
                log: Arc::clone(&self.log),
                story: self.story.clone(),
                at: at.clone(),
                next: offset.0,
            });
            (at, source)
        };
        let sources = partitions.into_iter().map(start).collect();
        self.member.wake.notify_one();
        Ok(sources)
    }

    fn release(&mut self, partitions: Vec<TopicPartition>) {
        self.story.tell(Happening::Released(partitions));
    }

    fn commit(&self, commits: Commits) -> LogFuture<'static, ()> {
        self.log.commit(self.group.clone(), commits)
    }

    fn unowned(&self) -> LogFuture<'static, usize> {
        let unowned = self.log.unowned.load(Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(unowned)))
    }

    fn leave(self: Box<Self>, stay: bool) -> LogFuture<'static, ()> {
        Box::pin(async move {
            self.story.tell(Happening::Left { stay });
            Ok(())
        })
    }
}

#[derive(Debug)]
struct TestSource {
    log: Arc<TestLog>,
    story: Story,
    at: TopicPartition,
    next: i64,
}

impl Source for TestSource {
    fn take(&mut self, max: usize, out: &mut Vec<StoredRecord>) -> Result<usize, LogError> {
        self.log.take_from(&self.at, &mut self.next, max, out)
    }
}

impl Drop for TestSource {
    fn drop(&mut self) {
        self.story.tell(Happening::SourceDropped(self.at.clone()));
    }
}
