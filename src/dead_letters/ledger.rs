//! The redrive topic of a subscription: what its redrives are about and what they sent.
//!
//! It is made with the first redrive, has one partition and is read as a whole, which is little:
//! a record when a redrive begins or changes its state, and one for each batch of dead letters
//! that it sent. What no dead letter needs any more is trimmed when another redrive begins.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::letter::DeadLetter;
use super::redrive::RedriveId;
use super::spans::Spans;
use crate::clock::UnixMillis;
use crate::log::{
    EventLog, LogError, Offset, Partition, Record, StoredRecord, Target, TopicName, TopicPartition,
    TopicSpec, Watermarks,
};

/// Records that are read at one time; they are small.
const CHUNK: usize = 500;
/// The largest record: a batch whose dead letters are all apart fits.
const MAX_RECORD: u32 = 256 << 10;

/// How a redrive stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RedriveState")]
pub enum State {
    /// It sends, or goes on as soon as its node does.
    Running,
    /// It waits to be resumed.
    Paused,
    /// It was ended before it was done.
    Cancelled,
    /// It sent all there was to send.
    Done,
}

impl State {
    /// Whether it can change no more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Done)
    }
}

/// What a redrive is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Which dead letters.
    pub filter: Filter,
    /// At most so many, the oldest.
    pub limit: Option<u64>,
    /// At most so many a second.
    pub rate: Option<f64>,
    /// Also those that an earlier redrive sent.
    pub again: bool,
    /// The end of each partition of the dead-letter topic when it was planned.
    pub ends: Vec<i64>,
    /// How many there were then.
    pub count: u64,
    /// The node that works on it.
    pub node: String,
}

/// A redrive and how far it is.
#[derive(Clone, Debug)]
pub struct Redrive {
    /// Its name.
    pub id: RedriveId,
    /// What it is about.
    pub terms: Terms,
    /// How it stands.
    pub state: State,
    /// Why it paused by itself.
    pub why: Option<String>,
    /// Dead letters that are in the retry topic.
    pub sent: u64,
    /// Dead letters that the retry topic refused.
    pub failed: u64,
    /// When it was begun.
    pub created_at: UnixMillis,
    /// When something was written about it last.
    pub updated_at: UnixMillis,
    last_sent: UnixMillis,
    spans: BTreeMap<Partition, Spans>,
    /// Its first record.
    first: Offset,
}

impl Redrive {
    /// Whether it sent this dead letter. One that is younger than what it sent last stands where
    /// another stood before the topic was made anew.
    pub(super) fn has_sent(&self, letter: &DeadLetter) -> bool {
        let spans = self.spans.get(&letter.position.partition);
        letter.inserted_at <= self.last_sent
            && spans.is_some_and(|spans| spans.contains(letter.position.offset.0))
    }

    /// The offsets of the dead letters that it sent, by partition: from the first to the last.
    pub(super) fn sent_range(&self, partition: Partition) -> std::ops::Range<i64> {
        self.spans.get(&partition).map_or(0..0, Spans::range)
    }

    fn is_needed(&self, marks: &[Watermarks]) -> bool {
        let kept = |(partition, spans): (&Partition, &Spans)| {
            let low = marks.get(partition.index()).map_or(0, |marks| marks.low.0);
            spans.end() > low
        };
        !self.state.is_final() || self.spans.iter().any(kept)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    redrive: String,
    #[serde(flatten)]
    entry: Entry,
}

/// What is written down about a redrive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(super) enum Entry {
    Begun(Terms),
    Sent {
        /// Partition, first offset and end in the dead-letter topic.
        offsets: Vec<(i32, i64, i64)>,
        failed: u64,
    },
    State {
        state: State,
        /// Why, when nobody asked for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
}

impl Entry {
    /// That these dead letters are in the retry topic.
    pub(super) fn sent(sent: &[(Partition, Offset)], failed: u64) -> Self {
        let mut partitions: BTreeMap<i32, Spans> = BTreeMap::new();
        for (partition, offset) in sent {
            partitions.entry(partition.0).or_default().add(offset.0);
        }
        let flat = |(partition, spans): (i32, Spans)| {
            let spans: Vec<_> = spans.iter().collect();
            spans
                .into_iter()
                .map(move |(start, end)| (partition, start, end))
        };
        Self::Sent {
            offsets: partitions.into_iter().flat_map(flat).collect(),
            failed,
        }
    }
}

/// A subscription's redrives as they were when they were read last.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    redrives: BTreeMap<String, Redrive>,
    next: i64,
}

impl Ledger {
    pub(super) fn get(&self, id: &RedriveId) -> Option<&Redrive> {
        self.redrives.get(&id.to_string())
    }

    /// Up to where the redrive topic was read.
    pub(super) fn end(&self) -> i64 {
        self.next
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Redrive> {
        self.redrives.values()
    }

    /// Whether a redrive sent this dead letter.
    pub(super) fn has_sent(&self, letter: &DeadLetter) -> bool {
        self.all().any(|redrive| redrive.has_sent(letter))
    }

    /// What is there now, `None` when nothing is new.
    pub(super) async fn refreshed(
        &self,
        log: &dyn EventLog,
        topic: &TopicName,
    ) -> Result<Option<Self>, LogError> {
        let there = log.describe_topic(topic).await?.is_some();
        let marks = if there {
            log.watermarks(topic).await?
        } else {
            Vec::new()
        };
        let marks = marks.first();
        let (low, high) = marks.map_or((0, 0), |marks| (marks.low.0, marks.high.0));
        if high == self.next {
            return Ok(None);
        }
        let mut ledger = if high < self.next {
            Self::default()
        } else {
            self.clone()
        };
        let at = only_partition(topic);
        ledger.next = ledger.next.max(low);
        while ledger.next < high {
            let records = log.read(&at, Offset(ledger.next), CHUNK).await?;
            if records.is_empty() {
                break;
            }
            records.iter().for_each(|record| ledger.apply(record));
        }
        ledger.next = ledger.next.max(high);
        Ok(Some(ledger))
    }

    fn apply(&mut self, stored: &StoredRecord) {
        self.next = stored.offset.0 + 1;
        let value = stored.record.value.as_deref().unwrap_or_default();
        let line = match serde_json::from_slice::<Line>(value) {
            Ok(line) => line,
            Err(error) => {
                tracing::warn!(offset = stored.offset.0, %error, "a record about a redrive cannot be read");
                return;
            }
        };
        if let (Entry::Begun(terms), Ok(id)) = (&line.entry, line.redrive.parse()) {
            let redrive = Redrive {
                id,
                terms: terms.clone(),
                state: State::Running,
                why: None,
                sent: 0,
                failed: 0,
                created_at: stored.time,
                updated_at: stored.time,
                last_sent: UnixMillis(0),
                spans: BTreeMap::new(),
                first: stored.offset,
            };
            self.redrives.entry(line.redrive).or_insert(redrive);
            return;
        }
        // The beginning of one that is trimmed may be gone.
        let Some(redrive) = self.redrives.get_mut(&line.redrive) else {
            return;
        };
        redrive.updated_at = stored.time;
        match line.entry {
            Entry::Begun(_) => {}
            Entry::State { state, why } if !redrive.state.is_final() => {
                (redrive.state, redrive.why) = (state, why);
            }
            Entry::State { .. } => {}
            Entry::Sent { offsets, failed } => {
                redrive.failed += failed;
                redrive.last_sent = stored.time;
                for (partition, start, end) in offsets {
                    redrive.sent += u64::try_from(end - start).unwrap_or(0);
                    let spans = redrive.spans.entry(Partition(partition)).or_default();
                    (start..end).for_each(|offset| spans.add(offset));
                }
            }
        }
    }

    /// Trims what tells only of dead letters that are gone.
    pub(super) async fn trim(
        &self,
        log: &dyn EventLog,
        topic: &TopicName,
        dead_letters: &[Watermarks],
    ) -> Result<(), LogError> {
        let needed = self.all().filter(|redrive| redrive.is_needed(dead_letters));
        let before = needed.map(|redrive| redrive.first).min();
        let before = before.unwrap_or(Offset(self.next));
        if before.0 == 0 {
            return Ok(());
        }
        log.trim(topic, &[(Partition(0), before)]).await
    }
}

/// The redrive topic of the subscription with this dead-letter topic; the name is shorter.
pub(crate) fn topic(dead_letters: &TopicName) -> TopicName {
    let stem = dead_letters.as_str();
    let stem = stem.strip_suffix("dead-letter").unwrap_or(stem);
    TopicName::try_new(&format!("{stem}redrives")).unwrap_or_else(|_| dead_letters.clone())
}

fn only_partition(topic: &TopicName) -> TopicPartition {
    TopicPartition {
        topic: topic.clone(),
        partition: Partition(0),
    }
}

/// Makes the redrive topic if it is not there.
pub(super) async fn create(
    log: &dyn EventLog,
    topic: &TopicName,
    replicas: u16,
) -> Result<(), LogError> {
    let spec = TopicSpec {
        name: topic.clone(),
        partitions: 1,
        replicas,
        retention: None,
        max_record_bytes: MAX_RECORD,
        segments: None,
    };
    log.create_topic(&spec).await.map(|_| ())
}

/// Writes something down about a redrive.
pub(super) async fn write(
    log: &dyn EventLog,
    topic: &TopicName,
    id: &RedriveId,
    entry: Entry,
) -> Result<(), LogError> {
    let line = Line {
        redrive: id.to_string(),
        entry,
    };
    let value = serde_json::to_vec(&line).map_err(|e| LogError::Refused(e.to_string()))?;
    let record = Record {
        value: Some(value.into()),
        ..Record::default()
    };
    log.append(topic, Target::Partition(Partition(0)), record)
        .await
        .map(|_| ())
}
