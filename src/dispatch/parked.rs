//! What waits in one partition of the retry topic: an index by due time, without payloads.
//!
//! A message is known by its origin. It can stand in the topic more than once: it was parked
//! again, or parked twice around a crash. The record that is furthest along counts; the others
//! are finished at once, so that one message never becomes two.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use tokio::time::Instant;

use super::dead_letter::Origin;
use crate::log::{Offset, Partition};

/// What an entry costs, as the bound on all entries reckons it: two numbers and a rank in the
/// map, three numbers in the heap, and the room both keep free. In bytes.
pub(crate) const ENTRY_BYTES: usize = 64;

/// So many messages that came to their end are remembered.
const ENDED: usize = 8192;

/// Whose message it is: partition and offset in the channel topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OriginKey {
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
}

impl OriginKey {
    pub(crate) fn of(origin: &Origin) -> Self {
        Self {
            partition: origin.at.partition,
            offset: origin.offset,
        }
    }
}

/// How far along a message is: its phase, then the attempts made in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) phase: u8,
    pub(crate) attempts: u32,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    offset: Offset,
    rank: Rank,
}

/// What became of a record that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It waits now.
    Waiting,
    /// It waits now, and the record at this offset, which it follows, counts no more.
    Replaces(Offset),
    /// The message stands elsewhere and is as far along: this record counts no more.
    Superfluous,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ParkedIndex {
    held: HashMap<OriginKey, Held>,
    due: BinaryHeap<Reverse<(Instant, Offset, OriginKey)>>,
    /// Messages that came to their end lately: a record of one that turns up now was parked a
    /// second time around a crash.
    ended: HashSet<OriginKey>,
    ended_in_order: VecDeque<OriginKey>,
}

impl ParkedIndex {
    /// Takes a record in.
    pub(crate) fn insert(
        &mut self,
        key: OriginKey,
        rank: Rank,
        offset: Offset,
        due: Instant,
    ) -> Inserted {
        if self.ended.contains(&key) {
            return Inserted::Superfluous;
        }
        let before = self.held.get(&key).copied();
        if before.is_some_and(|held| held.rank >= rank && held.offset != offset) {
            return Inserted::Superfluous;
        }
        self.held.insert(key, Held { offset, rank });
        self.due.push(Reverse((due, offset, key)));
        match before {
            Some(held) if held.offset != offset => Inserted::Replaces(held.offset),
            _ => Inserted::Waiting,
        }
    }

    /// The next record that is due at `now`. It stays known until [`ParkedIndex::finish`].
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(OriginKey, Offset)> {
        loop {
            let Reverse((due, offset, key)) = *self.due.peek()?;
            if due > now {
                return None;
            }
            self.due.pop();
            if self
                .held
                .get(&key)
                .is_some_and(|held| held.offset == offset)
            {
                return Some((key, offset));
            }
        }
    }

    /// When the next one is due, or earlier.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((due, ..))| *due)
    }

    /// When all of those that wait are due, in no order; one that was parked twice may be there
    /// twice.
    pub(crate) fn due(&self) -> impl Iterator<Item = Instant> {
        self.due.iter().map(|Reverse((due, ..))| *due)
    }

    /// How many [`ParkedIndex::due`] tells of.
    pub(crate) fn waiting(&self) -> usize {
        self.due.len()
    }

    /// Has a record that was popped come up again.
    pub(crate) fn again(&mut self, key: OriginKey, offset: Offset, due: Instant) {
        self.due.push(Reverse((due, offset, key)));
    }

    /// Has the record that waits for a message come up at `due`; its offset, unless none waits.
    pub(crate) fn hasten(&mut self, key: OriginKey, due: Instant) -> Option<Offset> {
        let offset = self.held.get(&key)?.offset;
        let before = self.due.len();
        // All of them are looked at: a person asked, which is rare.
        self.due
            .retain(|Reverse((_, at, of))| (*at, *of) != (offset, key));
        // One that was popped is being tried already.
        (self.due.len() < before).then(|| {
            self.due.push(Reverse((due, offset, key)));
            offset
        })
    }

    /// The message came to its end; gives the record that still waited for it, if one did.
    pub(crate) fn end(&mut self, key: OriginKey) -> Option<Offset> {
        let held = self.held.remove(&key);
        if self.ended.insert(key) {
            self.ended_in_order.push_back(key);
        }
        if self.ended_in_order.len() > ENDED
            && let Some(oldest) = self.ended_in_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        held.map(|held| held.offset)
    }

    /// The message begins anew, by somebody's wish.
    pub(crate) fn renew(&mut self, key: OriginKey) {
        if self.ended.remove(&key) {
            self.ended_in_order.retain(|ended| *ended != key);
        }
    }

    /// The record at `offset` is finished; a later one of the same message stays.
    pub(crate) fn finish(&mut self, key: OriginKey, offset: Offset) {
        if self
            .held
            .get(&key)
            .is_some_and(|held| held.offset == offset)
        {
            self.held.remove(&key);
        }
    }

    /// Whether the record at `offset` is the one that counts for its message.
    pub(crate) fn counts(&self, key: OriginKey, offset: Offset) -> bool {
        self.held
            .get(&key)
            .is_some_and(|held| held.offset == offset)
    }

    /// Whether the message stands here at least as far along, or came to its end.
    pub(crate) fn knows(&self, key: OriginKey, rank: Rank) -> bool {
        let further = |held: &Held| held.rank >= rank;
        self.held.get(&key).is_some_and(further) || self.ended.contains(&key)
    }

    /// Messages that are known.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(offset: i64) -> OriginKey {
        OriginKey {
            partition: Partition(0),
            offset: Offset(offset),
        }
    }

    fn rank(phase: u8, attempts: u32) -> Rank {
        Rank { phase, attempts }
    }

    #[tokio::test(start_paused = true)]
    async fn records_come_up_by_due_time() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut index = ParkedIndex::default();
        for (offset, due) in [(0, 600), (1, 1), (2, 30)] {
            let inserted = index.insert(key(offset), rank(0, 1), Offset(offset), at(due));
            assert_eq!(inserted, Inserted::Waiting);
        }
        assert_eq!(index.next_due(), Some(at(1)));
        assert_eq!(index.pop(now), None);
        assert_eq!(index.pop(at(1)), Some((key(1), Offset(1))));
        assert_eq!(index.pop(at(29)), None);
        assert_eq!(index.pop(at(30)), Some((key(2), Offset(2))));
        index.again(key(2), Offset(2), at(31));
        assert_eq!(index.pop(at(31)), Some((key(2), Offset(2))));
        index.finish(key(1), Offset(1));
        index.finish(key(2), Offset(2));
        assert_eq!(index.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_ended_does_not_come_back_unless_it_is_renewed() {
        let now = Instant::now();
        let mut index = ParkedIndex::default();
        assert_eq!(
            index.insert(key(1), rank(0, 1), Offset(0), now),
            Inserted::Waiting
        );
        index.end(key(1));
        assert_eq!(
            index.insert(key(1), rank(0, 1), Offset(1), now),
            Inserted::Superfluous
        );
        index.renew(key(1));
        assert_eq!(
            index.insert(key(1), rank(0, 0), Offset(2), now),
            Inserted::Waiting
        );
        for offset in 0..=i64::try_from(ENDED).unwrap() {
            index.end(key(offset + 10));
        }
        assert_eq!(index.ended.len(), ENDED);
        assert_eq!(index.ended_in_order.len(), ENDED);
    }

    #[tokio::test(start_paused = true)]
    async fn of_one_message_the_record_that_is_furthest_along_counts() {
        let now = Instant::now();
        let mut index = ParkedIndex::default();
        assert_eq!(
            index.insert(key(7), rank(0, 1), Offset(0), now),
            Inserted::Waiting
        );
        let later = now + Duration::from_secs(9);
        assert_eq!(
            index.insert(key(7), rank(0, 1), Offset(1), now),
            Inserted::Superfluous
        );
        let replaces = Inserted::Replaces(Offset(0));
        assert_eq!(index.insert(key(7), rank(0, 2), Offset(2), later), replaces);
        assert_eq!(
            index.insert(key(7), rank(0, 1), Offset(3), now),
            Inserted::Superfluous
        );
        assert_eq!(index.pop(now), None, "the first record is no more due");
        index.finish(key(7), Offset(0));
        assert!(index.counts(key(7), Offset(2)));
        let replaces = Inserted::Replaces(Offset(2));
        assert_eq!(index.insert(key(7), rank(2, 1), Offset(4), later), replaces);
        assert_eq!(index.pop(later), Some((key(7), Offset(4))));
        index.finish(key(7), Offset(4));
        assert_eq!(index.len(), 0);
    }
}
