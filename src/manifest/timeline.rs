//! When the attempts of a subscription come, for people to look at.

use std::time::Duration;

use crate::channel::{BackoffPolicy, DeliverySpec};
use crate::delivery::check;

/// When an attempt is made, counted from the first one, if every attempt fails at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryStep {
    /// From 1; 2 is the first retry.
    pub attempt: u64,
    /// With the most jitter.
    pub earliest: Duration,
    /// Without any.
    pub latest: Duration,
}

/// The most steps that are listed; a spec may have two billion.
const MAX_STEPS: usize = 1_000;

/// The attempts `spec` allows, the first one included and at most 1,000 of them. Attempts that the
/// retry window rules out even with the most jitter are left out; `Retry-After` is not looked at.
#[must_use]
pub fn retry_timeline(spec: &DeliverySpec) -> Vec<RetryStep> {
    let window = spec.retry_window.unwrap_or(Duration::MAX);
    let shortest = 1.0 - spec.backoff.jitter.clamp(0.0, 1.0);
    let mut step = RetryStep {
        attempt: 1,
        earliest: Duration::ZERO,
        latest: Duration::ZERO,
    };
    let mut steps = vec![step];
    for retry in 1..=spec.retry {
        let delay = delay_before(spec, retry);
        let least = Duration::try_from_secs_f64(delay.as_secs_f64() * shortest);
        step = RetryStep {
            attempt: u64::from(retry) + 1,
            earliest: step.earliest.saturating_add(least.unwrap_or(Duration::MAX)),
            latest: step.latest.saturating_add(delay),
        };
        if step.earliest > window || steps.len() == MAX_STEPS {
            break;
        }
        steps.push(RetryStep {
            latest: step.latest.min(window),
            ..step
        });
    }
    steps
}

/// When a provider is asked what became of a message, counted from the 2xx, if every answer tells
/// nothing; `Retry-After` is not looked at.
#[must_use]
pub fn check_timeline() -> Vec<RetryStep> {
    let mut step = RetryStep {
        attempt: 0,
        earliest: Duration::ZERO,
        latest: Duration::ZERO,
    };
    let next = |number| {
        step = RetryStep {
            attempt: u64::from(number),
            earliest: step.earliest + check::delay(number, 1.0),
            latest: step.latest + check::delay(number, 0.0),
        };
        step
    };
    (1..=check::CHECKS).map(next).collect()
}

fn delay_before(spec: &DeliverySpec, retry: u32) -> Duration {
    let delay = match spec.backoff.policy {
        BackoffPolicy::Linear => spec.backoff.delay,
        BackoffPolicy::Exponential => 2_u32
            .checked_pow(retry)
            .and_then(|factor| spec.backoff.delay.checked_mul(factor))
            .unwrap_or(if spec.backoff.delay.is_zero() {
                Duration::ZERO
            } else {
                Duration::MAX
            }),
    };
    delay.min(spec.backoff.max.unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{DeliveryOptions, effective};

    fn spec(retry: u32, policy: BackoffPolicy, delay: Duration) -> DeliverySpec {
        effective(
            &DeliveryOptions {
                retry: Some(retry),
                policy: Some(policy),
                delay: Some(delay),
                ..DeliveryOptions::default()
            },
            None,
            &DeliveryOptions::default(),
        )
    }

    fn seconds(steps: &[RetryStep]) -> Vec<(f64, f64)> {
        steps
            .iter()
            .map(|step| (step.earliest.as_secs_f64(), step.latest.as_secs_f64()))
            .collect()
    }

    #[test]
    fn delays_add_up() {
        let second = Duration::from_secs(1);
        let linear = retry_timeline(&spec(3, BackoffPolicy::Linear, second));
        assert_eq!(seconds(&linear), [(0., 0.), (1., 1.), (2., 2.), (3., 3.)]);
        let doubling = retry_timeline(&spec(3, BackoffPolicy::Exponential, second));
        assert_eq!(
            seconds(&doubling),
            [(0., 0.), (2., 2.), (6., 6.), (14., 14.)]
        );
        assert_eq!(doubling[3].attempt, 4);
    }

    #[test]
    fn limits_and_jitter_are_kept() {
        let mut spec = spec(10, BackoffPolicy::Exponential, Duration::from_secs(1));
        spec.backoff.max = Some(Duration::from_secs(4));
        spec.backoff.jitter = 0.5;
        spec.retry_window = Some(Duration::from_secs(12));
        assert_eq!(
            seconds(&retry_timeline(&spec)),
            [
                (0., 0.),
                (1., 2.),
                (3., 6.),
                (5., 10.),
                (7., 12.),
                (9., 12.),
                (11., 12.)
            ]
        );
    }

    #[test]
    fn the_notification_preset_fits_its_half_hour() {
        let options = DeliveryOptions::notification();
        let steps = retry_timeline(&effective(&options, None, &DeliveryOptions::default()));
        assert_eq!(steps.len(), 9);
        assert_eq!(steps[8].latest, Duration::from_secs(1785));
        assert_eq!(steps[1].earliest, Duration::from_secs_f64(3.5));
    }

    #[test]
    fn checks_fit_their_half_hour() {
        let steps = check_timeline();
        assert_eq!(steps.len(), 10);
        let (first, last) = (steps[0], steps[9]);
        assert_eq!(first.latest, Duration::from_secs_f64(1.75));
        assert_eq!(last.latest, Duration::from_secs_f64(1790.25));
        assert_eq!(last.earliest, Duration::from_secs_f64(1790.25 / 2.0));
    }

    #[test]
    fn huge_specs_are_cut_and_never_overflow() {
        let steps = retry_timeline(&spec(u32::MAX, BackoffPolicy::Exponential, Duration::MAX));
        assert_eq!(steps.len(), 1_000);
        assert_eq!(steps[999].latest, Duration::MAX);
    }
}
