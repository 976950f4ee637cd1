//! What can be set about Kafka, and the client properties that follow from it.
//!
//! A client's properties are built in three layers: what is good for Levada, then what the user
//! sets, then what a guarantee rests on. The last layer is not the user's to change: a property
//! of it is refused at start rather than quietly overruled.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use super::properties::{self, is_secret};
use crate::log::{GroupSpec, LogError};

/// How members of a group agree on who reads what (`group.protocol`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// Cooperative-sticky, with static members: the default, for every Kafka.
    #[default]
    Classic,
    /// KIP-848, Kafka 4.0 and later. Members are dynamic: the broker refuses a static one that
    /// comes back after a crash until its session has timed out.
    Consumer,
}

/// Where Kafka is and how it is used.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// Further librdkafka properties by their plain names, such as `security.protocol`.
    pub properties: BTreeMap<String, String>,
    /// How groups are formed.
    pub group_protocol: GroupProtocol,
    /// `client.id`, the name under which the broker logs us.
    pub client_id: String,
    /// How long an append may take before it fails, at least a second. librdkafka looks once a
    /// second, so the answer comes up to a second later.
    pub message_timeout: Duration,
    /// How long an administrative call may take.
    pub operation_timeout: Duration,
    /// The largest event that is taken; records may be twice that, as dead letters are.
    pub max_event_bytes: u32,
    /// Appends that may wait at once; more are refused as [`LogError::Overloaded`].
    pub append_queue_records: u32,
    /// Bytes that may wait to be appended at once, at least the largest record.
    pub append_queue_bytes: u64,
    /// What all subscriptions together may fetch ahead, in bytes. A partition has at least
    /// 64 KiB and at most 4 MiB of it, and one record always gets through.
    pub fetch_memory: u64,
    /// Threads that serve group events and errors of all consumers together.
    pub poll_threads: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bootstrap_servers: "localhost:9092".to_owned(),
            properties: BTreeMap::new(),
            group_protocol: GroupProtocol::default(),
            client_id: "levada".to_owned(),
            message_timeout: Duration::from_secs(7),
            operation_timeout: Duration::from_secs(5),
            max_event_bytes: 1024 * 1024,
            append_queue_records: 20_000,
            append_queue_bytes: 64 * 1024 * 1024,
            fetch_memory: 64 * 1024 * 1024,
            poll_threads: 2,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): (&String, &String)| {
            let value = if is_secret(name) { "***" } else { value };
            (name.clone(), value.to_owned())
        };
        let properties: BTreeMap<_, _> = self.properties.iter().map(shown).collect();
        f.debug_struct("Settings")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &properties)
            .field("group_protocol", &self.group_protocol)
            .field("client_id", &self.client_id)
            .field("message_timeout", &self.message_timeout)
            .field("operation_timeout", &self.operation_timeout)
            .field("max_event_bytes", &self.max_event_bytes)
            .field("append_queue_records", &self.append_queue_records)
            .field("append_queue_bytes", &self.append_queue_bytes)
            .field("fetch_memory", &self.fetch_memory)
            .field("poll_threads", &self.poll_threads)
            .finish()
    }
}

/// Kafka's own bound on `message.max.bytes` in librdkafka.
const LARGEST_MESSAGE: u64 = 1_000_000_000;

impl Settings {
    /// The largest record: an event with its headers twice, as retry and dead-letter records are.
    pub(super) fn max_record_bytes(&self) -> u64 {
        u64::from(self.max_event_bytes) * 2 + 128 * 1024
    }

    /// Refuses what would break a guarantee.
    pub(super) fn check(&self) -> Result<(), LogError> {
        if self.bootstrap_servers.trim().is_empty() {
            return Err(LogError::Refused(
                "no Kafka broker is named: give bootstrap-servers as host:port".into(),
            ));
        }
        if self.message_timeout < Duration::from_secs(1) {
            return Err(LogError::Refused(format!(
                "a message timeout of {:?} is too short: give at least 1 s",
                self.message_timeout
            )));
        }
        if self.max_record_bytes() > LARGEST_MESSAGE {
            return Err(LogError::Refused(format!(
                "events of {} bytes are too large for Kafka: at most {}",
                self.max_event_bytes,
                (LARGEST_MESSAGE - 128 * 1024) / 2
            )));
        }
        self.properties
            .iter()
            .try_for_each(|(name, value)| properties::check(name, value))
    }

    /// What every client has in common, before the user's properties.
    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", &self.client_id)
            // A broker that is back is found at once, and timeouts are looked at often: the
            // client's scan for them sleeps as long as its reconnect does.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("socket.timeout.ms", "5000")
            .set("socket.connection.setup.timeout.ms", "5000");
        // Who asks for its debug contexts wants to see what they say.
        config.set_log_level(if self.properties.contains_key("debug") {
            RDKafkaLogLevel::Debug
        } else {
            RDKafkaLogLevel::Notice
        });
        config
    }

    fn with_user(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// The producer's properties.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.base();
        config
            // Batches form by themselves while requests are in flight; waiting for one would be
            // the latency of every event.
            .set("linger.ms", "0")
            // Else records without a key scatter, a small batch to each partition.
            .set("sticky.partitioning.linger.ms", "5")
            .set("topic.metadata.propagation.max.ms", "1000");
        let mut config = self.with_user(config);
        let largest = self.max_record_bytes();
        // A topic refuses a whole batch for its size; channel topics take the largest event and
        // 64 KiB. A single record may always be larger.
        let batch = (u64::from(self.max_event_bytes) + 60 * 1024).min(1_000_000);
        let queue_kib = self.append_queue_bytes.max(largest * 2).div_ceil(1024);
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("allow.auto.create.topics", "false")
            .set("batch.size", batch.to_string())
            .set("message.max.bytes", largest.to_string())
            .set("message.timeout.ms", millis(self.message_timeout))
            .set(
                "queue.buffering.max.messages",
                self.append_queue_records.max(1).to_string(),
            )
            .set("queue.buffering.max.kbytes", queue_kib.to_string());
        config
    }

    /// The properties of the producer that sends each record in a batch of its own.
    pub(super) fn single_producer(&self) -> ClientConfig {
        let mut config = self.producer();
        config.set("batch.num.messages", "1");
        config
    }

    /// The properties of the client for administrative calls.
    pub(super) fn admin(&self) -> ClientConfig {
        let mut config = self.with_user(self.base());
        config.set("allow.auto.create.topics", "false");
        // Nothing takes this client's log lines off its queue, so there must be none.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config
    }

    /// The properties of a client that asks for offsets and metadata and joins nothing.
    pub(super) fn metadata(&self) -> ClientConfig {
        let mut config = self.with_user(self.base());
        no_commits(&mut config);
        config.set("auto.offset.reset", "error");
        config
    }

    /// The properties of a client that looks at a group's commits or writes them.
    pub(super) fn idle_group(&self, group: &str) -> ClientConfig {
        let mut config = self.metadata();
        config.set("group.id", group);
        if self.group_protocol == GroupProtocol::Classic {
            // It has no session; this is how long it waits for the group's coordinator.
            config.set("session.timeout.ms", "6000");
        }
        config
    }

    /// The properties of a client that reads single partitions, without a group's commits.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.base();
        config
            // The broker waits this long before it says that the end is reached.
            .set("fetch.wait.max.ms", "5")
            .set("fetch.queue.backoff.ms", "2");
        let mut config = self.with_user(config);
        no_commits(&mut config);
        config
            // Assigning needs a group's name, though nobody joins it and nothing is committed.
            .set("group.id", format!("{}-reader", self.client_id))
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.message.max.bytes", "1048576");
        config
    }

    /// The properties of a group member that may fetch `ahead` bytes of each partition.
    pub(super) fn member(&self, spec: &GroupSpec, ahead: u64) -> ClientConfig {
        let mut config = self.base();
        config
            // A partition that is new, or had to wait, is fetched only after the fetch that is on
            // its way, which idles for so long at most: 500 ms made retries late.
            .set("fetch.wait.max.ms", "100")
            // With small queues the default of a second would be the pace of every drain.
            .set("fetch.queue.backoff.ms", "2")
            // Partitions added to a topic, and a topic's end, are seen within this time.
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("max.poll.interval.ms", "60000");
        if self.group_protocol == GroupProtocol::Classic {
            config
                .set("session.timeout.ms", "10000")
                .set("heartbeat.interval.ms", "3000");
        }
        let mut config = self.with_user(config);
        no_commits(&mut config);
        config
            .set("group.id", &*spec.group.0)
            .set("auto.offset.reset", "error")
            .set("queued.max.messages.kbytes", (ahead / 1024).to_string())
            .set("queued.min.messages", "1000")
            .set(
                "fetch.message.max.bytes",
                (ahead / 2).clamp(32 * 1024, 1024 * 1024).to_string(),
            );
        match self.group_protocol {
            GroupProtocol::Classic => {
                config.set("partition.assignment.strategy", "cooperative-sticky");
                if let Some(instance) = &spec.instance {
                    config.set("group.instance.id", instance);
                }
            }
            GroupProtocol::Consumer => {
                config.set("group.protocol", "consumer");
            }
        }
        config
    }

    /// How many bytes each partition of a new member may fetch ahead, so that `memberships` of
    /// `partitions` partitions each stay within the fetch memory.
    pub(super) fn fetch_ahead(&self, memberships: usize, partitions: usize) -> u64 {
        let queues = memberships.max(1).saturating_mul(partitions.max(1));
        let share = self.fetch_memory / u64::try_from(queues).unwrap_or(u64::MAX);
        share.clamp(64 * 1024, 4 * 1024 * 1024)
    }
}

fn no_commits(config: &mut ClientConfig) {
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("allow.auto.create.topics", "false");
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::GroupId;

    fn with(name: &str, value: &str) -> Settings {
        Settings {
            properties: [(name.to_owned(), value.to_owned())].into(),
            ..Settings::default()
        }
    }

    #[test]
    fn guarantee_1_the_user_overrides_what_is_good_but_not_what_is_promised() {
        let settings = with("linger.ms", "2");
        let config = settings.producer();
        assert_eq!(config.get("linger.ms"), Some("2"));
        assert_eq!(config.get("acks"), Some("all"));
        assert_eq!(config.get("message.max.bytes"), Some("2228224"));
    }

    #[test]
    fn only_classic_members_have_an_instance_and_a_session_timeout() {
        let spec = GroupSpec {
            group: GroupId("g".into()),
            topics: Vec::new(),
            instance: Some("one".to_owned()),
        };
        let classic = Settings::default().member(&spec, 512 * 1024);
        assert_eq!(classic.get("group.instance.id"), Some("one"));
        assert_eq!(classic.get("queued.max.messages.kbytes"), Some("512"));
        let settings = Settings {
            group_protocol: GroupProtocol::Consumer,
            ..Settings::default()
        };
        let consumer = settings.member(&spec, 512 * 1024);
        for name in [
            "group.instance.id",
            "session.timeout.ms",
            "heartbeat.interval.ms",
            "partition.assignment.strategy",
        ] {
            assert_eq!(consumer.get(name), None, "{name}");
        }
    }

    #[test]
    fn fetch_memory_is_shared_within_bounds() {
        let settings = Settings::default();
        let mib = 1024 * 1024;
        assert_eq!(settings.fetch_ahead(1, 4), 4 * mib);
        assert_eq!(settings.fetch_ahead(8, 8), mib);
        assert_eq!(settings.fetch_ahead(100, 8), 64 * mib / 800);
        assert_eq!(settings.fetch_ahead(0, 0), 4 * mib);
        assert_eq!(settings.fetch_ahead(usize::MAX, 9), 64 * 1024);
    }

    #[test]
    fn secrets_are_not_shown() {
        let settings = with("sasl.password", "hunter2");
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert!(is_secret("ssl.key.pem") && !is_secret("security.protocol"));
    }
}
