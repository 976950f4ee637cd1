//! How far a subscription's partitions are committed on this node, for status and lag.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::engine::Look;
use crate::log::{Offset, Partition, TopicPartition};

/// Written by the dispatcher, read by the status; every lock is held for one map operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    committed: BTreeMap<Partition, Offset>,
    expired: u64,
    look: Look,
}

impl Progress {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A partition of this node is committed up to `offset`.
    pub(crate) fn committed(&self, at: &TopicPartition, offset: Offset) {
        self.with(|inner| inner.committed.insert(at.partition, offset));
    }

    /// A partition was given up.
    pub(crate) fn gone(&self, at: &TopicPartition) {
        self.with(|inner| inner.committed.remove(&at.partition));
    }

    /// So many records were deleted before they were delivered.
    pub(crate) fn expired(&self, records: u64) {
        self.with(|inner| inner.expired += records);
    }

    /// How the messages stand.
    pub(crate) fn look(&self, look: Look) {
        self.with(|inner| inner.look = look);
    }

    /// How the messages stood when they were looked at last.
    pub(crate) fn seen(&self) -> Look {
        self.with(|inner| inner.look.clone())
    }

    /// Commits by partition, of the partitions that this node holds.
    pub(crate) fn commits(&self) -> BTreeMap<Partition, Offset> {
        self.with(|inner| inner.committed.clone())
    }

    /// Records deleted before they were delivered, since this process began.
    pub(crate) fn expired_records(&self) -> u64 {
        self.with(|inner| inner.expired)
    }
}
