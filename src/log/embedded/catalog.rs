//! Topics and partitions as they are known in memory.
//!
//! The writer thread alone changes them, after the store has what they say; everyone reads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::groups::MemberId;
use crate::log::{
    LogError, Offset, Partition, TopicDescription, TopicName, TopicPartition, TopicSpec, Watermarks,
};

/// A topic's number in the store; one that was deleted is never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct TopicId(pub(super) u32);

/// What the store says of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TopicEntry {
    pub(super) id: TopicId,
    pub(super) partitions: u32,
    pub(super) retention_ms: Option<u64>,
    pub(super) max_record_bytes: u32,
}

impl TopicEntry {
    pub(super) fn new(id: TopicId, spec: &TopicSpec) -> Self {
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Self {
            id,
            partitions: spec.partitions,
            retention_ms: spec.retention.map(millis),
            max_record_bytes: spec.max_record_bytes,
        }
    }

    pub(super) fn retention(&self) -> Option<Duration> {
        self.retention_ms.map(Duration::from_millis)
    }
}

/// A topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: TopicName,
    pub(super) entry: TopicEntry,
    pub(super) partitions: Box<[Bounds]>,
    /// It is gone: only its records are still to be removed.
    pub(super) deleted: AtomicBool,
    turn: AtomicU32,
    watchers: Mutex<Vec<(MemberId, Arc<Notify>)>>,
}

/// Where a partition begins and ends.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// Records before this are removed from the store.
    pub(super) purged: AtomicI64,
    /// The low watermark.
    pub(super) low: AtomicI64,
    /// The high watermark: what lies below is on disk.
    pub(super) high: AtomicI64,
    /// The offset of the next record; above `high` while a round is being written.
    pub(super) next: AtomicI64,
}

impl Bounds {
    pub(super) fn new(purged: i64, low: i64, high: i64) -> Self {
        let bounds = Self::default();
        bounds.set(purged, low, high);
        bounds
    }

    pub(super) fn set(&self, purged: i64, low: i64, high: i64) {
        self.purged.store(purged, Ordering::Release);
        self.low.store(low, Ordering::Release);
        self.next.store(high, Ordering::Release);
        self.high.store(high, Ordering::Release);
    }

    pub(super) fn watermarks(&self) -> Watermarks {
        // Low first: read the other way round it might be found above high.
        let low = self.low.load(Ordering::Acquire);
        let high = self.high.load(Ordering::Acquire);
        Watermarks {
            low: Offset(low),
            high: Offset(high),
        }
    }
}

impl Topic {
    pub(super) fn new(name: TopicName, entry: TopicEntry, partitions: Box<[Bounds]>) -> Self {
        Self {
            name,
            entry,
            partitions,
            deleted: AtomicBool::new(false),
            turn: AtomicU32::new(0),
            watchers: Mutex::default(),
        }
    }

    pub(super) fn description(&self) -> TopicDescription {
        TopicDescription {
            partitions: self.entry.partitions,
            replicas: 1,
            retention: self.entry.retention(),
            max_record_bytes: self.entry.max_record_bytes,
            min_in_sync: 1,
        }
    }

    /// The partition's bounds.
    pub(super) fn bounds(&self, partition: Partition) -> Result<&Bounds, LogError> {
        self.partitions
            .get(partition.index())
            .ok_or_else(|| LogError::UnknownPartition(self.at(partition)))
    }

    /// Every partition.
    pub(super) fn all(&self) -> impl Iterator<Item = (Partition, &Bounds)> {
        (0..).map(Partition).zip(&self.partitions)
    }

    pub(super) fn at(&self, partition: Partition) -> TopicPartition {
        TopicPartition {
            topic: self.name.clone(),
            partition,
        }
    }

    /// The partition for a record without a key: one after the other.
    pub(super) fn any_partition(&self) -> Partition {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.entry.partitions;
        Partition(i32::try_from(turn).expect("a topic has at most 2^31 partitions"))
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// From now on `wake` is notified of new records.
    pub(super) fn watch(&self, member: MemberId, wake: &Arc<Notify>) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.push((member, Arc::clone(wake)));
    }

    pub(super) fn unwatch(&self, member: MemberId) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|(watcher, _)| *watcher != member);
    }

    pub(super) fn wake_watchers(&self) {
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, wake) in &*watchers {
            wake.notify_one();
        }
    }
}

/// The topics by name.
#[derive(Debug, Default)]
pub(super) struct Catalog(RwLock<HashMap<TopicName, Arc<Topic>>>);

impl Catalog {
    pub(super) fn find(&self, name: &TopicName) -> Option<Arc<Topic>> {
        let topics = self.0.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(name).cloned()
    }

    /// As [`Catalog::find`], for callers to whom a missing topic is an error.
    pub(super) fn get(&self, name: &TopicName) -> Result<Arc<Topic>, LogError> {
        self.find(name)
            .ok_or_else(|| LogError::UnknownTopic(name.clone()))
    }

    pub(super) fn all(&self) -> Vec<Arc<Topic>> {
        let topics = self.0.read().unwrap_or_else(PoisonError::into_inner);
        topics.values().cloned().collect()
    }

    pub(super) fn insert(&self, topic: Arc<Topic>) {
        let mut topics = self.0.write().unwrap_or_else(PoisonError::into_inner);
        topics.insert(topic.name.clone(), topic);
    }

    pub(super) fn remove(&self, name: &TopicName) {
        let mut topics = self.0.write().unwrap_or_else(PoisonError::into_inner);
        topics.remove(name);
    }
}
