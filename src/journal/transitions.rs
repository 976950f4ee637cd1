//! How a message gets from one status to the next: the one place that knows.
//!
//! A failed attempt makes a message `undelivered`, and the retry that is scheduled at once puts it
//! back to `queued`; `undelivered` that is final is the end. A 2xx is `delivered`, or `sent` where
//! only a status check can tell what became of it.

use super::model::{FinalReason, Status, StatusEvent};
use crate::clock::UnixMillis;
use crate::delivery::Reason;

/// What an attempt or a status check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sink took it, and that is what was wanted.
    Delivered,
    /// The sink took it; what becomes of it there is another matter.
    Sent,
    /// It failed, and a retry is scheduled.
    Retry,
    /// It failed, and nothing more will be tried.
    GaveUp(FinalReason),
    /// The sink took it, and no more will ever be known.
    SentForGood,
    /// No call was to be made.
    Sandboxed,
    /// A status check says that the recipient has it.
    CheckedDelivered,
    /// A status check says that it came back.
    CheckedBounced,
    /// A status check says that the provider gave up.
    CheckedUndelivered,
    /// A status check told nothing new: another follows.
    NotYet,
    /// It was the last that told nothing: the message stays sent.
    ChecksOver,
    /// It was cut by a drain or a rebalance: it counts as not made.
    Interrupted,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The status.
    pub status: Status,
    /// Whether nothing more will happen by itself.
    pub is_final: bool,
    /// Why it ended undelivered.
    pub failure: Option<FinalReason>,
}

impl Standing {
    const fn new(status: Status, is_final: bool, failure: Option<FinalReason>) -> Self {
        Self {
            status,
            is_final,
            failure,
        }
    }
}

/// The statuses that an outcome leads through, and where the message stands then. An outcome that
/// changes nothing leads through none.
#[must_use]
pub fn follow(outcome: Outcome) -> (&'static [Status], Standing) {
    use Status::{Bounced, Delivered, NotSent, Queued, Sent, Undelivered};
    match outcome {
        Outcome::Delivered | Outcome::CheckedDelivered => {
            (&[Delivered], Standing::new(Delivered, true, None))
        }
        Outcome::Sent => (&[Sent], Standing::new(Sent, false, None)),
        Outcome::SentForGood => (&[Sent], Standing::new(Sent, true, None)),
        Outcome::ChecksOver => (&[], Standing::new(Sent, true, None)),
        Outcome::Retry => (&[Undelivered, Queued], Standing::new(Queued, false, None)),
        Outcome::GaveUp(why) => (&[Undelivered], Standing::new(Undelivered, true, Some(why))),
        Outcome::Sandboxed => (&[NotSent], Standing::new(NotSent, true, None)),
        Outcome::CheckedBounced => (&[Bounced], Standing::new(Bounced, true, None)),
        Outcome::CheckedUndelivered => (
            &[Undelivered],
            Standing::new(Undelivered, true, Some(FinalReason::FatalError)),
        ),
        Outcome::NotYet => (&[], Standing::new(Sent, false, None)),
        Outcome::Interrupted => (&[], Standing::new(Queued, false, None)),
    }
}

/// What the events of an outcome tell besides the status.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The attempt or check, from 1.
    pub attempt: u32,
    /// Attempts that the round may have.
    pub max_attempts: u32,
    /// Why it failed.
    pub reason: Option<Reason>,
    /// When.
    pub at: UnixMillis,
    /// When the round began to wait, before its first attempt; `None`: that is told already.
    pub queued: Option<UnixMillis>,
}

/// The events of an outcome, oldest first.
#[must_use]
pub fn events(outcome: Outcome, facts: &Facts) -> Vec<StatusEvent> {
    let event = |status, at, attempt, reason: Option<Reason>| StatusEvent {
        status,
        at,
        attempt,
        max_attempts: facts.max_attempts,
        retryable: outcome == Outcome::Retry && reason.is_some(),
        reason,
    };
    let queued = facts.queued.map(|at| event(Status::Queued, at, 0, None));
    let (statuses, _) = follow(outcome);
    let then = statuses.iter().map(|status| {
        let failed = matches!(status, Status::Undelivered | Status::Bounced);
        event(
            *status,
            facts.at,
            facts.attempt,
            facts.reason.filter(|_| failed),
        )
    });
    queued.into_iter().chain(then).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The outcome of one step of a vector; `more`: whether another attempt follows.
    fn outcome(step: &str, checked: bool, more: bool, push: bool) -> Outcome {
        match step {
            "ok" if push => Outcome::SentForGood,
            "ok" if checked => Outcome::Sent,
            "ok" => Outcome::Delivered,
            "retryable" if more => Outcome::Retry,
            "retryable" => Outcome::GaveUp(FinalReason::RetriesExhausted),
            "fatal" => Outcome::GaveUp(FinalReason::FatalError),
            "check:delivered" => Outcome::CheckedDelivered,
            "check:bounced" => Outcome::CheckedBounced,
            "check:undelivered" => Outcome::CheckedUndelivered,
            "check:none" => Outcome::NotYet,
            other => panic!("an outcome that is not known: {other}"),
        }
    }

    #[test]
    fn statuses_follow_each_other_as_the_vectors_say() {
        let text = include_str!("../../tests/vectors/message_status.json");
        let vectors: Value = serde_json::from_str(text).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 7);
        for case in cases {
            let name = case["name"].as_str().unwrap();
            let steps: Vec<&str> = case["attempt_outcomes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|step| step.as_str().unwrap())
                .collect();
            let checked = steps.iter().any(|step| step.starts_with("check:"));
            let push = case["channel_type"] == "push";
            let mut timeline = Vec::new();
            let mut standing = None;
            for (at, step) in steps.iter().enumerate() {
                let outcome = outcome(step, checked, at + 1 < steps.len(), push);
                let facts = Facts {
                    attempt: 1,
                    max_attempts: 9,
                    reason: Some(Reason::Http(503)),
                    at: UnixMillis(1),
                    queued: (at == 0).then_some(UnixMillis(0)),
                };
                timeline.extend(
                    events(outcome, &facts)
                        .into_iter()
                        .map(|event| event.status.name()),
                );
                standing = Some(follow(outcome).1);
            }
            let expected: Vec<&str> = case["expect_status_timeline_task_text"]
                .as_array()
                .unwrap()
                .iter()
                .map(|status| status.as_str().unwrap())
                .collect();
            assert_eq!(timeline, expected, "{name}");
            let last = &case["expect_last_event"];
            let standing = standing.unwrap();
            let kind = format!("message.{}", standing.status.name());
            assert_eq!(last["type"], kind.as_str(), "{name}");
            let failure = standing.failure.map(FinalReason::name);
            assert_eq!(last["failure_reason"].as_str(), failure, "{name}");
        }
    }

    #[test]
    fn only_the_failed_attempt_tells_a_reason() {
        let facts = Facts {
            attempt: 3,
            max_attempts: 9,
            reason: Some(Reason::Http(503)),
            at: UnixMillis(5),
            queued: None,
        };
        let events = events(Outcome::Retry, &facts);
        assert_eq!(events[0].reason, Some(Reason::Http(503)));
        assert!(events[0].retryable);
        assert_eq!((events[1].status, events[1].reason), (Status::Queued, None));
    }
}
