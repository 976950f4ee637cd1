//! Kafka beside the broker: what tests write to topics, read from them, and a node to stop.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Log;

const LIMIT: Duration = Duration::from_secs(20);

/// The Kafka the tests were given; without one says that a test is skipped.
pub(crate) fn given() -> Option<Log> {
    let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok();
    if servers.is_none() {
        eprintln!("skipped: KAFKA_BOOTSTRAP_SERVERS is not set (tests/run sets it)");
    }
    servers.map(Log::Kafka)
}

/// The topic of a channel.
pub(crate) fn topic(namespace: &str, channel: &str) -> String {
    format!("knative-messaging-kafka.{namespace}.{channel}")
}

/// A record as it is in a topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) value: Option<Vec<u8>>,
}

impl Record {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| std::str::from_utf8(value).unwrap())
    }
}

fn config(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    config
}

/// Writes records to partition 0 of a topic.
pub(crate) fn produce(log: &Log, topic: &str, records: &[Record]) {
    let Log::Kafka(servers) = log else {
        panic!("records are written to Kafka only");
    };
    let producer: BaseProducer = config(servers).create().unwrap();
    for record in records {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header {
                key,
                value: Some(value),
            });
        }
        let mut sent = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(0)
            .headers(headers);
        if let Some(key) = &record.key {
            sent = sent.key(key);
        }
        if let Some(value) = &record.value {
            sent = sent.payload(value);
        }
        producer.send(sent).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LIMIT).unwrap();
}

/// Everything that is in a topic now.
pub(crate) fn read_all(log: &Log, topic: &str) -> Vec<Record> {
    let Log::Kafka(servers) = log else {
        panic!("records are read from Kafka only");
    };
    let mut config = config(servers);
    config.set("group.id", "levada-tests-reader");
    config.set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).unwrap();
    let mut left = metadata.topics()[0].partitions().len();
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut records = Vec::new();
    while left > 0 {
        match consumer.poll(LIMIT).expect("the topic's end or a record") {
            Ok(message) => records.push(Record {
                key: message.key().map(<[u8]>::to_vec),
                headers: message.headers().map_or_else(Vec::new, |headers| {
                    let copy = |header: Header<'_, &[u8]>| {
                        (
                            header.key.to_owned(),
                            header.value.unwrap_or_default().to_vec(),
                        )
                    };
                    headers.iter().map(copy).collect()
                }),
                value: message.payload().map(<[u8]>::to_vec),
            }),
            Err(KafkaError::PartitionEOF(_)) => left -= 1,
            Err(error) => panic!("{topic}: {error}"),
        }
    }
    records
}

/// Deletes every topic whose name begins with `prefix`; best effort, Kafka may be gone.
pub(crate) fn delete_topics(servers: &str, prefix: &str) {
    let Ok(admin) = config(servers).create::<AdminClient<DefaultClientContext>>() else {
        return;
    };
    let Ok(metadata) = admin.inner().fetch_metadata(None, Duration::from_secs(5)) else {
        return;
    };
    let names = metadata.topics().iter().map(|topic| topic.name());
    let names: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
    if names.is_empty() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let options = AdminOptions::new().request_timeout(Some(LIMIT));
    runtime.block_on(admin.delete_topics(&names, &options)).ok();
}

/// A Kafka node of a test's own, to be stopped and started; killed when dropped.
pub(crate) struct Node {
    directory: tempfile::TempDir,
    port: u16,
}

impl Node {
    /// A node that does not run yet; `None`, with the reason on stderr, where none can be started.
    pub(crate) fn prepare() -> Option<Self> {
        given()?;
        let check = script().arg("check").output().unwrap();
        if !check.status.success() {
            let why = String::from_utf8_lossy(&check.stderr);
            eprintln!("skipped: no Kafka node can be started here: {why}");
            return None;
        }
        // Free now, and out of the range that outgoing connections use.
        let mut ports = (0..).map(|_| rand::random_range(20_000..32_000));
        let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
        Some(Self {
            directory: tempfile::tempdir().unwrap(),
            port: ports.find(free)?,
        })
    }

    pub(crate) fn log(&self) -> Log {
        Log::Kafka(format!("127.0.0.1:{}", self.port))
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("node")
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(&self) {
        self.run(&["start"], &[&self.port.to_string()]);
    }

    /// Ends it in order; [`Node::start`] brings it back with its data.
    pub(crate) fn stop(&self) {
        self.run(&["stop"], &[]);
    }

    /// `kill -9`; [`Node::start`] brings it back with its data.
    pub(crate) fn kill(&self) {
        self.run(&["kill"], &[]);
    }

    fn run(&self, before: &[&str], after: &[&str]) {
        let mut command = script();
        command.args(before).arg(self.data()).args(after);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        script().arg("kill").arg(self.data()).output().ok();
    }
}

fn script() -> Command {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/run"))
}
