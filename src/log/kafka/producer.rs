//! Appends: one idempotent producer for the process, its answers, its replacement when it fails.
//!
//! `append` costs what librdkafka's own send costs: headers and payload are copied once, the
//! answer comes through a oneshot that the delivery report fills. Nothing here waits for a batch;
//! batches form while requests are in flight.
//!
//! A keeper thread does what must not hold up an append: it looks for a fatal error and swaps the
//! producer, and it sends again what met a topic that the producer has not heard of yet.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rdkafka::config::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error;
use super::report::{Reporter, report_as_client};
use crate::log::{Appending, LogError, Offset, Partition, Position, Record, Target, TopicName};

/// How often the keeper looks for a fatal error.
const CHECK: Duration = Duration::from_secs(1);
/// How long an append to an unknown topic is tried again, and how often.
const UNKNOWN_TOPIC: Duration = Duration::from_secs(2);
const UNKNOWN_TOPIC_PAUSE: Duration = Duration::from_millis(100);
/// How many such appends wait at once.
const UNKNOWN_TOPIC_QUEUE: usize = 1024;
/// For how long an append that timed out speaks against the log, if none succeeds after it.
const TIMEOUT_COUNTS: Duration = Duration::from_secs(10);

type Answer = oneshot::Sender<Result<Position, LogError>>;
type Client = ThreadedProducer<Deliveries>;

/// Where delivery reports arrive, on the producer's poll thread: answers and returns at once.
struct Deliveries {
    report: Reporter,
    health: Arc<Health>,
}

report_as_client!(Deliveries);

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Answer>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Box<Answer>) {
        let outcome = match result {
            Ok(message) => {
                self.health.stored();
                Ok(Position {
                    partition: Partition(message.partition()),
                    offset: Offset(message.offset()),
                })
            }
            Err((failure, message)) => {
                let code = error::code(failure);
                if code == RDKafkaErrorCode::MessageTimedOut {
                    self.health.timed_out();
                }
                Err(TopicName::try_new(message.topic()).map_or_else(
                    |_| error::call(code, "append"),
                    |topic| error::append(code, &topic, Some(Partition(message.partition()))),
                ))
            }
        };
        // Nobody waits for it any more: that is their right.
        drop(answer.send(outcome));
    }
}

/// What recent appends say about the log.
#[derive(Debug)]
struct Health {
    epoch: Instant,
    timed_out: AtomicBool,
    timed_out_at: AtomicI64,
}

impl Health {
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            timed_out: AtomicBool::new(false),
            timed_out_at: AtomicI64::new(0),
        }
    }

    fn stored(&self) {
        // A load is free where a store by every report would not be.
        if self.timed_out.load(Ordering::Relaxed) {
            self.timed_out.store(false, Ordering::Relaxed);
        }
    }

    fn timed_out(&self) {
        let now = self.epoch.elapsed().as_millis();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        self.timed_out_at.store(now, Ordering::Relaxed);
        self.timed_out.store(true, Ordering::Relaxed);
    }

    fn timed_out_lately(&self) -> bool {
        let now = i64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(i64::MAX);
        let since = now.saturating_sub(self.timed_out_at.load(Ordering::Relaxed));
        self.timed_out.load(Ordering::Relaxed)
            && u128::try_from(since).unwrap_or(0) < TIMEOUT_COUNTS.as_millis()
    }
}

/// The process's producer.
pub(super) struct Producer {
    shared: Arc<Shared>,
    keeper: SyncSender<Errand>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// `None` once closed.
    current: ArcSwapOption<Client>,
    config: ClientConfig,
    report: Reporter,
    health: Arc<Health>,
}

/// What the keeper is asked to do.
enum Errand {
    /// Send again what met an unknown topic.
    Resend(Resend),
    /// Look for a fatal error now.
    Check,
    /// End.
    Stop,
}

struct Resend {
    topic: TopicName,
    target: Target,
    record: Record,
    answer: Box<Answer>,
    until: Instant,
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
    pub(super) fn try_new(config: ClientConfig, report: Reporter) -> Result<Self, LogError> {
        let health = Arc::new(Health::new());
        let client = new_client(&config, &report, &health)?;
        let shared = Arc::new(Shared {
            current: ArcSwapOption::from_pointee(client),
            config,
            report,
            health,
        });
        let (keeper, errands) = sync_channel(UNKNOWN_TOPIC_QUEUE);
        let thread = std::thread::Builder::new()
            .name("kafka-keeper".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || keep(&shared, &errands)
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
                let code = match reason {
                    Reason::Code(code) => code,
                    Reason::Header => return Appending::failed(reason.explain(topic, target)),
                };
                if error::is_unknown_topic(code) {
                    let until = Instant::now() + UNKNOWN_TOPIC;
                    let resend = Resend {
                        topic: topic.clone(),
                        target,
                        record,
                        answer,
                        until,
                    };
                    if self.keeper.try_send(Errand::Resend(resend)).is_ok() {
                        return Appending::waiting(waiting);
                    }
                } else if code == RDKafkaErrorCode::Fatal {
                    // When there is no room the keeper is awake anyway.
                    drop(self.keeper.try_send(Errand::Check));
                }
                Appending::failed(reason.explain(topic, target))
            }
        }
    }

    /// Whether the broker answers, and appends do not time out. Blocks for at most `limit`.
    pub(super) fn probe(&self, topic: &str, limit: Duration) -> Result<(), LogError> {
        let Some(client) = self.shared.current.load_full() else {
            return Err(closed());
        };
        if let Some((code, reason)) = client.client().fatal_error() {
            let text = format!("the producer failed and is being replaced: {code}: {reason}");
            return Err(LogError::Unavailable(text));
        }
        if self.shared.health.timed_out_lately() {
            return Err(LogError::Unavailable(
                "the last append was not acknowledged in time".into(),
            ));
        }
        client
            .client()
            .fetch_metadata(Some(topic), limit)
            .map(drop)
            .map_err(|error| error::call(error::code(&error), "probe"))
    }

    /// Asks the broker about a topic, so that the producer knows it too. Blocks.
    pub(super) fn topic_partitions(
        &self,
        topic: &TopicName,
        limit: Duration,
    ) -> Result<Option<u32>, LogError> {
        let Some(client) = self.shared.current.load_full() else {
            return Err(closed());
        };
        super::admin::leaders_of(client.client(), topic, limit)
    }

    /// Waits until what was appended is answered, at most `limit`, and frees the threads. What is
    /// left then is answered as [`LogError::Unavailable`]. Blocks.
    pub(super) fn close(&self, limit: Duration) -> Result<(), LogError> {
        let Some(client) = self.shared.current.swap(None) else {
            return Ok(());
        };
        let flushed = client.flush(limit);
        let left = client.in_flight_count();
        drop_client(client);
        self.stop_keeper();
        flushed.map_err(|_| LogError::TimedOut(format!("{left} appends were not acknowledged")))
    }

    fn stop_keeper(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // Without room in the queue the keeper still sees that the producer is gone.
            drop(self.keeper.try_send(Errand::Stop));
            drop(thread.join());
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Dropping a client blocks for up to a second: not on this thread, which may be the
        // runtime's. The keeper ends when its channel does.
        if let Some(client) = self.shared.current.swap(None) {
            super::blocking::detached("kafka-drop-producer", move || drop_client(client));
        }
    }
}

fn closed() -> LogError {
    LogError::Unavailable("the log is closed".into())
}

fn partition(target: Target) -> Option<Partition> {
    match target {
        Target::ByKey => None,
        Target::Partition(partition) => Some(partition),
    }
}

fn new_client(
    config: &ClientConfig,
    report: &Reporter,
    health: &Arc<Health>,
) -> Result<Client, LogError> {
    let context = Deliveries {
        report: report.clone(),
        health: Arc::clone(health),
    };
    Client::from_config_and_context(config, context).map_err(|error| error::client(&error))
}

/// Drops a client once nobody uses it, so that the drop, which blocks, happens here.
fn drop_client(mut client: Arc<Client>) {
    loop {
        match Arc::try_unwrap(client) {
            Ok(client) => return drop(client),
            Err(used) => client = used,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A record that librdkafka did not take, and who waits for it.
struct Unsent {
    reason: Reason,
    answer: Box<Answer>,
}

enum Reason {
    Code(RDKafkaErrorCode),
    Header,
}

impl Reason {
    fn explain(self, topic: &TopicName, target: Target) -> LogError {
        match self {
            Self::Code(code) => error::append(code, topic, partition(target)),
            Self::Header => {
                LogError::Refused(format!("topic {topic}: a header's name is not UTF-8"))
            }
        }
    }
}

fn send(
    client: &Client,
    topic: &TopicName,
    target: Target,
    record: &Record,
    answer: Box<Answer>,
) -> Result<(), Unsent> {
    let mut message = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic.as_str(), answer);
    message.key = record.key.as_deref();
    message.payload = record.value.as_deref();
    message.partition = partition(target).map(|partition| partition.0);
    if !record.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (name, value) in record.headers.iter() {
            let Ok(key) = std::str::from_utf8(name) else {
                return Err(Unsent {
                    reason: Reason::Header,
                    answer: message.delivery_opaque,
                });
            };
            headers = headers.insert(Header {
                key,
                value: Some(value),
            });
        }
        message.headers = Some(headers);
    }
    client.send(message).map_err(|(failure, message)| Unsent {
        reason: Reason::Code(error::code(&failure)),
        answer: message.delivery_opaque,
    })
}

/// The keeper's life.
fn keep(shared: &Shared, errands: &Receiver<Errand>) {
    let mut waiting: Vec<Resend> = Vec::new();
    let mut checked = Instant::now();
    let mut resent = Instant::now();
    loop {
        let pause = if waiting.is_empty() {
            CHECK
        } else {
            UNKNOWN_TOPIC_PAUSE
        };
        let mut check = false;
        match errands.recv_timeout(pause) {
            Ok(Errand::Resend(resend)) if waiting.len() < UNKNOWN_TOPIC_QUEUE => {
                waiting.push(resend);
            }
            Ok(Errand::Resend(Resend { topic, answer, .. })) => {
                drop(answer.send(Err(LogError::UnknownTopic(topic))));
            }
            Ok(Errand::Check) => check = true,
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Errand::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = Instant::now();
        if check || now.duration_since(checked) >= CHECK {
            checked = now;
            replace_if_fatal(shared);
        }
        if now.duration_since(resent) >= UNKNOWN_TOPIC_PAUSE {
            resent = now;
            waiting = send_again(shared, waiting, now);
        }
        // The errand to stop finds no room when the queue is full.
        if shared.current.load().is_none() && waiting.is_empty() {
            break;
        }
    }
}

/// Swaps in a new producer when the current one can store no more.
fn replace_if_fatal(shared: &Shared) {
    let current = shared.current.load_full();
    let Some(client) = &current else { return };
    let Some((code, reason)) = client.client().fatal_error() else {
        return;
    };
    match new_client(&shared.config, &shared.report, &shared.health) {
        Ok(new) => {
            let previous = shared
                .current
                .compare_and_swap(&current, Some(Arc::new(new)));
            let swapped = previous.is_some();
            drop(previous);
            // Not swapped: it was closed meanwhile, and is dropped there.
            if let (true, Some(client)) = (swapped, current) {
                tracing::warn!(%code, reason, "the Kafka producer failed for good and was replaced");
                drop_client(client);
            }
        }
        Err(error) => {
            tracing::error!(%code, reason, %error, "the Kafka producer failed and cannot be replaced");
        }
    }
}

/// Tries each once more; returns those that still wait.
fn send_again(shared: &Shared, waiting: Vec<Resend>, now: Instant) -> Vec<Resend> {
    let current = shared.current.load();
    let mut still = Vec::new();
    for resend in waiting {
        let Resend {
            topic,
            target,
            record,
            answer,
            until,
        } = resend;
        let Some(client) = current.as_deref() else {
            drop(answer.send(Err(closed())));
            continue;
        };
        let Err(Unsent { reason, answer }) = send(client, &topic, target, &record, answer) else {
            continue;
        };
        match reason {
            Reason::Code(code) if error::is_unknown_topic(code) && now < until => {
                still.push(Resend {
                    topic,
                    target,
                    record,
                    answer,
                    until,
                });
            }
            reason => drop(answer.send(Err(reason.explain(&topic, target)))),
        }
    }
    still
}
