//! Which offsets of a partition are finished, and what may be committed.
//!
//! The commit is the first offset that is not finished. Finished offsets beyond it are kept in
//! the commit's metadata ([`Metadata`]), so that a restart repeats only what was not finished.
//!
//! Of scattered finished offsets about 1,500 fit when they are sparse (up to 127 apart, alone),
//! and any number when they are dense: then a bitmap is written, which reaches 24,000 offsets
//! beyond the commit. A window of 10,000 therefore always fits, in at most 1,700 characters.
//! Of waiting events about 380 fit besides.

mod metadata;

use std::collections::VecDeque;
use std::ops::Range;

pub use metadata::{Fit, METADATA_LIMIT, Metadata, Waiting};

use crate::log::Offset;

/// Keeps the unfinished offsets of one partition.
///
/// A bit an offset, in words that are kept only where something is unfinished: memory follows the
/// number of unfinished events, however large the holes in the log are.
#[derive(Clone, Debug)]
pub struct OffsetTracker {
    /// In order, the first one with at least one unfinished offset.
    words: VecDeque<Word>,
    /// The offset after the last one begun; everything before it that is in no word is finished.
    next: i64,
    unfinished: usize,
    /// Finished before a restart and not read again yet: ordered, apart, at or beyond `next`.
    restored: VecDeque<Range<i64>>,
}

#[derive(Clone, Copy, Debug)]
struct Word {
    /// The offsets `64 * index` and the 63 after it.
    index: i64,
    /// A set bit is an unfinished offset.
    open: u64,
}

impl Word {
    fn of(offset: i64) -> (i64, u64) {
        (offset >> 6, 1 << (offset & 63))
    }

    fn first_open(self) -> i64 {
        self.index * 64 + i64::from(self.open.trailing_zeros())
    }
}

impl OffsetTracker {
    /// A partition that is read from `start` on; everything before it is finished.
    #[must_use]
    pub fn new(start: Offset) -> Self {
        Self {
            words: VecDeque::new(),
            next: start.0,
            unfinished: 0,
            restored: VecDeque::new(),
        }
    }

    /// A partition that is read from `commit` on, where the offsets of `done` are finished.
    #[must_use]
    pub fn restore(commit: Offset, done: &[Range<Offset>]) -> Self {
        let mut ranges: Vec<_> = done
            .iter()
            .map(|range| range.start.0.max(commit.0)..range.end.0)
            .filter(|range| !range.is_empty())
            .collect();
        ranges.sort_unstable_by_key(|range| range.start);
        let mut tracker = Self::new(commit);
        for range in ranges {
            match tracker.restored.back_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => tracker.restored.push_back(range),
            }
        }
        tracker
    }

    /// Takes notice of a record that was read, and says whether it is to be processed. It is not
    /// when it was finished before a restart, or when it is not beyond the last one begun.
    ///
    /// Offsets between the last one begun and this one hold no record: they count as finished.
    #[must_use]
    pub fn begin(&mut self, offset: Offset) -> bool {
        let offset = offset.0;
        if offset < self.next {
            return false;
        }
        self.next = offset.saturating_add(1);
        while let Some(range) = self.restored.front_mut() {
            if range.end > self.next {
                let finished = range.start <= offset;
                range.start = range.start.max(self.next);
                if finished {
                    return false;
                }
                break;
            }
            let finished = range.contains(&offset);
            self.restored.pop_front();
            if finished {
                return false;
            }
        }
        let (index, bit) = Word::of(offset);
        match self.words.back_mut() {
            Some(last) if last.index == index => last.open |= bit,
            _ => self.words.push_back(Word { index, open: bit }),
        }
        self.unfinished += 1;
        true
    }

    /// Marks an offset as finished. Nothing happens when it is already, or was never begun.
    pub fn complete(&mut self, offset: Offset) {
        let (index, bit) = Word::of(offset.0);
        let Some(word) = self.find(index).and_then(|place| self.words.get_mut(place)) else {
            return;
        };
        if word.open & bit == 0 {
            return;
        }
        word.open &= !bit;
        self.unfinished -= 1;
        while self.words.front().is_some_and(|word| word.open == 0) {
            self.words.pop_front();
        }
    }

    /// Whether an offset is finished; one that was not begun yet is not, unless it was finished
    /// before a restart.
    #[must_use]
    pub fn is_complete(&self, offset: Offset) -> bool {
        if offset.0 >= self.next {
            let in_range = |range: &Range<i64>| range.contains(&offset.0);
            return self.restored.iter().any(in_range);
        }
        let (index, bit) = Word::of(offset.0);
        let word = self.find(index).and_then(|place| self.words.get(place));
        word.is_none_or(|word| word.open & bit == 0)
    }

    /// The offset to commit: the first unfinished one, or the next one expected.
    #[must_use]
    pub fn committable(&self) -> Offset {
        Offset(
            self.words
                .front()
                .map_or(self.next, |word| word.first_open()),
        )
    }

    /// The offset after the last one begun.
    #[must_use]
    pub fn next(&self) -> Offset {
        Offset(self.next)
    }

    /// How many offsets are unfinished.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// How far reading is ahead of the commit, in offsets.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.next.abs_diff(self.committable().0)
    }

    /// The finished offsets beyond the commit, as ordered ranges that do not touch.
    #[must_use]
    pub fn done(&self) -> Vec<Range<Offset>> {
        self.first_done(usize::MAX)
    }

    /// The first `max` ranges of [`OffsetTracker::done`], or a few more.
    #[must_use]
    pub fn first_done(&self, max: usize) -> Vec<Range<Offset>> {
        let mut ranges: Vec<Range<Offset>> = Vec::new();
        let add = |ranges: &mut Vec<Range<Offset>>, range: Range<i64>| {
            if range.is_empty() {
                return;
            }
            match ranges.last_mut() {
                Some(last) if last.end.0 == range.start => last.end.0 = range.end,
                _ => ranges.push(Offset(range.start)..Offset(range.end)),
            }
        };
        let mut after = self.committable().0;
        for word in &self.words {
            if ranges.len() >= max {
                return ranges;
            }
            let mut open = word.open;
            while open != 0 {
                let from = open.trailing_zeros();
                let count = (open >> from).trailing_ones();
                let start = word.index * 64 + i64::from(from);
                add(&mut ranges, after..start);
                after = start + i64::from(count);
                open &= u64::MAX.checked_shl(from + count).unwrap_or(0);
            }
        }
        add(&mut ranges, after..self.next);
        for range in &self.restored {
            add(&mut ranges, range.clone());
        }
        ranges
    }

    /// Where the word is. Without holes it is as far from the first as their indices are.
    fn find(&self, index: i64) -> Option<usize> {
        let first = self.words.front()?.index;
        let guess = usize::try_from(index.checked_sub(first)?).ok()?;
        if self
            .words
            .get(guess)
            .is_some_and(|word| word.index == index)
        {
            return Some(guess);
        }
        self.words
            .binary_search_by_key(&index, |word| word.index)
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn begin_all(tracker: &mut OffsetTracker, offsets: impl IntoIterator<Item = i64>) {
        for offset in offsets {
            assert!(tracker.begin(Offset(offset)), "{offset}");
        }
    }

    fn ranges(of: &[(i64, i64)]) -> Vec<Range<Offset>> {
        of.iter()
            .map(|(start, end)| Offset(*start)..Offset(*end))
            .collect()
    }

    #[test]
    fn the_vectors_hold() {
        let text = include_str!("../../tests/vectors/offsets.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 6);
        for case in cases {
            let first = case["first_offset"].as_i64().unwrap();
            let done = case["completed_in_order"].as_array().unwrap().iter();
            let done: Vec<i64> = done
                .map(|one| one.as_i64().or_else(|| one["offset"].as_i64()).unwrap())
                .collect();
            let mut tracker = OffsetTracker::new(Offset(first));
            begin_all(&mut tracker, first..=*done.iter().max().unwrap());
            for offset in done {
                tracker.complete(Offset(offset));
            }
            let expected = case["expect_committed"].as_i64().unwrap();
            assert_eq!(tracker.committable(), Offset(expected), "{}", case["name"]);
        }
    }

    #[test]
    fn holes_count_as_finished_and_cost_no_memory() {
        let mut tracker = OffsetTracker::new(Offset(5));
        begin_all(&mut tracker, [5, 9, 1 << 60]);
        assert_eq!(tracker.words.len(), 2);
        assert!(tracker.is_complete(Offset(7)));
        assert_eq!(tracker.done(), ranges(&[(6, 9), (10, 1 << 60)]));
        tracker.complete(Offset(5));
        assert_eq!(tracker.committable(), Offset(9));
        tracker.complete(Offset(9));
        tracker.complete(Offset(1 << 60));
        assert_eq!(tracker.committable(), Offset((1 << 60) + 1));
        assert_eq!((tracker.unfinished(), tracker.words.len()), (0, 0));
    }

    #[test]
    fn an_offset_that_is_read_again_is_not_begun_again() {
        let mut tracker = OffsetTracker::new(Offset(3));
        assert!(!tracker.begin(Offset(2)));
        assert!(tracker.begin(Offset(3)));
        assert!(!tracker.begin(Offset(3)));
        assert_eq!(tracker.unfinished(), 1);
    }

    #[test]
    fn guarantee_5_what_was_finished_before_a_restart_is_skipped_and_stays_in_the_metadata() {
        let done = ranges(&[(20, 22), (4, 6), (12, 12), (6, 8), (0, 2)]);
        let mut tracker = OffsetTracker::restore(Offset(3), &done);
        assert_eq!(tracker.done(), ranges(&[(4, 8), (20, 22)]));
        assert!(tracker.begin(Offset(3)));
        assert!(!tracker.begin(Offset(4)));
        assert!(!tracker.is_complete(Offset(8)) && tracker.is_complete(Offset(7)));
        assert_eq!(tracker.done(), ranges(&[(4, 8), (20, 22)]));
        assert!(!tracker.begin(Offset(7)));
        assert!(tracker.begin(Offset(8)));
        assert_eq!(tracker.done(), ranges(&[(4, 8), (20, 22)]));
        tracker.complete(Offset(3));
        assert_eq!(tracker.committable(), Offset(8));
        assert_eq!(tracker.done(), ranges(&[(20, 22)]));
        // The log begins later now: what is restored before it is over.
        assert!(tracker.begin(Offset(30)));
        assert_eq!(tracker.done(), ranges(&[(9, 30)]));
    }

    /// What a step of the model does, to an offset that is so far from the one in question.
    #[derive(Clone, Copy, Debug)]
    enum Move {
        Begin(u8),
        Complete(u16),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let step = prop_oneof![
            4 => (0_u8..3).prop_map(Move::Begin),
            1 => any::<u8>().prop_map(Move::Begin),
            4 => (0_u16..300).prop_map(Move::Complete),
        ];
        prop::collection::vec(step, 0..400)
    }

    proptest! {
        #[test]
        fn it_agrees_with_plain_sets(
            start in 0_i64..200,
            restored in prop::collection::btree_set(0_i64..400, 0..80),
            moves in moves(),
        ) {
            let done: Vec<_> = restored.iter().map(|at| Offset(*at)..Offset(*at + 1)).collect();
            let mut tracker = OffsetTracker::restore(Offset(start), &done);
            let mut open = BTreeSet::new();
            let mut next = start;
            for step in moves {
                match step {
                    Move::Begin(skip) => {
                        let offset = next + i64::from(skip);
                        let fresh = !restored.contains(&offset);
                        prop_assert_eq!(tracker.begin(Offset(offset)), fresh);
                        if fresh {
                            open.insert(offset);
                        }
                        next = offset + 1;
                    }
                    Move::Complete(back) => {
                        let offset = next - i64::from(back);
                        open.remove(&offset);
                        tracker.complete(Offset(offset));
                        tracker.complete(Offset(offset));
                    }
                }
                let commit = open.first().copied().unwrap_or(next);
                prop_assert_eq!(tracker.committable(), Offset(commit));
                prop_assert_eq!(tracker.next(), Offset(next));
                prop_assert_eq!(tracker.unfinished(), open.len());
                prop_assert_eq!(tracker.window(), next.abs_diff(commit));
            }
            let commit = tracker.committable().0;
            let finished = |at: i64| !open.contains(&at) && (at < next || restored.contains(&at));
            let ranges = tracker.done();
            let mut before = i64::MIN;
            for range in &ranges {
                prop_assert!(range.start > Offset(before) && range.end > range.start);
                before = range.end.0;
            }
            for at in commit..next.max(400) + 2 {
                let listed = ranges.iter().any(|range| range.contains(&Offset(at)));
                prop_assert_eq!(listed, finished(at), "{}", at);
                prop_assert_eq!(tracker.is_complete(Offset(at)), finished(at), "{}", at);
            }
        }
    }
}
