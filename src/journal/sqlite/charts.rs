//! Charts and reasons out of the counts by minute.

use std::collections::{BTreeMap, HashMap};

use rusqlite::OptionalExtension as _;

use super::codes;
use super::reader::Segments;
use crate::clock::UnixMillis;
use crate::journal::{Bucket, ReasonCount, Span};

const MINUTE: i64 = 60_000;
/// Points of a chart.
const MAX_POINTS: i64 = 2_000;

/// Counts of one point while it is added up.
#[derive(Default)]
struct Point {
    outcomes: [u64; 3],
    durations: BTreeMap<i64, u64>,
}

fn minutes(span: Span) -> (i64, i64) {
    let end = span.to.0.saturating_add(MINUTE - 1).div_euclid(MINUTE);
    (span.from.0.div_euclid(MINUTE), end)
}

pub(super) fn chart(
    segments: &mut Segments<'_>,
    subscription: Option<&str>,
    span: Span,
    step: u32,
) -> rusqlite::Result<Vec<Bucket>> {
    let step = i64::from(step.max(1));
    let (from, to) = minutes(span);
    let count = ((to - from + step - 1) / step).clamp(0, MAX_POINTS);
    let mut points: Vec<Point> = (0..count).map(|_| Point::default()).collect();
    for known in segments.known.clone() {
        let connection = segments.open(&known)?;
        let sub: Option<i64> = match subscription {
            Some(name) => {
                let mut statement =
                    connection.prepare_cached("select id from name where text = ?")?;
                let Some(sub) = statement.query_row([name], |row| row.get(0)).optional()? else {
                    continue;
                };
                Some(sub)
            }
            None => None,
        };
        let mut statement = connection.prepare_cached(
            "select minute, outcome, bucket, sum(n) from stat
             where (?1 is null or sub = ?1) and minute >= ?2 and minute < ?3 group by minute, outcome, bucket",
        )?;
        let mut rows = statement.query(rusqlite::params![sub, from, to])?;
        while let Some(row) = rows.next()? {
            let minute: i64 = row.get(0)?;
            let at = usize::try_from((minute - from) / step).unwrap_or(usize::MAX);
            let Some(point) = points.get_mut(at) else {
                continue;
            };
            let number = codes::unsigned(row.get(3)?);
            let outcome = usize::try_from(row.get::<_, i64>(1)?).unwrap_or(2).min(2);
            point.outcomes[outcome] += number;
            *point.durations.entry(row.get(2)?).or_default() += number;
        }
    }
    let starts = (0..).map(|at: i64| UnixMillis((from + at * step) * MINUTE));
    Ok(starts
        .zip(points)
        .map(|(start, point)| bucket(start, &point))
        .collect())
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

pub(super) fn reasons(
    segments: &mut Segments<'_>,
    subscription: &str,
    span: Span,
) -> rusqlite::Result<Vec<ReasonCount>> {
    let (from, to) = minutes(span);
    let mut all: HashMap<String, ReasonCount> = HashMap::new();
    for known in segments.known.clone() {
        let connection = segments.open(&known)?;
        let mut statement = connection.prepare_cached(
            "select s.reason, sum(s.n), min(s.minute), max(s.minute), p.at, p.text from stat s
             left join sample p on p.sub = s.sub and p.reason = s.reason
             where s.sub = (select id from name where text = ?) and s.minute >= ? and s.minute < ? and s.outcome > 0
             group by s.reason",
        )?;
        let mut rows = statement.query(rusqlite::params![subscription, from, to])?;
        while let Some(row) = rows.next()? {
            let Some(reason) = codes::reason_name(row.get(0)?) else {
                continue;
            };
            let last_minute = UnixMillis(row.get::<_, i64>(3)? * MINUTE);
            // The sample is of the last failure; it may be later than the span.
            let sampled: Option<i64> = row.get(4)?;
            let last = sampled.map_or(last_minute, |at| UnixMillis(at.min(span.to.0)));
            let (attempts, first) = (
                codes::unsigned(row.get(1)?),
                UnixMillis(row.get::<_, i64>(2)? * MINUTE),
            );
            let known = all.entry(reason.clone()).or_insert_with(|| ReasonCount {
                reason,
                attempts: 0,
                first,
                last,
                sample: String::new(),
            });
            known.attempts += attempts;
            known.first = known.first.min(first);
            // The newest segment comes first.
            known.last = known.last.max(last);
            if known.sample.is_empty() {
                known.sample = row.get::<_, Option<String>>(5)?.unwrap_or_default();
            }
        }
    }
    let mut all: Vec<ReasonCount> = all.into_values().collect();
    all.sort_by(|a, b| {
        b.attempts
            .cmp(&a.attempts)
            .then_with(|| a.reason.cmp(&b.reason))
    });
    Ok(all)
}
