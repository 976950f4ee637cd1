//! When others are told how the messages stand: soon after something changed, but never so often
//! that the work suffers.

use std::time::Duration;

use tokio::time::Instant;

/// At most so often.
const INTERVAL: Duration = Duration::from_secs(1);
/// For no more than one part in so many of the time.
const SHARE: u32 = 100;

/// See the module.
#[derive(Debug)]
pub(super) struct Shown {
    next: Instant,
    /// Something may have changed since the last look.
    is_stale: bool,
}

impl Shown {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next: now,
            is_stale: true,
        }
    }

    /// Has `look` look, if it is time; called on every turn.
    pub(super) fn look(&mut self, now: Instant, look: impl FnOnce()) {
        self.is_stale = now < self.next;
        if !self.is_stale {
            look();
            self.next = now + (now.elapsed() * SHARE).max(INTERVAL);
        }
    }

    /// When the next turn is wanted for it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.is_stale.then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_shown_within_a_second_and_then_there_is_rest() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut shown = Shown::new(begun);
        let mut looks = 0;
        let mut turn = |shown: &mut Shown, millis| {
            shown.look(at(millis), || looks += 1);
            (looks, shown.due())
        };
        assert_eq!(turn(&mut shown, 0), (1, None));
        assert_eq!(turn(&mut shown, 400), (1, Some(at(1000))));
        assert_eq!(turn(&mut shown, 500), (1, Some(at(1000))));
        assert_eq!(turn(&mut shown, 1000), (2, None));
        assert_eq!(turn(&mut shown, 9000), (3, None));
    }
}
