//! Blocking questions about topics and the ends of their partitions.

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset as RawOffset, TopicPartitionList};

use super::report::Reporting;
use super::{blocking, error};
use crate::log::{LogError, Partition, TopicName};

/// A topic in the cluster's metadata.
pub(super) struct Found {
    pub(super) partitions: u32,
    pub(super) replicas: u16,
    /// Whether each partition has a leader.
    pub(super) led: bool,
}

/// Looks a topic up. Blocks for at most `limit`.
pub(super) fn find<C: ClientContext>(
    client: &Client<C>,
    topic: &TopicName,
    limit: Duration,
) -> Result<Found, LogError> {
    let metadata = client
        .fetch_metadata(Some(topic.as_str()), limit)
        .map_err(|error| error::topic_call(error::code(&error), topic, None))?;
    let unknown = || LogError::UnknownTopic(topic.clone());
    let found = metadata.topics().first().ok_or_else(unknown)?;
    if let Some(code) = found.error() {
        return Err(error::topic_call(code.into(), topic, None));
    }
    let partitions = found.partitions();
    let first = partitions.first().ok_or_else(unknown)?;
    Ok(Found {
        partitions: u32::try_from(partitions.len()).unwrap_or(u32::MAX),
        replicas: u16::try_from(first.replicas().len()).unwrap_or(u16::MAX),
        led: partitions.iter().all(|partition| partition.leader() >= 0),
    })
}

/// How many partitions a topic has, if it is there and each has a leader. Blocks.
pub(super) fn partitions_led<C: ClientContext>(
    client: &Client<C>,
    topic: &TopicName,
    limit: Duration,
) -> Result<Option<u32>, LogError> {
    match find(client, topic, limit) {
        Ok(found) => Ok(found.led.then_some(found.partitions)),
        Err(LogError::UnknownTopic(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// For each partition the offset that `what` (an end, or a time) stands for; `None` where there
/// is none so late. One request a broker, repeated while a leader is not ready. Blocks.
pub(super) fn offsets(
    client: &BaseConsumer<Reporting>,
    topic: &TopicName,
    partitions: u32,
    what: RawOffset,
    limit: Duration,
) -> Result<Vec<Option<i64>>, LogError> {
    blocking::until_available(limit, |left| {
        offsets_once(client, topic, partitions, what, left)
    })
}

fn offsets_once(
    client: &BaseConsumer<Reporting>,
    topic: &TopicName,
    partitions: u32,
    what: RawOffset,
    limit: Duration,
) -> Result<Vec<Option<i64>>, LogError> {
    let failed = |partition| {
        move |failure: KafkaError| error::topic_call(error::code(&failure), topic, partition)
    };
    let mut list = TopicPartitionList::with_capacity(partitions as usize);
    for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
        list.add_partition_offset(topic.as_str(), partition, what)
            .map_err(failed(None))?;
    }
    let list = client
        .offsets_for_times(list, limit)
        .map_err(failed(None))?;
    let mut found = vec![None; partitions as usize];
    for element in list.elements() {
        let partition = Partition(element.partition());
        element.error().map_err(failed(Some(partition)))?;
        if let (RawOffset::Offset(offset), Some(place)) =
            (element.offset(), found.get_mut(partition.index()))
        {
            *place = Some(offset);
        }
    }
    Ok(found)
}
