//! Charts and reasons out of the counts by minute.

use std::collections::HashMap;

use rusqlite::OptionalExtension as _;

use super::codes;
use super::reader::Segments;
use crate::clock::UnixMillis;
use crate::journal::counts::{Chart, MINUTE, by_frequency, minutes};
use crate::journal::{Bucket, ReasonCount, Span};

pub(super) fn chart(
    segments: &mut Segments<'_>,
    subscription: Option<&str>,
    span: Span,
    step: u32,
) -> rusqlite::Result<Vec<Bucket>> {
    let mut chart = Chart::new(span, step);
    let (from, to) = minutes(span);
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
            chart.count(
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                codes::unsigned(row.get(3)?),
            );
        }
    }
    Ok(chart.buckets())
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
    by_frequency(&mut all);
    Ok(all)
}
