//! Reads the partitions of a topic side by side, oldest or newest record first.

use std::collections::VecDeque;
use std::ops::Range;

use crate::log::{EventLog, LogError, Offset, Partition, StoredRecord, TopicName, TopicPartition};

/// Bytes that all partitions together hold, about.
const BYTES: usize = 16 << 20;
/// Records that are read at one time: at first, and at most.
const CHUNK: Range<usize> = 4..512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    OldestFirst,
    NewestFirst,
}

/// See the module. What it holds is bounded by how large the records are, not by how many.
pub(super) struct Scan<'l> {
    log: &'l dyn EventLog,
    direction: Direction,
    lanes: Vec<Lane>,
}

struct Lane {
    at: TopicPartition,
    unread: Range<i64>,
    /// In the order they are handed out.
    read: VecDeque<StoredRecord>,
    chunk: usize,
}

impl<'l> Scan<'l> {
    /// Reads these offsets of each partition.
    pub(super) fn new(
        log: &'l dyn EventLog,
        topic: &TopicName,
        direction: Direction,
        offsets: Vec<Range<i64>>,
    ) -> Self {
        let lane = |(partition, unread)| Lane {
            at: TopicPartition {
                topic: topic.clone(),
                partition: Partition(partition),
            },
            unread,
            read: VecDeque::new(),
            chunk: CHUNK.start,
        };
        Self {
            log,
            direction,
            lanes: (0..).zip(offsets).map(lane).collect(),
        }
    }

    /// The next record.
    pub(super) async fn next(&mut self) -> Result<Option<(Partition, StoredRecord)>, LogError> {
        let share = BYTES / self.lanes.len().max(1);
        for lane in &mut self.lanes {
            while lane.read.is_empty() && !lane.unread.is_empty() {
                lane.fill(self.log, self.direction, share).await?;
            }
        }
        let times = self.lanes.iter().enumerate();
        let times = times.filter_map(|(index, lane)| Some((lane.read.front()?.time, index)));
        let next = match self.direction {
            Direction::OldestFirst => times.min(),
            Direction::NewestFirst => times.max(),
        };
        Ok(next.and_then(|(_, index)| {
            let lane = &mut self.lanes[index];
            Some((lane.at.partition, lane.read.pop_front()?))
        }))
    }

    /// Whether nothing is to come.
    pub(super) fn is_at_end(&self) -> bool {
        let done = |lane: &Lane| lane.read.is_empty() && lane.unread.is_empty();
        self.lanes.iter().all(done)
    }

    /// For each partition the end of what is still to come, when the newest come first.
    pub(super) fn ends(&self) -> Vec<i64> {
        let end = |lane: &Lane| {
            let next = lane.read.front().map(|stored| stored.offset.0 + 1);
            next.unwrap_or(lane.unread.end)
        };
        self.lanes.iter().map(end).collect()
    }
}

impl Lane {
    async fn fill(
        &mut self,
        log: &dyn EventLog,
        direction: Direction,
        share: usize,
    ) -> Result<(), LogError> {
        let chunk = i64::try_from(self.chunk).unwrap_or(1);
        let Range { start, end } = self.unread;
        let span = match direction {
            Direction::OldestFirst => start..end.min(start + chunk),
            Direction::NewestFirst => start.max(end - chunk)..end,
        };
        self.unread = match direction {
            Direction::OldestFirst => span.end..end,
            Direction::NewestFirst => start..span.start,
        };
        self.read = read(log, &self.at, span).await?.into();
        if direction == Direction::NewestFirst {
            self.read.make_contiguous().reverse();
        }
        if !self.read.is_empty() {
            let bytes: usize = self
                .read
                .iter()
                .map(|stored| stored.record.byte_len())
                .sum();
            let fitting = share * self.read.len() / bytes.max(1);
            self.chunk = fitting.min(self.chunk * 4).clamp(1, CHUNK.end);
        }
        Ok(())
    }
}

async fn read(
    log: &dyn EventLog,
    at: &TopicPartition,
    span: Range<i64>,
) -> Result<Vec<StoredRecord>, LogError> {
    let mut all: Vec<StoredRecord> = Vec::new();
    let mut next = span.start;
    while next < span.end {
        let count = usize::try_from(span.end - next).unwrap_or(1);
        let records = log.read(at, Offset(next), count).await?;
        let Some(last) = records.last() else {
            break;
        };
        next = last.offset.0 + 1;
        let inside = |stored: &StoredRecord| stored.offset.0 < span.end;
        all.extend(records.into_iter().filter(inside));
    }
    Ok(all)
}
