//! Topics and groups: made, deleted, trimmed, expired, read back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Writer;
use crate::log::embedded::catalog::{Bounds, Topic, TopicEntry, TopicId};
use crate::log::embedded::store::{Change, Found, Key, encode_bounds};
use crate::log::{
    Commit, Creation, GroupId, LogError, Offset, Partition, TopicName, TopicPartition, TopicSpec,
};

/// More are a mistake.
const MAX_PARTITIONS: u32 = 100_000;
/// Records that are removed between two looks at the queue.
const PURGE_CHUNK: i64 = 4096;

impl Writer {
    /// Makes a topic.
    pub(in crate::log::embedded) fn create_topic(
        &mut self,
        spec: &TopicSpec,
    ) -> Result<Creation, LogError> {
        if self.shared.catalog.find(&spec.name).is_some() {
            return Ok(Creation::Existed);
        }
        if !(1..=MAX_PARTITIONS).contains(&spec.partitions) {
            return Err(LogError::Refused(format!(
                "topic {} cannot have {} partitions: 1 to {MAX_PARTITIONS} are allowed",
                spec.name, spec.partitions
            )));
        }
        let id = TopicId(self.last_topic_id.0 + 1);
        let entry = TopicEntry::new(id, spec);
        self.write(vec![
            Change::Put(Key::last_topic_id(), id.0.to_le_bytes().to_vec()),
            Change::Put(Key::topic(&spec.name), encode_entry(&entry)),
        ])?;
        self.last_topic_id = id;
        let bounds = (0..spec.partitions).map(|_| Bounds::default()).collect();
        let topic = Arc::new(Topic::new(spec.name.clone(), entry, bounds));
        self.shared.catalog.insert(Arc::clone(&topic));
        self.shared.groups.topic_created(&topic);
        Ok(Creation::Created)
    }

    /// Deletes a topic; its records go bit by bit.
    pub(in crate::log::embedded) fn delete_topic(
        &mut self,
        name: &TopicName,
    ) -> Result<(), LogError> {
        let Some(topic) = self.shared.catalog.find(name) else {
            return Ok(());
        };
        let id = topic.entry.id;
        let commits = self
            .shared
            .with_store(|store| store.meta_keys(&Key::commits()))?;
        let of_topic = |key: &Key| key.topic_of_commit() == Some(id);
        let mut changes = vec![
            Change::Remove(Key::topic(name)),
            Change::Put(Key::deleted_topic(id), encode_entry(&topic.entry)),
        ];
        changes.extend(commits.into_iter().filter(of_topic).map(Change::Remove));
        self.write(changes)?;
        self.forget(&topic);
        for (_, bounds) in topic.all() {
            let high = bounds.high.load(Ordering::Relaxed);
            bounds.low.store(high, Ordering::Release);
        }
        self.plan_purges(&topic);
        Ok(())
    }

    fn forget(&self, topic: &Topic) {
        topic.deleted.store(true, Ordering::Release);
        self.shared.catalog.remove(&topic.name);
        self.shared.groups.topic_deleted(&topic.name);
    }

    /// Moves low watermarks up.
    pub(in crate::log::embedded) fn trim(
        &mut self,
        name: &TopicName,
        before: &[(Partition, Offset)],
    ) -> Result<(), LogError> {
        let topic = self.shared.catalog.get(name)?;
        for &(partition, offset) in before {
            let high = topic.bounds(partition)?.watermarks().high;
            if offset > high {
                return Err(LogError::Refused(format!(
                    "{} cannot be trimmed to offset {}, it ends at {}",
                    topic.at(partition),
                    offset.0,
                    high.0
                )));
            }
        }
        self.raise_low(&topic, before)
    }

    fn raise_low(
        &mut self,
        topic: &Arc<Topic>,
        before: &[(Partition, Offset)],
    ) -> Result<(), LogError> {
        let mut raised = Vec::new();
        for &(partition, Offset(to)) in before {
            let bounds = topic.bounds(partition)?;
            if to > bounds.low.load(Ordering::Relaxed) {
                raised.push((partition, bounds, to));
            }
        }
        if raised.is_empty() {
            return Ok(());
        }
        let entry = |(partition, bounds, to): &(Partition, &Bounds, i64)| {
            let purged = bounds.purged.load(Ordering::Relaxed);
            let key = Key::partition(topic.entry.id, *partition);
            Change::Put(key, encode_bounds(purged, *to))
        };
        self.write(raised.iter().map(entry).collect())?;
        for (partition, bounds, to) in raised {
            bounds.low.fetch_max(to, Ordering::AcqRel);
            self.purges.push_back((Arc::clone(topic), partition));
        }
        Ok(())
    }

    /// Trims what is older than its topic keeps, when it is time to look.
    pub(super) fn expire(&mut self) {
        if Instant::now() < self.next_expiry {
            return;
        }
        self.next_expiry = Instant::now() + self.settings.expiry_interval;
        for topic in self.shared.catalog.all() {
            let expired = self.expired(&topic);
            if let Err(error) = expired.and_then(|before| self.raise_low(&topic, &before)) {
                // While the store is out of use nothing expires; it says so itself.
                tracing::debug!(topic = %topic.name, %error, "could not expire records");
            }
        }
    }

    fn expired(&self, topic: &Topic) -> Result<Vec<(Partition, Offset)>, LogError> {
        let Some(retention) = topic.entry.retention() else {
            return Ok(Vec::new());
        };
        let age = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let mut since = self.clock.now();
        since.0 = since.0.saturating_sub(age);
        let boundary = |(partition, bounds): (Partition, &Bounds)| {
            let marks = bounds.watermarks();
            let span = marks.low.0..marks.high.0;
            let id = topic.entry.id;
            let first = self
                .shared
                .with_store(|store| store.first_since(id, partition, span, since))?;
            Ok((partition, Offset(first)))
        };
        topic.all().map(boundary).collect()
    }

    fn plan_purges(&mut self, topic: &Arc<Topic>) {
        let all = topic.all().map(|(partition, _)| partition);
        self.purges
            .extend(all.map(|partition| (Arc::clone(topic), partition)));
    }

    /// Removes some of the records below the low watermarks.
    pub(super) fn purge_some(&mut self) {
        let Some((topic, partition)) = self.purges.front().cloned() else {
            return;
        };
        // Failing here takes the store out of use; opening it anew plans the purges anew.
        if let Ok(true) = self.purge_chunk(&topic, partition) {
            self.purges.pop_front();
        }
    }

    /// Says whether the partition has nothing left to remove.
    fn purge_chunk(&mut self, topic: &Arc<Topic>, partition: Partition) -> Result<bool, LogError> {
        let id = topic.entry.id;
        let bounds = topic.bounds(partition)?;
        let (from, low) = (
            bounds.purged.load(Ordering::Relaxed),
            bounds.watermarks().low.0,
        );
        let to = low.min(from + PURGE_CHUNK);
        let record = |offset| Change::Remove(Key::record(id, partition, Offset(offset)));
        let mut changes: Vec<_> = (from..to).map(record).collect();
        if !changes.is_empty() {
            let key = Key::partition(id, partition);
            changes.push(Change::Put(key, encode_bounds(to, low)));
            self.write(changes)?;
            bounds.purged.store(to, Ordering::Relaxed);
        }
        let is_done =
            |bounds: &Bounds| bounds.purged.load(Ordering::Relaxed) >= bounds.watermarks().low.0;
        if topic.is_deleted() && topic.partitions.iter().all(is_done) {
            let partitions = topic
                .all()
                .map(|(partition, _)| Key::partition(id, partition));
            let mut changes: Vec<_> = partitions.map(Change::Remove).collect();
            changes.push(Change::Remove(Key::deleted_topic(id)));
            self.write(changes)?;
        }
        Ok(to == low)
    }

    /// Takes over what the store says: at the start, and after it failed. Topics that are known
    /// stay the same objects, since sources hold them.
    pub(super) fn adopt(&mut self, found: Vec<Found>, last_topic_id: TopicId) {
        self.last_topic_id = last_topic_id;
        self.purges.clear();
        let ids: Vec<_> = found.iter().map(|found| found.entry.id).collect();
        for topic in self.shared.catalog.all() {
            if !ids.contains(&topic.entry.id) {
                self.forget(&topic);
            }
        }
        for Found {
            name,
            entry,
            partitions,
        } in found
        {
            let topic = match name {
                Some(name) => self.adopt_topic(name, entry, partitions),
                None => deleted_topic(entry, partitions),
            };
            self.plan_purges(&topic);
        }
    }

    fn adopt_topic(
        &self,
        name: TopicName,
        entry: TopicEntry,
        partitions: Box<[Bounds]>,
    ) -> Arc<Topic> {
        let known = self.shared.catalog.find(&name);
        if let Some(topic) = known.filter(|topic| topic.entry.id == entry.id) {
            for (bounds, found) in topic.partitions.iter().zip(&partitions) {
                let purged = found.purged.load(Ordering::Relaxed);
                let marks = found.watermarks();
                bounds.set(purged, marks.low.0, marks.high.0);
            }
            return topic;
        }
        let topic = Arc::new(Topic::new(name, entry, partitions));
        self.shared.catalog.insert(Arc::clone(&topic));
        self.shared.groups.topic_created(&topic);
        topic
    }

    /// The group's commits.
    pub(in crate::log::embedded) fn committed(
        &mut self,
        group: &GroupId,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Commit>>, LogError> {
        let commit = |at: &TopicPartition| {
            let Some(topic) = self.shared.catalog.find(&at.topic) else {
                return Ok(None);
            };
            let key = Key::commit(group, topic.entry.id, at.partition);
            self.shared.with_store(|store| store.commit_at(&key))
        };
        partitions.iter().map(commit).collect()
    }

    /// Forgets a group's commits.
    pub(in crate::log::embedded) fn delete_group(
        &mut self,
        group: &GroupId,
    ) -> Result<(), LogError> {
        if self.shared.groups.is_live(group) {
            return Err(LogError::Refused(format!(
                "group {group} has a member; it can be deleted when that has left"
            )));
        }
        let keys = self
            .shared
            .with_store(|store| store.meta_keys(&Key::commits_of(group)))?;
        if keys.is_empty() {
            return Ok(());
        }
        self.write(keys.into_iter().map(Change::Remove).collect())
    }
}

/// A topic of which only the records are left.
fn deleted_topic(entry: TopicEntry, partitions: Box<[Bounds]>) -> Arc<Topic> {
    let name = TopicName::try_new("deleted").expect("it is a legal name");
    let topic = Topic::new(name, entry, partitions);
    topic.deleted.store(true, Ordering::Release);
    Arc::new(topic)
}

fn encode_entry(entry: &TopicEntry) -> Vec<u8> {
    serde_json::to_vec(entry).expect("plain numbers are always JSON")
}
