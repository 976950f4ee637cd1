//! Whether what a redrive sends is taken: it pauses rather than send all there is to a subscriber
//! that still fails.

use std::collections::VecDeque;
use std::time::Duration;

use crate::journal::{Message, Status};
use crate::message::MessageId;

/// So many failures in a row pause it; so many it sends before it knows of any success.
pub(super) const STREAK: u64 = 20;
/// Messages whose outcome is waited for, the newest.
const FOLLOWED: usize = 1000;
/// After so long without an outcome it goes on all the same: another node may keep the journal.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What became of a message that was sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was taken.
    Taken,
    /// Its first attempt failed, for this reason.
    Failed(String),
    /// It was not tried yet, as far as the journal knows.
    Open,
}

impl Fate {
    /// As the journal tells of a message that was sent for this round.
    pub(super) fn of(message: Option<&Message>, round: u32) -> Self {
        let Some(message) = message.filter(|message| message.round >= round) else {
            return Self::Open;
        };
        match (message.status, message.last_reason.as_deref()) {
            (Status::Delivered | Status::Sent | Status::NotSent | Status::Bounced, _) => {
                Self::Taken
            }
            (Status::Queued | Status::Undelivered, None | Some("interrupted")) => Self::Open,
            (Status::Queued | Status::Undelivered, Some(reason)) => Self::Failed(reason.into()),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    open: VecDeque<(MessageId, u32)>,
    /// Failures since the last success.
    streak: u64,
    last: String,
    /// One was taken, or nobody can tell.
    trusted: bool,
}

impl Outcomes {
    /// Those of a redrive that cannot know any.
    pub(super) fn unknowable() -> Self {
        Self {
            trusted: true,
            ..Self::default()
        }
    }

    /// Messages with their rounds were sent.
    pub(super) fn sent(&mut self, messages: impl IntoIterator<Item = (MessageId, u32)>) {
        self.open.extend(messages);
        let beyond = self.open.len().saturating_sub(FOLLOWED);
        self.open.drain(..beyond);
    }

    /// How many may be sent now.
    pub(super) fn room(&self) -> u64 {
        if self.trusted {
            return u64::MAX;
        }
        STREAK.saturating_sub(self.open.len() as u64 + self.streak)
    }

    /// Goes on although nothing is known.
    pub(super) fn trust(&mut self) {
        self.trusted = true;
    }

    /// The messages to ask about, at most so many, the oldest.
    pub(super) fn open(&self, limit: usize) -> Vec<(MessageId, u32)> {
        self.open.iter().take(limit).copied().collect()
    }

    /// Takes note of what became of one.
    pub(super) fn note(&mut self, id: MessageId, fate: Fate) {
        match fate {
            Fate::Open => return,
            Fate::Taken => (self.streak, self.trusted) = (0, true),
            Fate::Failed(reason) => {
                self.streak += 1;
                self.last = reason;
            }
        }
        self.open.retain(|(open, _)| *open != id);
    }

    /// Why to pause, if there is cause to.
    pub(super) fn verdict(&self) -> Option<String> {
        let failing = self.streak >= STREAK;
        failing.then(|| {
            format!(
                "{} in a row failed, the last with {}",
                self.streak, self.last
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(offset: i64) -> MessageId {
        MessageId::from_parts((7, 0, offset))
    }

    fn failed() -> Fate {
        Fate::Failed("http_503".into())
    }

    #[test]
    fn without_a_success_no_more_than_a_streak_is_sent() {
        let mut outcomes = Outcomes::default();
        assert_eq!(outcomes.room(), 20);
        outcomes.sent((0..15).map(|n| (id(n), 2)));
        assert_eq!(outcomes.room(), 5);
        outcomes.note(id(0), failed());
        outcomes.note(id(1), Fate::Open);
        assert_eq!(outcomes.room(), 5);
        outcomes.sent((15..20).map(|n| (id(n), 2)));
        (1..19).for_each(|n| outcomes.note(id(n), failed()));
        assert_eq!((outcomes.room(), outcomes.verdict()), (0, None));
        outcomes.note(id(19), failed());
        let why = "20 in a row failed, the last with http_503";
        assert_eq!(outcomes.verdict().as_deref(), Some(why));
        assert!(outcomes.open(9).is_empty());
    }

    #[test]
    fn a_success_ends_the_streak_and_opens_the_way() {
        let mut outcomes = Outcomes::default();
        outcomes.sent((0..20).map(|n| (id(n), 2)));
        (0..19).for_each(|n| outcomes.note(id(n), failed()));
        outcomes.note(id(19), Fate::Taken);
        assert_eq!((outcomes.room(), outcomes.verdict()), (u64::MAX, None));
        outcomes.sent((20..40).map(|n| (id(n), 2)));
        (20..40).for_each(|n| outcomes.note(id(n), failed()));
        assert!(outcomes.verdict().is_some(), "also later on");
        outcomes.sent((0..5000).map(|n| (id(n), 2)));
        assert_eq!(outcomes.open(9000).len(), FOLLOWED);
        assert_eq!(Outcomes::unknowable().room(), u64::MAX);
    }
}
