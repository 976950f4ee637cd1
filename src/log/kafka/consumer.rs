//! Membership of a consumer group, and the partitions that are read as its member.
//!
//! Each partition has a queue of its own, split off the consumer's before it is assigned: not
//! taking from it is all the back-pressure there is, what was fetched stays, and nothing is
//! fetched twice. A queue is kept as long as its partition is read, for librdkafka delivers to
//! nobody once it is dropped. A partition that begins anew is split off anew, after the old queue
//! is gone, whose end takes the wake-up along: librdkafka forgets the partitions of a topic that a
//! broker does not know for a moment, as after its start, and what it then makes in their place
//! would deliver past the old queue.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::commits::Committer;
use super::member::{Callbacks, Consumption, Unanswered, poll_until_empty};
use super::poller::{Pollable, Pollers};
use super::report::Reporter;
use super::{blocking, convert, error, unowned};
use crate::log::{
    Commits, GroupEvent, GroupSpec, LogError, LogFuture, Membership, Offset, Source, StoredRecord,
    TopicName, TopicPartition,
};

/// How long a commit may take, over a change of the coordinator.
const COMMIT_LIMIT: Duration = Duration::from_secs(10);
/// How long leaving may take before the client is left behind.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);
/// How long a static member waits for its last rebalance before it leaves all the same.
const FAREWELL_LIMIT: Duration = Duration::from_secs(3);
/// How long the fetches of partitions given up may take to end.
const FETCHES_END: Duration = Duration::from_millis(200);

/// How long each question about the group may take.
const UNOWNED_LIMIT: Duration = Duration::from_secs(5);

type Queue = PartitionQueue<Callbacks>;
type Sources = Vec<(TopicPartition, Box<dyn Source>)>;

/// A member of a group.
pub(super) struct Member {
    /// `None` once it is being closed.
    consumer: Option<Arc<Consumption>>,
    queues: HashMap<TopicPartition, Arc<Queue>>,
    started: HashSet<TopicPartition>,
    is_static: bool,
    committer: Arc<Committer>,
    _live: Live,
}

/// Counts a membership as long as it lives.
struct Live(Arc<AtomicUsize>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("started", &self.started)
            .field("is_static", &self.is_static)
            .finish_non_exhaustive()
    }
}

impl Member {
    /// Makes the consumer and subscribes. Waits for nobody.
    pub(super) fn join(
        config: &ClientConfig,
        spec: &GroupSpec,
        report: Reporter,
        pollers: &Pollers,
        live: &Arc<AtomicUsize>,
        committer: &Arc<Committer>,
    ) -> Result<Self, LogError> {
        let mut topics = spec.topics.iter();
        let shared = topics.next().map(TopicName::as_str);
        let callbacks = Callbacks::new(spec.group.clone(), topics.cloned().collect(), report);
        let mut consumer = Consumption::from_config_and_context(config, callbacks)
            .map_err(|error| error::client(&error))?;
        let turn = pollers.turn();
        consumer.set_nonempty_callback({
            let turn = Arc::clone(&turn);
            move || turn.ask()
        });
        let consumer = Arc::new(consumer);
        let pollable: Arc<dyn Pollable> = consumer.clone();
        turn.of(Arc::downgrade(&pollable));
        drop(pollable);
        live.fetch_add(1, Ordering::Relaxed);
        let member = Self {
            consumer: Some(Arc::clone(&consumer)),
            queues: HashMap::new(),
            started: HashSet::new(),
            is_static: config.get("group.instance.id").is_some(),
            committer: Arc::clone(committer),
            _live: Live(Arc::clone(live)),
        };
        let subscribed = consumer.subscribe(shared.as_slice());
        drop(consumer);
        subscribed.map_err(|error| LogError::Refused(format!("group {}: {error}", spec.group)))?;
        Ok(member)
    }

    /// The consumer, for reading commits while it lives.
    pub(super) fn consumer(&self) -> &Arc<Consumption> {
        self.consumer.as_ref().expect("taken only at the end")
    }

    /// The queue of a partition that begins to be read.
    fn queue(&mut self, at: &TopicPartition) -> Result<Arc<Queue>, LogError> {
        if let Some(old) = self.queues.remove(at)
            && let Err(in_use) = Arc::try_unwrap(old)
        {
            self.queues.insert(at.clone(), Arc::clone(&in_use));
            return Ok(in_use);
        }
        let consumer = self.consumer();
        let mut queue = consumer
            .split_partition_queue(at.topic.as_str(), at.partition.0)
            .ok_or_else(|| LogError::UnknownPartition(at.clone()))?;
        let wake = Arc::clone(consumer.context().wake());
        queue.set_nonempty_callback(move || wake.notify_one());
        let queue = Arc::new(queue);
        self.queues.insert(at.clone(), Arc::clone(&queue));
        Ok(queue)
    }

    /// Why an assignment was not taken.
    fn refused(&self, failure: &KafkaError) -> LogError {
        match self.consumer().client().fatal_error() {
            Some((code, reason)) => LogError::MembershipLost(format!("{code}: {reason}")),
            None => LogError::Unavailable(format!("the assignment was not taken: {failure}")),
        }
    }

    fn stop_reading(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        // librdkafka refuses the whole list for one partition that it does not have.
        let held: Vec<_> = partitions
            .iter()
            .filter(|at| self.started.remove(*at))
            .collect();
        let list = convert::list(held);
        self.consumer().incremental_unassign(&list)
    }

    fn begin_reading(
        &mut self,
        partitions: Vec<(TopicPartition, Offset)>,
    ) -> Result<Sources, LogError> {
        // One that is read already begins anew: its reading may have ended with an error.
        let again: Vec<_> = partitions
            .iter()
            .map(|(at, _)| at.clone())
            .filter(|at| self.started.contains(at))
            .collect();
        if !again.is_empty() {
            self.stop_reading(&again)
                .map_err(|error| self.refused(&error))?;
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        let mut sources = Sources::new();
        for (at, offset) in partitions {
            let queue = self.queue(&at)?;
            list.add_partition_offset(
                at.topic.as_str(),
                at.partition.0,
                convert::raw_offset(offset),
            )
            .map_err(|error| self.refused(&error))?;
            let source = Split {
                queue,
                at: at.clone(),
                next: offset.0.max(0),
                failure: None,
            };
            sources.push((at, Box::new(source)));
        }
        self.consumer()
            .incremental_assign(&list)
            .map_err(|error| self.refused(&error))?;
        self.started
            .extend(sources.iter().map(|(at, _)| at.clone()));
        Ok(sources)
    }
}

impl Membership for Member {
    fn wake(&self) -> Arc<Notify> {
        Arc::clone(self.consumer().context().wake())
    }

    fn next_event(&mut self) -> Option<GroupEvent> {
        self.consumer().context().next_event()
    }

    fn start(&mut self, partitions: Vec<(TopicPartition, Offset)>) -> Result<Sources, LogError> {
        let begun = self.begin_reading(partitions);
        if begun.is_ok() {
            self.consumer().context().answered(Unanswered::Assigned);
        }
        begun
    }

    fn release(&mut self, partitions: Vec<TopicPartition>) {
        if let Err(error) = self.stop_reading(&partitions) {
            // The group waits for an answer: give up all rather than none.
            tracing::warn!(%error, "partitions were not given up, giving up all");
            drop(self.consumer().unassign());
            self.started.clear();
        }
        self.consumer().context().answered(Unanswered::Revoked);
    }

    fn commit(&self, commits: Commits) -> LogFuture<'static, ()> {
        if commits.is_empty() {
            return Box::pin(std::future::ready(Ok(())));
        }
        let consumer = Arc::clone(self.consumer());
        let committer = Arc::clone(&self.committer);
        Box::pin(committer.commit(consumer, commits, COMMIT_LIMIT))
    }

    fn unowned(&self) -> LogFuture<'static, usize> {
        let consumer = Arc::clone(self.consumer());
        Box::pin(blocking::within(
            UNOWNED_LIMIT * 3,
            "a look at the group",
            move || unowned::count(&consumer, UNOWNED_LIMIT),
        ))
    }

    fn leave(mut self: Box<Self>, stay: bool) -> LogFuture<'static, ()> {
        // What is taken inside stays whole when the future is dropped without being polled.
        Box::pin(async move {
            self.queues.clear();
            let farewell = self.is_static && !stay;
            let Some(consumer) = self.consumer.take() else {
                return Ok(());
            };
            blocking::within(LEAVE_LIMIT, "leaving the group", move || {
                close(consumer, farewell);
                drop(self);
                Ok(())
            })
            .await
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.queues.clear();
        if let Some(consumer) = self.consumer.take() {
            blocking::detached("kafka-drop-member", move || close(consumer, false));
        }
    }
}

/// Ends a consumer's life. Blocks: for a tenth of a second, or until the coordinator answers.
///
/// A dynamic member leaves the group by being dropped; a static one stays in it unless it says
/// farewell.
fn close(consumer: Arc<Consumption>, farewell: bool) {
    for waiting in consumer.context().begin_closing() {
        let none = TopicPartitionList::new();
        let answered = match waiting {
            Unanswered::Assigned => consumer.incremental_assign(&none),
            Unanswered::Revoked => consumer
                .assignment()
                .and_then(|held| consumer.incremental_unassign(&held)),
        };
        if let Err(error) = answered {
            tracing::debug!(%error, "a late answer to a rebalance was not taken");
        }
    }
    if farewell {
        consumer.unsubscribe();
        // The callbacks give up what is held. Then the fetches end, and only then goes the Leave:
        // nothing tells when, and a static consumer that is closed before sends none.
        let start = Instant::now();
        let mut free_since = None;
        while start.elapsed() < FAREWELL_LIMIT {
            poll_until_empty(&consumer);
            let held = consumer.assignment().map_or(0, |held| held.count());
            if held == 0 && free_since.get_or_insert_with(Instant::now).elapsed() >= FETCHES_END {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    drop_alone(consumer);
}

/// Drops a consumer once nobody else uses it, so that the drop, which blocks, happens here.
pub(super) fn drop_alone<T>(mut shared: Arc<T>) {
    let deadline = Instant::now() + LEAVE_LIMIT;
    while Instant::now() < deadline {
        match Arc::try_unwrap(shared) {
            Ok(alone) => return drop(alone),
            Err(used) => shared = used,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    tracing::warn!("a Kafka consumer is still in use long after its end");
}

/// A partition's own queue, read in order.
struct Split {
    queue: Arc<Queue>,
    at: TopicPartition,
    /// Nothing before it is ours: a queue may still hold what an earlier assignment fetched.
    next: i64,
    /// Found behind records that were taken: told the next time.
    failure: Option<LogError>,
}

impl fmt::Debug for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Split")
            .field("at", &self.at)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Split {
    fn failed(&self, failure: &KafkaError) -> Option<LogError> {
        use RDKafkaErrorCode as Code;
        match error::code(failure) {
            Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => {
                Some(LogError::OutOfRange(self.at.clone()))
            }
            // The client looks for the leader and goes on by itself.
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::NotLeaderForPartition
            | Code::PartitionEOF => None,
            code => Some(error::topic_call(
                code,
                &self.at.topic,
                Some(self.at.partition),
            )),
        }
    }
}

impl Source for Split {
    fn take(&mut self, max: usize, out: &mut Vec<StoredRecord>) -> Result<usize, LogError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let (mut taken, mut empty) = (0, 0);
        // Nothing twice: the first may have been an event that is not a record.
        while taken < max && empty < 2 {
            match self.queue.poll(Duration::ZERO) {
                None => empty += 1,
                Some(Ok(message)) if message.offset() < self.next => {}
                Some(Ok(message)) => {
                    self.next = message.offset() + 1;
                    out.push(convert::stored(&message));
                    taken += 1;
                }
                Some(Err(failure)) => match self.failed(&failure) {
                    Some(failure) if taken == 0 => return Err(failure),
                    Some(failure) => {
                        self.failure = Some(failure);
                        break;
                    }
                    None => {}
                },
            }
        }
        Ok(taken)
    }
}
