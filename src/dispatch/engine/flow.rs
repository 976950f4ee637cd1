//! What follows when something that was begun has ended.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::parking::End;
use super::{
    Activity, Checked, Checking, Engine, Failed, Life, Message, MessageId, Now, Phase, Reply,
    SlotId, Stage, Verdict,
};
use crate::channel::Accepted;
use crate::delivery::check::{self, Found, Next};
use crate::delivery::retry::{self, GiveUp};
use crate::delivery::{Failure, Reason, Success};
use crate::dispatch::dead_letter::{self, Cause};
use crate::dispatch::parked::OriginKey;
use crate::event::Event;
use crate::journal::FinalReason;
use crate::log::{LogError, Offset};

impl Engine {
    /// An attempt ended.
    pub(crate) fn attempted(&mut self, id: MessageId, result: Result<Success, Failure>, now: Now) {
        if self.stop_working(id).is_none() {
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
        self.rule(Verdict::Done);
        let message = &mut self.messages[id.0];
        match &message.phase {
            Phase::Subscriber(original) => {
                self.metrics.end_to_end(now.wall.since(message.time));
                if let Some(receipt) = self.receipt.take() {
                    let event = Arc::clone(original);
                    return self.sent(id, event, receipt, now);
                }
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
                    _ => {
                        if self.subscription.delivery.accepted == Accepted::Sent {
                            self.rule(Verdict::Sent(None));
                        }
                        self.finish(id, now);
                    }
                }
            }
            Phase::DeadLetter(failed) => {
                self.metrics.dead_letter(&failed.cause);
                self.finish(id, now);
            }
            Phase::Reply(_) | Phase::Check(_) | Phase::Keep { .. } | Phase::KeepRaw { .. } => {
                self.finish(id, now);
            }
        }
    }

    /// A provider took a message. What it calls it is known, or why not.
    fn sent(
        &mut self,
        id: MessageId,
        event: Arc<Event>,
        receipt: Result<Arc<str>, String>,
        now: Now,
    ) {
        let url = match receipt {
            Ok(url) => url,
            Err(why) => {
                tracing::warn!(
                    subscription = %self.subscription.name, why,
                    "a provider cannot be asked what became of a message"
                );
                self.rule(Verdict::SentUnknown(why));
                return self.finish(id, now);
            }
        };
        let delay = check::delay(1, self.rng.random());
        self.rule(Verdict::Sent(Some(delay)));
        self.leave_lane(id, now);
        let message = &mut self.messages[id.0];
        message.phase = Phase::Check(Box::new(Checking { event, url }));
        message.attempts = 0;
        message.first_attempt = Some(now.wall);
        let slot = &mut self.slots[message.slot.0];
        slot.retrying.remove(&message.offset);
        self.wait_for_check(id, delay, now);
    }

    /// The retry topic remembers that a check is due, however soon: a message that is forgotten
    /// would be sent again.
    fn wait_for_check(&mut self, id: MessageId, delay: Duration, now: Now) {
        let message = &mut self.messages[id.0];
        message.due = Some(now.wall.plus(delay));
        self.slots[message.slot.0].dirty = true;
        if self.may_park(id) {
            self.park(id);
        } else if self.slots[self.messages[id.0].slot.0].life == Life::Open {
            self.timers.add(now.later(delay), id);
        }
    }

    /// A provider was asked, with this result.
    pub(super) fn checked(&mut self, id: MessageId, found: &Found, now: Now) -> Option<Checked> {
        self.stop_working(id)?;
        let draw: f64 = self.rng.random();
        let message = &mut self.messages[id.0];
        message.attempts = message.attempts.saturating_add(1);
        let sent = message.first_attempt.unwrap_or(now.wall);
        let next = match found {
            Found::NotYet {
                retry_after,
                reason,
            } => {
                message.reason = *reason;
                check::next(message.attempts, sent, now.wall, *retry_after, draw)
            }
            Found::Delivered | Found::Bounced | Found::Undelivered | Found::Never(_) => Next::End,
        };
        let number = message.attempts;
        match next {
            Next::Again(delay) => self.wait_for_check(id, delay, now),
            Next::End => self.finish(id, now),
        }
        Some(Checked { number, next })
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
            retry::Next::Retry { delay } => self.wait(id, &failure, delay, now),
            retry::Next::GiveUp(why) => self.give_up(id, failure, why, now),
        }
    }

    fn wait(&mut self, id: MessageId, failure: &Failure, delay: Duration, now: Now) {
        self.metrics.retried();
        let message = &mut self.messages[id.0];
        message.due = Some(now.wall.plus(delay));
        message.reason = Some(failure.reason);
        let slot = &mut self.slots[message.slot.0];
        if matches!(message.phase, Phase::Subscriber(_)) {
            slot.retrying.insert(message.offset, id);
        }
        slot.dirty = true;
        if slot.life != Life::Open {
            return self.rule(Verdict::Retry {
                delay,
                parked: false,
            });
        }
        // A dead-letter sink that fails must not hold up the events behind this one: once it is
        // parked they go on.
        let holds_up = message.lane.is_some() && matches!(message.phase, Phase::DeadLetter(_));
        let long = delay >= self.settings.inline_retry_max && !self.waits_here(id, delay);
        let parked = (long || holds_up) && self.may_park(id);
        self.rule(Verdict::Retry { delay, parked });
        if parked {
            self.park(id);
        } else {
            self.timers.add(now.later(delay), id);
        }
    }

    fn give_up(&mut self, id: MessageId, failure: Failure, why: GiveUp, now: Now) {
        self.rule(Verdict::GaveUp(why));
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
                return self.keep(id, failed, now);
            }
            Phase::Keep { .. } | Phase::KeepRaw { .. } => return self.keep_again(id, now),
            Phase::Check(_) => return self.finish(id, now),
        };
        let sink = match stage {
            Stage::Subscriber => None,
            Stage::Reply => self.subscription.reply.as_ref(),
        };
        let cause = Cause::new(sink.unwrap_or(&self.subscription.subscriber).url(), failure);
        let failed = failed_event(message, event, stage, cause);
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
            self.rule(Verdict::Dropped);
            tracing::warn!(
                subscription = %self.subscription.name, dest = failed.cause.dest,
                reason = %failed.cause.reason,
                "an event was dropped: no dead-letter sink took it and deadLetterTopic is false"
            );
            self.finish(id, now);
        }
    }

    /// An earlier owner made every attempt and did not live to store the dead letter. What the
    /// last answer was is not known any more.
    pub(super) fn bury_exhausted(&mut self, id: MessageId, now: Now) {
        self.messages[id.0].due = None;
        self.tell_end(id, FinalReason::RetriesExhausted, Reason::Interrupted, now);
        let message = &self.messages[id.0];
        let Phase::Subscriber(event) = &message.phase else {
            return;
        };
        let lost = Failure::without_answer(Reason::Interrupted, "the last answer was lost");
        let cause = Cause::new(self.subscription.subscriber.url(), lost);
        let failed = failed_event(message, event, Stage::Subscriber, cause);
        self.bury(id, failed, now);
    }

    /// The dead-letter topic took the record, or did not.
    pub(crate) fn kept(&mut self, id: MessageId, result: Result<(), LogError>, now: Now) {
        if self.stop_working(id).is_none() {
            return;
        }
        match result {
            Ok(()) => {
                if let Phase::Keep { failed, .. } | Phase::DeadLetter(failed) =
                    &self.messages[id.0].phase
                {
                    self.metrics.dead_letter(&failed.cause);
                } else {
                    self.tell_end(id, FinalReason::FatalError, Reason::PipelineError, now);
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
            Phase::Subscriber(_) | Phase::Reply(_) | Phase::Check(_) | Phase::DeadLetter(_) => 1,
        };
        let delay = Duration::from_millis(100 << tries.min(8));
        message.due = Some(now.wall.plus(delay));
        if self.slots[message.slot.0].life == Life::Open {
            self.timers.add(now.later(delay), id);
        }
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

    /// Its offset is free to be committed.
    pub(super) fn finish(&mut self, id: MessageId, now: Now) {
        self.finish_as(id, End::Ended, now);
    }

    pub(super) fn finish_as(&mut self, id: MessageId, end: End, now: Now) {
        self.leave_lane(id, now);
        let message = &self.messages[id.0];
        let (slot, offset) = (message.slot, message.offset);
        let origin = message.origin.as_deref().map(OriginKey::of);
        self.complete(slot, offset);
        if let Some(key) = origin {
            self.end_entry(slot, key, offset, end);
        } else if end == End::Ended {
            self.end_chain(slot, offset);
        }
        self.forget(id);
    }

    /// An offset is finished, and a commit is due that says so.
    pub(super) fn complete(&mut self, slot: SlotId, offset: Offset) {
        let slot = &mut self.slots[slot.0];
        match &mut slot.retry {
            Some(retry) => retry.complete(&mut slot.tracker, offset),
            None => slot.tracker.complete(offset),
        }
        slot.dirty = true;
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

    /// The work on a message ended; what life its partition has. `None`: the result means nothing,
    /// because the partition was given up.
    pub(super) fn stop_working(&mut self, id: MessageId) -> Option<Life> {
        let message = self.messages.get_mut(id.0)?;
        match std::mem::replace(&mut message.activity, Activity::Idle) {
            Activity::Idle => return None,
            Activity::Attempting => {
                self.attempting -= 1;
                self.metrics.in_flight(self.attempting);
            }
            Activity::Parking => {}
        }
        let slot = &mut self.slots[message.slot.0];
        slot.working -= 1;
        let life = slot.life;
        if life == Life::Closed {
            self.forget(id);
            return None;
        }
        Some(life)
    }
}

/// An event that failed for good, with the attempts made on it.
fn failed_event(message: &Message, event: &Event, stage: Stage, cause: Cause) -> Arc<Failed> {
    Arc::new(Failed {
        letter: Arc::new(dead_letter::letter(event, &cause)),
        cause,
        stage,
        attempts: message.attempts,
        first_attempt: message.first_attempt,
    })
}
