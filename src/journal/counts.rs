//! Charts and reasons out of counts by minute, whatever store they are in.

use std::collections::BTreeMap;

use super::{Bucket, DeliveryLog, ReasonCount, Span, codes};
use crate::clock::UnixMillis;

/// A minute in milliseconds.
pub(super) const MINUTE: i64 = 60_000;
/// Points of a chart.
const MAX_POINTS: i64 = 2_000;

/// Counts of one point while it is added up.
#[derive(Default)]
struct Point {
    outcomes: [u64; 3],
    durations: BTreeMap<i64, u64>,
}

/// The minutes that a span touches: the first, and the first that is beyond.
pub(super) fn minutes(span: Span) -> (i64, i64) {
    let end = span.to.0.saturating_add(MINUTE - 1).div_euclid(MINUTE);
    (span.from.0.div_euclid(MINUTE), end)
}

/// A chart while it is added up.
pub(super) struct Chart {
    from: i64,
    step: i64,
    points: Vec<Point>,
}

impl Chart {
    pub(super) fn new(span: Span, step_minutes: u32) -> Self {
        let step = i64::from(step_minutes.max(1));
        let (from, to) = minutes(span);
        let count = ((to - from + step - 1) / step).clamp(0, MAX_POINTS);
        Self {
            from,
            step,
            points: (0..count).map(|_| Point::default()).collect(),
        }
    }

    /// Adds `number` attempts of a minute with this outcome (0 good, 1 retryable, 2 permanent) and
    /// this bucket of durations.
    pub(super) fn count(&mut self, minute: i64, outcome: i64, bucket: i64, number: u64) {
        let at = usize::try_from((minute - self.from) / self.step).unwrap_or(usize::MAX);
        if let Some(point) = self.points.get_mut(at) {
            let outcome = usize::try_from(outcome).unwrap_or(2).min(2);
            point.outcomes[outcome] += number;
            *point.durations.entry(bucket).or_default() += number;
        }
    }

    /// The chart, oldest first.
    pub(super) fn buckets(self) -> Vec<Bucket> {
        let (from, step) = (self.from, self.step);
        let starts = (0..).map(|at: i64| UnixMillis((from + at * step) * MINUTE));
        starts
            .zip(&self.points)
            .map(|(start, point)| bucket(start, point))
            .collect()
    }
}

fn bucket(start: UnixMillis, point: &Point) -> Bucket {
    let [ok, retryable, permanent] = point.outcomes;
    let percentile = |part: u64| percentile(&point.durations, part);
    Bucket {
        start,
        ok,
        retryable,
        permanent,
        p50_ms: percentile(50),
        p95_ms: percentile(95),
        p99_ms: percentile(99),
    }
}

/// The duration that `part` percent of the attempts stayed within.
fn percentile(durations: &BTreeMap<i64, u64>, part: u64) -> Option<f64> {
    let all: u64 = durations.values().sum();
    let wanted = (all * part).div_ceil(100);
    let mut seen = 0;
    for (bucket, number) in durations {
        seen += number;
        if seen >= wanted {
            return Some(codes::bucket_ms(*bucket));
        }
    }
    None
}

/// Most frequent first.
pub(super) fn by_frequency(reasons: &mut [ReasonCount]) {
    reasons.sort_by(|a, b| {
        b.attempts
            .cmp(&a.attempts)
            .then_with(|| a.reason.cmp(&b.reason))
    });
}

/// So much of an answer is shown as a sample, in bytes.
const SAMPLE: usize = 200;

/// The outcome of an attempt: 0 good, 1 retryable, 2 permanent.
pub(super) fn outcome_of(log: &DeliveryLog) -> i64 {
    match (&log.reason, log.retryable) {
        (None, _) => 0,
        (Some(_), true) => 1,
        (Some(_), false) => 2,
    }
}

/// The beginning of the answer, or the error in words.
pub(super) fn sample(log: &DeliveryLog) -> String {
    let answer = log.response.as_ref().map(|answer| {
        let body = &answer.body[..answer.body.len().min(SAMPLE)];
        String::from_utf8_lossy(body).into_owned()
    });
    let error = || log.error.as_ref().map(|error| error.message.clone());
    answer
        .filter(|text| !text.is_empty())
        .or_else(error)
        .unwrap_or_default()
}
