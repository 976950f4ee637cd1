//! Serves all consumers' main queues with a few threads.
//!
//! Group events, commit results, errors and log lines of a consumer come only to who polls it.
//! A thread a consumer would be hundreds of threads that sleep; here a consumer asks for its turn
//! when its queue becomes non-empty. librdkafka tells that edge once, and it can be missed (a
//! poll that returns nothing may have served an event with more behind it), so every consumer is
//! also polled four times a second.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::log::LogError;

/// How often every consumer gets a turn, asked or not.
const SWEEP: Duration = Duration::from_millis(250);

/// A consumer that wants its main queue polled.
pub(super) trait Pollable: Send + Sync {
    /// Serves what is there; never blocks.
    fn poll_main(&self);
}

/// The consumers that are served, by threads that end when this is dropped.
pub(super) struct Pollers {
    queue: Arc<Queue>,
}

impl fmt::Debug for Pollers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pollers")
            .field("consumers", &self.queue.lock().all.len())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    /// Turns that are due; a consumer is in it at most once.
    due: VecDeque<Arc<Turn>>,
    all: Vec<Weak<Turn>>,
    next_sweep: Option<Instant>,
    stopped: bool,
}

/// No turn is due; one is; one is being taken; another is due after the one being taken.
const IDLE: u8 = 0;
const DUE: u8 = 1;
const RUNNING: u8 = 2;
const RUNNING_AND_DUE: u8 = 3;

/// A consumer's turns: at most one at a time, so that its events stay in order.
pub(super) struct Turn {
    state: AtomicU8,
    consumer: OnceLock<Weak<dyn Pollable>>,
    queue: Arc<Queue>,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Turn {
    /// Says whose turns these are; from now on it is also swept.
    pub(super) fn of(self: &Arc<Self>, consumer: Weak<dyn Pollable>) {
        drop(self.consumer.set(consumer));
        self.queue.lock().all.push(Arc::downgrade(self));
        self.ask();
    }

    /// Asks for a turn. Called by librdkafka's threads too: brief, and takes no lock of theirs.
    pub(super) fn ask(self: &Arc<Self>) {
        let asked =
            self.state
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| match state {
                    IDLE => Some(DUE),
                    RUNNING => Some(RUNNING_AND_DUE),
                    _ => None,
                });
        if asked == Ok(IDLE) {
            self.queue.lock().due.push_back(Arc::clone(self));
            self.queue.ready.notify_one();
        }
    }

    fn take(self: &Arc<Self>) {
        // Before the poll, so that an edge during it is not lost.
        self.state.store(RUNNING, Ordering::Release);
        if let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) {
            consumer.poll_main();
        }
        if self
            .state
            .compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            self.state.store(DUE, Ordering::Release);
            self.queue.lock().due.push_back(Arc::clone(self));
            self.queue.ready.notify_one();
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn that is due; `None` when stopped.
    fn next(&self) -> Option<Arc<Turn>> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(turn) = state.due.pop_front() {
                return Some(turn);
            }
            let now = Instant::now();
            let next_sweep = *state.next_sweep.get_or_insert(now + SWEEP);
            if now < next_sweep {
                let waited = self.ready.wait_timeout(state, next_sweep - now);
                (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.next_sweep = Some(now + SWEEP);
            state.all.retain(|turn| turn.strong_count() > 0);
            let all: Vec<_> = state.all.iter().filter_map(Weak::upgrade).collect();
            drop(state);
            all.iter().for_each(Turn::ask);
            state = self.lock();
        }
    }
}

impl Pollers {
    /// Starts `threads` threads, at least one.
    pub(super) fn start(threads: usize) -> Result<Self, LogError> {
        let queue = Arc::new(Queue::default());
        let start = |n: usize| {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new()
                .name(format!("kafka-poll-{n}"))
                .spawn(move || {
                    while let Some(turn) = queue.next() {
                        turn.take();
                    }
                })
        };
        for n in 0..threads.max(1) {
            start(n).map_err(|error| LogError::Unavailable(format!("no thread: {error}")))?;
        }
        Ok(Self { queue })
    }

    /// Turns for a consumer that is being made.
    pub(super) fn turn(&self) -> Arc<Turn> {
        Arc::new(Turn {
            state: AtomicU8::new(IDLE),
            consumer: OnceLock::new(),
            queue: Arc::clone(&self.queue),
        })
    }
}

impl Drop for Pollers {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.stopped = true;
        state.due.clear();
        drop(state);
        self.queue.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::sync::mpsc;

    use super::*;

    struct Counted {
        turns: AtomicUsize,
        inside: AtomicBool,
        overlapped: AtomicBool,
        told: Mutex<mpsc::Sender<usize>>,
    }

    impl Pollable for Counted {
        fn poll_main(&self) {
            if self.inside.swap(true, Ordering::SeqCst) {
                self.overlapped.store(true, Ordering::SeqCst);
            }
            std::thread::yield_now();
            let turns = self.turns.fetch_add(1, Ordering::SeqCst) + 1;
            self.inside.store(false, Ordering::SeqCst);
            self.told.lock().unwrap().send(turns).ok();
        }
    }

    fn counted(pollers: &Pollers) -> (Arc<Counted>, Arc<Turn>, mpsc::Receiver<usize>) {
        let (told, hear) = mpsc::channel();
        let consumer = Arc::new(Counted {
            turns: AtomicUsize::new(0),
            inside: AtomicBool::new(false),
            overlapped: AtomicBool::new(false),
            told: Mutex::new(told),
        });
        let turn = pollers.turn();
        let pollable: Arc<dyn Pollable> = consumer.clone();
        turn.of(Arc::downgrade(&pollable));
        (consumer, turn, hear)
    }

    #[test]
    fn a_consumer_gets_turns_unasked_and_never_two_at_once() {
        let pollers = Pollers::start(4).unwrap();
        let (consumer, turn, hear) = counted(&pollers);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| turn.ask()));
            }
        });
        // The sweep goes on without being asked.
        let asked = consumer.turns.load(Ordering::SeqCst);
        let limit = Duration::from_secs(10);
        while hear.recv_timeout(limit).expect("a sweep") < asked + 3 {}
        assert!(!consumer.overlapped.load(Ordering::SeqCst));
    }

    #[test]
    fn a_consumer_that_is_gone_is_forgotten() {
        let pollers = Pollers::start(1).unwrap();
        let (consumer, turn, hear) = counted(&pollers);
        hear.recv_timeout(Duration::from_secs(10)).unwrap();
        drop((consumer, turn));
        let (_other, _turn, hear) = counted(&pollers);
        for _ in 0..3 {
            hear.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        assert_eq!(pollers.queue.lock().all.len(), 1);
    }
}
