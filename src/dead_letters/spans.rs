//! Sets of offsets, kept as spans.

/// Offsets of one partition. Adding in order, as a redrive does, keeps it as short as it can be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<(i64, i64)>);

impl Spans {
    pub(super) fn contains(&self, offset: i64) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= offset);
        after > 0 && offset < self.0[after - 1].1
    }

    /// From the first offset to behind the last one.
    pub(super) fn range(&self) -> std::ops::Range<i64> {
        match (self.0.first(), self.0.last()) {
            (Some((start, _)), Some((_, end))) => *start..*end,
            _ => 0..0,
        }
    }

    pub(super) fn add(&mut self, offset: i64) {
        if self.contains(offset) {
            return;
        }
        let place = self.0.partition_point(|(start, _)| *start <= offset);
        match place.checked_sub(1).map(|before| &mut self.0[before]) {
            Some((_, end)) if *end == offset => *end += 1,
            _ => self.0.insert(place, (offset, offset + 1)),
        }
    }

    /// First offsets and ends, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, i64)> {
        self.0.iter().copied()
    }

    /// The end of the last one.
    pub(super) fn end(&self) -> i64 {
        self.0.last().map_or(0, |(_, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_added_is_there_and_nothing_else(offsets in prop::collection::vec(0_i64..40, 0..40)) {
            let mut spans = Spans::default();
            offsets.iter().for_each(|offset| spans.add(*offset));
            for offset in -1..41 {
                prop_assert_eq!(spans.contains(offset), offsets.contains(&offset), "{}", offset);
            }
            let count: i64 = spans.iter().map(|(start, end)| end - start).sum();
            let mut distinct = offsets;
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(usize::try_from(count).unwrap(), distinct.len());
        }
    }

    #[test]
    fn neighbours_added_in_order_are_one_span() {
        let mut spans = Spans::default();
        [3, 4, 5, 9].iter().for_each(|offset| spans.add(*offset));
        assert_eq!(spans.iter().collect::<Vec<_>>(), [(3, 6), (9, 10)]);
        assert_eq!(spans.end(), 10);
    }
}
