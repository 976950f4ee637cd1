//! Counts of attempts over spans of time.

use std::collections::BTreeMap;
use std::time::Duration;

/// What was counted in a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts that succeeded.
    pub ok: u64,
    /// Attempts that failed and may be repeated.
    pub retryable: u64,
    /// Attempts that failed for good.
    pub permanent: u64,
    /// Events that became dead letters.
    pub dead_letters: u64,
    /// Failed attempts by status code; `None`: no answer.
    pub failures: BTreeMap<Option<u16>, u64>,
    /// How long the attempts took.
    pub latency: LatencyCounts,
}

impl Counts {
    /// All attempts.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.ok + self.failed()
    }

    /// Those that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.retryable + self.permanent
    }

    /// The share that succeeded; `None` without attempts.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share needs no 52 bits")]
    pub fn success(&self) -> Option<f64> {
        let all = self.attempts();
        (all > 0).then(|| self.ok as f64 / all as f64)
    }

    /// The most frequent failure.
    #[must_use]
    pub fn worst(&self) -> Option<Option<u16>> {
        let most = self.failures.iter().max_by_key(|(_, count)| **count);
        most.map(|(code, _)| *code)
    }

    /// Adds what another span counted.
    pub fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.retryable += other.retryable;
        self.permanent += other.permanent;
        self.dead_letters += other.dead_letters;
        for (code, count) in &other.failures {
            *self.failures.entry(*code).or_default() += count;
        }
        self.latency.add(&other.latency);
    }
}

/// How many attempts took how long, in the buckets of the metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencyCounts(BTreeMap<Bound, u64>);

/// An upper bound in microseconds.
type Bound = u64;

impl LatencyCounts {
    /// Counts attempts that took at most `seconds`, but longer than the next smaller bound.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounds are between microseconds and hours; an infinite one saturates"
    )]
    pub fn count(&mut self, seconds: f64, attempts: u64) {
        if attempts > 0 {
            *self.0.entry((seconds * 1e6) as u64).or_default() += attempts;
        }
    }

    /// Adds what another span counted.
    pub fn add(&mut self, other: &Self) {
        for (bound, count) in &other.0 {
            *self.0.entry(*bound).or_default() += count;
        }
    }

    /// What was counted since `older`.
    #[must_use]
    pub fn minus(&self, older: &Self) -> Self {
        let mut left = self.clone();
        for (bound, count) in &mut left.0 {
            *count = count.saturating_sub(older.0.get(bound).copied().unwrap_or(0));
        }
        left.0.retain(|_, count| *count > 0);
        left
    }

    /// So long that `share` of the attempts took no longer: the upper bound of their bucket.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among counts"
    )]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let all: u64 = self.0.values().sum();
        let rank = ((all as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        self.0.iter().find_map(|(bound, count)| {
            below += count;
            (below >= rank).then(|| Duration::from_micros(*bound))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_read_from_buckets() {
        let mut counts = LatencyCounts::default();
        assert_eq!(counts.quantile(0.5), None);
        counts.count(0.01, 50);
        counts.count(0.1, 45);
        counts.count(1.0, 5);
        let of = |share| counts.quantile(share).map(|time| time.as_millis());
        assert_eq!(of(0.5), Some(10));
        assert_eq!(of(0.95), Some(100));
        assert_eq!(of(0.951), Some(1000));
        assert_eq!(of(1.0), Some(1000));
    }

    #[test]
    fn spans_add_up() {
        let one = Counts {
            ok: 1,
            retryable: 2,
            failures: BTreeMap::from([(Some(503), 1), (None, 1)]),
            ..Counts::default()
        };
        let mut sum = one.clone();
        sum.add(&one);
        assert_eq!((sum.attempts(), sum.failed()), (6, 4));
        assert_eq!(sum.failures[&Some(503)], 2);
        assert_eq!(sum.success(), Some(2.0 / 6.0));
        assert_eq!(Counts::default().success(), None);
    }
}
