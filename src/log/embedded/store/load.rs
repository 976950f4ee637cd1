//! What the store holds when it is opened.

use fjall::Guard;

use super::{Key, Store, damaged, engine_error};
use crate::log::embedded::catalog::{Bounds, TopicEntry, TopicId};
use crate::log::{LogError, Partition, TopicName};

/// A topic that was found.
pub(in crate::log::embedded) struct Found {
    /// `None`: it was deleted, and its records wait to be removed.
    pub(in crate::log::embedded) name: Option<TopicName>,
    pub(in crate::log::embedded) entry: TopicEntry,
    pub(in crate::log::embedded) partitions: Box<[Bounds]>,
}

impl Store {
    /// All topics, and those that were deleted with records still to be removed.
    pub(in crate::log::embedded) fn load(&self) -> Result<Vec<Found>, LogError> {
        let mut found = Vec::new();
        for (prefix, is_deleted) in [(Key::topics(), false), (Key::deleted_topics(), true)] {
            for entry in self.meta.prefix(prefix.bytes()) {
                found.push(self.load_topic(entry, is_deleted)?);
            }
        }
        Ok(found)
    }

    fn load_topic(&self, entry: Guard, is_deleted: bool) -> Result<Found, LogError> {
        let (key, value) = entry.into_inner().map_err(engine_error)?;
        let entry: TopicEntry =
            serde_json::from_slice(&value).map_err(|_| damaged("a topic's settings"))?;
        let name = if is_deleted {
            None
        } else {
            let name = Key::Meta(key.to_vec()).topic_name();
            Some(name.ok_or_else(|| damaged("a topic's name"))?)
        };
        let partitions = (0..).map(Partition).take(entry.partitions as usize);
        let bounds = partitions.map(|partition| self.load_bounds(entry.id, partition, is_deleted));
        Ok(Found {
            name,
            partitions: bounds.collect::<Result<_, _>>()?,
            entry,
        })
    }

    fn load_bounds(
        &self,
        topic: TopicId,
        partition: Partition,
        is_deleted: bool,
    ) -> Result<Bounds, LogError> {
        let key = Key::partition(topic, partition);
        let stored = self.meta.get(key.bytes()).map_err(engine_error)?;
        let (purged, low) = match stored {
            Some(bytes) => decode_bounds(&bytes).ok_or_else(|| damaged("a partition's bounds"))?,
            None => (0, 0),
        };
        // Of a deleted topic everything is low; look behind what was removed already.
        let from = if is_deleted { purged } else { low };
        let range = Key::record_range(topic, partition, from..i64::MAX);
        let high = match self.records.range(range).next_back() {
            Some(last) => {
                let key = last.key().map_err(engine_error)?;
                let offset = Key::offset_of(&key).ok_or_else(|| damaged("a record's key"))?;
                offset.0 + 1
            }
            None => from,
        };
        let low = if is_deleted { high } else { low };
        Ok(Bounds::new(purged, low, high))
    }

    /// The topic id that was given last.
    pub(in crate::log::embedded) fn last_topic_id(&self) -> Result<TopicId, LogError> {
        let stored = self.meta.get(Key::last_topic_id().bytes());
        match stored.map_err(engine_error)? {
            Some(bytes) => {
                let bytes = (*bytes)
                    .try_into()
                    .map_err(|_| damaged("the last topic id"))?;
                Ok(TopicId(u32::from_le_bytes(bytes)))
            }
            None => Ok(TopicId(0)),
        }
    }
}

/// A partition's entry: where removing goes on, and the low watermark.
pub(in crate::log::embedded) fn encode_bounds(purged: i64, low: i64) -> Vec<u8> {
    [purged.to_le_bytes(), low.to_le_bytes()].concat()
}

fn decode_bounds(bytes: &[u8]) -> Option<(i64, i64)> {
    let (purged, low) = bytes.split_first_chunk::<8>()?;
    let low = low.try_into().ok()?;
    Some((i64::from_le_bytes(*purged), i64::from_le_bytes(low)))
}
