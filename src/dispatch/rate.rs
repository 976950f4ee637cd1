//! A limit on attempts a second.

use std::time::Duration;

use tokio::time::Instant;

/// Evenly spaced permits that are not saved up: after a pause there is no burst.
#[derive(Debug)]
pub(crate) struct RateLimit {
    interval: Duration,
    next: Option<Instant>,
}

impl RateLimit {
    /// `per_second` is positive and finite (manifests are checked); the interval is at most a day.
    pub(crate) fn new(per_second: f64) -> Self {
        let seconds = (1.0 / per_second).clamp(0.0, 86_400.0);
        Self {
            interval: Duration::from_secs_f64(seconds),
            next: None,
        }
    }

    /// Takes a permit if one is there.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        match self.next {
            Some(next) if now < next => false,
            // A timer that fires late by a tick must not lower the rate: the next permit counts
            // from when this one was there, unless that is long ago.
            Some(next) if now < next + Duration::from_millis(50) => {
                self.next = Some(next + self.interval);
                true
            }
            _ => {
                self.next = Some(now + self.interval);
                true
            }
        }
    }

    /// When there is a permit again.
    pub(crate) fn next(&self) -> Instant {
        self.next.unwrap_or_else(Instant::now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn permits_come_at_the_rate_and_are_not_saved_up() {
        let start = Instant::now();
        let mut rate = RateLimit::new(10.0);
        let taken = |rate: &mut RateLimit, ms| rate.take(start + Duration::from_millis(ms));
        assert!(taken(&mut rate, 0));
        assert!(!taken(&mut rate, 99));
        assert!(taken(&mut rate, 101), "late by a tick");
        assert!(taken(&mut rate, 200), "the tick is made up for");
        assert!(taken(&mut rate, 5_000));
        assert!(!taken(&mut rate, 5_050), "no burst after a pause");
    }
}
