//! When commits and rebalances of a group came about, from Kafka's own records of them.
//!
//! `__consumer_offsets` holds a record for each commit of a partition and one for each generation
//! of a group (Kafka's `OffsetCommitKey`, `GroupMetadataKey`), with the time at which it was
//! written. Compaction touches only closed segments, and a run fills none.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::ledger::Moment;

const TOPIC: &str = "__consumer_offsets";
const PATIENCE: Duration = Duration::from_secs(30);

/// Times, each list in order.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// By group, topic and partition.
    commits: HashMap<(String, String, i32), Vec<Moment>>,
    /// When the members of a group changed, or what they have.
    generations: HashMap<String, Vec<Moment>>,
}

impl History {
    /// Commits of a partition within a span, ends not included.
    pub(crate) fn commits_within(
        &self,
        of: &(String, String, i32),
        from: Moment,
        until: Moment,
    ) -> usize {
        let times = self.commits.get(of).map_or(&[][..], Vec::as_slice);
        let first = times.partition_point(|time| *time <= from);
        let end = times.partition_point(|time| *time < until);
        end.saturating_sub(first)
    }

    /// When the group was shared anew within a span.
    pub(crate) fn generations_within(
        &self,
        group: &str,
        from: Moment,
        until: Moment,
    ) -> impl Iterator<Item = Moment> {
        let times = self.generations.get(group).map_or(&[][..], Vec::as_slice);
        let within = move |time: &Moment| *time > from && *time <= until;
        times.iter().copied().filter(within)
    }
}

/// Reads what Kafka has of a run that began at `began`.
pub(crate) fn read(servers: &str, began: SystemTime) -> History {
    let began = began.duration_since(UNIX_EPOCH).map_or(0, millis);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "faults-reader")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(TOPIC), PATIENCE).unwrap();
    let mut list = TopicPartitionList::new();
    let mut left = HashMap::new();
    for partition in metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
    {
        let (low, high) = consumer
            .fetch_watermarks(TOPIC, partition.id(), PATIENCE)
            .unwrap();
        if low < high {
            list.add_partition_offset(TOPIC, partition.id(), Offset::Beginning)
                .unwrap();
            left.insert(partition.id(), high);
        }
    }
    consumer.assign(&list).unwrap();
    let mut history = History::default();
    while !left.is_empty() {
        let record = consumer
            .poll(PATIENCE)
            .expect("the records that were counted")
            .unwrap();
        if left.get(&record.partition()) == Some(&(record.offset() + 1)) {
            left.remove(&record.partition());
        }
        let written = record.timestamp().to_millis().unwrap_or(0) - began;
        let moment = Moment::try_from(written).unwrap_or(0) * 1_000_000;
        history.note(record.key().unwrap_or_default(), moment);
    }
    for times in history.commits.values_mut() {
        times.sort_unstable();
    }
    history
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl History {
    fn note(&mut self, mut key: &[u8], moment: Moment) {
        let key = &mut key;
        let Some(version) = take(key).map(i16::from_be_bytes) else {
            return;
        };
        let Some(group) = text(key) else { return };
        match version {
            0 | 1 => {
                if let (Some(topic), Some(partition)) = (text(key), take(key)) {
                    let of = (group, topic, i32::from_be_bytes(partition));
                    self.commits.entry(of).or_default().push(moment);
                }
            }
            2 => self.generations.entry(group).or_default().push(moment),
            _ => {}
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

fn text(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(i16::from_be_bytes(take(bytes)?)).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}
