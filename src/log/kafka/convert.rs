//! librdkafka's messages and lists as ours.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Header, Headers as _, Message};
use rdkafka::topic_partition_list::{
    Offset as RawOffset, TopicPartitionList, TopicPartitionListElem,
};

use crate::clock::UnixMillis;
use crate::log::{
    Commit, Headers, Offset, Partition, Record, StoredRecord, TopicName, TopicPartition,
};

/// Copies a message out of librdkafka's buffer, which holds a whole fetch as long as one message
/// of it lives.
pub(super) fn stored(message: &BorrowedMessage<'_>) -> StoredRecord {
    StoredRecord {
        offset: Offset(message.offset()),
        time: UnixMillis(message.timestamp().to_millis().unwrap_or(0)),
        record: record(message),
    }
}

/// Copies what a message holds.
pub(super) fn record(message: &BorrowedMessage<'_>) -> Record {
    Record {
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: message.headers().map(headers).unwrap_or_default(),
    }
}

/// A header that Kafka stores with a null value comes back with an empty one.
fn headers(borrowed: &BorrowedHeaders) -> Headers {
    // The crate panics on a name that is not UTF-8, which any producer can write: such a header
    // is left out.
    let all = || collect(borrowed, |n| borrowed.try_get(n));
    let one = |n| catch_unwind(AssertUnwindSafe(|| borrowed.try_get(n)));
    catch_unwind(AssertUnwindSafe(all))
        .unwrap_or_else(|_| collect(borrowed, |n| one(n).ok().flatten()))
}

fn collect<'a>(
    borrowed: &'a BorrowedHeaders,
    get: impl Fn(usize) -> Option<Header<'a, &'a [u8]>>,
) -> Headers {
    let count = borrowed.count();
    let all = || (0..count).filter_map(&get);
    let bytes = all()
        .map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len))
        .sum();
    let mut builder = Headers::builder(count, bytes);
    for header in all() {
        builder.push(header.key.as_bytes(), header.value.unwrap_or_default());
    }
    builder.finish()
}

/// A commit that was read, if there is one.
pub(super) fn commit(element: &TopicPartitionListElem<'_>) -> Option<Commit> {
    let RawOffset::Offset(offset) = element.offset() else {
        return None;
    };
    // The crate panics on metadata that is not UTF-8, which another program may have left; to us
    // it says nothing.
    let metadata = catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned()));
    Some(Commit {
        offset: Offset(offset),
        metadata: metadata.unwrap_or_default(),
    })
}

/// The partitions of a list.
pub(super) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .filter_map(|element| {
            let topic = TopicName::try_new(element.topic()).ok()?;
            let partition = Partition(element.partition());
            Some(TopicPartition { topic, partition })
        })
        .collect()
}

/// A list of partitions without offsets.
pub(super) fn list<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for at in partitions {
        list.add_partition(at.topic.as_str(), at.partition.0);
    }
    list
}

/// An offset as librdkafka wants it; a negative one would mean an end.
pub(super) fn raw_offset(offset: Offset) -> RawOffset {
    RawOffset::Offset(offset.0.max(0))
}
