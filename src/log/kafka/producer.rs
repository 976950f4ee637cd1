//! Appends: one idempotent producer for the process, replaced when it fails for good.
//!
//! `append` costs what librdkafka's own send costs: headers and payload are copied once, the
//! answer comes through a oneshot that the delivery report fills. Nothing here waits for a batch;
//! batches form while requests are in flight.

use std::fmt;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;
use tokio::sync::oneshot;

use super::keeper::{self, ERRANDS, Errand};
use super::report::Reporter;
use super::send::{Append, Client, Health, Reason, Unsent, new_client, send};
use super::settings::Settings;
use super::{blocking, error, metadata};
use crate::log::{Appending, LogError, Record, Target, TopicName};

/// The process's producer.
pub(super) struct Producer {
    shared: Arc<Shared>,
    keeper: SyncSender<Errand>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the producer and its keeper share.
pub(super) struct Shared {
    /// `None` once closed.
    pub(super) current: ArcSwapOption<Client>,
    config: ClientConfig,
    single_config: ClientConfig,
    report: Reporter,
    health: Arc<Health>,
}

impl Shared {
    /// A producer like the current one.
    pub(super) fn new_client(&self, keeper: &SyncSender<Errand>) -> Result<Client, LogError> {
        let alone = Some(keeper.clone());
        new_client(&self.config, &self.report, &self.health, alone)
    }

    /// A producer that sends each record in a batch of its own.
    pub(super) fn new_single_client(&self) -> Result<Client, LogError> {
        new_client(&self.single_config, &self.report, &self.health, None)
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("health", &self.shared.health)
            .finish_non_exhaustive()
    }
}

impl Producer {
    /// Makes the producer, which at once begins to look for the broker and for its producer id.
    pub(super) fn try_new(settings: &Settings, report: Reporter) -> Result<Self, LogError> {
        let (keeper, errands) = sync_channel(ERRANDS);
        let shared = Arc::new(Shared {
            current: ArcSwapOption::empty(),
            config: settings.producer(),
            single_config: settings.single_producer(),
            report,
            health: Arc::new(Health::new()),
        });
        let client = shared.new_client(&keeper)?;
        shared.current.store(Some(Arc::new(client)));
        let thread = std::thread::Builder::new()
            .name("kafka-keeper".to_owned())
            .spawn({
                let (shared, keeper) = (Arc::clone(&shared), keeper.clone());
                move || keeper::keep(&shared, &keeper, &errands)
            })
            .map_err(|error| LogError::Unavailable(format!("no thread: {error}")))?;
        Ok(Self {
            shared,
            keeper,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Hands a record to librdkafka; never blocks.
    pub(super) fn append(&self, topic: &TopicName, target: Target, record: Record) -> Appending {
        let current = self.shared.current.load();
        let Some(client) = current.as_deref() else {
            return Appending::failed(closed());
        };
        let (answer, waiting) = oneshot::channel();
        match send(client, topic, target, &record, Box::new(answer)) {
            Ok(()) => Appending::waiting(waiting),
            Err(Unsent { reason, answer }) => {
                if reason.is_unknown_topic() {
                    let append = Append {
                        topic: topic.clone(),
                        target,
                        record,
                        answer,
                    };
                    if self.keeper.try_send(Errand::again(append)).is_ok() {
                        return Appending::waiting(waiting);
                    }
                } else if reason == Reason::Code(RDKafkaErrorCode::Fatal) {
                    // When there is no room the keeper is awake anyway.
                    drop(self.keeper.try_send(Errand::Check));
                }
                Appending::failed(reason.explain(topic, target))
            }
        }
    }

    /// Whether the broker answers, and appends do not time out. Blocks for at most `limit`.
    pub(super) fn probe(&self, topic: &str, limit: Duration) -> Result<(), LogError> {
        let client = self.shared.current.load_full().ok_or_else(closed)?;
        if let Some((code, reason)) = client.client().fatal_error() {
            let text = format!("the producer failed and is being replaced: {code}: {reason}");
            return Err(LogError::Unavailable(text));
        }
        if self.shared.health.timed_out_lately() {
            let text = "the last append was not acknowledged in time";
            return Err(LogError::Unavailable(text.into()));
        }
        client
            .client()
            .fetch_metadata(Some(topic), limit)
            .map(drop)
            .map_err(|failure| error::call(error::code(&failure), "a sign of life"))
    }

    /// Asks the broker about a topic, so that the producer knows it too: its partitions, once
    /// each has a leader. Blocks for at most `limit`.
    pub(super) fn partitions_led(
        &self,
        topic: &TopicName,
        limit: Duration,
    ) -> Result<Option<u32>, LogError> {
        let client = self.shared.current.load_full().ok_or_else(closed)?;
        metadata::partitions_led(client.client(), topic, limit)
    }

    /// Waits until what was appended is answered, at most `limit`, and frees the threads. What is
    /// left then is answered as [`LogError::Unavailable`]. Blocks.
    ///
    /// # Errors
    /// [`LogError::TimedOut`] when something was left.
    pub(super) fn close(&self, limit: Duration) -> Result<(), LogError> {
        let Some(client) = self.shared.current.swap(None) else {
            return Ok(());
        };
        let flushed = client.flush(limit);
        let left = client.in_flight_count();
        keeper::drop_client(client);
        drop(self.keeper.try_send(Errand::Stop));
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            drop(thread.join());
        }
        flushed.map_err(|_| LogError::TimedOut(format!("{left} appends were not acknowledged")))
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Dropping a client blocks for up to a second: not on this thread, which may be the
        // runtime's. The keeper sees that it is gone.
        if let Some(client) = self.shared.current.swap(None) {
            blocking::detached("kafka-drop-producer", move || keeper::drop_client(client));
            drop(self.keeper.try_send(Errand::Stop));
        }
    }
}

/// What an append meets after the end.
pub(super) fn closed() -> LogError {
    LogError::Unavailable("the log is closed".into())
}
