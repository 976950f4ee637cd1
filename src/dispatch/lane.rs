//! What is kept in order: the messages of one key, or of a whole partition.
//!
//! A lane is held by one message at a time; those that come after it wait behind it in the order
//! they were read. A message without a lane waits for nobody.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::channel::Ordering;
use crate::event::Event;

/// Which lane a message belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LaneKey {
    /// All messages of the partition.
    Partition,
    /// Those with this `partitionkey`.
    Key(Bytes),
}

impl LaneKey {
    /// The lane of `event`; `None`: it waits for nobody.
    pub(crate) fn of(event: &Event, ordering: Ordering) -> Option<Self> {
        match ordering {
            Ordering::None => None,
            Ordering::Partition => Some(Self::Partition),
            Ordering::Key => event.key().cloned().map(Self::Key),
        }
    }
}

/// Whether a message may go at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It holds its lane.
    Free,
    /// It waits behind others.
    Behind,
}

/// The lanes of one partition. A lane exists while a message holds it.
#[derive(Debug)]
pub(crate) struct Lanes<Id> {
    waiting: HashMap<LaneKey, VecDeque<Id>>,
}

impl<Id> Default for Lanes<Id> {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
        }
    }
}

impl<Id> Lanes<Id> {
    /// Puts a message into its lane.
    pub(crate) fn enter(&mut self, lane: &LaneKey, id: Id) -> Entry {
        if let Some(queue) = self.waiting.get_mut(lane) {
            queue.push_back(id);
            return Entry::Behind;
        }
        self.waiting.insert(lane.clone(), VecDeque::new());
        Entry::Free
    }

    /// The holder leaves; gives the message that holds the lane now.
    pub(crate) fn leave(&mut self, lane: &LaneKey) -> Option<Id> {
        let next = self.waiting.get_mut(lane)?.pop_front();
        if next.is_none() {
            self.waiting.remove(lane);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_held_by_one_and_passed_on_in_order() {
        let key = |text: &'static str| LaneKey::Key(Bytes::from_static(text.as_bytes()));
        let mut lanes = Lanes::default();
        assert_eq!(lanes.enter(&key("a"), 1), Entry::Free);
        assert_eq!(lanes.enter(&key("a"), 2), Entry::Behind);
        assert_eq!(lanes.enter(&key("a"), 3), Entry::Behind);
        assert_eq!(lanes.enter(&key("b"), 4), Entry::Free);
        assert_eq!(lanes.leave(&key("a")), Some(2));
        assert_eq!(lanes.leave(&key("a")), Some(3));
        assert_eq!(lanes.enter(&key("a"), 5), Entry::Behind);
        assert_eq!(lanes.leave(&key("a")), Some(5));
        assert_eq!(lanes.leave(&key("a")), None);
        assert_eq!(lanes.leave(&key("b")), None);
        assert!(lanes.waiting.is_empty());
        assert_eq!(lanes.enter(&key("a"), 6), Entry::Free);
    }
}
