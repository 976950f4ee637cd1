//! Reads of single partitions that belong to no group and commit nothing.
//!
//! A few consumers are kept and reassigned, since making and dropping one costs more than most
//! reads. The idle ones are polled too, so that none gathers log lines.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::poller::{Pollable, Pollers, Turn};
use super::report::{Reporter, Reporting};
use super::{blocking, convert, error};
use crate::log::{LogError, Offset, StoredRecord, TopicPartition};

/// Reads that run at once; others wait.
const AT_ONCE: usize = 4;

type Client = BaseConsumer<Reporting>;

/// The consumers for reading, and the bound on them.
pub(super) struct Readers {
    config: ClientConfig,
    report: Reporter,
    limit: Duration,
    permits: Semaphore,
    idle: Arc<Idle>,
    _turn: Arc<Turn>,
}

/// Consumers that wait for the next read.
#[derive(Default)]
struct Idle(Mutex<Vec<Arc<Client>>>);

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Idle {
    fn take(&self) -> Option<Arc<Client>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, client: Arc<Client>) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(client);
    }
}

impl Pollable for Idle {
    fn poll_main(&self) {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for client in idle.iter() {
            while client.poll(Duration::ZERO).is_some() {}
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        while let Some(client) = self.idle.take() {
            blocking::detached("kafka-drop-reader", move || drop(client));
        }
    }
}

impl Readers {
    pub(super) fn new(
        config: ClientConfig,
        report: Reporter,
        limit: Duration,
        pollers: &Pollers,
    ) -> Self {
        let idle = Arc::new(Idle::default());
        let turn = pollers.turn();
        let pollable: Arc<dyn Pollable> = idle.clone();
        turn.of(Arc::downgrade(&pollable));
        Self {
            config,
            report,
            limit,
            permits: Semaphore::new(AT_ONCE),
            idle,
            _turn: turn,
        }
    }

    /// Reads at most `max` records from `from` up to `end`, which are within the watermarks.
    pub(super) async fn read(
        &self,
        at: TopicPartition,
        from: Offset,
        max: usize,
    ) -> Result<Vec<StoredRecord>, LogError> {
        let waiting = tokio::time::timeout(self.limit, self.permits.acquire());
        let _permit = waiting
            .await
            .map_err(|_| LogError::Overloaded)?
            .map_err(|_| LogError::Unavailable("the log is closed".into()))?;
        let client = match self.idle.take() {
            Some(client) => client,
            None => self.new_client()?,
        };
        let (idle, limit) = (Arc::clone(&self.idle), self.limit);
        blocking::within(limit + Duration::from_secs(1), "read", move || {
            let records = read(&client, &at, from, max, limit);
            if records.is_ok() && client.unassign().is_ok() {
                idle.put(client);
            } else {
                drop(client);
            }
            records
        })
        .await
    }

    fn new_client(&self) -> Result<Arc<Client>, LogError> {
        let context = Reporting {
            report: self.report.clone(),
        };
        Client::from_config_and_context(&self.config, context)
            .map(Arc::new)
            .map_err(|error| error::client(&error))
    }
}

fn read(
    client: &Client,
    at: &TopicPartition,
    from: Offset,
    max: usize,
    limit: Duration,
) -> Result<Vec<StoredRecord>, LogError> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(at.topic.as_str(), at.partition.0, convert::raw_offset(from))
        .and_then(|()| client.assign(&list))
        .map_err(|failure| LogError::Unavailable(format!("read {at}: {failure}")))?;
    let deadline = Instant::now() + limit;
    let mut records = Vec::new();
    while records.len() < max {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LogError::TimedOut(format!(
                "read {at}: no answer in {limit:?}"
            )));
        }
        match client.poll(left) {
            // Below where we began: the log was cut and begins anew.
            Some(Ok(message)) if message.offset() < from.0 => break,
            Some(Ok(message)) => records.push(convert::stored(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(failure)) => passing(&failure, at)?,
            None => {}
        }
    }
    Ok(records)
}

/// Nothing where the client goes on by itself.
fn passing(failure: &KafkaError, at: &TopicPartition) -> Result<(), LogError> {
    use RDKafkaErrorCode as Code;
    match error::code(failure) {
        // The name under which it assigns is no group that anybody needs.
        Code::GroupAuthorizationFailed => Ok(()),
        code => match error::topic_call(code, &at.topic, Some(at.partition)) {
            LogError::Unavailable(_) | LogError::TimedOut(_) => Ok(()),
            failure => Err(failure),
        },
    }
}
