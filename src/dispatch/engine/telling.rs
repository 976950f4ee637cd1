//! What the engine tells the journal: each attempt with its answer, and what it led to.
//!
//! Changes gather in an outbox that the dispatcher hands over; without a journal nothing is built.

use std::sync::Arc;
use std::time::Duration;

use super::{Activity, Engine, Life, Message, MessageId, Now, Phase, Slot, SlotId};
use crate::channel::Subscription;
use crate::clock::UnixMillis;
use crate::delivery::check::{self, Found};
use crate::delivery::retry::{self, GiveUp};
use crate::delivery::{Answer, Failure, Reason, Success};
use crate::event::Event;
use crate::journal::transitions::{self, Facts, Outcome};
use crate::journal::{
    Change, DeliveryLog, FinalReason, LogError, LogKind, LogRequest, MessageKey, MessageState,
    Trigger, Wait,
};
use crate::message;

/// What an attempt looked like, besides its outcome.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) started: UnixMillis,
    pub(crate) duration: Duration,
    pub(crate) answer: Option<Answer>,
    pub(crate) request: LogRequest,
}

/// What an attempt led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    /// A provider has it and is asked after so long what became of it; `None`: it is not asked.
    Sent(Option<Duration>),
    /// A provider has it and cannot be asked.
    SentUnknown(String),
    Retry {
        delay: Duration,
        parked: bool,
    },
    GaveUp(GiveUp),
    Dropped,
}

/// What a check led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// Which check it was, from 1.
    pub(super) number: u32,
    pub(super) next: check::Next,
}

/// The engine's side of the journal.
#[derive(Debug)]
pub(super) struct Telling {
    /// What stands for subscription and channel topic in ids.
    scope: u64,
    outbox: Vec<Change>,
    verdict: Option<Verdict>,
}

/// An attempt that ended, before it is known what follows.
struct Draft {
    key: MessageKey,
    event: Arc<Event>,
    kind: LogKind,
    phase: &'static str,
    round: u32,
    attempt: u32,
    max_attempts: u32,
    reason: Option<Reason>,
    retryable: bool,
    retry_after: bool,
    planned: Duration,
    error: Option<LogError>,
    told: Told,
}

impl Engine {
    /// The same engine, telling what happens if `on`.
    pub(crate) fn telling(mut self, on: bool) -> Self {
        self.telling = on.then(|| {
            let at = crate::log::TopicPartition {
                topic: self.subscription.topic.clone(),
                partition: crate::log::Partition(0),
            };
            let id = message::MessageId::new(&self.subscription.uid, &at, crate::log::Offset(0));
            let (scope, ..) = id.parts();
            Box::new(Telling {
                scope,
                outbox: Vec::new(),
                verdict: None,
            })
        });
        self
    }

    /// What happened since the outbox was last emptied.
    pub(crate) fn outbox(&mut self) -> Option<&mut Vec<Change>> {
        let outbox = &mut self.telling.as_mut()?.outbox;
        (!outbox.is_empty()).then_some(outbox)
    }

    /// An attempt ended, with what there is to tell of it.
    pub(crate) fn attempted_told(
        &mut self,
        id: MessageId,
        result: Result<Success, Failure>,
        told: Option<Told>,
        now: Now,
    ) {
        let draft = told.and_then(|told| self.draft(id, &result, told));
        self.attempted(id, result, now);
        let Some(telling) = &mut self.telling else {
            return;
        };
        let verdict = telling.verdict.take();
        if let (Some(draft), Some(verdict)) = (draft, verdict) {
            telling.outbox.push(draft.change(&verdict, now));
        }
    }

    /// Notes what follows the attempt that is being dealt with.
    pub(super) fn rule(&mut self, verdict: Verdict) {
        if let Some(telling) = &mut self.telling {
            telling.verdict = Some(verdict);
        }
    }

    fn draft(&self, id: MessageId, result: &Result<Success, Failure>, told: Told) -> Option<Draft> {
        let message = self.messages.get(id.0)?;
        let slot = &self.slots[message.slot.0];
        if message.activity != Activity::Attempting || slot.life == Life::Closed {
            return None;
        }
        let (phase, event) = subject(&message.phase)?;
        let failure = result.as_ref().err();
        let attempt = message.attempts.saturating_add(1);
        let delivery = &self.subscription.delivery;
        Some(Draft {
            key: self.key(message, slot)?,
            event: Arc::clone(event?),
            kind: match message.phase {
                Phase::Check(_) => LogKind::StatusCheck,
                _ => LogKind::Attempt,
            },
            phase,
            round: round(message),
            attempt,
            max_attempts: delivery.retry.saturating_add(1),
            reason: failure.map(|failure| failure.reason),
            retryable: failure.is_some_and(|failure| failure.retryable),
            retry_after: failure.is_some_and(|failure| failure.retry_after.is_some()),
            planned: retry::backoff(&delivery.backoff, attempt),
            error: failure
                .filter(|_| told.answer.is_none())
                .map(|failure| LogError {
                    kind: failure.reason,
                    message: failure.detail.clone(),
                }),
            told,
        })
    }

    fn key(&self, message: &Message, slot: &Slot) -> Option<MessageKey> {
        let origin = slot.origin_of(message);
        let scope = self.telling.as_ref()?.scope;
        let id = if origin.at.topic == self.subscription.topic {
            message::MessageId::from_parts((scope, origin.at.partition.0, origin.offset.0))
        } else {
            message::MessageId::new(&self.subscription.uid, &origin.at, origin.offset)
        };
        Some(MessageKey {
            id,
            subscription: Arc::clone(&self.subscription),
            at: origin.at,
            offset: origin.offset,
            accepted: origin.time,
        })
    }

    /// Where the provider tells what became of the message whose attempt is told next.
    pub(crate) fn receipt(&mut self, receipt: Option<Result<String, String>>) {
        self.receipt = receipt.map(|receipt| receipt.map(Arc::from));
    }

    /// A provider was asked what became of a message.
    pub(crate) fn checked_told(
        &mut self,
        id: MessageId,
        result: &Result<Success, Failure>,
        answer: Option<&Answer>,
        told: Option<Told>,
        now: Now,
    ) {
        let found = match &self.subscription.delivery.status_check {
            Some(check) => check::read(check, answer, result.as_ref().err()),
            // It was configured away.
            None => Found::Never(Reason::PipelineError),
        };
        let draft = told.and_then(|told| self.draft(id, result, told));
        let Some(checked) = self.checked(id, &found, now) else {
            return;
        };
        if let (Some(telling), Some(draft)) = (&mut self.telling, draft) {
            telling.outbox.push(draft.checked(&found, checked, now));
        }
    }

    /// A message came to its end without an attempt.
    pub(super) fn tell_end(&mut self, id: MessageId, why: FinalReason, reason: Reason, now: Now) {
        self.tell_outcome(id, Outcome::GaveUp(why), Some(reason), now);
    }

    pub(super) fn tell_outcome(
        &mut self,
        id: MessageId,
        outcome: Outcome,
        reason: Option<Reason>,
        now: Now,
    ) {
        let message = &self.messages[id.0];
        let Some(key) = self.key(message, &self.slots[message.slot.0]) else {
            return;
        };
        let event = subject(&message.phase).and_then(|(_, event)| event.cloned());
        let facts = Facts {
            attempt: message.attempts,
            max_attempts: self.subscription.delivery.retry.saturating_add(1),
            reason,
            at: now.wall,
            queued: (message.attempts == 0).then_some(key.accepted),
        };
        let round = round(message);
        let change = Change {
            key,
            event,
            at: now.wall,
            state: Some(state(outcome, &facts, round, None)),
            events: transitions::events(outcome, &facts),
            log: None,
        };
        if let Some(telling) = &mut self.telling {
            telling.outbox.push(change);
        }
    }

    /// Attempts of a partition that is given up are cut: they count as not made.
    pub(crate) fn tell_interrupted(&mut self, slot: SlotId, now: Now) {
        if self.telling.is_none() {
            return;
        }
        let cut = |(_, message): &(usize, &Message)| {
            let attempts = message.activity == Activity::Attempting;
            // A check that is cut is made again; it tells nothing.
            message.slot == slot && attempts && !matches!(message.phase, Phase::Check(_))
        };
        let ids: Vec<_> = self
            .messages
            .iter()
            .filter(cut)
            .map(|(id, _)| MessageId(id))
            .collect();
        for id in ids {
            let told = Told {
                started: now.wall,
                duration: Duration::ZERO,
                answer: None,
                request: LogRequest {
                    method: "POST",
                    url: self.url(id).into(),
                    headers: http::HeaderMap::new(),
                },
            };
            let interrupted = Err(Failure::interrupted());
            let Some(draft) = self.draft(id, &interrupted, told) else {
                continue;
            };
            let change = draft.interrupted(now);
            if let Some(telling) = &mut self.telling {
                telling.outbox.push(change);
            }
        }
    }

    fn url(&self, id: MessageId) -> String {
        let Subscription {
            subscriber,
            reply,
            dead_letter,
            ..
        } = &*self.subscription;
        let sink = match self.messages[id.0].phase {
            Phase::Reply(_) => reply.as_ref(),
            Phase::DeadLetter(_) => dead_letter.as_ref(),
            Phase::Subscriber(_) | Phase::Check(_) | Phase::Keep { .. } | Phase::KeepRaw { .. } => {
                None
            }
        };
        sink.unwrap_or(subscriber).url()
    }
}

/// The phase's name, and the event if it is one. `None`: nobody is called in this phase.
fn subject(phase: &Phase) -> Option<(&'static str, Option<&Arc<Event>>)> {
    Some(match phase {
        Phase::Subscriber(event) => ("subscriber", Some(event)),
        Phase::Reply(reply) => ("reply", Some(&reply.original)),
        Phase::DeadLetter(failed) | Phase::Keep { failed, .. } => {
            ("dead-letter", Some(&failed.letter))
        }
        Phase::Check(check) => ("check", Some(&check.event)),
        Phase::KeepRaw { .. } => ("dead-letter", None),
    })
}

fn round(message: &Message) -> u32 {
    let redriven = message.origin.as_ref().map_or(0, |origin| origin.redriven);
    redriven.saturating_add(1)
}

fn state(outcome: Outcome, facts: &Facts, round: u32, next: Option<UnixMillis>) -> MessageState {
    let (_, standing) = transitions::follow(outcome);
    MessageState {
        status: standing.status,
        is_final: standing.is_final,
        failure: standing.failure,
        last_reason: facts.reason,
        attempts: facts.attempt,
        max_attempts: facts.max_attempts,
        next_attempt: next,
        round,
    }
}

/// How long until check number `number`.
fn check_wait(delay: Duration, number: u32, retry_after: bool) -> Wait {
    Wait {
        delay,
        planned: check::delay(number, 0.0),
        retry_after,
        parked: true,
    }
}

fn final_reason(why: GiveUp) -> FinalReason {
    match why {
        GiveUp::Exhausted | GiveUp::Window => FinalReason::RetriesExhausted,
        GiveUp::Permanent => FinalReason::FatalError,
    }
}

impl Draft {
    fn change(mut self, verdict: &Verdict, now: Now) -> Change {
        let outcome = match verdict {
            Verdict::Done => Outcome::Delivered,
            Verdict::Sent(Some(_)) => Outcome::Sent,
            Verdict::Sent(None) | Verdict::SentUnknown(_) => Outcome::SentForGood,
            Verdict::Retry { .. } => Outcome::Retry,
            Verdict::GaveUp(why) => Outcome::GaveUp(final_reason(*why)),
            Verdict::Dropped => Outcome::GaveUp(FinalReason::Dropped),
        };
        let wait = match verdict {
            Verdict::Retry { delay, parked } => Some(Wait {
                delay: *delay,
                planned: self.planned,
                retry_after: self.retry_after,
                parked: *parked,
            }),
            Verdict::Sent(Some(delay)) => Some(check_wait(*delay, 1, false)),
            Verdict::Sent(None) | Verdict::SentUnknown(_) => None,
            Verdict::Done | Verdict::GaveUp(_) | Verdict::Dropped => None,
        };
        if let Verdict::SentUnknown(why) = verdict {
            self.error = Some(LogError {
                kind: Reason::InvalidResponse,
                message: why.clone(),
            });
        }
        let next = wait.as_ref().map(|wait| now.wall.plus(wait.delay));
        // What becomes of a reply or a dead letter is another matter than the message's status.
        let decides = self.phase == "subscriber" || *verdict == Verdict::Dropped;
        let facts = self.facts(now, self.attempt);
        let state = decides.then(|| state(outcome, &facts, self.round, next));
        let events = if decides {
            transitions::events(outcome, &facts)
        } else {
            Vec::new()
        };
        self.into_change(now, state, events, wait)
    }

    /// The change that a check makes.
    fn checked(mut self, found: &Found, checked: Checked, now: Now) -> Change {
        let again = match checked.next {
            check::Next::Again(delay) => Some(delay),
            check::Next::End => None,
        };
        let outcome = match found {
            Found::Delivered => Outcome::CheckedDelivered,
            Found::Bounced => Outcome::CheckedBounced,
            Found::Undelivered => Outcome::CheckedUndelivered,
            Found::NotYet { .. } if again.is_some() => Outcome::NotYet,
            Found::NotYet { .. } | Found::Never(_) => Outcome::ChecksOver,
        };
        self.reason = match found {
            Found::NotYet { reason, .. } => *reason,
            Found::Never(reason) => Some(*reason),
            Found::Delivered | Found::Bounced | Found::Undelivered => None,
        };
        self.retryable = again.is_some();
        (self.attempt, self.max_attempts) = (checked.number, check::CHECKS);
        let wait = again.map(|delay| check_wait(delay, checked.number + 1, self.retry_after));
        let next = wait.as_ref().map(|wait| now.wall.plus(wait.delay));
        let mut facts = self.facts(now, checked.number);
        facts.queued = None;
        let state = state(outcome, &facts, self.round, next);
        let events = transitions::events(outcome, &facts);
        self.into_change(now, Some(state), events, wait)
    }

    fn interrupted(mut self, now: Now) -> Change {
        let made = self.attempt - 1;
        self.reason = Some(Reason::Interrupted);
        self.retryable = true;
        let mut facts = self.facts(now, made);
        facts.queued = None;
        let decides = self.phase == "subscriber";
        let state = decides.then(|| state(Outcome::Interrupted, &facts, self.round, None));
        self.into_change(now, state, Vec::new(), None)
    }

    fn facts(&self, now: Now, attempt: u32) -> Facts {
        let first = (self.attempt == 1).then_some(if self.round == 1 {
            self.key.accepted
        } else {
            self.told.started
        });
        Facts {
            attempt,
            max_attempts: self.max_attempts,
            reason: self.reason,
            at: now.wall,
            queued: first,
        }
    }

    fn into_change(
        self,
        now: Now,
        state: Option<MessageState>,
        events: Vec<crate::journal::StatusEvent>,
        wait: Option<Wait>,
    ) -> Change {
        let trigger = match (self.attempt, self.round) {
            (1, 1) => Trigger::First,
            (1, _) => Trigger::Redrive,
            _ => Trigger::Retry,
        };
        let log = DeliveryLog {
            kind: self.kind,
            phase: self.phase,
            trigger,
            round: self.round,
            attempt: self.attempt,
            started: self.told.started,
            duration: self.told.duration,
            reason: self.reason,
            retryable: self.retryable,
            request: self.told.request,
            response: self.told.answer,
            error: self.error,
            wait,
        };
        Change {
            key: self.key,
            event: Some(self.event),
            at: now.wall,
            state,
            events,
            log: Some(Box::new(log)),
        }
    }
}
