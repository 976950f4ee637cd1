//! The log on Apache Kafka, by librdkafka.
//!
//! One producer for all appends (`producer`), one consumer for each group (`consumer`), a few
//! clients for everything else (`admin`, `groups`, `reader`). librdkafka's callbacks and blocking
//! calls never run on the runtime's workers: main queues are served by the threads of `poller`,
//! calls that wait go through `blocking`, each with a limit.

mod admin;
mod blocking;
mod commits;
mod consumer;
mod convert;
mod error;
mod groups;
mod keeper;
mod member;
mod metadata;
mod poller;
mod producer;
mod properties;
mod reader;
mod report;
mod send;
mod settings;
mod unowned;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use settings::{GroupProtocol, Settings};

use self::admin::Admin;
use self::commits::Committer;
use self::consumer::Member;
use self::groups::{IdleGroup, Members};
use self::poller::Pollers;
use self::producer::Producer;
use self::reader::Readers;
use self::report::{FloodGate, Reporter};
use super::{
    Appending, Commit, Commits, Creation, EventLog, GroupId, GroupSpec, LogError, LogFuture,
    Membership, Offset, Partition, Record, StoredRecord, Target, TopicDescription, TopicName,
    TopicPartition, TopicSpec, Watermarks,
};
use crate::clock::UnixMillis;

/// How long a sign of life may take.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// What is asked about while no topic is known; it need not exist.
const PROBE_TOPIC: &str = "__consumer_offsets";
/// Partitions that a topic is taken to have before it was looked at.
const PARTITIONS_UNSEEN: usize = 4;

/// Apache Kafka as the event log.
#[derive(Debug)]
pub struct KafkaLog {
    settings: Settings,
    gate: Arc<FloodGate>,
    pollers: Pollers,
    producer: Arc<Producer>,
    admin: Admin,
    readers: Readers,
    members: Arc<Members>,
    committer: Arc<Committer>,
    live: Arc<AtomicUsize>,
    /// Partitions of the topics seen so far, for sharing out the fetch memory.
    partitions: Mutex<HashMap<TopicName, u32>>,
}

impl KafkaLog {
    /// Makes the clients, which look for the broker by themselves. Waits for nothing: whether
    /// Kafka is there, [`EventLog::probe`] says.
    ///
    /// # Errors
    /// [`LogError::Refused`] for a property that is unknown, has no valid value, or would break a
    /// guarantee; it names the property.
    pub fn connect(settings: Settings) -> Result<Arc<Self>, LogError> {
        settings.check()?;
        let gate = Arc::new(FloodGate::default());
        let report = |name: &str| Reporter::new(format!("{} {name}", settings.client_id), &gate);
        let producer = Producer::try_new(&settings, report("producer"))?;
        let pollers = Pollers::start(settings.poll_threads)?;
        let admin = Admin::try_new(&settings, &report("admin"), &pollers)?;
        let readers = Readers::new(
            settings.reader(),
            report("reader"),
            settings.operation_timeout,
            &pollers,
        );
        Ok(Arc::new(Self {
            producer: Arc::new(producer),
            admin,
            readers,
            pollers,
            gate,
            settings,
            members: Arc::default(),
            committer: Arc::new(Committer::new()),
            live: Arc::default(),
            partitions: Mutex::default(),
        }))
    }

    fn saw_partitions(&self, topic: &TopicName, partitions: u32) {
        let mut seen = self
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.insert(topic.clone(), partitions);
    }

    fn forget(&self, topic: &TopicName) {
        let mut seen = self
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.remove(topic);
    }

    fn partitions_of(&self, topics: &[TopicName]) -> usize {
        let seen = self
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = |topic| seen.get(topic).map_or(PARTITIONS_UNSEEN, |n| *n as usize);
        topics.iter().map(count).sum()
    }

    /// A client for a group that this process has no member of.
    fn idle_group(&self, group: &GroupId) -> impl FnOnce() -> Result<IdleGroup, LogError> + use<> {
        let config = self.settings.idle_group(&group.0);
        let report = Reporter::new(format!("{} {group}", self.settings.client_id), &self.gate);
        move || IdleGroup::try_new(&config, report)
    }
}

impl EventLog for KafkaLog {
    fn append(&self, topic: &TopicName, target: Target, record: Record) -> Appending {
        self.producer.append(topic, target, record)
    }

    fn create_topic<'a>(&'a self, spec: &'a TopicSpec) -> LogFuture<'a, Creation> {
        Box::pin(async move {
            let creation = self.admin.create_topic(spec, &self.producer).await?;
            if creation == Creation::Created {
                self.saw_partitions(&spec.name, spec.partitions);
            }
            Ok(creation)
        })
    }

    fn delete_topic<'a>(&'a self, topic: &'a TopicName) -> LogFuture<'a, ()> {
        Box::pin(async move {
            self.forget(topic);
            self.admin.delete_topic(topic).await
        })
    }

    fn describe_topic<'a>(
        &'a self,
        topic: &'a TopicName,
    ) -> LogFuture<'a, Option<TopicDescription>> {
        Box::pin(async move {
            let found = self.admin.describe_topic(topic).await?;
            match &found {
                Some(found) => self.saw_partitions(topic, found.partitions),
                None => self.forget(topic),
            }
            Ok(found)
        })
    }

    fn watermarks<'a>(&'a self, topic: &'a TopicName) -> LogFuture<'a, Vec<Watermarks>> {
        Box::pin(self.admin.watermarks(topic))
    }

    fn offsets_at<'a>(
        &'a self,
        topic: &'a TopicName,
        time: UnixMillis,
    ) -> LogFuture<'a, Vec<Offset>> {
        Box::pin(self.admin.offsets_at(topic, time))
    }

    fn read<'a>(
        &'a self,
        from: &'a TopicPartition,
        offset: Offset,
        max: usize,
    ) -> LogFuture<'a, Vec<StoredRecord>> {
        Box::pin(async move {
            let marks = self.admin.partition_watermarks(from).await?;
            let first = offset.max(marks.low);
            if first >= marks.high || max == 0 {
                return Ok(Vec::new());
            }
            self.readers.read(from.clone(), first, max).await
        })
    }

    fn trim<'a>(
        &'a self,
        topic: &'a TopicName,
        before: &'a [(Partition, Offset)],
    ) -> LogFuture<'a, ()> {
        Box::pin(self.admin.trim(topic, before))
    }

    fn committed<'a>(
        &'a self,
        group: &'a GroupId,
        partitions: &'a [TopicPartition],
    ) -> LogFuture<'a, Vec<Option<Commit>>> {
        if partitions.is_empty() {
            return Box::pin(std::future::ready(Ok(Vec::new())));
        }
        let limit = self.settings.operation_timeout;
        let members = Arc::clone(&self.members);
        let (idle, group, partitions) =
            (self.idle_group(group), group.clone(), partitions.to_vec());
        let work = move || groups::committed(&members, &group, idle, &partitions, limit);
        let outer = limit + Duration::from_secs(1);
        Box::pin(blocking::within(outer, "reading commits", work))
    }

    fn commit_idle<'a>(&'a self, group: &'a GroupId, commits: Commits) -> LogFuture<'a, ()> {
        if commits.is_empty() {
            return Box::pin(std::future::ready(Ok(())));
        }
        // The client is dropped, on a thread of its own, when its group was committed.
        let idle = self.idle_group(group);
        let committer = Arc::clone(&self.committer);
        let limit = self.settings.operation_timeout * 2;
        Box::pin(async move {
            let group = blocking::within(limit, "a client", idle).await?;
            let client = Arc::clone(group.client());
            let committed = committer.commit_idle(client, commits, limit);
            committed.await.map_err(groups::has_members)
        })
    }

    fn delete_group<'a>(&'a self, group: &'a GroupId) -> LogFuture<'a, ()> {
        Box::pin(self.admin.delete_group(group))
    }

    fn join(&self, spec: &GroupSpec) -> Result<Box<dyn Membership>, LogError> {
        let members = self.live.load(Ordering::Relaxed) + 1;
        let partitions = self.partitions_of(&spec.topics);
        let ahead = self.settings.fetch_ahead(members, partitions);
        let config = self.settings.member(spec, ahead);
        let name = format!("{} {}", self.settings.client_id, spec.group);
        let report = Reporter::new(name, &self.gate);
        let (pollers, live) = (&self.pollers, &self.live);
        let member = Member::join(&config, spec, report, pollers, live, &self.committer)?;
        self.members.add(&spec.group, member.consumer());
        Ok(Box::new(member))
    }

    fn probe(&self) -> LogFuture<'_, ()> {
        let producer = Arc::clone(&self.producer);
        let limit = PROBE_LIMIT + PROBE_LIMIT / 2;
        Box::pin(blocking::within(limit, "a sign of life", move || {
            producer.probe(PROBE_TOPIC, PROBE_LIMIT)
        }))
    }

    fn close(&self, limit: Duration) -> LogFuture<'_, ()> {
        let producer = Arc::clone(&self.producer);
        // The client's own end comes on top of the limit.
        let outer = limit.saturating_add(Duration::from_secs(5));
        Box::pin(blocking::within(outer, "closing the log", move || {
            producer.close(limit)
        }))
    }
}
