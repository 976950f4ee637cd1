//! What must not hold up an append, on a thread of its own.
//!
//! The keeper replaces a producer that failed for good, sends again what met a topic that the
//! producer has not heard of yet, and sends alone what was refused with its batch.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::Duration;

use rdkafka::producer::Producer as _;
use tokio::time::Instant;

use super::producer::{Shared, closed};
use super::send::{Append, Client, Unsent, send};
use crate::log::LogError;

/// How many errands wait at once.
pub(super) const ERRANDS: usize = 1024;
/// How often the keeper looks for a fatal error.
const CHECK: Duration = Duration::from_secs(1);
/// How long an append to an unknown topic is tried again, and how often.
const UNKNOWN_TOPIC: Duration = Duration::from_secs(2);
const UNKNOWN_TOPIC_PAUSE: Duration = Duration::from_millis(100);

/// What the keeper is asked to do.
pub(super) enum Errand {
    /// Send again what met an unknown topic, until this time.
    Again(Append, Instant),
    /// Send in a batch of its own.
    Alone(Append),
    /// Look for a fatal error now.
    Check,
    /// End.
    Stop,
}

impl Errand {
    /// Tries an append to an unknown topic for a while.
    pub(super) fn again(append: Append) -> Self {
        Self::Again(append, Instant::now() + UNKNOWN_TOPIC)
    }

    /// The errand for which there was no room.
    pub(super) fn of(full: TrySendError<Self>) -> Self {
        match full {
            TrySendError::Full(errand) | TrySendError::Disconnected(errand) => errand,
        }
    }

    /// Answers the append in it, if there is one.
    pub(super) fn fail(self, failure: LogError) {
        match self {
            Self::Again(append, _) | Self::Alone(append) => append.fail(failure),
            Self::Check | Self::Stop => {}
        }
    }
}

/// The keeper's life: until it is stopped, or the producer is gone.
pub(super) fn keep(shared: &Shared, keeper: &SyncSender<Errand>, errands: &Receiver<Errand>) {
    let mut again: Vec<(Append, Instant)> = Vec::new();
    let mut single: Option<Client> = None;
    let mut checked = Instant::now();
    let mut resent = checked;
    loop {
        let pause = if again.is_empty() {
            CHECK
        } else {
            UNKNOWN_TOPIC_PAUSE
        };
        let mut check = false;
        match errands.recv_timeout(pause) {
            Ok(Errand::Again(append, until)) if again.len() < ERRANDS => {
                again.push((append, until));
            }
            Ok(Errand::Again(append, _)) => append.fail(LogError::Overloaded),
            Ok(Errand::Alone(append)) => send_alone(shared, &mut single, append),
            Ok(Errand::Check) => check = true,
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Errand::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = Instant::now();
        if check || now.duration_since(checked) >= CHECK {
            checked = now;
            replace_if_fatal(shared, keeper);
            single = single.filter(|client| client.client().fatal_error().is_none());
        }
        if now.duration_since(resent) >= UNKNOWN_TOPIC_PAUSE {
            resent = now;
            again = send_again(shared, again, now);
        }
        // The errand to stop finds no room when the queue is full.
        if shared.current.load().is_none() {
            break;
        }
    }
    for (append, _) in again {
        append.fail(closed());
    }
}

/// Swaps in a new producer when the current one can store no more.
fn replace_if_fatal(shared: &Shared, keeper: &SyncSender<Errand>) {
    let current = shared.current.load_full();
    let Some(client) = &current else { return };
    let Some((code, reason)) = client.client().fatal_error() else {
        return;
    };
    match shared.new_client(keeper) {
        Ok(new) => {
            let new = Some(Arc::new(new));
            let previous = shared.current.compare_and_swap(&current, new);
            let swapped = previous.is_some();
            drop(previous);
            // Not swapped: it was closed meanwhile, and is dropped there.
            if let (true, Some(client)) = (swapped, current) {
                tracing::warn!(%code, reason, "the Kafka producer failed for good and was replaced");
                drop_client(client);
            }
        }
        Err(error) => {
            tracing::error!(%code, reason, %error, "the Kafka producer failed, a new one cannot be made");
        }
    }
}

/// Drops a client once nobody uses it, so that the drop, which blocks, happens here.
pub(super) fn drop_client(mut client: Arc<Client>) {
    // An append holds it for the time of a send.
    loop {
        match Arc::try_unwrap(client) {
            Ok(client) => return drop(client),
            Err(used) => client = used,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Tries each once more; returns those that still wait.
fn send_again(
    shared: &Shared,
    waiting: Vec<(Append, Instant)>,
    now: Instant,
) -> Vec<(Append, Instant)> {
    let current = shared.current.load();
    let mut still = Vec::new();
    for (append, until) in waiting {
        let Some(client) = current.as_deref() else {
            append.fail(closed());
            continue;
        };
        match try_send(client, append).map_err(|refused| *refused) {
            Ok(()) => {}
            Err(refused) if refused.unknown_topic && now < until => {
                still.push((refused.append, until));
            }
            Err(Refused {
                append, failure, ..
            }) => append.fail(failure),
        }
    }
    still
}

/// Sends a record that no other may share its batch with.
fn send_alone(shared: &Shared, single: &mut Option<Client>, append: Append) {
    if single.is_none() {
        match shared.new_single_client() {
            Ok(client) => *single = Some(client),
            Err(failure) => return append.fail(failure),
        }
    }
    if let Some(Err(refused)) = single.as_ref().map(|one| try_send(one, append)) {
        refused.append.fail(refused.failure);
    }
}

/// An append that was not taken.
struct Refused {
    append: Append,
    unknown_topic: bool,
    failure: LogError,
}

fn try_send(client: &Client, append: Append) -> Result<(), Box<Refused>> {
    let Append {
        topic,
        target,
        record,
        answer,
    } = append;
    send(client, &topic, target, &record, answer).map_err(|Unsent { reason, answer }| {
        Box::new(Refused {
            unknown_topic: reason.is_unknown_topic(),
            failure: reason.explain(&topic, target),
            append: Append {
                topic,
                target,
                record,
                answer,
            },
        })
    })
}
