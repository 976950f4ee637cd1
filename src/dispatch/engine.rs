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

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use slab::Slab;
use tokio::time::Instant;

use super::budget::Budget;
use super::dead_letter::{Cause, Origin};
use super::lane::{Entry, LaneKey, Lanes};
use super::metrics::SubscriptionMetrics;
use super::offsets::{METADATA_LIMIT, Metadata, OffsetTracker, Waiting};
use super::rate::RateLimit;
use super::timers::Timers;
use super::{Settings, dead_letter};
use crate::channel::{Sink, Subscription};
use crate::clock::UnixMillis;
use crate::delivery::retry::{self, GiveUp, Next};
use crate::delivery::{Failure, Reason, Success};
use crate::event::Event;
use crate::log::{Commit, LogError, Offset, Partition, Record, StoredRecord, TopicPartition};

/// Bytes that a subscription may hold although the others hold all there is.
const RESERVE: usize = 256 << 10;

/// The time, twice: for what is stored, and for timers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall: UnixMillis,
    pub(crate) mono: Instant,
}

impl Now {
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

/// What the dispatcher is to do; each ends in a call of the engine with the message's id.
#[derive(Debug)]
pub(crate) enum Work {
    /// Send the event to the sink, once; then [`Engine::attempted`].
    Attempt(AttemptWork),
    /// Append the record to the dead-letter topic; then [`Engine::kept`].
    Keep {
        id: MessageId,
        partition: Partition,
        record: Record,
    },
}

/// One attempt to make.
#[derive(Debug)]
pub(crate) struct AttemptWork {
    pub(crate) id: MessageId,
    pub(crate) sink: Sink,
    pub(crate) event: Arc<Event>,
    /// Whether an event in the answer is wanted.
    pub(crate) take_reply: bool,
}

#[derive(Debug)]
struct Message {
    slot: SlotId,
    offset: Offset,
    /// When the log took it.
    time: UnixMillis,
    bytes: usize,
    /// The lane it holds or waits in.
    lane: Option<LaneKey>,
    phase: Phase,
    /// Attempts made in this phase.
    attempts: u32,
    /// When the first attempt of this phase ended.
    first_attempt: Option<UnixMillis>,
    /// When it is due again, while it waits.
    due: Option<UnixMillis>,
    working: bool,
}

#[derive(Debug)]
enum Phase {
    Subscriber(Arc<Event>),
    Reply(Box<Reply>),
    DeadLetter(Arc<Failed>),
    /// On its way to the dead-letter topic, which failed to take it `tries` times.
    Keep {
        failed: Arc<Failed>,
        tries: u32,
    },
    /// A record that is no event, on its way there.
    KeepRaw {
        record: Record,
        tries: u32,
    },
}

/// An event that the subscriber answered with.
#[derive(Debug)]
struct Reply {
    original: Arc<Event>,
    reply: Arc<Event>,
}

/// An event whose delivery failed for good.
#[derive(Debug)]
struct Failed {
    /// The event with the error attributes.
    letter: Arc<Event>,
    cause: Cause,
    /// Whose attempts these were.
    stage: Stage,
    /// Attempts made there.
    attempts: u32,
    first_attempt: Option<UnixMillis>,
}

/// Who was called in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Subscriber,
    Reply,
}

#[derive(Debug)]
struct Slot {
    at: TopicPartition,
    tracker: OffsetTracker,
    lanes: Lanes<MessageId>,
    /// Messages whose subscriber was called in vain, by offset: how often goes into the commits.
    retrying: BTreeMap<Offset, MessageId>,
    /// Attempts that were made before this assignment, by offset.
    restored: HashMap<Offset, Waiting>,
    /// What was handed out for commit last.
    committed: Option<Commit>,
    /// Something changed since then.
    dirty: bool,
    working: usize,
    life: Life,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Records come in, attempts begin.
    Open,
    /// Nothing begins any more; what is being worked on may still finish.
    Closing,
    /// Given up: results of its messages mean nothing.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    subscription: Arc<Subscription>,
    settings: Settings,
    metrics: SubscriptionMetrics,
    budget: Budget,
    rng: SmallRng,
    rate: Option<RateLimit>,
    slots: Vec<Slot>,
    messages: Slab<Message>,
    ready: VecDeque<MessageId>,
    timers: Timers<MessageId>,
    working: usize,
    bytes: usize,
    /// The moving average of records' sizes.
    typical_bytes: usize,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
        self.metrics.in_flight(0);
    }
}

impl Engine {
    pub(crate) fn new(
        subscription: Arc<Subscription>,
        settings: Settings,
        metrics: SubscriptionMetrics,
        budget: Budget,
        seed: u64,
    ) -> Self {
        Self {
            rate: subscription.delivery.rate_limit.map(RateLimit::new),
            subscription,
            settings,
            metrics,
            budget,
            rng: SmallRng::seed_from_u64(seed),
            slots: Vec::new(),
            messages: Slab::new(),
            ready: VecDeque::new(),
            timers: Timers::default(),
            working: 0,
            bytes: 0,
            // As long as nothing is known: few.
            typical_bytes: 1 << 20,
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

    /// Takes over a partition from `start` on. `commit` is what the group had for it, if reading
    /// begins there; its metadata says what beyond it is finished and what was attempted.
    pub(crate) fn open(
        &mut self,
        at: TopicPartition,
        start: Offset,
        commit: Option<Commit>,
    ) -> SlotId {
        let known = |commit: &Commit| Metadata::decode(commit.offset, &commit.metadata);
        let metadata = commit.as_ref().map(known).unwrap_or_default();
        let tracker = OffsetTracker::restore(start, &metadata.done);
        let restored = metadata
            .waiting
            .into_iter()
            .map(|w| (w.offset, w))
            .collect();
        self.slots.push(Slot {
            at,
            tracker,
            lanes: Lanes::default(),
            retrying: BTreeMap::new(),
            restored,
            // Without a commit the start is committed at once: from then on it is fixed.
            dirty: commit.is_none(),
            committed: commit,
            working: 0,
            life: Life::Open,
        });
        SlotId(self.slots.len() - 1)
    }

    /// Begins to give a partition up: nothing of it begins any more.
    pub(crate) fn close(&mut self, slot: SlotId) {
        self.slots[slot.0].life = Life::Closing;
        let gone: Vec<MessageId> = self
            .messages
            .iter()
            .filter(|(_, message)| message.slot == slot && !message.working)
            .map(|(id, _)| MessageId(id))
            .collect();
        // The attempts made on what waits belong into the last commit's metadata, so the list of
        // them stays until the partition is dropped.
        self.ready.retain(|id| self.messages[id.0].slot != slot);
        self.timers.retain(|id| self.messages[id.0].slot != slot);
        let retrying = |engine: &Self, id: MessageId| {
            let offset = engine.messages[id.0].offset;
            engine.slots[slot.0].retrying.contains_key(&offset)
        };
        for id in gone {
            if !retrying(self, id) {
                self.forget(id);
            }
        }
    }

    /// Whether nothing of a closing partition is being worked on.
    pub(crate) fn is_quiet(&self, slot: SlotId) -> bool {
        self.slots[slot.0].working == 0
    }

    /// Ends a partition; results that come in for it later mean nothing.
    pub(crate) fn drop_slot(&mut self, slot: SlotId) {
        self.close(slot);
        self.slots[slot.0].life = Life::Closed;
        let gone: Vec<MessageId> = self
            .messages
            .iter()
            .filter(|(_, message)| message.slot == slot && !message.working)
            .map(|(id, _)| MessageId(id))
            .collect();
        for id in gone {
            self.forget(id);
        }
        let slot = &mut self.slots[slot.0];
        slot.lanes = Lanes::default();
        slot.retrying.clear();
        slot.restored.clear();
    }

    // ---- records

    /// How many records of a partition may be taken now.
    pub(crate) fn credit(&self, slot: SlotId) -> usize {
        let slot = &self.slots[slot.0];
        if slot.life != Life::Open {
            return 0;
        }
        let window = self
            .subscription
            .delivery
            .max_window
            .saturating_sub(slot.tracker.unfinished());
        let ahead = self.subscription.delivery.max_in_flight.saturating_mul(2);
        let ahead = ahead.saturating_sub(self.ready.len());
        window.min(ahead).min(self.memory_credit())
    }

    /// How many records there is memory for, going by the size of those that came last.
    fn memory_credit(&self) -> usize {
        match self.free_bytes() {
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
        own.min(self.budget.left().max(reserve))
    }

    /// Whether nothing is taken because other subscriptions hold the memory there is. Nobody tells
    /// when they give it back.
    pub(crate) fn waits_for_memory(&self) -> bool {
        self.free_bytes() == 0
            && self.bytes < self.settings.max_subscription_bytes
            && !self.messages.is_empty()
    }

    /// Whether a partition takes nothing because too many of its events are unfinished.
    pub(crate) fn window_is_full(&self, slot: SlotId) -> bool {
        let slot = &self.slots[slot.0];
        slot.life == Life::Open
            && slot.tracker.unfinished() >= self.subscription.delivery.max_window
    }

    /// Takes a record in.
    pub(crate) fn record(&mut self, slot_id: SlotId, stored: StoredRecord, now: Now) {
        let StoredRecord {
            offset,
            time,
            record,
        } = stored;
        let slot = &mut self.slots[slot_id.0];
        if slot.life != Life::Open {
            return;
        }
        if !slot.tracker.begin(offset) {
            slot.dirty = true;
            return;
        }
        let bytes = record.byte_len();
        self.typical_bytes = (7 * self.typical_bytes + bytes) / 8;
        self.bytes += bytes;
        self.budget.take(bytes);
        let restored = slot.restored.remove(&offset);
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
                let record = dead_letter::undecodable(&record, &origin(slot, offset, time), &error);
                (None, Phase::KeepRaw { record, tries: 0 })
            }
        };
        let message = Message {
            slot: slot_id,
            offset,
            time,
            bytes,
            lane,
            phase,
            attempts: restored.map_or(0, |r| r.attempts_made),
            first_attempt: restored.map(|r| r.first_attempt),
            due: restored.map(|r| r.due),
            working: false,
        };
        self.admit(message, now);
    }

    fn admit(&mut self, message: Message, now: Now) {
        let (slot, lane, offset) = (message.slot, message.lane.clone(), message.offset);
        let attempted = message.attempts > 0;
        let id = MessageId(self.messages.insert(message));
        let slot = &mut self.slots[slot.0];
        if attempted {
            slot.retrying.insert(offset, id);
        }
        let entry = lane.map_or(Entry::Free, |lane| slot.lanes.enter(&lane, id));
        if entry == Entry::Free {
            self.make_ready(id, now);
        }
    }

    /// An earlier owner made every attempt and did not live to store the dead letter. What the
    /// last answer was is not known any more.
    fn bury_exhausted(&mut self, id: MessageId, now: Now) {
        let message = &mut self.messages[id.0];
        message.due = None;
        let Phase::Subscriber(event) = &message.phase else {
            return;
        };
        let lost = Failure::without_answer(Reason::Interrupted, "the last answer was lost");
        let cause = Cause::new(self.subscription.subscriber.url(), lost);
        let failed = Arc::new(Failed {
            letter: Arc::new(dead_letter::letter(event, &cause)),
            cause,
            stage: Stage::Subscriber,
            attempts: message.attempts,
            first_attempt: message.first_attempt,
        });
        self.bury(id, failed, now);
    }

    /// It holds its lane, or has none: it goes as soon as it is due.
    fn make_ready(&mut self, id: MessageId, now: Now) {
        let message = &mut self.messages[id.0];
        if matches!(message.phase, Phase::Subscriber(_))
            && message.attempts > self.subscription.delivery.retry
        {
            return self.bury_exhausted(id, now);
        }
        match message.due.take() {
            Some(due) if due > now.wall => {
                message.due = Some(due);
                self.timers.add(now.later(due.since(now.wall)), id);
            }
            _ => self.ready.push_back(id),
        }
    }

    // ---- work

    /// The next thing to do, if there is one and room for it.
    pub(crate) fn next_work(&mut self, now: Now) -> Option<Work> {
        while let Some(id) = self.timers.pop(now.mono) {
            self.messages[id.0].due = None;
            self.ready.push_back(id);
        }
        if !self.has_room() {
            return None;
        }
        self.drop_unwanted_replies(now);
        if self.ready.is_empty() {
            return None;
        }
        if let Some(rate) = &mut self.rate
            && !rate.take(now.mono)
        {
            return None;
        }
        let id = self.ready.pop_front()?;
        self.working += 1;
        self.metrics.in_flight(self.working);
        let message = &mut self.messages[id.0];
        message.working = true;
        let slot = &mut self.slots[message.slot.0];
        slot.working += 1;
        Some(work(id, message, slot, &self.subscription))
    }

    /// The reply sink was configured away: a reply without one is dropped.
    fn drop_unwanted_replies(&mut self, now: Now) {
        while let Some(&id) = self.ready.front()
            && self.subscription.reply.is_none()
            && matches!(self.messages[id.0].phase, Phase::Reply(_))
        {
            self.ready.pop_front();
            self.finish(id, now);
        }
    }

    fn has_room(&self) -> bool {
        self.working < self.subscription.delivery.max_in_flight
    }

    /// When to look again although nothing came in; `None`: not before something does.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        // Without room the end of an attempt is what to wait for, not the next permit.
        let limited = match &self.rate {
            Some(rate) if !self.ready.is_empty() && self.has_room() => Some(rate.next()),
            _ => None,
        };
        match (self.timers.next(), limited) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// An attempt ended.
    pub(crate) fn attempted(&mut self, id: MessageId, result: Result<Success, Failure>, now: Now) {
        let Some(life) = self.stop_working(id) else {
            return;
        };
        if life == Life::Closed {
            self.forget(id);
            return;
        }
        let message = &mut self.messages[id.0];
        message.attempts = message.attempts.saturating_add(1);
        message.first_attempt.get_or_insert(now.wall);
        match result {
            Ok(success) => self.succeeded(id, success, now),
            Err(failure) => self.failed(id, failure, now),
        }
    }

    fn succeeded(&mut self, id: MessageId, success: Success, now: Now) {
        let message = &mut self.messages[id.0];
        match &message.phase {
            Phase::Subscriber(original) => {
                self.metrics.end_to_end(now.wall.since(message.time));
                match success.reply {
                    Some(reply) if self.subscription.reply.is_some() => {
                        let original = Arc::clone(original);
                        let reply = Box::new(Reply {
                            original,
                            reply: Arc::new(reply),
                        });
                        self.leave_lane(id, now);
                        self.enter(id, Phase::Reply(reply), now);
                    }
                    _ => self.finish(id, now),
                }
            }
            Phase::DeadLetter(failed) => {
                self.metrics.dead_letter(&failed.cause);
                self.finish(id, now);
            }
            Phase::Reply(_) | Phase::Keep { .. } | Phase::KeepRaw { .. } => self.finish(id, now),
        }
    }

    fn failed(&mut self, id: MessageId, failure: Failure, now: Now) {
        let draw: f64 = self.rng.random();
        let message = &mut self.messages[id.0];
        let next = retry::decide(
            (&failure).into(),
            message.attempts,
            message.first_attempt.unwrap_or(now.wall),
            now.wall,
            &self.subscription.delivery,
            draw,
        );
        match next {
            Next::Retry { delay } => self.wait(id, delay, now),
            Next::GiveUp(why) => self.give_up(id, failure, why, now),
        }
    }

    fn wait(&mut self, id: MessageId, delay: Duration, now: Now) {
        self.metrics.retried();
        let message = &mut self.messages[id.0];
        message.due = Some(now.wall.plus(delay));
        let in_dead_letter = matches!(message.phase, Phase::DeadLetter(_));
        let slot = &mut self.slots[message.slot.0];
        if matches!(message.phase, Phase::Subscriber(_)) {
            slot.retrying.insert(message.offset, id);
        }
        slot.dirty = true;
        if slot.life == Life::Open {
            self.timers.add(now.later(delay), id);
        }
        // A dead-letter sink that fails must not hold up the events behind this one.
        if in_dead_letter {
            self.leave_lane(id, now);
        }
    }

    fn give_up(&mut self, id: MessageId, failure: Failure, why: GiveUp, now: Now) {
        let message = &self.messages[id.0];
        tracing::debug!(
            subscription = %self.subscription.name, offset = message.offset.0, ?why,
            reason = %failure.reason, detail = failure.detail, "an event could not be delivered"
        );
        let (event, stage) = match &message.phase {
            Phase::Subscriber(event) => (event, Stage::Subscriber),
            Phase::Reply(reply) => (&reply.original, Stage::Reply),
            Phase::DeadLetter(failed) => {
                self.metrics.dead_letter_sink_failed();
                tracing::warn!(
                    subscription = %self.subscription.name, reason = %failure.reason,
                    detail = failure.detail, "the dead-letter sink did not take an event"
                );
                let failed = Arc::clone(failed);
                self.leave_lane(id, now);
                return self.keep(id, failed, now);
            }
            Phase::Keep { .. } | Phase::KeepRaw { .. } => return self.keep_again(id, now),
        };
        let sink = match stage {
            Stage::Subscriber => None,
            Stage::Reply => self.subscription.reply.as_ref(),
        };
        let cause = Cause::new(sink.unwrap_or(&self.subscription.subscriber).url(), failure);
        let failed = Arc::new(Failed {
            letter: Arc::new(dead_letter::letter(event, &cause)),
            cause,
            stage,
            attempts: message.attempts,
            first_attempt: message.first_attempt,
        });
        if stage == Stage::Subscriber {
            self.slots[message.slot.0]
                .retrying
                .insert(message.offset, id);
        }
        self.bury(id, failed, now);
    }

    /// Sends an event that failed for good to the dead-letter sink, or to the topic.
    fn bury(&mut self, id: MessageId, failed: Arc<Failed>, now: Now) {
        if self.subscription.dead_letter.is_some() {
            self.enter(id, Phase::DeadLetter(failed), now);
        } else {
            self.keep(id, failed, now);
        }
    }

    /// The last place: the dead-letter topic, unless the subscription gave that up.
    fn keep(&mut self, id: MessageId, failed: Arc<Failed>, now: Now) {
        if self.subscription.delivery.dead_letter_topic {
            self.enter(id, Phase::Keep { failed, tries: 0 }, now);
        } else {
            self.metrics.dropped();
            tracing::warn!(
                subscription = %self.subscription.name, dest = failed.cause.dest,
                reason = %failed.cause.reason,
                "an event was dropped: no dead-letter sink took it and deadLetterTopic is false"
            );
            self.finish(id, now);
        }
    }

    /// The dead-letter topic took the record, or did not.
    pub(crate) fn kept(&mut self, id: MessageId, result: Result<(), LogError>, now: Now) {
        let Some(life) = self.stop_working(id) else {
            return;
        };
        if life == Life::Closed {
            self.forget(id);
            return;
        }
        match result {
            Ok(()) => {
                if let Phase::Keep { failed, .. } | Phase::DeadLetter(failed) =
                    &self.messages[id.0].phase
                {
                    self.metrics.dead_letter(&failed.cause);
                }
                self.finish(id, now);
            }
            Err(error) => {
                tracing::warn!(
                    subscription = %self.subscription.name, %error,
                    "the dead-letter topic did not take an event: it is tried again until it does"
                );
                self.keep_again(id, now);
            }
        }
    }

    /// An event is never given up for a dead-letter topic that fails: it is tried again, ever
    /// less often.
    fn keep_again(&mut self, id: MessageId, now: Now) {
        let message = &mut self.messages[id.0];
        let tries = match &mut message.phase {
            Phase::Keep { tries, .. } | Phase::KeepRaw { tries, .. } => {
                *tries = tries.saturating_add(1);
                *tries
            }
            Phase::Subscriber(_) | Phase::Reply(_) | Phase::DeadLetter(_) => 1,
        };
        let delay = Duration::from_millis(100 << tries.min(8));
        message.due = Some(now.wall.plus(delay));
        if self.slots[message.slot.0].life == Life::Open {
            self.timers.add(now.later(delay), id);
        }
        self.leave_lane(id, now);
    }

    /// Moves a message into its next phase, where it may begin at once.
    fn enter(&mut self, id: MessageId, phase: Phase, now: Now) {
        let message = &mut self.messages[id.0];
        message.phase = phase;
        message.attempts = 0;
        message.first_attempt = None;
        let slot = &mut self.slots[message.slot.0];
        if matches!(message.phase, Phase::Reply(_)) {
            slot.retrying.remove(&message.offset);
        }
        slot.dirty = true;
        if slot.life == Life::Open {
            self.make_ready(id, now);
        }
    }

    fn finish(&mut self, id: MessageId, now: Now) {
        self.leave_lane(id, now);
        let message = &self.messages[id.0];
        let slot = &mut self.slots[message.slot.0];
        slot.tracker.complete(message.offset);
        slot.dirty = true;
        self.forget(id);
    }

    fn leave_lane(&mut self, id: MessageId, now: Now) {
        let message = &mut self.messages[id.0];
        let Some(lane) = message.lane.take() else {
            return;
        };
        let slot = &mut self.slots[message.slot.0];
        let next = slot.lanes.leave(&lane);
        if let Some(next) = next
            && slot.life == Life::Open
        {
            self.make_ready(next, now);
        }
    }

    fn stop_working(&mut self, id: MessageId) -> Option<Life> {
        let message = self
            .messages
            .get_mut(id.0)
            .filter(|message| message.working)?;
        message.working = false;
        self.working -= 1;
        self.metrics.in_flight(self.working);
        let slot = &mut self.slots[message.slot.0];
        slot.working -= 1;
        Some(slot.life)
    }

    fn forget(&mut self, id: MessageId) {
        let message = self.messages.remove(id.0);
        self.bytes -= message.bytes;
        self.budget.give(message.bytes);
        self.slots[message.slot.0].retrying.remove(&message.offset);
    }

    // ---- commits

    /// Whether there may be something to commit.
    pub(crate) fn is_dirty(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| slot.dirty && slot.life != Life::Closed)
    }

    /// What changed on `slots` since the last call: the first unfinished offset of each, with
    /// what is known beyond it.
    pub(crate) fn commits(&mut self, slots: &[SlotId]) -> Vec<(SlotId, Commit)> {
        let messages = &self.messages;
        let mut commits = Vec::new();
        for index in slots.iter().map(|slot| slot.0) {
            let slot = &mut self.slots[index];
            if !slot.dirty || slot.life == Life::Closed {
                continue;
            }
            slot.dirty = false;
            let commit = commit(slot, messages, self.subscription.delivery.retry);
            if slot.committed.as_ref() != Some(&commit) {
                slot.committed = Some(commit.clone());
                commits.push((SlotId(index), commit));
            }
        }
        commits
    }

    /// A commit did not get through: it is due again.
    pub(crate) fn commit_failed(&mut self, slot: SlotId) {
        let slot = &mut self.slots[slot.0];
        slot.committed = None;
        slot.dirty = true;
    }

    /// The partition that a slot stands for.
    pub(crate) fn partition(&self, slot: SlotId) -> &TopicPartition {
        &self.slots[slot.0].at
    }

    /// Slots that are not given up yet.
    pub(crate) fn live_slots(&self) -> Vec<SlotId> {
        let live = |(_, slot): &(usize, &Slot)| slot.life != Life::Closed;
        self.slots
            .iter()
            .enumerate()
            .filter(live)
            .map(|(index, _)| SlotId(index))
            .collect()
    }
}

fn commit(slot: &Slot, messages: &Slab<Message>, retry: u32) -> Commit {
    let offset = slot.tracker.committable();
    let made_now = slot.retrying.iter().filter_map(|(offset, id)| {
        let message = &messages[id.0];
        let (attempts, first_attempt) = match &message.phase {
            Phase::DeadLetter(failed) | Phase::Keep { failed, .. } => {
                // A new owner must not try again what was given up, also when it was for good
                // after the first attempt: later events of the lane may have gone on.
                (
                    failed.attempts.max(retry.saturating_add(1)),
                    failed.first_attempt,
                )
            }
            Phase::Subscriber(_) | Phase::Reply(_) | Phase::KeepRaw { .. } => {
                (message.attempts, message.first_attempt)
            }
        };
        Some(Waiting {
            offset: *offset,
            attempts_made: attempts,
            first_attempt: first_attempt?,
            due: message.due.unwrap_or_default(),
        })
    });
    // What an earlier owner attempted and we have not read yet must not be lost either.
    let made_before = slot
        .restored
        .values()
        .filter(|attempt| attempt.offset >= offset)
        .copied();
    let mut waiting: Vec<Waiting> = made_now.chain(made_before).collect();
    waiting.sort_by_key(|waiting| waiting.offset);
    let metadata = Metadata {
        done: slot.tracker.done(),
        waiting,
    };
    Commit {
        offset,
        metadata: metadata.encode(offset, METADATA_LIMIT).0,
    }
}

fn origin(slot: &Slot, offset: Offset, time: UnixMillis) -> Origin {
    Origin {
        at: slot.at.clone(),
        offset,
        time,
    }
}

fn work(id: MessageId, message: &Message, slot: &Slot, subscription: &Subscription) -> Work {
    let attempt = |sink: &Sink, event: &Arc<Event>| AttemptWork {
        id,
        sink: sink.clone(),
        event: Arc::clone(event),
        take_reply: false,
    };
    let partition = slot.at.partition;
    let origin = || origin(slot, message.offset, message.time);
    match &message.phase {
        Phase::Subscriber(event) => Work::Attempt(AttemptWork {
            take_reply: subscription.reply.is_some(),
            ..attempt(&subscription.subscriber, event)
        }),
        Phase::Reply(reply) => {
            let sink = subscription
                .reply
                .as_ref()
                .unwrap_or(&subscription.subscriber);
            Work::Attempt(attempt(sink, &reply.reply))
        }
        Phase::DeadLetter(failed) => match &subscription.dead_letter {
            Some(sink) => Work::Attempt(attempt(sink, &failed.letter)),
            // The sink was configured away: the topic takes its place, nothing gets lost.
            None => Work::Keep {
                id,
                partition,
                record: failed.record(&origin()),
            },
        },
        Phase::Keep { failed, .. } => Work::Keep {
            id,
            partition,
            record: failed.record(&origin()),
        },
        Phase::KeepRaw { record, .. } => Work::Keep {
            id,
            partition,
            record: record.clone(),
        },
    }
}

impl Failed {
    fn record(&self, origin: &Origin) -> Record {
        let phase = match self.stage {
            Stage::Subscriber => "subscriber",
            Stage::Reply => "reply",
        };
        let made = (self.attempts, self.first_attempt);
        dead_letter::record(&self.letter, origin, &self.cause, phase, made)
    }
}

#[cfg(test)]
mod tests;
