//! The way to the writer thread: many push, one takes everything that waits.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the writer has to do, bounded by number and by bytes.
///
/// The writer takes all of it at once, so up to twice the bounds are in memory: what it works on
/// and what came meanwhile.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    max_items: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    bytes: usize,
    closed: bool,
}

/// Why an item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is room again soon.
    Full,
    /// There never will be.
    Closed,
}

/// Room kept for what is not a record, so that commits go on while appends are refused.
const RESERVE: usize = 65_536;

impl<T> Queue<T> {
    pub(super) fn new(max_items: usize, max_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State {
                items: Vec::new(),
                bytes: 0,
                closed: false,
            }),
            filled: Condvar::new(),
            max_items,
            max_bytes,
        }
    }

    /// Adds a record of so many bytes. One that alone passes the bound is taken by an empty queue.
    pub(super) fn push_record(&self, item: T, bytes: usize) -> Result<(), Refusal> {
        let state = self.lock();
        let fits = state.items.is_empty() || state.bytes + bytes <= self.max_bytes;
        if fits {
            self.push_into(state, item, bytes, self.max_items)
        } else {
            Err(Refusal::Full)
        }
    }

    /// Adds anything else.
    pub(super) fn push(&self, item: T) -> Result<(), Refusal> {
        self.push_into(self.lock(), item, 0, self.max_items + RESERVE)
    }

    fn push_into(
        &self,
        mut state: MutexGuard<'_, State<T>>,
        item: T,
        bytes: usize,
        max_items: usize,
    ) -> Result<(), Refusal> {
        if state.closed {
            return Err(Refusal::Closed);
        }
        if state.items.len() >= max_items {
            return Err(Refusal::Full);
        }
        let was_empty = state.items.is_empty();
        state.items.push(item);
        state.bytes += bytes;
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Moves everything that waits to `items`, which is empty; waits at most `patience` for the
    /// first. Says whether more can come.
    pub(super) fn take(&self, items: &mut Vec<T>, patience: Duration) -> bool {
        let state = self.lock();
        let idle = |state: &mut State<T>| state.items.is_empty() && !state.closed;
        let waited = self.filled.wait_timeout_while(state, patience, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.items, items);
        state.bytes = 0;
        !state.closed
    }

    /// Nothing is taken any more; what waits is still done.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_by_number_and_by_bytes() {
        let queue = Queue::new(3, 100);
        assert_eq!(queue.push_record(0, 1000), Ok(()), "alone it is taken");
        assert_eq!(queue.push_record(1, 1), Err(Refusal::Full));
        let mut items = Vec::new();
        assert!(queue.take(&mut items, Duration::ZERO));
        assert_eq!(items, [0]);
        items.clear();

        for n in 0..3 {
            assert_eq!(queue.push_record(n, 30), Ok(()));
        }
        assert_eq!(queue.push_record(3, 1), Err(Refusal::Full));
        assert_eq!(queue.push(4), Ok(()), "other work has room left");
        assert!(queue.take(&mut items, Duration::ZERO));
        assert_eq!(items, [0, 1, 2, 4]);
    }

    #[test]
    fn what_waits_at_the_close_is_still_handed_out() {
        let queue = Queue::new(3, 100);
        queue.push(1).unwrap();
        queue.close();
        assert_eq!(queue.push(2), Err(Refusal::Closed));
        assert_eq!(queue.push_record(2, 1), Err(Refusal::Closed));
        let mut items = Vec::new();
        assert!(!queue.take(&mut items, Duration::MAX));
        assert_eq!(items, [1]);
        items.clear();
        assert!(!queue.take(&mut items, Duration::MAX));
        assert!(items.is_empty());
    }

    #[test]
    fn a_waiting_taker_is_woken() {
        let queue = Queue::new(3, 100);
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let mut items = Vec::new();
                queue.take(&mut items, Duration::MAX);
                items
            });
            queue.push(7).unwrap();
            assert_eq!(taker.join().unwrap(), [7]);
        });
    }
}
