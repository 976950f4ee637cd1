//! From dispatch to the store: a bounded queue and one thread that writes.
//!
//! Dispatch hands changes over and goes on. Before it commits an offset it waits until what was
//! told before is stored, but never longer than [`PATIENCE`]: a journal that has not taken a batch
//! for so long counts as down until it does, and nobody waits for it any more. What finds no room
//! is counted as a gap, which is stored once the journal is back.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge, Registry};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::keeper::Keeper;
use super::model::Change;
use crate::clock::{Clock, UnixMillis};

/// How long a commit waits for the journal.
const PATIENCE: Duration = Duration::from_millis(500);
/// Changes of one batch.
const BATCH: usize = 2_000;
/// A batch of so many is written at once.
const ENOUGH: usize = BATCH / 4;
/// Dispatch waits when so many are queued, and goes on when half of them are. They bridge the time
/// in which the disk takes nothing; more would only take memory.
const CROWD: usize = 8 * BATCH;
/// How long a batch may grow while little comes in.
const GATHER: Duration = Duration::from_millis(10);
/// Between two tries of a batch that was refused, at first and at most.
const AGAIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// So often a batch is tried that the store refuses for what is in it.
const TRIES: u32 = 5;
/// How often retention is looked after.
const RETAIN: Duration = Duration::from_secs(60);
/// How often a store that is not ready is looked after while nothing comes in.
const IDLE: Duration = Duration::from_secs(2);

/// How much may wait to be written.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Changes.
    pub changes: usize,
    /// Bytes, as far as they are reckoned.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            changes: 100_000,
            bytes: 64 << 20,
        }
    }
}

impl Bounds {
    /// Dispatch waits when more changes are queued.
    fn crowd(&self) -> usize {
        CROWD.min(self.changes / 4)
    }
}

/// Where the journal was when a change was handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// How far the journal is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    stored: Ticket,
    down: bool,
    /// Dispatch is to wait: too much is queued.
    crowded: bool,
}

/// Changes that were dropped.
#[derive(Clone, Copy, Debug)]
struct Dropped {
    since: UnixMillis,
    until: UnixMillis,
    changes: u64,
}

#[derive(Default)]
struct Queue {
    changes: Vec<Change>,
    bytes: usize,
    last: Ticket,
    dropped: Option<Dropped>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    progress: watch::Sender<Progress>,
    bounds: Bounds,
    clock: Clock,
    waiting: IntGauge,
    lost: IntCounter,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where dispatch tells what happened. Off: nothing is told and nobody waits.
#[derive(Clone, Default)]
pub struct Recorder(Option<Arc<Shared>>);

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recorder").field(&self.is_on()).finish()
    }
}

/// Tells how many changes wait to be written.
pub type Queued = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The thread that writes.
#[derive(Debug)]
pub struct Writer(JoinHandle<()>);

impl Recorder {
    /// One that keeps nothing.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// One whose changes wait in memory until [`Self::write_to`] is called.
    ///
    /// # Errors
    /// When its metrics are there already.
    pub fn new(
        clock: Clock,
        bounds: Bounds,
        metrics: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let waiting = IntGauge::new("levada_journal_queue", "Changes that wait to be journalled")?;
        let lost = IntCounter::new(
            "levada_journal_dropped_total",
            "Changes that the journal could not take in time",
        )?;
        metrics.register(Box::new(waiting.clone()))?;
        metrics.register(Box::new(lost.clone()))?;
        Ok(Self(Some(Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            progress: watch::Sender::new(Progress::default()),
            bounds,
            clock,
            waiting,
            lost,
        }))))
    }

    /// Starts the thread that writes to a store.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn write_to(&self, keeper: Box<dyn Keeper>) -> io::Result<Option<Writer>> {
        let Some(shared) = self.0.clone() else {
            return Ok(None);
        };
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || Writing::new(shared, keeper).run())?;
        Ok(Some(Writer(thread)))
    }

    /// What tells how many changes wait.
    #[must_use]
    pub fn queued(&self) -> Queued {
        let shared = self.0.clone();
        Arc::new(move || {
            let waiting = shared.as_ref().map(|shared| shared.lock().changes.len());
            waiting.unwrap_or_default() as u64
        })
    }

    /// Whether anything is kept.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Hands changes over. What finds no room is dropped and counted.
    pub fn record(&self, changes: &mut Vec<Change>) -> Ticket {
        let Some(shared) = &self.0 else {
            changes.clear();
            return Ticket::default();
        };
        if changes.is_empty() {
            return shared.lock().last;
        }
        let mut queue = shared.lock();
        let bytes: usize = changes.iter().map(bytes_of).sum();
        let bounds = shared.bounds;
        if queue.changes.len() + changes.len() > bounds.changes
            || queue.bytes + bytes > bounds.bytes
        {
            let (now, count) = (shared.clock.now(), changes.len() as u64);
            shared.lost.inc_by(count);
            let dropped = queue.dropped.get_or_insert(Dropped {
                since: now,
                until: now,
                changes: 0,
            });
            dropped.until = now;
            dropped.changes += count;
            changes.clear();
            return queue.last;
        }
        let before = queue.changes.len();
        queue.last.0 += changes.len() as u64;
        queue.bytes += bytes;
        queue.changes.append(changes);
        shared
            .waiting
            .set(i64::try_from(queue.changes.len()).unwrap_or(i64::MAX));
        let now = queue.changes.len();
        let crowded = now > bounds.crowd() || queue.bytes > bounds.bytes / 4;
        let ticket = queue.last;
        drop(queue);
        // Each wake-up costs: one for the first change, one when they are enough.
        if before == 0 || (before < ENOUGH && now >= ENOUGH) {
            shared.filled.notify_one();
        }
        if crowded {
            shared
                .progress
                .send_if_modified(|progress| !std::mem::replace(&mut progress.crowded, true));
        }
        ticket
    }

    /// Whether dispatch should wait before it makes more to tell.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| {
            let progress = *shared.progress.borrow();
            progress.crowded && !progress.down
        })
    }

    /// Ends when everything up to `ticket` is stored, or the journal is down.
    pub fn stored(&self, ticket: Ticket) -> impl Future<Output = ()> + Send + use<> {
        until(self.0.clone(), move |progress| progress.stored >= ticket)
    }

    /// Ends when there is room again, or the journal is down.
    pub fn room(&self) -> impl Future<Output = ()> + Send + use<> {
        until(self.0.clone(), |progress| !progress.crowded)
    }

    /// Writes what is queued and ends the thread, within `limit`.
    pub async fn close(&self, writer: Writer, limit: Duration) {
        let Some(shared) = &self.0 else { return };
        shared.lock().closed = true;
        shared.filled.notify_one();
        let joined = tokio::task::spawn_blocking(move || writer.0.join().is_ok());
        if !matches!(tokio::time::timeout(limit, joined).await, Ok(Ok(true))) {
            tracing::warn!("the journal did not close in time: its last changes may be missing");
        }
    }
}

/// Ends when the journal is so far, or down.
async fn until(shared: Option<Arc<Shared>>, done: impl Fn(&Progress) -> bool + Send) {
    let Some(shared) = shared else { return };
    let mut progress = shared.progress.subscribe();
    let mut seen = progress.borrow_and_update().stored;
    let mut deadline = Instant::now() + PATIENCE;
    loop {
        let now = *progress.borrow_and_update();
        if done(&now) || now.down {
            return;
        }
        if now.stored > seen {
            // It takes batches: it is slow, not down.
            seen = now.stored;
            deadline = Instant::now() + PATIENCE;
        }
        match timeout_at(deadline, progress.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::warn!(
                    "the journal took nothing for {PATIENCE:?}: delivery goes on without it"
                );
                shared.progress.send_modify(|progress| progress.down = true);
            }
        }
    }
}

/// What a change takes in memory, about.
fn bytes_of(change: &Change) -> usize {
    let answer = change.log.as_ref().and_then(|log| log.response.as_ref());
    let event = change
        .event
        .as_ref()
        .map_or(0, |event| event.byte_len().min(4096));
    512 + event / 4 + answer.map_or(0, |answer| answer.body.len() + 64 * answer.headers.len())
}

/// The thread's own.
struct Writing {
    shared: Arc<Shared>,
    keeper: Box<dyn Keeper>,
    /// Whether the store said so.
    ready: bool,
    retained: Instant,
}

/// What there is to do.
enum Next {
    Batch(Vec<Change>, Ticket),
    /// Nothing came in for a while.
    Idle,
    /// It was closed, and nothing is left.
    End,
}

/// What came of a batch.
enum Written {
    Stored,
    /// It was dropped: the store refuses what is in it.
    Refused,
    /// The end came before the store took it.
    Closed,
}

impl Writing {
    fn new(shared: Arc<Shared>, keeper: Box<dyn Keeper>) -> Self {
        Self {
            shared,
            keeper,
            ready: false,
            retained: Instant::now(),
        }
    }

    fn run(mut self) {
        self.prepare();
        loop {
            match self.next() {
                Next::Batch(batch, last) => match self.write(&batch) {
                    Written::Stored => self.took(last),
                    Written::Refused => {
                        self.lose(batch.len() as u64);
                        self.took(last);
                    }
                    Written::Closed => return self.give_up(batch.len()),
                },
                Next::Idle => self.prepare(),
                Next::End => return,
            }
            self.tell_gap();
            if self.ready && self.retained.elapsed() > RETAIN {
                self.retained = Instant::now();
                self.keeper.retain(self.shared.clock.now());
            }
        }
    }

    /// Has the store get ready before the first batch, so that this one need not wait for it.
    fn prepare(&mut self) {
        if self.ready {
            return;
        }
        let known = self.shared.progress.borrow().down;
        match self.keeper.prepare() {
            Ok(()) => self.ready = true,
            Err(error) if known => tracing::debug!(%error, "the journal is still not there"),
            Err(error) => {
                tracing::warn!(%error, "the journal is not there yet, trying again: delivery goes on without it");
            }
        }
        let down = !self.ready;
        self.shared
            .progress
            .send_if_modified(|progress| std::mem::replace(&mut progress.down, down) != down);
    }

    /// The next batch with the ticket of its last change.
    fn next(&self) -> Next {
        let idle = if self.ready { RETAIN } else { IDLE };
        let nothing = |queue: &mut Queue| queue.changes.is_empty() && !queue.closed;
        let waited = self
            .shared
            .filled
            .wait_timeout_while(self.shared.lock(), idle, nothing);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        if queue.changes.is_empty() {
            return if queue.closed { Next::End } else { Next::Idle };
        }
        if queue.changes.len() < ENOUGH && !queue.closed {
            let few = |queue: &mut Queue| queue.changes.len() < ENOUGH && !queue.closed;
            let waited = self.shared.filled.wait_timeout_while(queue, GATHER, few);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let count = queue.changes.len().min(BATCH);
        let rest = queue.changes.split_off(count);
        let batch = std::mem::replace(&mut queue.changes, rest);
        queue.bytes = queue.bytes.saturating_sub(batch.iter().map(bytes_of).sum());
        let last = Ticket(queue.last.0 - queue.changes.len() as u64);
        self.shared
            .waiting
            .set(i64::try_from(queue.changes.len()).unwrap_or(i64::MAX));
        Next::Batch(batch, last)
    }

    fn write(&mut self, batch: &[Change]) -> Written {
        let (mut pause, mut refused) = (AGAIN[0], 0);
        loop {
            let error = match self.keeper.write(batch) {
                Ok(()) => {
                    self.ready = true;
                    return Written::Stored;
                }
                Err(error) => error,
            };
            self.shared
                .progress
                .send_if_modified(|progress| !std::mem::replace(&mut progress.down, true));
            if pause == AGAIN[0] {
                tracing::warn!(%error, "the journal cannot be written, trying again: delivery goes on without it");
            }
            refused += u32::from(error.is_refused());
            if refused >= TRIES {
                tracing::error!(%error, "the journal refuses a batch: it is left out");
                return Written::Refused;
            }
            let queue = self.shared.lock();
            if queue.closed {
                return Written::Closed;
            }
            let waited = self
                .shared
                .filled
                .wait_timeout_while(queue, pause, |queue| !queue.closed);
            drop(waited);
            pause = (pause * 2).min(AGAIN[1]);
        }
    }

    /// A batch is done with: the journal is there.
    fn took(&self, last: Ticket) {
        let (bounds, queue) = (self.shared.bounds, self.shared.lock());
        let crowded = queue.changes.len() > bounds.crowd() / 2 || queue.bytes > bounds.bytes / 8;
        drop(queue);
        self.shared.progress.send_modify(|progress| {
            progress.crowded &= crowded;
            progress.stored = last;
            progress.down = false;
        });
    }

    /// The end came while the store was away.
    fn give_up(&self, changes: usize) {
        let changes = changes + self.shared.lock().changes.len();
        tracing::warn!(
            changes,
            "the journal is not there at the end: these changes are lost to it"
        );
        self.lose(changes as u64);
    }

    fn lose(&self, changes: u64) {
        let now = self.shared.clock.now();
        self.shared.lost.inc_by(changes);
        let mut queue = self.shared.lock();
        let dropped = queue.dropped.get_or_insert(Dropped {
            since: now,
            until: now,
            changes: 0,
        });
        dropped.until = now;
        dropped.changes += changes;
    }

    fn tell_gap(&mut self) {
        let Some(gap) = self.shared.lock().dropped.take() else {
            return;
        };
        if let Err(error) = self.keeper.write_gap(gap.since, gap.until, gap.changes) {
            tracing::warn!(%error, "a gap of the journal was not stored");
            let mut queue = self.shared.lock();
            let kept = queue.dropped.get_or_insert(Dropped { changes: 0, ..gap });
            kept.since = kept.since.min(gap.since);
            kept.changes += gap.changes;
        }
    }
}

#[cfg(test)]
mod tests;
