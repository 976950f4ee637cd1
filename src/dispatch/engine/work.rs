//! The work that the engine hands out.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Activity, Engine, Message, MessageId, Now, Phase, Slot, SlotId};
use crate::channel::{Sink, Subscription};
use crate::dispatch::parked::OriginKey;
use crate::event::Event;
use crate::journal::transitions::Outcome;
use crate::log::{Offset, Partition, Record};

/// What the dispatcher is to do; each ends in the call of the engine that is named.
#[derive(Debug)]
pub(crate) enum Work {
    /// Send the event to the sink, once: [`Engine::attempted`].
    Attempt(AttemptWork),
    /// Ask at this address what became of a message: [`Engine::checked`].
    Check { id: MessageId, url: Arc<str> },
    /// Append the record to the dead-letter topic: [`Engine::kept`].
    Keep(Store),
    /// Append the record to the retry topic: [`Engine::parked`].
    Park(Store),
    /// Read these records of the retry topic: [`Engine::fetched`].
    Fetch {
        slot: SlotId,
        wanted: Vec<(OriginKey, Offset)>,
    },
    /// Append the record to the retry topic: [`Engine::checkpointed`].
    Checkpoint {
        slot: SlotId,
        partition: Partition,
        record: Record,
    },
}

impl Work {
    /// The partition whose end makes the work pointless.
    pub(crate) fn slot(&self) -> Option<SlotId> {
        match self {
            Self::Fetch { slot, .. } | Self::Checkpoint { slot, .. } => Some(*slot),
            Self::Attempt(_) | Self::Check { .. } | Self::Keep(_) | Self::Park(_) => None,
        }
    }
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

/// A record to append for a message.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) id: MessageId,
    pub(crate) partition: Partition,
    pub(crate) record: Record,
}

impl Engine {
    /// The next thing to do, if there is one and room for it.
    pub(crate) fn next_work(&mut self, now: Now) -> Option<Work> {
        while let Some(id) = self.timers.pop(now.mono) {
            let message = &mut self.messages[id.0];
            if message.must_park {
                self.parking.push_back(id);
            } else {
                message.due = None;
                self.ready.push_back(id);
            }
        }
        if let Some(chore) = self.chores.pop_front() {
            return Some(chore);
        }
        if let Some(parking) = self.next_parking(now) {
            return Some(parking);
        }
        if let Some(fetch) = self.fetch_due(now) {
            return Some(fetch);
        }
        if !self.has_room() {
            return None;
        }
        self.end_what_needs_no_call(now);
        if self.ready.is_empty() {
            return None;
        }
        // Checks are no attempts: the limit is not for them.
        let checks = |id: &MessageId| matches!(self.messages[id.0].phase, Phase::Check(_));
        let limited = !self.ready.front().is_some_and(checks);
        if let Some(rate) = &mut self.rate
            && limited
            && !rate.take(now.mono)
        {
            return None;
        }
        let id = self.ready.pop_front()?;
        self.attempting += 1;
        self.metrics.in_flight(self.attempting);
        let message = &mut self.messages[id.0];
        message.activity = Activity::Attempting;
        let slot = &mut self.slots[message.slot.0];
        slot.working += 1;
        Some(turn(id, message, slot, &self.subscription))
    }

    /// The reply sink was configured away: a reply without one is dropped. In a sandbox nobody is
    /// called.
    fn end_what_needs_no_call(&mut self, now: Now) {
        while let Some(&id) = self.ready.front() {
            match self.messages[id.0].phase {
                Phase::Reply(_) if self.subscription.reply.is_none() => {}
                Phase::Subscriber(_) if self.subscription.delivery.sandbox => {
                    self.tell_outcome(id, Outcome::Sandboxed, None, now);
                }
                _ => return,
            }
            self.ready.pop_front();
            self.finish(id, now);
        }
    }

    fn has_room(&self) -> bool {
        self.attempting < self.subscription.delivery.max_in_flight
    }

    /// When to look again although nothing came in; `None`: not before something does.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let limited = match &self.rate {
            // Without room the end of an attempt is what to wait for, not the next permit.
            Some(rate) if !self.ready.is_empty() && self.has_room() => Some(rate.next()),
            _ => None,
        };
        [self.timers.next(), limited, self.next_fetch()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// What a message whose turn it is needs.
fn turn(id: MessageId, message: &Message, slot: &Slot, subscription: &Subscription) -> Work {
    let attempt = |sink: &Sink, event: &Arc<Event>| AttemptWork {
        id,
        sink: sink.clone(),
        event: Arc::clone(event),
        take_reply: false,
    };
    let keep = |record: &dyn Fn(&crate::dispatch::dead_letter::Origin) -> Record| {
        let origin = slot.origin_of(message);
        Work::Keep(Store {
            id,
            partition: origin.at.partition,
            record: record(&origin),
        })
    };
    match &message.phase {
        Phase::Subscriber(event) => Work::Attempt(AttemptWork {
            take_reply: subscription.reply.is_some(),
            ..attempt(&subscription.subscriber, event)
        }),
        Phase::Check(check) => Work::Check {
            id,
            url: Arc::clone(&check.url),
        },
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
            None => keep(&|origin| failed.record(origin)),
        },
        Phase::Keep { failed, .. } => keep(&|origin| failed.record(origin)),
        Phase::KeepRaw { record, .. } => keep(&|_| record.clone()),
    }
}
