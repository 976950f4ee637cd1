//! What follows a failed attempt: another one, when, or none.
//!
//! Pure: time and randomness come in as arguments. In this order the back-off of the spec is
//! computed, capped by `backoffMax`, made shorter by jitter, made longer by `Retry-After`, and
//! held against the retry window.

use std::time::Duration;

use crate::channel::{Backoff, BackoffPolicy, DeliverySpec};
use crate::clock::UnixMillis;
use crate::delivery::Failure;

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another attempt.
    Retry {
        /// How long from now.
        delay: Duration,
    },
    /// No further attempt.
    GiveUp(GiveUp),
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// Every attempt that the spec allows was made.
    Exhausted,
    /// The same attempt would fail again.
    Permanent,
    /// The next attempt would be due outside the retry window.
    Window,
}

/// The two facts of a failure that decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether another attempt may succeed.
    pub retryable: bool,
    /// What the sink asked to wait.
    pub retry_after: Option<Duration>,
}

impl From<&Failure> for Facts {
    fn from(failure: &Failure) -> Self {
        Self {
            retryable: failure.retryable,
            retry_after: failure.retry_after,
        }
    }
}

/// Decides after attempt number `attempts_made` failed.
///
/// `draw` is a random number in `[0, 1)`; with it the jitter of the delay is chosen.
#[must_use]
pub fn decide(
    failure: Facts,
    attempts_made: u32,
    first_attempt: UnixMillis,
    now: UnixMillis,
    spec: &DeliverySpec,
    draw: f64,
) -> Next {
    if !failure.retryable {
        return Next::GiveUp(GiveUp::Permanent);
    }
    if attempts_made > spec.retry {
        return Next::GiveUp(GiveUp::Exhausted);
    }
    let backoff = jittered(
        backoff(&spec.backoff, attempts_made),
        spec.backoff.jitter,
        draw,
    );
    let asked = failure.retry_after.unwrap_or_default();
    let delay = backoff.max(asked.min(spec.retry_after_max));
    let due_after = now.since(first_attempt).saturating_add(delay);
    match spec.retry_window {
        Some(window) if due_after > window => Next::GiveUp(GiveUp::Window),
        _ => Next::Retry { delay },
    }
}

/// The delay before retry number `retry` (1 is the first), capped, without jitter.
#[must_use]
pub fn backoff(backoff: &Backoff, retry: u32) -> Duration {
    let delay = match backoff.policy {
        BackoffPolicy::Linear => backoff.delay,
        BackoffPolicy::Exponential => doubled(backoff.delay, retry),
    };
    backoff.max.map_or(delay, |max| delay.min(max))
}

/// `delay * 2^times`, at most [`Duration::MAX`].
fn doubled(delay: Duration, times: u32) -> Duration {
    const NANOS: u128 = 1_000_000_000;
    if delay.is_zero() {
        return delay;
    }
    1_u128
        .checked_shl(times)
        .and_then(|factor| delay.as_nanos().checked_mul(factor))
        .and_then(|nanos| {
            let seconds = u64::try_from(nanos / NANOS).ok()?;
            let rest = u32::try_from(nanos % NANOS).ok()?;
            Some(Duration::new(seconds, rest))
        })
        .unwrap_or(Duration::MAX)
}

/// `delay` times a factor in `[1 - jitter, 1]` that `draw` picks.
fn jittered(delay: Duration, jitter: f64, draw: f64) -> Duration {
    if jitter <= 0.0 || jitter.is_nan() {
        return delay;
    }
    let factor = (1.0 - jitter.min(1.0) * draw).clamp(0.0, 1.0);
    // Seconds as f64 round, at the far end even past what a Duration holds.
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor)
        .map_or(delay, |short| short.min(delay))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::channel::{Ordering, RetryCodes};

    const FIRST: UnixMillis = UnixMillis(1_700_000_000_000);
    const FAILED: Facts = Facts {
        retryable: true,
        retry_after: None,
    };

    fn spec(policy: BackoffPolicy, delay_ms: u64, retry: u32) -> DeliverySpec {
        DeliverySpec {
            retry,
            backoff: Backoff {
                policy,
                delay: Duration::from_millis(delay_ms),
                max: None,
                jitter: 0.0,
            },
            retry_window: None,
            timeout: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(600),
            retry_codes: RetryCodes::Standard,
            format: None,
            ordering: Ordering::Key,
            max_in_flight: 1,
            max_window: 1,
            dead_letter_topic: true,
            rate_limit: None,
            accepted: crate::channel::Accepted::Delivered,
            sandbox: false,
            status_check: None,
        }
    }

    /// Delays in ms until the spec gives up, every attempt being made on time.
    fn timeline(spec: &DeliverySpec, draw: f64) -> (Vec<u128>, GiveUp) {
        let mut now = FIRST;
        let mut delays = Vec::new();
        for made in 1.. {
            match decide(FAILED, made, FIRST, now, spec, draw) {
                Next::Retry { delay } => {
                    now = now.plus(delay);
                    delays.push(delay.as_millis());
                }
                Next::GiveUp(why) => return (delays, why),
            }
        }
        unreachable!()
    }

    #[test]
    fn linear_repeats_the_delay_and_exponential_doubles_it_from_the_first_retry_on() {
        use BackoffPolicy::{Exponential, Linear};
        let cases: [(BackoffPolicy, u64, u32, &[u128]); 5] = [
            (Linear, 100, 3, &[100, 100, 100]),
            (Exponential, 100, 3, &[200, 400, 800]),
            (Exponential, 1500, 5, &[3000, 6000, 12000, 24000, 48000]),
            (Exponential, 0, 2, &[0, 0]),
            (Exponential, 100, 0, &[]),
        ];
        for (policy, delay, retry, expected) in cases {
            let (delays, why) = timeline(&spec(policy, delay, retry), 0.0);
            assert_eq!(delays, expected, "{policy:?} {delay} ms");
            assert_eq!(why, GiveUp::Exhausted);
        }
    }

    #[test]
    fn the_notification_schedule_fits_into_its_window_and_nothing_more_does() {
        let mut spec = spec(BackoffPolicy::Exponential, 3500, 8);
        spec.retry_window = Some(Duration::from_secs(1800));
        let (delays, why) = timeline(&spec, 0.0);
        assert_eq!(delays.iter().sum::<u128>(), 1_785_000);
        assert_eq!((delays.len(), why), (8, GiveUp::Exhausted));
        spec.retry = 9;
        assert_eq!(timeline(&spec, 0.0), (delays, GiveUp::Window));
    }

    #[test]
    fn a_due_time_at_the_end_of_the_window_is_inside() {
        let mut spec = spec(BackoffPolicy::Linear, 400, 9);
        spec.retry_window = Some(Duration::from_millis(1000));
        let at = |ms: i64| decide(FAILED, 1, FIRST, UnixMillis(FIRST.0 + ms), &spec, 0.0);
        let retry = Next::Retry {
            delay: Duration::from_millis(400),
        };
        assert_eq!(at(600), retry);
        assert_eq!(at(601), Next::GiveUp(GiveUp::Window));
        assert_eq!(at(-5_000), retry, "a clock that went back");
    }

    #[test]
    fn a_permanent_failure_ends_it_whatever_is_left() {
        let spec = spec(BackoffPolicy::Linear, 100, 9);
        let failure = Facts {
            retryable: false,
            retry_after: Some(Duration::from_secs(1)),
        };
        let next = decide(failure, 1, FIRST, FIRST, &spec, 0.0);
        assert_eq!(next, Next::GiveUp(GiveUp::Permanent));
    }

    #[test]
    fn retry_after_only_lengthens_and_only_up_to_its_cap() {
        // (asked, cap, back-off, delay) in ms
        for (asked, cap, backoff, delay) in [
            (30_000, 500, 100, 500),
            (300, 500, 100, 300),
            (50, 500, 100, 100),
            (30_000, 0, 100, 100),
            (30_000, 500, 700, 700),
        ] {
            let mut spec = spec(BackoffPolicy::Linear, backoff, 1);
            spec.retry_after_max = Duration::from_millis(cap);
            let failure = Facts {
                retryable: true,
                retry_after: Some(Duration::from_millis(asked)),
            };
            let expected = Next::Retry {
                delay: Duration::from_millis(delay),
            };
            assert_eq!(decide(failure, 1, FIRST, FIRST, &spec, 0.0), expected);
        }
    }

    #[test]
    fn the_cap_comes_before_jitter_and_retry_after_after_it() {
        let mut spec = spec(BackoffPolicy::Exponential, 1000, 9);
        spec.backoff.max = Some(Duration::from_secs(4));
        spec.backoff.jitter = 0.5;
        assert_eq!(timeline(&spec, 0.5).0[..3], [1500, 3000, 3000]);
        let failure = Facts {
            retryable: true,
            retry_after: Some(Duration::from_secs(60)),
        };
        let delay = Duration::from_secs(60);
        let next = decide(failure, 3, FIRST, FIRST, &spec, 0.5);
        assert_eq!(next, Next::Retry { delay });
    }

    proptest! {
        #[test]
        fn any_spec_gives_a_delay_within_its_bounds(
            exponential: bool,
            seconds: u64,
            nanos in 0_u32..1_000_000_000,
            cap in proptest::option::of(any::<u64>()),
            retry: u32,
            made in 1_u32..,
            jitter in proptest::num::f64::ANY,
            draw in 0.0_f64..1.0,
            asked in proptest::option::of(any::<u64>()),
            asked_cap: u64,
            window in proptest::option::of(any::<u64>()),
            first: i64,
            now: i64,
        ) {
            let policy = if exponential { BackoffPolicy::Exponential } else { BackoffPolicy::Linear };
            let mut spec = spec(policy, 0, retry);
            spec.backoff = Backoff {
                policy,
                delay: Duration::new(seconds, nanos),
                max: cap.map(Duration::from_millis),
                jitter,
            };
            spec.retry_after_max = Duration::from_secs(asked_cap);
            spec.retry_window = window.map(Duration::from_millis);
            let failure = Facts { retryable: true, retry_after: asked.map(Duration::from_secs) };
            let (first, now) = (UnixMillis(first), UnixMillis(now));
            let next = decide(failure, made, first, now, &spec, draw);
            let asked = failure.retry_after.unwrap_or_default().min(spec.retry_after_max);
            match next {
                Next::GiveUp(GiveUp::Exhausted) => prop_assert!(made > retry),
                Next::GiveUp(why) => prop_assert_eq!(why, GiveUp::Window),
                Next::Retry { delay } => {
                    prop_assert!(made <= retry);
                    let full = backoff(&spec.backoff, made);
                    prop_assert!(full <= spec.backoff.max.unwrap_or(Duration::MAX));
                    prop_assert!(delay >= asked && delay <= full.max(asked));
                    if let Some(window) = spec.retry_window {
                        prop_assert!(now.since(first).saturating_add(delay) <= window);
                    }
                }
            }
        }

        #[test]
        fn jitter_stays_between_its_ends(ms in 0_u64..10_000_000, jitter in 0.0_f64..=1.0, draw in 0.0_f64..1.0) {
            let full = Duration::from_millis(ms);
            let short = jittered(full, jitter, draw);
            let least = full.as_secs_f64() * (1.0 - jitter);
            prop_assert!(short <= full && short.as_secs_f64() >= least - 1e-6);
        }

        #[test]
        fn back_off_never_shrinks_from_one_retry_to_the_next(ms: u64, retry in 1_u32..u32::MAX) {
            let backoff_of = Backoff {
                policy: BackoffPolicy::Exponential,
                delay: Duration::from_millis(ms),
                max: None,
                jitter: 0.0,
            };
            prop_assert!(backoff(&backoff_of, retry) <= backoff(&backoff_of, retry + 1));
        }
    }
}
