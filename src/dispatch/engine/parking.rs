//! The retry topic: messages that wait there, and how they come back.
//!
//! A message that nobody waits behind is parked when its delay is long: a record with all that
//! its next owner needs goes to the retry topic, to the partition with the number of its origin,
//! and once it is stored the message is finished where it came from.
//!
//! The retry topic is read ahead into an index by due time, whatever is parked: a record due in
//! a second does not wait behind a million that are due in ten minutes. Payloads are kept while
//! there is room and read again when they are due, many at a time. Nothing is tried before the
//! index is rebuilt, because only then is it known which of a message's records counts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{
    Activity, Checking, Engine, Failed, Life, Message, MessageId, Now, Phase, Reply, Slot, SlotId,
    Stage, Store, Work,
};
use crate::delivery::Reason;
use crate::dispatch::dead_letter;
use crate::dispatch::offsets::OffsetTracker;
use crate::dispatch::parked::{ENTRY_BYTES, Inserted, OriginKey, ParkedIndex, Rank};
use crate::dispatch::retry_record::{self, Entry, Kind, Parked, ParkedPhase, RetryRecordError};
use crate::log::{LogError, Offset, Record, StoredRecord};

/// So long before they are due payloads are read again.
const LEAD: Duration = Duration::from_millis(300);
/// Payloads that are read again at one time.
const FETCH: usize = 256;
/// Records that are taken into an index at one time.
const READ_AHEAD: usize = 1024;
/// How long to wait after a failed read.
const READ_AGAIN: Duration = Duration::from_millis(500);
/// How long to wait after a failed append to the retry topic.
const PARK_AGAIN: Duration = Duration::from_millis(500);
/// Of the bytes a subscription may hold, the part that keeps payloads of parked messages.
const PAYLOAD_SHARE: usize = 4;
/// A delay up to this waits in memory while the index that would count it down is rebuilt.
const WAITS_HERE: Duration = Duration::from_secs(30);

/// How a record of the retry topic is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The message came to its end.
    Ended,
    /// A later record takes over.
    Moved,
}

/// What a partition of the retry topic has besides what every partition has.
#[derive(Debug)]
pub(super) struct RetrySlot {
    pub(super) index: ParkedIndex,
    /// The end of the partition when it was taken over, until everything before it was read.
    pub(super) rebuild: Option<Offset>,
    payloads: HashMap<Offset, Record>,
    payload_bytes: usize,
    /// Payloads are being read.
    fetching: bool,
    /// Records that somebody wants tried at once, whatever they say themselves.
    wished: HashSet<Offset>,
    /// Finished since the last checkpoint or complete metadata.
    pub(super) unsaved: Vec<Offset>,
    /// Checkpoints tell of everything but `unsaved`.
    pub(super) saved: bool,
}

impl RetrySlot {
    pub(super) fn new(start: Offset, end: Offset) -> Self {
        Self {
            index: ParkedIndex::default(),
            rebuild: (start < end).then_some(end),
            payloads: HashMap::new(),
            payload_bytes: 0,
            fetching: false,
            wished: HashSet::new(),
            unsaved: Vec::new(),
            saved: false,
        }
    }

    pub(super) fn complete(&mut self, tracker: &mut OffsetTracker, offset: Offset) {
        tracker.complete(offset);
        self.unsaved.push(offset);
    }

    fn take_payload(&mut self, offset: Offset) -> Option<Record> {
        let record = self.payloads.remove(&offset)?;
        self.payload_bytes -= record.byte_len();
        Some(record)
    }
}

impl Engine {
    // ---- into the retry topic

    /// Whether a message can be parked: the order of its lane does not forbid it, and there is
    /// room in the index.
    pub(super) fn may_park(&self, id: MessageId) -> bool {
        let message = &self.messages[id.0];
        let waiting = message.activity == Activity::Idle && message.due.is_some();
        let waiting = waiting && !message.must_park;
        let phase = !matches!(message.phase, Phase::Keep { .. } | Phase::KeepRaw { .. });
        let free = message.lane.is_none() || matches!(message.phase, Phase::DeadLetter(_));
        waiting && phase && free && !self.budgets.parked.is_spent()
    }

    /// Whether a message that may be parked waits in memory all the same: its partition of the
    /// retry topic is being read again after a restart, and a short delay would be over before
    /// that is done. A commit tells of its attempts meanwhile; what no commit has room for is
    /// parked. Not one that an earlier owner may have parked: it could go on in two places.
    pub(super) fn waits_here(&self, id: MessageId, delay: Duration) -> bool {
        let message = &self.messages[id.0];
        let Slot { at, taken_over, .. } = &self.slots[message.slot.0];
        let rebuilds = |slot: &Slot| {
            let retry = slot.retry.as_deref();
            slot.at.partition == at.partition && retry.is_some_and(|r| r.rebuild.is_some())
        };
        let fits = self.bytes <= self.settings.max_subscription_bytes / 2;
        let fresh = message.origin.is_none() && message.offset >= *taken_over;
        delay <= WAITS_HERE && fits && fresh && self.live().any(rebuilds)
    }

    /// Whether a message is on its way to the retry topic, or will be.
    pub(super) fn is_parking(&self, id: MessageId) -> bool {
        let message = &self.messages[id.0];
        message.must_park || message.activity == Activity::Parking
    }

    /// Parks a message as soon as the work can be done. It waits for no timer any more.
    pub(super) fn park(&mut self, id: MessageId) {
        self.messages[id.0].must_park = true;
        self.parking.push_back(id);
    }

    pub(super) fn next_parking(&mut self, now: Now) -> Option<Work> {
        let id = self.parking.pop_front()?;
        let message = &self.messages[id.0];
        let slot = &self.slots[message.slot.0];
        let origin = slot.origin_of(message);
        let (event, phase) = match &message.phase {
            Phase::Subscriber(event) => (event, ParkedPhase::Subscriber),
            Phase::Reply(reply) => (
                &reply.original,
                ParkedPhase::Reply(Arc::clone(&reply.reply)),
            ),
            Phase::DeadLetter(failed) => (
                &failed.letter,
                ParkedPhase::DeadLetter(failed.cause.clone()),
            ),
            Phase::Check(check) => (&check.event, ParkedPhase::Check(Arc::clone(&check.url))),
            Phase::Keep { .. } | Phase::KeepRaw { .. } => return self.next_parking(now),
        };
        let parked = Parked {
            event: Arc::clone(event),
            phase,
            attempts: message.attempts,
            first_attempt: message.first_attempt,
            due: message.due.unwrap_or(now.wall),
            reason: message.reason.unwrap_or(Reason::PipelineError),
            origin,
        };
        let partition = parked.origin.at.partition;
        let record = parked.to_record();
        self.messages[id.0].activity = Activity::Parking;
        let slot = self.messages[id.0].slot;
        self.slots[slot.0].working += 1;
        Some(Work::Park(Store {
            id,
            partition,
            record,
        }))
    }

    /// The retry topic took a message, or did not: then it is parked again, because nobody knows
    /// whether it did all the same, and a message must not go on in two places.
    pub(crate) fn parked(&mut self, id: MessageId, result: Result<(), LogError>, now: Now) {
        let Some(life) = self.stop_working(id) else {
            return;
        };
        match result {
            Ok(()) => {
                self.metrics.parked();
                self.finish_as(id, End::Moved, now);
            }
            Err(error) => {
                tracing::warn!(
                    subscription = %self.subscription.name, %error,
                    "the retry topic did not take an event: it is tried again until it does"
                );
                if life == Life::Open {
                    self.timers.add(now.mono + PARK_AGAIN, id);
                }
            }
        }
    }

    // ---- out of the retry topic

    /// How many records of the retry topic may be taken into the index now.
    pub(super) fn index_room(&self) -> usize {
        if self.budgets.parked.is_spent() {
            0
        } else {
            READ_AHEAD
        }
    }

    /// Takes a record of the retry topic into the index.
    pub(super) fn retry_record(&mut self, id: SlotId, stored: StoredRecord, now: Now) {
        let StoredRecord {
            offset,
            time,
            record,
        } = stored;
        let slot = &mut self.slots[id.0];
        let Some(retry) = &mut slot.retry else {
            return;
        };
        slot.dirty = true;
        let kind = retry_record::kind(&record);
        let unread = slot.tracker.begin(offset);
        if retry.rebuild.is_some_and(|end| offset.0 + 1 >= end.0) {
            retry.rebuild = None;
        }
        match kind {
            // What it tells is said, also when it is known to be finished itself.
            Ok(Kind::Checkpoint(done)) => {
                slot.tracker.complete(offset);
                let known = slot.tracker.committable()..slot.tracker.next();
                for range in done {
                    let range = range.start.max(known.start).0..range.end.min(known.end).0;
                    range.for_each(|offset| slot.tracker.complete(Offset(offset)));
                }
            }
            Ok(Kind::Wish(key)) => {
                retry.complete(&mut slot.tracker, offset);
                if unread {
                    self.hasten(id, key, now);
                }
            }
            Ok(Kind::Waiting(entry)) if unread => self.index(id, offset, &entry, record, now),
            Err(error) if unread => self.refuse(id, offset, time, &record, &error, now),
            Ok(Kind::Waiting(_)) | Err(_) => {}
        }
    }

    /// Somebody wants a message tried at once that waits in the retry topic, or here.
    fn hasten(&mut self, id: SlotId, key: OriginKey, now: Now) {
        if let Some(retry) = &mut self.slots[id.0].retry
            && let Some(offset) = retry.index.hasten(key, now.mono)
        {
            retry.wished.insert(offset);
            return;
        }
        let is_it = |message: &Message| {
            let slot = &self.slots[message.slot.0];
            let own = slot.retry.is_none() && slot.life == Life::Open;
            own && (slot.at.partition, message.offset) == (key.partition, key.offset)
        };
        let found = self.messages.iter().find(|(_, message)| is_it(message));
        let Some(id) = found.map(|(id, _)| MessageId(id)) else {
            return;
        };
        // Only one that waits for its time: not one that waits for its lane, or is tried already.
        if !self.messages[id.0].must_park && self.timers.take(id) {
            self.messages[id.0].due = None;
            self.ready.push_back(id);
        }
    }

    fn index(&mut self, id: SlotId, offset: Offset, entry: &Entry, record: Record, now: Now) {
        let key = OriginKey::of(&entry.origin);
        if self.is_held(id, key, entry, &record, now) {
            return self.complete(id, offset);
        }
        let slot = &mut self.slots[id.0];
        let Some(retry) = &mut slot.retry else {
            return;
        };
        let before = slot.restored.get(&offset).filter(|_| entry.phase == 0);
        let due = before.map_or(entry.due, |waiting| waiting.due.max(entry.due));
        if entry.redrive {
            retry.index.renew(key);
        }
        // What the record itself says: a later record of the message, also of an attempt that only
        // a commit knows of, has to be further along than this one.
        let rank = Rank {
            phase: entry.phase,
            attempts: entry.attempts,
        };
        match retry.index.insert(key, rank, offset, now.until(due)) {
            Inserted::Waiting => self.budgets.parked.take(ENTRY_BYTES),
            Inserted::Replaces(other) => {
                retry.take_payload(other);
                retry.complete(&mut slot.tracker, other);
            }
            Inserted::Superfluous => return retry.complete(&mut slot.tracker, offset),
        }
        let bytes = record.byte_len();
        let share = self.settings.max_subscription_bytes / PAYLOAD_SHARE;
        if retry.payload_bytes + bytes <= share && !self.budgets.events.is_spent() {
            retry.payload_bytes += bytes;
            retry.payloads.insert(offset, record);
        }
        self.metrics.parked_now(self.parked_entries());
    }

    /// A record that is none of ours goes where records go that cannot be used.
    fn refuse(
        &mut self,
        slot: SlotId,
        offset: Offset,
        time: crate::clock::UnixMillis,
        record: &Record,
        error: &RetryRecordError,
        now: Now,
    ) {
        let origin = self.slots[slot.0].origin(offset, time);
        tracing::warn!(
            subscription = %self.subscription.name, partition = %origin.at, offset = offset.0, %error,
            "a record of the retry topic cannot be used: it goes to the dead-letter topic"
        );
        self.metrics.skipped();
        let message = Message {
            slot,
            offset,
            time,
            bytes: record.byte_len(),
            lane: None,
            phase: Phase::KeepRaw {
                record: dead_letter::undecodable(record, &origin, error),
                tries: 0,
            },
            origin: None,
            attempts: 0,
            first_attempt: None,
            due: None,
            reason: None,
            must_park: false,
            activity: Activity::Idle,
        };
        self.admit(message, now);
    }

    /// Gets going what is due soon: from memory at once, the rest by reading it again.
    pub(super) fn fetch_due(&mut self, now: Now) -> Option<Work> {
        // Large ones are read a few at a time.
        let share = self.settings.max_subscription_bytes / PAYLOAD_SHARE;
        let most = (share / self.typical_bytes.max(1)).clamp(1, FETCH);
        for at in 0..self.live.len() {
            let id = self.live[at];
            let mut wanted = Vec::new();
            while self.room() > 0 && wanted.len() < most {
                let Some((key, offset)) = self.pop_due(id, now, wanted.is_empty()) else {
                    break;
                };
                let retry = self.slots[id.0].retry.as_mut();
                match retry.and_then(|retry| retry.take_payload(offset)) {
                    Some(record) => self.unpark(id, key, offset, record, now),
                    None => wanted.push((key, offset)),
                }
            }
            if !wanted.is_empty() {
                wanted.sort_unstable_by_key(|(_, offset)| *offset);
                if let Some(retry) = &mut self.slots[id.0].retry {
                    retry.fetching = true;
                }
                return Some(Work::Fetch { slot: id, wanted });
            }
        }
        None
    }

    fn pop_due(&mut self, id: SlotId, now: Now, first: bool) -> Option<(OriginKey, Offset)> {
        let ready = self.is_indexed(id);
        let slot = &mut self.slots[id.0];
        let retry = slot.retry.as_mut()?;
        if !ready || (first && retry.fetching) {
            return None;
        }
        loop {
            let (key, offset) = retry.index.pop(now.mono + LEAD)?;
            if !slot.tracker.is_complete(offset) {
                return Some((key, offset));
            }
            // A checkpoint told of it.
            retry.take_payload(offset);
            retry.index.finish(key, offset);
            self.budgets.parked.give(ENTRY_BYTES);
        }
    }

    /// Whether what waits in a partition may be tried: it is ours, and the index is complete, or
    /// as complete as it can be.
    fn is_indexed(&self, id: SlotId) -> bool {
        let slot = &self.slots[id.0];
        let complete =
            |retry: &RetrySlot| retry.rebuild.is_none() || self.budgets.parked.is_spent();
        slot.life == Life::Open && slot.retry.as_deref().is_some_and(complete)
    }

    /// When something parked has to be got going.
    pub(super) fn next_fetch(&self) -> Option<Instant> {
        if self.room() == 0 {
            return None;
        }
        let due = |id: &SlotId| {
            let retry = self.slots[id.0].retry.as_ref()?;
            let due = retry.index.next_due()?;
            let may = self.is_indexed(*id) && !retry.fetching;
            may.then(|| due.checked_sub(LEAD).unwrap_or(due))
        };
        self.live.iter().filter_map(due).min()
    }

    /// Records that were asked for are there, or cannot be read.
    pub(crate) fn fetched(
        &mut self,
        id: SlotId,
        wanted: Vec<(OriginKey, Offset)>,
        result: Result<Vec<StoredRecord>, LogError>,
        now: Now,
    ) {
        let slot = &mut self.slots[id.0];
        let Some(retry) = slot.retry.as_mut().filter(|_| slot.life == Life::Open) else {
            return;
        };
        retry.fetching = false;
        match result {
            Ok(records) => {
                let mut records: HashMap<Offset, Record> = records
                    .into_iter()
                    .map(|stored| (stored.offset, stored.record))
                    .collect();
                for (key, offset) in wanted {
                    match records.remove(&offset) {
                        Some(record) => self.unpark(id, key, offset, record, now),
                        None => self.vanished(id, key, offset),
                    }
                }
            }
            Err(error) => {
                tracing::warn!(
                    subscription = %self.subscription.name, %error,
                    "parked events cannot be read, trying again"
                );
                for (key, offset) in wanted {
                    retry.index.again(key, offset, now.mono + LEAD + READ_AGAIN);
                }
            }
        }
    }

    /// The log let a parked record go, which only somebody else's hand can have done.
    fn vanished(&mut self, id: SlotId, key: OriginKey, offset: Offset) {
        tracing::error!(
            subscription = %self.subscription.name, partition = %self.slots[id.0].at,
            offset = offset.0, "a parked event is not in the retry topic any more"
        );
        self.metrics.expired(1);
        self.complete(id, offset);
        self.end_entry(id, key, offset, End::Ended);
    }

    fn unpark(&mut self, id: SlotId, key: OriginKey, offset: Offset, record: Record, now: Now) {
        let slot = &mut self.slots[id.0];
        if !slot
            .retry
            .as_ref()
            .is_some_and(|retry| retry.index.counts(key, offset))
        {
            return;
        }
        let bytes = record.byte_len();
        let parked = match Parked::from_record(record.clone()) {
            Ok(parked) => parked,
            Err(error) => {
                self.refuse(id, offset, now.wall, &record, &error, now);
                return self.end_entry(id, key, offset, End::Ended);
            }
        };
        let (mut attempts, mut due) = (parked.attempts, parked.due);
        let phase = match parked.phase {
            ParkedPhase::Subscriber => {
                if let Some(waiting) = slot.restored.remove(&offset) {
                    attempts = attempts.max(waiting.attempts_made);
                    due = due.max(waiting.due);
                }
                Phase::Subscriber(parked.event)
            }
            ParkedPhase::Reply(reply) => Phase::Reply(Box::new(Reply {
                original: parked.event,
                reply,
            })),
            ParkedPhase::Check(url) => Phase::Check(Box::new(Checking {
                event: parked.event,
                url,
            })),
            ParkedPhase::DeadLetter(cause) => Phase::DeadLetter(Arc::new(Failed {
                letter: parked.event,
                cause,
                stage: Stage::Subscriber,
                attempts: parked.attempts,
                first_attempt: parked.first_attempt,
            })),
        };
        let known_by_commit = attempts > parked.attempts;
        let retry = self.slots[id.0].retry.as_mut();
        if retry.is_some_and(|retry| retry.wished.remove(&offset)) {
            due = due.min(now.wall);
        }
        let message = Message {
            slot: id,
            offset,
            time: parked.origin.time,
            origin: Some(Box::new(parked.origin)),
            bytes,
            // What was parked stands outside the order.
            lane: None,
            phase,
            attempts,
            first_attempt: parked.first_attempt,
            due: Some(due),
            reason: Some(parked.reason),
            must_park: false,
            activity: Activity::Idle,
        };
        let message = self.admit(message, now);
        if known_by_commit {
            self.slots[id.0].retrying.insert(offset, message);
        }
    }

    /// The index is done with a record.
    pub(super) fn end_entry(&mut self, id: SlotId, key: OriginKey, offset: Offset, end: End) {
        let slot = &mut self.slots[id.0];
        let Some(retry) = &mut slot.retry else {
            return;
        };
        let before = retry.index.len();
        match end {
            End::Ended => {
                if let Some(other) = retry.index.end(key).filter(|other| *other != offset) {
                    retry.take_payload(other);
                    retry.complete(&mut slot.tracker, other);
                }
            }
            End::Moved => retry.index.finish(key, offset),
        }
        self.budgets
            .parked
            .give((before - retry.index.len()) * ENTRY_BYTES);
        self.metrics.parked_now(self.parked_entries());
    }

    pub(super) fn parked_entries(&self) -> usize {
        let entries = |slot: &Slot| slot.retry.as_ref().map_or(0, |retry| retry.index.len());
        self.live().map(entries).sum()
    }

    /// Gives back what an index counts; the index is empty then.
    pub(super) fn release_index(&mut self, id: SlotId) {
        if let Some(retry) = &mut self.slots[id.0].retry {
            self.budgets.parked.give(retry.index.len() * ENTRY_BYTES);
            **retry = RetrySlot::new(Offset(0), Offset(0));
            self.metrics.parked_now(self.parked_entries());
        }
    }
}
