//! Keys. Numbers in them are big-endian, so that they sort as they count.

use std::ops::Range;

use crate::log::embedded::catalog::TopicId;
use crate::log::{GroupId, Offset, Partition, TopicName};

/// A key and its keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::log::embedded) enum Key {
    /// Topic id, partition, offset.
    Record([u8; 16]),
    /// A letter for the kind, then what it takes.
    Meta(Vec<u8>),
}

impl Key {
    pub(in crate::log::embedded) fn bytes(&self) -> &[u8] {
        match self {
            Self::Record(bytes) => bytes,
            Self::Meta(bytes) => bytes,
        }
    }

    pub(in crate::log::embedded) fn record(
        topic: TopicId,
        partition: Partition,
        offset: Offset,
    ) -> Self {
        Self::Record(record(topic, partition, offset.0))
    }

    pub(super) fn record_range(
        topic: TopicId,
        partition: Partition,
        span: Range<i64>,
    ) -> Range<[u8; 16]> {
        record(topic, partition, span.start)..record(topic, partition, span.end)
    }

    pub(super) fn offset_of(record: &[u8]) -> Option<Offset> {
        let (_, offset) = record.split_last_chunk::<8>()?;
        Some(Offset(i64::from_be_bytes(*offset)))
    }

    pub(super) fn format() -> Self {
        meta(b'v', &[])
    }

    /// The id given last.
    pub(in crate::log::embedded) fn last_topic_id() -> Self {
        meta(b'n', &[])
    }

    pub(in crate::log::embedded) fn topic(name: &TopicName) -> Self {
        meta(b't', &[name.as_str().as_bytes()])
    }

    pub(super) fn topics() -> Self {
        meta(b't', &[])
    }

    pub(super) fn topic_name(&self) -> Option<TopicName> {
        let name = std::str::from_utf8(self.bytes().get(1..)?).ok()?;
        TopicName::try_new(name).ok()
    }

    pub(in crate::log::embedded) fn deleted_topic(topic: TopicId) -> Self {
        meta(b'd', &[&topic.0.to_be_bytes()])
    }

    pub(super) fn deleted_topics() -> Self {
        meta(b'd', &[])
    }

    pub(in crate::log::embedded) fn partition(topic: TopicId, partition: Partition) -> Self {
        meta(b'p', &[&topic.0.to_be_bytes(), &partition.0.to_be_bytes()])
    }

    pub(in crate::log::embedded) fn commit(
        group: &GroupId,
        topic: TopicId,
        partition: Partition,
    ) -> Self {
        let (len, name) = group_name(group);
        let (topic, partition) = (topic.0.to_be_bytes(), partition.0.to_be_bytes());
        meta(b'c', &[&len, name, &topic, &partition])
    }

    /// All commits of a group.
    pub(in crate::log::embedded) fn commits_of(group: &GroupId) -> Self {
        let (len, name) = group_name(group);
        meta(b'c', &[&len, name])
    }

    /// All commits of all groups.
    pub(in crate::log::embedded) fn commits() -> Self {
        meta(b'c', &[])
    }

    /// The topic that a commit is for.
    pub(in crate::log::embedded) fn topic_of_commit(&self) -> Option<TopicId> {
        let (rest, _partition) = self.bytes().split_last_chunk::<4>()?;
        let (_, topic) = rest.split_last_chunk::<4>()?;
        Some(TopicId(u32::from_be_bytes(*topic)))
    }
}

/// The longest group id, in bytes.
pub(in crate::log::embedded) const MAX_GROUP_BYTES: usize = 1024;

/// The name with its length before it, so that no group's keys begin like another's.
fn group_name(group: &GroupId) -> ([u8; 2], &[u8]) {
    let name = group.0.as_bytes();
    let len = u16::try_from(name.len()).expect("groups are checked where they come in");
    (len.to_be_bytes(), name)
}

fn meta(kind: u8, parts: &[&[u8]]) -> Key {
    let mut bytes = vec![kind];
    for part in parts {
        bytes.extend_from_slice(part);
    }
    Key::Meta(bytes)
}

fn record(topic: TopicId, partition: Partition, offset: i64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&topic.0.to_be_bytes());
    key[4..8].copy_from_slice(&partition.0.to_be_bytes());
    key[8..].copy_from_slice(&offset.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_they_count_and_tell_what_they_are_for() {
        let key = |topic, partition, offset| {
            Key::record(TopicId(topic), Partition(partition), Offset(offset))
        };
        let ascending = [key(1, 0, 0), key(1, 0, 255), key(1, 0, 256), key(1, 1, 0)];
        assert!(ascending.is_sorted_by(|a, b| a.bytes() < b.bytes()));
        assert_eq!(Key::offset_of(key(9, 9, 300).bytes()), Some(Offset(300)));

        let name = TopicName::try_new("a.b").unwrap();
        assert_eq!(Key::topic(&name).topic_name(), Some(name));
        let group = GroupId("g".into());
        let commit = Key::commit(&group, TopicId(7), Partition(3));
        assert_eq!(commit.topic_of_commit(), Some(TopicId(7)));
        assert!(commit.bytes().starts_with(Key::commits_of(&group).bytes()));
    }

    #[test]
    fn no_groups_commits_are_anothers() {
        let longer = Key::commit(&GroupId("group".into()), TopicId(1), Partition(0));
        let shorter = Key::commits_of(&GroupId("grou".into()));
        assert!(!longer.bytes().starts_with(shorter.bytes()));
    }
}
