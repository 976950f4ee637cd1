//! Partitions that a rebalance which broke off left to nobody.
//!
//! A member that gives partitions up joins again, so that the group shares anew and another gets
//! them. If it is killed in between and comes back as the static member it was, the coordinator
//! hands it the assignment it had and starts no rebalance: what it gave up stays without an owner
//! for as long as the group is at rest. So every static member looks after its group from time to
//! time, and one that sees such partitions twice leaves and joins again.

use std::time::Duration;

use tokio::time::Instant;

use crate::log::{LogError, LogFuture};

/// Between two looks while nothing moves.
const INTERVAL: Duration = Duration::from_secs(60);
/// Before the second look.
const AGAIN: Duration = Duration::from_secs(1);
/// So much longer each wait may be, so that members do not all act at once.
const SPREAD: Duration = Duration::from_secs(3);

/// When to look, and what was seen.
pub(super) struct Watch {
    /// How long a rebalance may take from its last event on.
    settled: Duration,
    /// `None`: this member need not look.
    next: Option<Instant>,
    /// The last look saw partitions without an owner.
    suspects: bool,
    asking: Option<LogFuture<'static, usize>>,
}

impl Watch {
    pub(super) fn new(is_static: bool, settled: Duration, now: Instant) -> Self {
        Self {
            settled,
            next: is_static.then(|| now + settled),
            suspects: false,
            asking: None,
        }
    }

    /// The group shares anew: what was seen before says nothing.
    pub(super) fn moved(&mut self, now: Instant) {
        self.suspects = false;
        self.asking = None;
        if let Some(next) = &mut self.next {
            *next = now + self.settled;
        }
    }

    /// When to look; `None`: not before something happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next.filter(|_| self.asking.is_none())
    }

    /// Looks, if it is time.
    pub(super) fn look(&mut self, now: Instant, ask: impl FnOnce() -> LogFuture<'static, usize>) {
        if self.due().is_some_and(|due| due <= now) {
            self.asking = Some(ask());
        }
    }

    /// Takes in how many partitions have no owner; `spread` is from 0 to 1. True: they were seen
    /// twice, and the group has to share anew.
    pub(super) fn answered(
        &mut self,
        unowned: &Result<usize, LogError>,
        now: Instant,
        spread: f64,
    ) -> bool {
        self.asking = None;
        let seen = matches!(unowned, Ok(1..));
        let confirmed = seen && self.suspects;
        self.suspects = seen && !confirmed;
        let wait = if self.suspects { AGAIN } else { INTERVAL };
        self.next = Some(now + wait + SPREAD.mul_f64(spread.clamp(0.0, 1.0)));
        confirmed
    }
}

/// The answer that is waited for, if any.
pub(super) async fn answer(watch: &mut Watch) -> Result<usize, LogError> {
    match &mut watch.asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLED: Duration = Duration::from_secs(12);

    fn answers(watch: &mut Watch, unowned: usize, now: Instant) -> bool {
        watch.look(now, || Box::pin(std::future::pending()));
        watch.answered(&Ok(unowned), now, 0.0)
    }

    #[test]
    fn what_is_seen_twice_is_acted_upon() {
        let start = Instant::now();
        let mut watch = Watch::new(true, SETTLED, start);
        assert_eq!(watch.due(), Some(start + SETTLED));
        let first = start + SETTLED;
        assert!(!answers(&mut watch, 2, first));
        assert_eq!(watch.due(), Some(first + AGAIN));
        assert!(answers(&mut watch, 2, first + AGAIN));
        assert_eq!(watch.due(), Some(first + AGAIN + INTERVAL));
    }

    #[test]
    fn what_is_seen_once_or_cannot_be_told_is_not() {
        let start = Instant::now();
        let mut watch = Watch::new(true, SETTLED, start);
        assert!(!answers(&mut watch, 2, start));
        assert!(!answers(&mut watch, 0, start));
        assert!(!answers(&mut watch, 2, start));
        let silent = Err(LogError::TimedOut("the group".into()));
        assert!(!watch.answered(&silent, start, 1.0));
        assert_eq!(watch.due(), Some(start + INTERVAL + SPREAD));
        assert!(
            !answers(&mut watch, 2, start),
            "it was not seen right before"
        );
    }

    #[test]
    fn a_rebalance_starts_it_over() {
        let start = Instant::now();
        let mut watch = Watch::new(true, SETTLED, start);
        assert!(!answers(&mut watch, 2, start));
        watch.look(start + AGAIN, || Box::pin(std::future::pending()));
        assert_eq!(watch.due(), None, "an answer is waited for");
        watch.moved(start);
        assert_eq!(watch.due(), Some(start + SETTLED));
        assert!(!answers(&mut watch, 2, start + SETTLED));
        assert_eq!(Watch::new(false, SETTLED, start).due(), None);
    }
}
