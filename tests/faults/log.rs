//! What the log has when everything has ended: the events, the dead letters, the commits.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use levada::clock::Clock;
use levada::log::embedded::{self, EmbeddedLog};
use levada::log::kafka::{self, KafkaLog};
use levada::log::{EventLog, GroupId, Offset, Partition, StoredRecord, TopicName, TopicPartition};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::commits::{self, History};
use crate::nodes::{CHANNEL, NAMESPACE};
use crate::plan::Plan;
use crate::script::{ORDERINGS, Ordering};

/// Records that are read in one go.
const CHUNK: usize = 5_000;

/// What was read.
#[derive(Debug)]
pub(crate) struct Stored {
    /// How often each event is in the channel: more than once, if an answer was lost.
    pub(crate) copies: Vec<u16>,
    /// By partition, the events in the order in which their first copies stand, with offsets.
    pub(crate) order: Vec<Vec<(u32, i64)>>,
    /// By subscription, the events among its dead letters.
    pub(crate) letters: [HashSet<u32>; 3],
    /// By subscription and partition, the commit.
    pub(crate) commits: [Vec<Option<i64>>; 3],
    /// When Kafka took commits and shared partitions.
    pub(crate) history: History,
    /// Records that are no event of ours.
    pub(crate) odd: usize,
}

/// Reads the log of a run whose processes have ended.
pub(crate) async fn read(
    servers: Option<&str>,
    directory: &Path,
    plan: &Plan,
    began: SystemTime,
) -> Stored {
    let log: Arc<dyn EventLog> = match servers {
        Some(servers) => kafka_log(servers),
        None => {
            let settings = embedded::Settings {
                dir: directory.join("log"),
                ..embedded::Settings::default()
            };
            EmbeddedLog::open(settings, Clock::system()).unwrap()
        }
    };
    let mut stored = read_all(&*log, plan).await;
    if let Some(servers) = servers {
        let servers = servers.to_owned();
        let read = move || commits::read(&servers, began);
        stored.history = spawn_blocking(read).await.unwrap();
    }
    log.close(Duration::from_secs(5)).await.unwrap();
    stored
}

/// Waits until Kafka tells commits again, which it does some time after it listens.
pub(crate) async fn wait_for_commits(servers: &str) {
    let log = kafka_log(servers);
    for ordering in ORDERINGS {
        while log
            .committed(&group(ordering), &[at(&topic(""), 0)])
            .await
            .is_err()
        {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn kafka_log(servers: &str) -> Arc<KafkaLog> {
    let settings = kafka::Settings {
        bootstrap_servers: servers.to_owned(),
        ..kafka::Settings::default()
    };
    KafkaLog::connect(settings).unwrap()
}

fn at(topic: &TopicName, partition: i32) -> TopicPartition {
    TopicPartition {
        topic: topic.clone(),
        partition: Partition(partition),
    }
}

pub(crate) fn group(ordering: Ordering) -> GroupId {
    let name = ordering.name();
    GroupId(format!("kafka.{NAMESPACE}.{CHANNEL}.{NAMESPACE}.{name}").into())
}

async fn read_all(log: &dyn EventLog, plan: &Plan) -> Stored {
    let channel = topic("");
    let mut stored = Stored {
        copies: vec![0; plan.events as usize],
        order: Vec::new(),
        letters: Default::default(),
        commits: Default::default(),
        history: History::default(),
        odd: 0,
    };
    for records in read_topic(log, &channel).await {
        let mut order = Vec::new();
        for record in records {
            let number = number(&record);
            let Some(copies) = number.and_then(|n| stored.copies.get_mut(n as usize)) else {
                stored.odd += 1;
                continue;
            };
            *copies += 1;
            if *copies == 1 {
                order.extend(number.map(|number| (number, record.offset.0)));
            }
        }
        stored.order.push(order);
    }
    for ordering in ORDERINGS {
        let letters = topic(&format!(".{}.dead-letter", ordering.name()));
        let records = read_topic(log, &letters).await;
        let numbers = records.iter().flatten().filter_map(number);
        stored.letters[ordering.index()] = numbers.collect();
        stored.commits[ordering.index()] = committed(log, ordering, &channel, plan).await;
    }
    stored
}

pub(crate) fn topic(rest: &str) -> TopicName {
    let name = format!("knative-messaging-kafka.{NAMESPACE}.{CHANNEL}{rest}");
    TopicName::try_new(&name).unwrap()
}

/// All records, by partition.
async fn read_topic(log: &dyn EventLog, topic: &TopicName) -> Vec<Vec<StoredRecord>> {
    let marks = log.watermarks(topic).await.unwrap();
    let mut all = Vec::new();
    for (partition, marks) in (0..).zip(marks) {
        let at = at(topic, partition);
        let (mut records, mut next) = (Vec::new(), marks.low);
        while next < marks.high {
            let some = log.read(&at, next, CHUNK).await.unwrap();
            let Some(last) = some.last() else { break };
            next = Offset(last.offset.0 + 1);
            records.extend(some);
        }
        all.push(records);
    }
    all
}

fn number(record: &StoredRecord) -> Option<u32> {
    let id = record.record.headers.get(b"ce_id")?;
    std::str::from_utf8(id).ok()?.parse().ok()
}

async fn committed(
    log: &dyn EventLog,
    ordering: Ordering,
    channel: &TopicName,
    plan: &Plan,
) -> Vec<Option<i64>> {
    let partitions = i32::try_from(plan.partitions).unwrap();
    let partitions: Vec<_> = (0..partitions).map(|p| at(channel, p)).collect();
    let commits = log.committed(&group(ordering), &partitions).await;
    let commits = commits.unwrap().into_iter();
    commits
        .map(|commit| commit.map(|commit| commit.offset.0))
        .collect()
}
