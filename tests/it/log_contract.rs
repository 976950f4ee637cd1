//! What every event log must do, whichever it is: the same cases run on each implementation.
//!
//! A case is an async function over a log and a source of fresh names, so that cases may share
//! one log (a Kafka cluster). [`log_contract_tests`] makes a test of each case:
//!
//! ```ignore
//! async fn open() -> Fixture { Fixture::new(log, directory_to_keep) }
//! log_contract_tests!(open);                                  // or
//! log_contract_tests!(open, #[ignore = "needs a broker"]);
//! ```

#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "helpers of tests, not tests themselves, and not an interface"
)]

pub(crate) mod embedded;
mod embedded_crash;
mod embedded_disk_full;
mod embedded_speed;
pub mod groups;
pub mod member;
pub mod members;
pub mod records;
pub mod topics;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use levada::log::{
    EventLog, GroupId, Headers, LogError, Offset, Partition, Position, Record, StoredRecord,
    Target, TopicName, TopicPartition, TopicSpec,
};

/// Nothing here takes this long unless it hangs.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A log under test and what must live as long as it.
pub struct Fixture {
    /// The log.
    pub log: Arc<dyn EventLog>,
    keep: Box<dyn Any + Send>,
}

impl Fixture {
    /// A log and what must live as long as it, such as its directory.
    pub fn new(log: Arc<dyn EventLog>, keep: impl Any + Send) -> Self {
        let keep = Box::new(keep);
        Self { log, keep }
    }

    /// Runs one case under the time limit, then closes the log.
    pub async fn run<F>(self, case: F)
    where
        F: AsyncFnOnce(&dyn EventLog, &mut Names),
    {
        within("the case", case(&*self.log, &mut Names::random())).await;
        self.log.close(LIMIT).await.unwrap();
        drop(self.log);
        drop(self.keep);
    }
}

/// Names that no other test uses.
#[derive(Debug)]
pub struct Names {
    run: u64,
    next: u32,
}

impl Names {
    /// A fresh source of names.
    pub fn random() -> Self {
        Self {
            run: rand::random(),
            next: 0,
        }
    }

    /// A topic name that is not in use.
    pub fn topic(&mut self) -> TopicName {
        TopicName::try_new(&self.name("topic")).unwrap()
    }

    /// A group that has no members and no commits.
    pub fn group(&mut self) -> GroupId {
        GroupId(self.name("group").into())
    }

    /// Any other name.
    pub fn name(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("contract-{:016x}-{kind}-{}", self.run, self.next)
    }
}

/// Waits for `work`, at most [`LIMIT`].
pub async fn within<T>(what: impl fmt::Display, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come within {LIMIT:?}"))
}

/// A topic as the cases want it unless they say otherwise.
pub fn spec(name: &TopicName, partitions: u32) -> TopicSpec {
    TopicSpec {
        name: name.clone(),
        partitions,
        replicas: 1,
        retention: None,
        max_record_bytes: 1_114_112,
        segments: None,
    }
}

/// Makes a new topic.
pub async fn new_topic(log: &dyn EventLog, names: &mut Names, partitions: u32) -> TopicName {
    let name = names.topic();
    log.create_topic(&spec(&name, partitions)).await.unwrap();
    name
}

/// Partition `number` of `topic`.
pub fn part(topic: &TopicName, number: i32) -> TopicPartition {
    TopicPartition {
        topic: topic.clone(),
        partition: Partition(number),
    }
}

/// A record with this value, no key and no headers.
pub fn valued(value: impl Into<Bytes>) -> Record {
    Record {
        value: Some(value.into()),
        ..Record::default()
    }
}

/// Headers of these names and values.
pub fn headers(pairs: &[(&str, &str)]) -> Headers {
    let mut builder = Headers::builder(pairs.len(), 64);
    for (name, value) in pairs {
        builder.push(name.as_bytes(), value.as_bytes());
    }
    builder.finish()
}

/// Appends and waits for the answer.
pub async fn append(
    log: &dyn EventLog,
    topic: &TopicName,
    target: Target,
    record: Record,
) -> Result<Position, LogError> {
    within("an append", log.append(topic, target, record)).await
}

/// Appends the numbers of `range` as values to one partition, in order.
pub async fn append_numbers(
    log: &dyn EventLog,
    to: &TopicPartition,
    range: std::ops::Range<u32>,
) -> Vec<Offset> {
    let target = Target::Partition(to.partition);
    let waiting: Vec<_> = range
        .map(|n| log.append(&to.topic, target, valued(n.to_string())))
        .collect();
    let answers = within("the appends", join_all(waiting)).await;
    answers.into_iter().map(|a| a.unwrap().offset).collect()
}

/// Reads a partition from `from`, or its beginning where that is later, to its end.
pub async fn read_all(
    log: &dyn EventLog,
    partition: &TopicPartition,
    from: i64,
) -> Vec<StoredRecord> {
    let marks = log.watermarks(&partition.topic).await.unwrap()[partition.partition.index()];
    let (mut records, mut next) = (Vec::new(), Offset(from).max(marks.low));
    while next < marks.high {
        let mut more = within("a read", log.read(partition, next, 1000))
            .await
            .unwrap();
        let last = more
            .last()
            .expect("a read below the high watermark finds records");
        next = Offset(last.offset.0 + 1);
        records.append(&mut more);
    }
    records
}

/// The values as text.
pub fn texts(records: &[StoredRecord]) -> Vec<String> {
    let text = |r: &StoredRecord| String::from_utf8(r.record.value.clone().unwrap().to_vec());
    records.iter().map(|r| text(r).unwrap()).collect()
}

/// The numbers of `range` as text.
pub fn number_texts(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Makes a test of every case of the contract, on the log that `$open` opens.
macro_rules! log_contract_tests {
    ($open:path $(, #[$attribute:meta])*) => {
        $crate::log_contract::log_contract_tests!(@ $open, ($(#[$attribute])*),
            topics::a_topic_is_made_described_and_left_as_it_is,
            topics::an_unknown_topic_is_said_to_be_unknown,
            topics::a_topic_can_be_deleted_and_deleting_again_is_fine,
            topics::trimming_moves_the_low_watermark_of_that_partition_only,
            topics::trimming_lower_again_and_beyond_the_end_moves_nothing,
            topics::offsets_are_found_by_time,
            topics::a_probe_is_answered,
            topics::closing_waits_for_what_was_appended_and_then_nothing_is_taken,
            records::offsets_of_a_partition_are_consecutive_from_zero,
            records::a_key_decides_the_partition_as_in_kafka,
            records::records_without_a_key_are_stored_somewhere,
            records::what_was_appended_comes_back_unchanged,
            records::reads_begin_where_asked_and_end_at_the_end,
            records::a_record_that_is_too_large_is_refused_and_harms_no_other,
            records::a_partition_that_does_not_exist_is_refused,
            groups::what_was_committed_is_found_and_nothing_else,
            groups::a_commit_replaces_offset_and_metadata,
            groups::metadata_is_taken_up_to_4095_characters,
            groups::groups_know_nothing_of_each_other,
            groups::a_forgotten_group_has_no_commits,
            groups::only_a_group_without_members_takes_idle_commits,
            members::a_member_reads_its_partitions_in_order_and_at_most_what_it_asks_for,
            members::a_member_starts_where_it_is_told,
            members::a_member_is_woken_by_new_records,
            members::what_is_not_taken_stays_where_it_is,
            members::a_successor_goes_on_at_the_commit,
            members::a_member_reads_several_topics,
            members::two_groups_read_the_same_records,
            members::a_static_member_that_stays_is_back_at_once,
        );
    };
    (@ $open:path, $attributes:tt, $($module:ident :: $case:ident,)*) => {
        $($crate::log_contract::log_contract_tests!(% $open, $attributes, $module, $case);)*
    };
    (% $open:path, ($($attributes:tt)*), $module:ident, $case:ident) => {
        #[tokio::test]
        $($attributes)*
        async fn $case() {
            // None: the log to test is not here, as the opener has said.
            let fixture: Option<$crate::log_contract::Fixture> = $open().await.into();
            if let Some(fixture) = fixture {
                fixture.run($crate::log_contract::$module::$case).await;
            }
        }
    };
}
pub(crate) use log_contract_tests;
