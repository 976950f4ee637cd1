//! The configuration: every part's settings, from flags, environment, file and defaults.
//!
//! A value is taken from the first place that has it: flag, environment, file, default. Every
//! option stands once in the table [`OPTIONS`]; its flag, its variable, its place in the file,
//! the default file and the help text all come from there. Key `admin.listen` is
//! `--admin-listen`, `LEVADA_ADMIN_LISTEN`, and `listen` under `[admin]`.

mod error;
mod file;
mod load;
mod options;
mod print;
mod value;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use error::{ConfigError, ConfigErrors};
pub use load::{Inputs, Loaded, Source, load};
pub use options::{OPTIONS, OptionDef};
pub use print::{default_file, in_force};
pub(crate) use value::take_name;
pub use value::{Raw, Role, Roles, Secret, Value};

use crate::journal::postgres;
use crate::log::kafka::GroupProtocol;
use crate::registry::Templates;
use crate::{admin, health, telemetry};

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where producers post events.
    pub listen: SocketAddr,
    /// Where state is kept: the embedded log, member ids.
    pub data_dir: PathBuf,
    /// Files and directories with manifests.
    pub manifests: Vec<PathBuf>,
    /// Kafka's addresses; none: the embedded log.
    pub bootstrap_servers: Vec<String>,
    /// What this node does.
    pub roles: Roles,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Whether a stopping node gives up its place in its groups at once.
    pub leave: bool,
    /// Threads that run tasks; 0: one a core.
    pub worker_threads: usize,
    /// What the ingress takes.
    pub ingress: IngressConfig,
    /// How Kafka is used.
    pub kafka: KafkaConfig,
    /// What holds for every subscription that does not say otherwise.
    pub delivery: DeliveryConfig,
    /// How much memory the parts may take.
    pub memory: MemoryConfig,
    /// Names of topics and groups.
    pub names: NamesConfig,
    /// What became of messages.
    pub journal: JournalConfig,
    /// The admin port.
    pub admin: admin::Settings,
    /// When a subscription counts as failing, degraded, slow, idle.
    pub health: health::Thresholds,
    /// Diagnostics.
    pub log: telemetry::Settings,
}

/// Limits of the ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressConfig {
    /// Attributes and data of one event, in bytes.
    pub max_event_bytes: usize,
    /// Connections at one time.
    pub max_connections: usize,
    /// How long the log may take to store an event before it is answered 500.
    pub append_timeout: Duration,
}

/// How Kafka is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Which rebalance protocol groups use.
    pub group_protocol: GroupProtocol,
    /// Properties of the client library, as they are.
    pub properties: BTreeMap<String, String>,
}

/// Defaults and bounds of deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryConfig {
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// The longest `Retry-After` that is obeyed when the manifest does not say.
    pub retry_after_max: Duration,
    /// A shorter delay waits in memory, a longer one in the retry topic.
    pub inline_retry_max: Duration,
}

/// How much memory the parts may take, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Events that were taken from the log and are not finished, over all subscriptions.
    pub in_flight_bytes: usize,
    /// Events that were fetched ahead, over all subscriptions.
    pub fetch_bytes: usize,
    /// The index of what waits for a retry.
    pub parked_index_bytes: usize,
}

/// Names of topics and groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamesConfig {
    /// A channel's topic, with `{namespace}` and `{name}` of the channel.
    pub channel_topic: String,
    /// A subscription's group, with its `{namespace}` and `{uid}`, `{channel}`, `{subscription}`.
    pub group: String,
}

/// What is kept of messages and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// Where.
    pub store: JournalStore,
    /// The database, for PostgreSQL.
    pub url: Secret,
    /// How long.
    pub retention: Duration,
    /// How much, in bytes.
    pub max_bytes: usize,
}

/// Where the journal is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalStore {
    /// In SQLite files under the data directory.
    Sqlite,
    /// In PostgreSQL, where all nodes see it.
    Postgres,
    /// Nowhere.
    Off,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            store: JournalStore::Sqlite,
            url: Secret::default(),
            retention: Duration::from_secs(7 * 86_400),
            max_bytes: 20 * 1024 * MIB,
        }
    }
}

const MIB: usize = 1024 * 1024;

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            data_dir: PathBuf::from("./levada-data"),
            manifests: Vec::new(),
            bootstrap_servers: Vec::new(),
            roles: Roles::default(),
            drain_timeout: Duration::from_secs(20),
            leave: false,
            worker_threads: 0,
            ingress: IngressConfig::default(),
            kafka: KafkaConfig::default(),
            delivery: DeliveryConfig::default(),
            memory: MemoryConfig::default(),
            names: NamesConfig::default(),
            journal: JournalConfig::default(),
            admin: admin::Settings::default(),
            health: health::Thresholds::default(),
            log: telemetry::Settings::default(),
        }
    }
}

impl Default for IngressConfig {
    fn default() -> Self {
        Self {
            max_event_bytes: MIB,
            max_connections: 10_000,
            append_timeout: Duration::from_secs(8),
        }
    }
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            retry_after_max: Duration::from_secs(600),
            inline_retry_max: Duration::from_secs(1),
        }
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            in_flight_bytes: 256 * MIB,
            fetch_bytes: 64 * MIB,
            parked_index_bytes: 128 * MIB,
        }
    }
}

impl Default for NamesConfig {
    fn default() -> Self {
        Self {
            channel_topic: "knative-messaging-kafka.{namespace}.{name}".into(),
            group: "kafka.{namespace}.{channel}.{uid}".into(),
        }
    }
}

impl Config {
    /// What does not fit together, each with what to do.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.bootstrap_servers.is_empty() && self.roles != Roles::all() {
            problems.push(
                "roles can be split only over nodes that share Kafka: set bootstrap-servers, or \
                 leave roles out to run everything on the embedded log"
                    .to_owned(),
            );
        }
        if self.listen == self.admin.listen && self.listen.port() != 0 {
            problems.push(format!(
                "listen and admin.listen are both {}: give them different ports",
                self.listen
            ));
        }
        if let Err(error) = self.admin.check(self.admin.listen) {
            problems.push(error.to_string());
        }
        problems.extend(self.journal.problems());
        if self.roles.is_only(Role::Admin) && self.journal.store != JournalStore::Postgres {
            problems.push(
                "a node with the role admin alone shows what others deliver: set journal.store to postgres, \
                 or add the role dispatcher"
                    .to_owned(),
            );
        }
        problems.extend(self.shares());
        problems.extend(self.zeroes());
        problems.extend(self.names.problems());
        problems
    }

    /// Shares that are none.
    fn shares(&self) -> Vec<String> {
        let shares = [
            ("health.failing-below", self.health.failing_below),
            ("health.degraded-below", self.health.degraded_below),
        ];
        let shares = shares.iter().filter(|(_, percent)| *percent > 100);
        shares
            .map(|(key, _)| format!("{key} is more than 100 per cent"))
            .collect()
    }

    /// Bounds that nothing could pass.
    fn zeroes(&self) -> Vec<String> {
        let counts = [
            ("max-event-bytes", self.ingress.max_event_bytes),
            ("max-connections", self.ingress.max_connections),
            ("memory.in-flight-bytes", self.memory.in_flight_bytes),
            ("memory.fetch-bytes", self.memory.fetch_bytes),
            ("parked-index-bytes", self.memory.parked_index_bytes),
            ("journal.max-bytes", self.journal.max_bytes),
        ];
        let times = [
            ("append-timeout", self.ingress.append_timeout),
            ("delivery.connect-timeout", self.delivery.connect_timeout),
        ];
        let counts = counts.iter().filter(|(_, n)| *n == 0).map(|(key, _)| key);
        let times = times
            .iter()
            .filter(|(_, t)| t.is_zero())
            .map(|(key, _)| key);
        counts
            .chain(times)
            .map(|key| format!("{key} is zero, with which nothing could pass"))
            .collect()
    }
}

impl JournalConfig {
    fn problems(&self) -> Option<String> {
        match (self.store, self.url.is_empty()) {
            (JournalStore::Postgres, true) => Some(
                "journal.store is postgres, but journal.url is missing: best set by the variable LEVADA_JOURNAL_URL"
                    .to_owned(),
            ),
            (JournalStore::Postgres, false) => {
                let address = self.url.reveal().parse::<postgres::Address>();
                address.err().map(|error| format!("journal.url: {error}"))
            }
            (JournalStore::Sqlite, false) => Some(
                "journal.url is set, but journal.store is sqlite: set it to postgres".to_owned(),
            ),
            (JournalStore::Sqlite, true) | (JournalStore::Off, _) => None,
        }
    }
}

impl NamesConfig {
    fn problems(&self) -> Vec<String> {
        let topic = Templates::check_topic(&self.channel_topic).err();
        let group = Templates::check_group(&self.group).err();
        let topic = topic.map(|error| format!("names.channel-topic: {error}"));
        let group = group.map(|error| format!("names.group: {error}"));
        topic.into_iter().chain(group).collect()
    }
}

#[cfg(test)]
mod tests;
