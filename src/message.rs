//! What a message is called: one event for one subscription.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::log::{Offset, Partition, TopicPartition};

/// The id of a message, derived from the subscription's uid and the event's place in the channel
/// topic, so that it needs no lookup table and is the same in every round and after a restart.
///
/// As text `<16 hex digits>-<partition>-<offset>`; the digits stand for the uid and the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId {
    scope: u64,
    partition: Partition,
    offset: Offset,
}

/// Text that is no [`MessageId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id of a message: 16 hex digits, partition and offset, joined by hyphens")]
pub struct MessageIdError(String);

impl MessageId {
    /// The id of the event at this place for the subscription with this uid.
    #[must_use]
    pub fn new(uid: &str, at: &TopicPartition, offset: Offset) -> Self {
        let name = format!("{uid}\0{}", at.topic);
        let (scope, _) = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).as_u64_pair();
        Self {
            scope,
            partition: at.partition,
            offset,
        }
    }

    /// The same as numbers: what stands for uid and topic, partition, offset.
    #[must_use]
    pub fn parts(self) -> (u64, i32, i64) {
        (self.scope, self.partition.0, self.offset.0)
    }

    /// The id with these [`parts`](Self::parts).
    #[must_use]
    pub fn from_parts((scope, partition, offset): (u64, i32, i64)) -> Self {
        Self {
            scope,
            partition: Partition(partition),
            offset: Offset(offset),
        }
    }

    /// The offset in the channel topic.
    #[must_use]
    pub fn offset(self) -> Offset {
        self.offset
    }

    /// The partition of the channel topic.
    #[must_use]
    pub fn partition(self) -> Partition {
        self.partition
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (partition, offset) = (self.partition.0, self.offset.0);
        write!(f, "{:016x}-{partition}-{offset}", self.scope)
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let mut parts = text.splitn(3, '-');
            let id = Self {
                scope: u64::from_str_radix(parts.next()?, 16).ok()?,
                partition: Partition(parts.next()?.parse().ok()?),
                offset: Offset(parts.next()?.parse().ok()?),
            };
            // One spelling each: no signs, no zeros in front.
            (id.to_string() == text && id.partition.0 >= 0 && id.offset.0 >= 0).then_some(id)
        };
        read().ok_or_else(|| MessageIdError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::TopicName;

    #[test]
    fn ids_are_the_same_every_time_and_come_back_from_text() {
        let at = TopicPartition {
            topic: TopicName::try_new("t").unwrap(),
            partition: Partition(3),
        };
        let id = MessageId::new("uid", &at, Offset(1042));
        assert_eq!(id.to_string(), "ae0c19cbe0315e6b-3-1042");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_ne!(id, MessageId::new("other", &at, Offset(1042)));
        for bad in [
            "",
            "6ec31f2fcd0f49ba",
            "6ec31f2fcd0f49ba-3",
            "6ec31f2fcd0f49ba-3-",
            "6EC31F2FCD0F49BA-3-1",
            "6ec31f2fcd0f49ba-03-1",
            "6ec31f2fcd0f49ba-3--1",
            "x-3-1",
            "6ec31f2fcd0f49ba-3-1-1",
        ] {
            assert!(bad.parse::<MessageId>().is_err(), "{bad}");
        }
    }
}
