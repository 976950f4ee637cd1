//! A single send, and the delivery report that answers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::keeper::Errand;
use super::report::{Reporter, report_as_client};
use super::{convert, error};
use crate::log::{LogError, Offset, Partition, Position, Record, Target, TopicName};

/// For how long an append that timed out speaks against the log, if none succeeds after it.
const TIMEOUT_COUNTS: Duration = Duration::from_secs(10);

/// Who waits for an append.
pub(super) type Answer = oneshot::Sender<Result<Position, LogError>>;
/// librdkafka's producer with its poll thread.
pub(super) type Client = ThreadedProducer<Deliveries>;

/// An append that has still to succeed, or to fail for good.
pub(super) struct Append {
    pub(super) topic: TopicName,
    pub(super) target: Target,
    pub(super) record: Record,
    pub(super) answer: Box<Answer>,
}

impl Append {
    /// Answers who waits for it; nobody waiting any more is their right.
    pub(super) fn fail(self, failure: LogError) {
        drop(self.answer.send(Err(failure)));
    }
}

/// Where delivery reports arrive, on the producer's poll thread: answers and returns at once.
pub(super) struct Deliveries {
    report: Reporter,
    health: Arc<Health>,
    /// Where a record goes that was refused with its batch; `None` where it is its own batch.
    alone: Option<SyncSender<Errand>>,
}

report_as_client!(Deliveries);

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Answer>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Box<Answer>) {
        let outcome = match result {
            Ok(message) => {
                let stored = position(message.partition(), message.offset());
                if stored.is_ok() {
                    self.health.stored();
                }
                stored
            }
            Err((failure, message)) => {
                return self.failed(error::code(failure), message, answer);
            }
        };
        drop(answer.send(outcome));
    }
}

impl Deliveries {
    fn failed(&self, code: RDKafkaErrorCode, message: &BorrowedMessage<'_>, answer: Box<Answer>) {
        if code == RDKafkaErrorCode::MessageTimedOut {
            self.health.timed_out();
        }
        let Ok(topic) = TopicName::try_new(message.topic()) else {
            drop(answer.send(Err(error::call(code, "append"))));
            return;
        };
        let partition = Partition(message.partition());
        let failure = error::append(code, &topic, Some(partition));
        match (&failure, &self.alone) {
            // The topic refuses a batch for its size, with every record in it. Which of them is
            // too large shows when each is sent alone.
            (LogError::TooLarge { .. }, Some(alone)) => {
                let append = Append {
                    topic,
                    target: Target::Partition(partition),
                    record: convert::record(message),
                    answer,
                };
                if let Err(full) = alone.try_send(Errand::Alone(append)) {
                    Errand::of(full).fail(LogError::Overloaded);
                }
            }
            _ => drop(answer.send(Err(failure))),
        }
    }
}

/// Where a record is that librdkafka reports as delivered.
///
/// It does so without an offset in two cases, and in neither did the broker say that this record
/// is stored. A batch whose sequence numbers the broker knows is taken for a retry. And a later
/// batch's acknowledgement is taken for those of the batches before it, though a broker that does
/// not know the producer yet, as after a restart, takes any sequence number: it may have refused
/// the first batch and stored the second. Such a record counts as unanswered.
fn position(partition: i32, offset: i64) -> Result<Position, LogError> {
    if offset < 0 {
        let text = "the broker did not say where the record is stored, or whether";
        return Err(LogError::TimedOut(text.into()));
    }
    Ok(Position {
        partition: Partition(partition),
        offset: Offset(offset),
    })
}

/// Makes a producer.
///
/// # Errors
/// [`LogError::Refused`] for its properties.
pub(super) fn new_client(
    config: &ClientConfig,
    report: &Reporter,
    health: &Arc<Health>,
    alone: Option<SyncSender<Errand>>,
) -> Result<Client, LogError> {
    let context = Deliveries {
        report: report.clone(),
        health: Arc::clone(health),
        alone,
    };
    Client::from_config_and_context(config, context).map_err(|error| error::client(&error))
}

/// What recent appends say about the log.
#[derive(Debug)]
pub(super) struct Health {
    start: Instant,
    timed_out: AtomicBool,
    timed_out_at: AtomicI64,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            timed_out: AtomicBool::new(false),
            timed_out_at: AtomicI64::new(0),
        }
    }

    fn now(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn stored(&self) {
        // A load is free where a store by every report would not be.
        if self.timed_out.load(Ordering::Relaxed) {
            self.timed_out.store(false, Ordering::Relaxed);
        }
    }

    fn timed_out(&self) {
        self.timed_out_at.store(self.now(), Ordering::Relaxed);
        self.timed_out.store(true, Ordering::Relaxed);
    }

    /// Whether the last append that was answered timed out, not long ago.
    pub(super) fn timed_out_lately(&self) -> bool {
        let since = self.now() - self.timed_out_at.load(Ordering::Relaxed);
        let counts = i64::try_from(TIMEOUT_COUNTS.as_millis()).unwrap_or(i64::MAX);
        self.timed_out.load(Ordering::Relaxed) && since < counts
    }
}

/// A record that librdkafka did not take, and who waits for it.
pub(super) struct Unsent {
    pub(super) reason: Reason,
    pub(super) answer: Box<Answer>,
}

/// Why it was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Code(RDKafkaErrorCode),
    /// A header's name is not text.
    Header,
}

impl Reason {
    pub(super) fn explain(self, topic: &TopicName, target: Target) -> LogError {
        match self {
            Self::Code(code) => error::append(code, topic, partition(target)),
            Self::Header => {
                LogError::Refused(format!("topic {topic}: a header's name is not UTF-8"))
            }
        }
    }

    /// Whether the topic may only be new to this producer.
    pub(super) fn is_unknown_topic(self) -> bool {
        matches!(self, Self::Code(code) if error::is_unknown_topic(code))
    }
}

fn partition(target: Target) -> Option<Partition> {
    match target {
        Target::ByKey => None,
        Target::Partition(partition) => Some(partition),
    }
}

/// Hands a record to librdkafka, which copies it; never blocks.
pub(super) fn send(
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
            let value = Some(value);
            headers = headers.insert(Header { key, value });
        }
        message.headers = Some(headers);
    }
    client.send(message).map_err(|(failure, message)| Unsent {
        reason: Reason::Code(error::code(&failure)),
        answer: message.delivery_opaque,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guarantee_1_what_has_no_offset_is_not_known_to_be_stored() {
        let at = position(3, 0).unwrap();
        assert_eq!((at.partition, at.offset), (Partition(3), Offset(0)));
        for unknown in [-1, -1001] {
            assert!(matches!(position(3, unknown), Err(LogError::TimedOut(_))));
        }
    }

    #[test]
    fn a_timeout_counts_until_the_next_success() {
        let health = Health::new();
        assert!(!health.timed_out_lately());
        health.timed_out();
        assert!(health.timed_out_lately());
        health.stored();
        assert!(!health.timed_out_lately());
    }
}
