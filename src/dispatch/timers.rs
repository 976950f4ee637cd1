//! Messages that wait for a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokio::time::Instant;

/// Ids by due time; equal times come out in the order they went in.
#[derive(Debug)]
pub(crate) struct Timers<Id> {
    heap: BinaryHeap<Reverse<(Instant, u64, Id)>>,
    sequence: u64,
}

impl<Id: Ord + Copy> Default for Timers<Id> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            sequence: 0,
        }
    }
}

impl<Id: Ord + Copy> Timers<Id> {
    /// Has `id` come out at `due`.
    pub(crate) fn add(&mut self, due: Instant, id: Id) {
        self.sequence += 1;
        self.heap.push(Reverse((due, self.sequence, id)));
    }

    /// The next id that is due at `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Id> {
        let Reverse((due, _, id)) = self.heap.peek()?;
        let (due, id) = (*due, *id);
        (due <= now).then(|| {
            self.heap.pop();
            id
        })
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((due, ..))| *due)
    }

    /// When all of them are due, in no order.
    pub(crate) fn due(&self) -> impl Iterator<Item = Instant> {
        self.heap.iter().map(|Reverse((due, ..))| *due)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Takes an id out; whether it was there.
    pub(crate) fn take(&mut self, id: Id) -> bool {
        let before = self.heap.len();
        self.retain(|other| other != id);
        self.heap.len() < before
    }

    /// Keeps only what `keep` says.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(Id) -> bool) {
        self.heap.retain(|Reverse((_, _, id))| keep(*id));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_comes_out_by_time_then_by_entry() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.add(at(20), 1);
        timers.add(at(10), 2);
        timers.add(at(10), 3);
        timers.add(at(30), 4);
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop(at(9)), None);
        assert_eq!(timers.pop(at(20)), Some(2));
        assert_eq!(timers.pop(at(20)), Some(3));
        timers.retain(|id| id != 1);
        assert_eq!(timers.pop(at(20)), None);
        assert_eq!(timers.next(), Some(at(30)));
    }
}
