//! From the configuration to the parts: their settings, the log, the data directory.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::admin::ServeError;
use crate::clock::Clock;
use crate::config::{Config, JournalStore, Role};
use crate::journal::postgres::{self, AddressError, PostgresReader};
use crate::journal::{Bounds, Keeper, Reader, Recorder, Writer, sqlite};
use crate::log::embedded::{self, EmbeddedLog};
use crate::log::kafka::{self, GroupProtocol, KafkaLog};
use crate::log::{EventLog, LogError};
use crate::manifest::DeliveryOptions;
use crate::registry::{TemplateError, Templates};
use crate::{delivery, dispatch, ingress, registry};

/// A node cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(
        "{option} {address} cannot be listened on: {source}; stop what holds it, or choose another port"
    )]
    Listen {
        /// The option's name.
        option: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The data directory belongs to a running process.
    #[error(
        "the data directory {} is in use by another process: stop that one, or choose another directory with --data-dir",
        .0.display()
    )]
    InUse(PathBuf),
    /// The data directory cannot be used.
    #[error("{} in the data directory cannot be used: {source}", path.display())]
    DataDir {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The embedded log cannot be opened.
    #[error(transparent)]
    Embedded(#[from] embedded::OpenError),
    /// Kafka's settings are refused.
    #[error("the Kafka settings are refused: {0}")]
    Kafka(LogError),
    /// The admin port is refused.
    #[error(transparent)]
    Admin(#[from] ServeError),
    /// The journal cannot be opened.
    #[error("{0}; mend it, or start with --journal-store off")]
    Journal(#[from] sqlite::StoreError),
    /// The journal's database cannot be meant.
    #[error("journal.url: {0}")]
    JournalUrl(#[from] AddressError),
    /// There is no thread for the journal.
    #[error("the system has no thread for the journal: {0}")]
    Thread(io::Error),
    /// A template for names is refused.
    #[error(transparent)]
    Names(#[from] TemplateError),
    /// A metric is there twice.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

pub(super) async fn bind(
    option: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen {
            option,
            address,
            source,
        })
}

/// This node's place on disk and its name.
#[derive(Debug)]
pub(super) struct Node {
    dir: PathBuf,
    /// Stable over restarts: static members are known by it.
    id: String,
    /// Held while the process lives; the system frees it however the process ends.
    _lock: File,
}

impl Node {
    /// Makes or takes the data directory.
    pub(super) fn open(dir: &Path) -> Result<Self, StartError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StartError::DataDir { path, source }
        };
        fs::create_dir_all(dir).map_err(failed(dir))?;
        let path = dir.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let lock = lock.map_err(failed(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StartError::InUse(dir.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(&path)(source)),
        }
        let path = dir.join("node-id");
        let id = match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            Ok(_) => new_id(&path).map_err(failed(&path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                new_id(&path).map_err(failed(&path))?
            }
            Err(error) => return Err(failed(&path)(error)),
        };
        Ok(Self {
            dir: dir.to_owned(),
            id,
            _lock: lock,
        })
    }

    /// Its name, the same after a restart.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Writes the addresses in force to `addresses.json`, for whoever started this process with
    /// port 0.
    pub(super) fn tell(
        &self,
        ingress: Option<SocketAddr>,
        admin: Option<SocketAddr>,
    ) -> Result<(), StartError> {
        let path = self.dir.join("addresses.json");
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        let json = serde_json::json!({ "ingress": text(ingress), "admin": text(admin) });
        replace(&path, &format!("{json}\n")).map_err(|source| StartError::DataDir { path, source })
    }
}

fn new_id(path: &Path) -> io::Result<String> {
    let id = uuid::Uuid::new_v4().simple().to_string();
    replace(path, &format!("{id}\n"))?;
    Ok(id)
}

/// Nobody ever reads half of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, text)?;
    fs::rename(&part, path)
}

/// The registry of all metrics, with those of the process (CPU, memory, open files) on it.
pub(super) fn metrics() -> Result<prometheus::Registry, StartError> {
    let metrics = prometheus::Registry::new();
    #[cfg(target_os = "linux")]
    metrics.register(Box::new(
        prometheus::process_collector::ProcessCollector::for_self(),
    ))?;
    Ok(metrics)
}

/// The journal's ends: where it is told, where it is asked, and its thread.
pub(super) struct Journal {
    pub(super) recorder: Recorder,
    pub(super) reader: Option<Arc<dyn Reader>>,
    pub(super) writer: Option<Writer>,
}

/// Opens the journal that the configuration names. Nodes that deliver write to it.
pub(super) fn journal(
    config: &Config,
    node: &str,
    clock: &Clock,
    metrics: &prometheus::Registry,
) -> Result<Journal, StartError> {
    let delivers = config.roles.has(Role::Dispatcher);
    let recorder = if delivers && config.journal.store != JournalStore::Off {
        Recorder::new(clock.clone(), Bounds::default(), metrics)?
    } else {
        Recorder::off()
    };
    let (age, bytes) = (config.journal.retention, config.journal.max_bytes as u64);
    let reader: Option<Arc<dyn Reader>>;
    let keeper: Option<Box<dyn Keeper>>;
    match config.journal.store {
        JournalStore::Postgres => {
            let address = config.journal.url.reveal().parse()?;
            reader = Some(Arc::new(PostgresReader::new(&address, recorder.queued())));
            let limits = postgres::Limits::new(age, bytes);
            let store = postgres::Store::new(&address, node, limits).map_err(StartError::Thread)?;
            keeper = Some(Box::new(store));
        }
        JournalStore::Sqlite if delivers => {
            let limits = sqlite::Limits {
                age,
                bytes,
                ..sqlite::Limits::default()
            };
            let store = sqlite::Store::open(&config.data_dir.join("journal"), node, limits)?;
            reader = Some(Arc::new(store.reader(recorder.queued())));
            keeper = Some(Box::new(store));
        }
        JournalStore::Sqlite | JournalStore::Off => (reader, keeper) = (None, None),
    }
    let writer = match keeper {
        Some(keeper) => recorder.write_to(keeper).map_err(StartError::Thread)?,
        None => None,
    };
    Ok(Journal {
        recorder,
        reader,
        writer,
    })
}

/// Where the embedded log is, if that is the log.
pub(crate) fn embedded_dir(config: &Config) -> Option<PathBuf> {
    let embedded = config.bootstrap_servers.is_empty();
    embedded.then(|| config.data_dir.join("log"))
}

/// Opens the log that the configuration names.
pub(crate) fn open_log(config: &Config, clock: &Clock) -> Result<Arc<dyn EventLog>, StartError> {
    if let Some(dir) = embedded_dir(config) {
        let settings = embedded::Settings {
            dir,
            ..embedded::Settings::default()
        };
        Ok(EmbeddedLog::open(settings, clock.clone())?)
    } else {
        Ok(KafkaLog::connect(kafka_settings(config)).map_err(StartError::Kafka)?)
    }
}

fn kafka_settings(config: &Config) -> kafka::Settings {
    const SECOND: Duration = Duration::from_secs(1);
    // The client tells of a failure up to a second late, and the ingress is to hear of it.
    let message_timeout = config.ingress.append_timeout.saturating_sub(SECOND);
    kafka::Settings {
        bootstrap_servers: config.bootstrap_servers.join(","),
        properties: config.kafka.properties.clone(),
        group_protocol: config.kafka.group_protocol,
        message_timeout: message_timeout.max(SECOND),
        max_event_bytes: max_event_bytes(config),
        fetch_memory: config.memory.fetch_bytes as u64,
        ..kafka::Settings::default()
    }
}

/// The name static members go by; dynamic ones have none.
pub(super) fn instance(config: &Config, node: &Node) -> Option<String> {
    match config.kafka.group_protocol {
        GroupProtocol::Classic => Some(format!("levada-{}", node.id)),
        GroupProtocol::Consumer => None,
    }
}

pub(super) fn max_event_bytes(config: &Config) -> u32 {
    u32::try_from(config.ingress.max_event_bytes).unwrap_or(u32::MAX)
}

pub(super) fn registry_settings(config: &Config) -> Result<registry::Settings, StartError> {
    Ok(registry::Settings {
        paths: config.manifests.clone(),
        templates: Templates::try_new(&config.names.channel_topic, &config.names.group)?,
        defaults: DeliveryOptions {
            retry_after_max: Some(config.delivery.retry_after_max),
            ..DeliveryOptions::default()
        },
    })
}

pub(super) fn ingress_settings(config: &Config) -> ingress::Settings {
    let defaults = ingress::Settings::default();
    ingress::Settings {
        max_event_bytes: config.ingress.max_event_bytes,
        max_batch_bytes: defaults.max_batch_bytes.max(config.ingress.max_event_bytes),
        max_connections: config.ingress.max_connections,
        append_timeout: config.ingress.append_timeout,
        ..defaults
    }
}

pub(super) fn delivery_settings(config: &Config) -> delivery::Settings {
    delivery::Settings {
        connect_timeout: config.delivery.connect_timeout,
        ..delivery::Settings::default()
    }
}

pub(super) fn dispatch_settings(config: &Config) -> dispatch::Settings {
    dispatch::Settings {
        drain_timeout: config.drain_timeout,
        stay_in_group: !config.leave,
        max_total_bytes: config.memory.in_flight_bytes,
        inline_retry_max: config.delivery.inline_retry_max,
        parked_index_bytes: config.memory.parked_index_bytes,
        ..dispatch::Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafka_gives_up_before_the_ingress_does() {
        let mut config = Config::default();
        for (append, message) in [(8000, 7000), (30_000, 29_000), (1500, 1000), (1, 1000)] {
            config.ingress.append_timeout = Duration::from_millis(append);
            let settings = kafka_settings(&config);
            assert_eq!(settings.message_timeout.as_millis(), message, "{append}");
        }
    }

    #[test]
    fn a_node_keeps_its_name_and_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Node::open(dir.path()).unwrap();
        assert!(matches!(Node::open(dir.path()), Err(StartError::InUse(_))));
        let id = first.id.clone();
        drop(first);
        assert_eq!(Node::open(dir.path()).unwrap().id, id);
    }
}
