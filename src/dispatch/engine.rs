//! The state of one subscription's messages on this node, and every decision about them.
//!
//! The engine touches no clock, socket or log: records, results and the time go in, work comes
//! out. [`super::dispatcher`] does the work. A message is somewhere in this picture:
//!
//! ```text
//! record ─▶ behind another in its lane ─▶ ready ─▶ working ─▶ finished (its offset may be committed)
//!                                           ▲         │
//!                                           └ waiting ┘ until its retry is due
//! ```
//!
//! A message goes through at most three phases: the subscriber; then the reply sink, if the
//! subscriber answered with an event; or, after the last failure, the dead-letter sink, and the
//! dead-letter topic when there is no sink or the sink fails too. It is finished, and its offset
//! free to be committed, only at the end of the last phase.
//!
//! A message that nobody waits behind and that is not due soon is parked: its record in the retry
//! topic takes over, and the message is finished here ([`parking`]).

mod chains;
mod commit;
mod flow;
mod look;
mod model;
mod parking;
mod telling;
mod work;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use slab::Slab;
use tokio::time::Instant;

use super::budget::Budget;
use super::lane::{Entry, LaneKey, Lanes};
use super::metrics::SubscriptionMetrics;
use super::offsets::{Metadata, OffsetTracker};
use super::rate::RateLimit;
use super::timers::Timers;
use super::{Settings, dead_letter};
use crate::channel::Subscription;
use crate::clock::UnixMillis;
use crate::event::Event;
use crate::log::{Commit, Offset, StoredRecord, TopicPartition};

pub use look::DueCounts;
pub(crate) use look::Look;
#[cfg(test)]
pub(crate) use look::PartitionLook;
use model::{Activity, Checking, Failed, Life, Message, Phase, Reply, Slot, Stage};
use parking::RetrySlot;
pub(crate) use telling::Told;
use telling::{Checked, Telling, Verdict};
pub(crate) use work::{AttemptWork, Store, Work};

/// Bytes that a subscription may hold although the others hold all there is.
const RESERVE: usize = 256 << 10;

/// The time, twice: for what is stored, and for timers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall: UnixMillis,
    pub(crate) mono: Instant,
}

impl Now {
    /// When a stored time is due by the timers' clock. Reckoned once, so that a wall clock that
    /// jumps later neither repeats nor stalls anything.
    fn until(self, due: UnixMillis) -> Instant {
        self.mono + due.since(self.wall)
    }

    /// So much later; a delay that no clock can hold ends in a century.
    fn later(self, delay: Duration) -> Instant {
        const CENTURY: Duration = Duration::from_secs(36_525 * 86_400);
        self.mono + delay.min(CENTURY)
    }
}

/// A message while it is unfinished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MessageId(usize);

/// One assignment of one partition. A partition that comes back gets a new one, so what belongs
/// to an earlier assignment can never be taken for the present one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId(usize);

/// What all subscriptions of a node share: bounds on memory.
#[derive(Clone, Debug)]
pub(crate) struct Budgets {
    /// Bytes of events.
    pub(crate) events: Budget,
    /// Bytes of the indexes of what is parked.
    pub(crate) parked: Budget,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    subscription: Arc<Subscription>,
    settings: Settings,
    metrics: SubscriptionMetrics,
    budgets: Budgets,
    rng: SmallRng,
    rate: Option<RateLimit>,
    /// By id, also those that were given up; what came late knows them by it.
    slots: Vec<Slot>,
    /// Those that were not.
    live: Vec<SlotId>,
    messages: Slab<Message>,
    ready: VecDeque<MessageId>,
    /// To be parked.
    parking: VecDeque<MessageId>,
    /// Other work that waits to be taken.
    chores: VecDeque<Work>,
    timers: Timers<MessageId>,
    /// Attempts in flight.
    attempting: usize,
    /// Bytes of the messages.
    bytes: usize,
    /// The moving average of records' sizes.
    typical_bytes: usize,
    /// Where the provider tells what became of the message that is being dealt with, or why that
    /// is not known; `None`: nobody is to be asked.
    receipt: Option<Result<Arc<str>, String>>,
    /// What is told to the journal, if there is one.
    telling: Option<Box<Telling>>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.budgets.events.give(self.bytes);
        for slot in self.live_slots() {
            self.release_index(slot);
        }
        self.metrics.in_flight(0);
    }
}

impl Engine {
    pub(crate) fn new(
        subscription: Arc<Subscription>,
        settings: Settings,
        metrics: SubscriptionMetrics,
        budgets: Budgets,
        seed: u64,
    ) -> Self {
        Self {
            rate: subscription.delivery.rate_limit.map(RateLimit::new),
            subscription,
            settings,
            metrics,
            budgets,
            rng: SmallRng::seed_from_u64(seed),
            slots: Vec::new(),
            live: Vec::new(),
            messages: Slab::new(),
            ready: VecDeque::new(),
            parking: VecDeque::new(),
            chores: VecDeque::new(),
            timers: Timers::default(),
            attempting: 0,
            bytes: 0,
            // As long as nothing is known: few.
            typical_bytes: 1 << 20,
            receipt: None,
            telling: None,
        }
    }

    /// Puts a changed subscription into force for all attempts that begin from now on.
    pub(crate) fn update(&mut self, subscription: Arc<Subscription>) {
        if subscription.delivery.rate_limit != self.subscription.delivery.rate_limit {
            self.rate = subscription.delivery.rate_limit.map(RateLimit::new);
        }
        self.subscription = subscription;
    }

    // ---- partitions

    /// Takes over a partition from `start` on, which ends at `end` now. `commit` is what the group
    /// had for it, if reading begins there; its metadata says what beyond it is finished and what
    /// was attempted.
    pub(crate) fn open(
        &mut self,
        at: TopicPartition,
        start: Offset,
        end: Offset,
        commit: Option<Commit>,
    ) -> SlotId {
        let known = |commit: &Commit| Metadata::decode(commit.offset, &commit.metadata);
        let metadata = commit.as_ref().map(known).unwrap_or_default();
        let tracker = OffsetTracker::restore(start, &metadata.done);
        let restored = metadata
            .waiting
            .into_iter()
            .map(|waiting| (waiting.offset, waiting));
        let parked = at.topic == self.subscription.retry_topic;
        let sibling = self.sibling_of(&at);
        self.slots.push(Slot {
            at,
            taken_over: end,
            sibling,
            tracker,
            lanes: Lanes::default(),
            retrying: BTreeMap::new(),
            restored: restored.collect(),
            // Without a commit the start is committed at once: from then on it is fixed.
            dirty: commit.is_none(),
            full: false,
            committed: commit,
            working: 0,
            life: Life::Open,
            retry: parked.then(|| Box::new(RetrySlot::new(start, end))),
        });
        let slot = SlotId(self.slots.len() - 1);
        self.live.push(slot);
        if let Some(sibling) = sibling {
            self.slots[sibling.0].sibling = Some(slot);
        }
        slot
    }

    /// Begins to give a partition up: nothing of it begins any more.
    pub(crate) fn close(&mut self, slot: SlotId) {
        self.slots[slot.0].life = Life::Closing;
        let messages = &mut self.messages;
        self.ready.retain(|id| messages[id.0].slot != slot);
        self.timers.retain(|id| messages[id.0].slot != slot);
        self.parking.retain(|id| {
            let message = &mut messages[id.0];
            // What a provider has must not be sent again for want of a record.
            let stays = message.slot != slot || matches!(message.phase, Phase::Check(_));
            if !stays {
                message.activity = Activity::Idle;
            }
            stays
        });
        self.chores.retain(|chore| chore.slot() != Some(slot));
        // The attempts made on what waits belong into the last commit's metadata, so what was
        // attempted stays until the partition is dropped.
        for id in self.idle(slot) {
            let Message {
                offset, must_park, ..
            } = self.messages[id.0];
            if !must_park && !self.slots[slot.0].retrying.contains_key(&offset) {
                self.forget(id);
            }
        }
    }

    fn idle(&self, slot: SlotId) -> Vec<MessageId> {
        let idle = |(_, message): &(usize, &Message)| {
            message.slot == slot && message.activity == Activity::Idle
        };
        self.messages
            .iter()
            .filter(idle)
            .map(|(id, _)| MessageId(id))
            .collect()
    }

    /// Whether nothing of a closing partition is being worked on.
    pub(crate) fn is_quiet(&self, slot: SlotId) -> bool {
        self.slots[slot.0].working == 0
    }

    /// Ends a partition; results that come in for it later mean nothing.
    pub(crate) fn drop_slot(&mut self, slot: SlotId) {
        self.close(slot);
        self.slots[slot.0].life = Life::Closed;
        let messages = &self.messages;
        self.parking.retain(|id| messages[id.0].slot != slot);
        for id in self.idle(slot) {
            self.forget(id);
        }
        self.release_index(slot);
        self.live.retain(|live| *live != slot);
        if let Some(sibling) = self.slots[slot.0].sibling.take() {
            let back = &mut self.slots[sibling.0].sibling;
            back.take_if(|back| *back == slot);
        }
        // Partitions come and go for as long as the process lives: little may be left of each.
        let slot = &mut self.slots[slot.0];
        slot.tracker = OffsetTracker::new(Offset(0));
        slot.lanes = Lanes::default();
        slot.retrying = BTreeMap::new();
        slot.restored = HashMap::new();
        slot.committed = None;
        slot.retry = None;
    }

    /// The partition that a slot stands for.
    pub(crate) fn partition(&self, slot: SlotId) -> &TopicPartition {
        &self.slots[slot.0].at
    }

    fn live(&self) -> impl Iterator<Item = &Slot> {
        self.live.iter().map(|slot| &self.slots[slot.0])
    }

    /// Slots that are not given up yet.
    pub(crate) fn live_slots(&self) -> Vec<SlotId> {
        self.live.clone()
    }

    // ---- records

    /// How many records of a partition may be taken now.
    pub(crate) fn credit(&self, slot: SlotId) -> usize {
        let slot = &self.slots[slot.0];
        if slot.life != Life::Open || slot.full {
            return 0;
        }
        if slot.retry.is_some() {
            return self.index_room();
        }
        let window = self.subscription.delivery.max_window;
        let window = window.saturating_sub(slot.tracker.unfinished());
        window.min(self.room()).min(self.memory_credit())
    }

    /// How many records there is memory for, going by the size of those that came last.
    fn memory_credit(&self) -> usize {
        match self.free_bytes() {
            // Whoever holds nothing may always take one, or nobody would ever get on.
            0 if !self.messages.is_empty() => 0,
            free => (free / self.typical_bytes.max(1)).max(1),
        }
    }

    fn free_bytes(&self) -> usize {
        let own = self
            .settings
            .max_subscription_bytes
            .saturating_sub(self.bytes);
        let reserve = RESERVE.saturating_sub(self.bytes);
        own.min(self.budgets.events.left().max(reserve))
    }

    /// Whether nothing is taken because other subscriptions hold the memory there is. Nobody tells
    /// when they give it back.
    pub(crate) fn waits_for_memory(&self) -> bool {
        let events = self.free_bytes() == 0
            && self.bytes < self.settings.max_subscription_bytes
            && !self.messages.is_empty();
        let reads = |slot: &Slot| slot.life == Life::Open && slot.retry.is_some();
        let index = self.budgets.parked.is_spent() && self.live().any(reads);
        events || index
    }

    /// How many more messages may be ready: some ahead of those in flight, so that the next
    /// attempt never waits for a record.
    fn room(&self) -> usize {
        let ahead = self.subscription.delivery.max_in_flight.saturating_mul(2);
        ahead.saturating_sub(self.ready.len())
    }

    /// Whether a partition takes nothing because too many of its events are unfinished.
    pub(crate) fn window_is_full(&self, slot: SlotId) -> bool {
        let slot = &self.slots[slot.0];
        let window = self.subscription.delivery.max_window;
        let beyond = slot.retry.is_none() && slot.tracker.unfinished() >= window;
        slot.life == Life::Open && (slot.full || beyond)
    }

    /// Takes a record in.
    pub(crate) fn record(&mut self, slot_id: SlotId, stored: StoredRecord, now: Now) {
        let slot = &mut self.slots[slot_id.0];
        if slot.life != Life::Open {
            return;
        }
        if slot.retry.is_some() {
            return self.retry_record(slot_id, stored, now);
        }
        let StoredRecord {
            offset,
            time,
            record,
        } = stored;
        if !slot.tracker.begin(offset) {
            slot.dirty = true;
            return;
        }
        let restored = slot.restored.remove(&offset);
        if self.goes_on_elsewhere(slot_id, offset, restored) {
            return self.complete(slot_id, offset);
        }
        let slot = &mut self.slots[slot_id.0];
        let bytes = record.byte_len();
        self.typical_bytes = (7 * self.typical_bytes + bytes) / 8;
        let (lane, phase) = match Event::from_record(record.clone()) {
            Ok(event) => {
                let lane = LaneKey::of(&event, self.subscription.delivery.ordering);
                (lane, Phase::Subscriber(Arc::new(event)))
            }
            Err(error) => {
                tracing::warn!(
                    subscription = %self.subscription.name, partition = %slot.at, offset = offset.0,
                    %error, "a record is no CloudEvent: it goes to the dead-letter topic"
                );
                self.metrics.skipped();
                let record = dead_letter::undecodable(&record, &slot.origin(offset, time), &error);
                (None, Phase::KeepRaw { record, tries: 0 })
            }
        };
        let message = Message {
            slot: slot_id,
            offset,
            origin: None,
            time,
            bytes,
            lane,
            phase,
            attempts: restored.map_or(0, |waiting| waiting.attempts_made),
            first_attempt: restored.map(|waiting| waiting.first_attempt),
            due: restored.map(|waiting| waiting.due),
            reason: None,
            must_park: false,
            activity: Activity::Idle,
        };
        self.admit(message, now);
    }

    fn admit(&mut self, message: Message, now: Now) -> MessageId {
        self.bytes += message.bytes;
        self.budgets.events.take(message.bytes);
        let (slot, lane, offset) = (message.slot, message.lane.clone(), message.offset);
        // A record of the retry topic tells of its attempts itself.
        let attempted = message.attempts > 0
            && message.origin.is_none()
            && matches!(message.phase, Phase::Subscriber(_));
        let id = MessageId(self.messages.insert(message));
        let slot = &mut self.slots[slot.0];
        if attempted {
            slot.retrying.insert(offset, id);
        }
        let entry = lane.map_or(Entry::Free, |lane| slot.lanes.enter(&lane, id));
        if entry == Entry::Free {
            self.make_ready(id, now);
        }
        id
    }

    /// It holds its lane, or has none: it goes as soon as it is due.
    fn make_ready(&mut self, id: MessageId, now: Now) {
        let message = &mut self.messages[id.0];
        if matches!(message.phase, Phase::Subscriber(_))
            && message.attempts > self.subscription.delivery.retry
        {
            return self.bury_exhausted(id, now);
        }
        if message.attempts > 0 && message.origin.is_none() && self.may_park(id) {
            // An earlier owner attempted it, and may have parked it without living to commit
            // that. Parked once more it is one message with that record, whoever reads them.
            return self.park(id);
        }
        let message = &mut self.messages[id.0];
        match message.due.take() {
            Some(due) if due > now.wall => {
                message.due = Some(due);
                self.timers.add(now.until(due), id);
            }
            _ => self.ready.push_back(id),
        }
    }

    fn forget(&mut self, id: MessageId) {
        let message = self.messages.remove(id.0);
        self.bytes -= message.bytes;
        self.budgets.events.give(message.bytes);
        self.slots[message.slot.0].retrying.remove(&message.offset);
    }
}

#[cfg(test)]
mod tests;
