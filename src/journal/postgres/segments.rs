//! Spans of time, each with tables of its own: which one a time falls into, when one is made, which
//! ones go.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Object, Transaction};

use super::connect::Failure;
use super::schema::{LOCK, TRY_LOCK};
use crate::clock::UnixMillis;

/// Tables that are cut into spans, with the column they are cut by, in the order in which everybody
/// locks them.
const TABLES: [(&str, &str); 4] = [
    ("levada_message", "accepted"),
    ("levada_attempt", "accepted"),
    ("levada_status_change", "accepted"),
    ("levada_stat", "at"),
];
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// What is dated further ahead than this has no span of its own before its time comes.
const AHEAD: i64 = 3_600_000;
/// Rows that are deleted at one go.
const FEW: i64 = 5_000;
/// So often in one round.
const GOES: usize = 20;

/// What is kept, and in what portions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long messages are kept at least, as long as there is room.
    pub age: Duration,
    /// Bytes of all tables with their indexes.
    pub bytes: u64,
    /// The longest span that goes at once.
    pub span: Duration,
}

impl Limits {
    /// Limits whose portions are a part of the age.
    #[must_use]
    pub fn new(age: Duration, bytes: u64) -> Self {
        Self {
            age,
            bytes,
            span: (age / 24).clamp(MINUTE, DAY),
        }
    }

    fn oldest(&self, now: UnixMillis) -> i64 {
        now.0.saturating_sub(millis(self.age))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A span of time with tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    number: i32,
    /// The first time in it.
    starts: i64,
    /// The first time beyond it.
    ends: i64,
}

impl Segment {
    fn has(&self, time: i64) -> bool {
        (self.starts..self.ends).contains(&time)
    }
}

/// Whether a time without a span should get one.
fn lacks(known: &[Segment], time: i64, now: UnixMillis, limits: &Limits) -> bool {
    let worth = (limits.oldest(now)..now.0.saturating_add(AHEAD)).contains(&time);
    worth && !known.iter().any(|segment| segment.has(time))
}

/// The span that a time gets, between those that are there.
fn span_of(time: i64, known: &[Segment], width: i64) -> (i64, i64) {
    let width = width.max(1);
    let start = time.div_euclid(width).saturating_mul(width);
    let before = known.iter().map(|segment| segment.ends);
    let after = known.iter().map(|segment| segment.starts);
    (
        before.filter(|end| *end <= time).fold(start, i64::max),
        after
            .filter(|start| *start > time)
            .fold(start.saturating_add(width), i64::min),
    )
}

/// How wide the next span is: so that dropping one never drops more than an eighth of all.
fn width(limits: &Limits, last: Option<(Segment, u64)>) -> i64 {
    let most = millis(limits.span).max(1);
    let Some((segment, bytes)) = last else {
        return most;
    };
    let width = segment.ends - segment.starts;
    let least = most.min(millis(MINUTE));
    if bytes > limits.bytes / 8 {
        (width / 2).clamp(least, most)
    } else if bytes < limits.bytes / 32 {
        width.saturating_mul(2).clamp(least, most)
    } else {
        width.clamp(least, most)
    }
}

/// The segments that go: over their time, or the oldest while all are too large. `sizes` are oldest
/// first. One whose time is not over stays.
fn outworn(sizes: &[(Segment, u64)], rest: u64, now: UnixMillis, limits: &Limits) -> Vec<Segment> {
    let oldest = limits.oldest(now);
    let mut bytes = sizes.iter().map(|(_, bytes)| bytes).sum::<u64>() + rest;
    let mut gone = Vec::new();
    for (segment, size) in sizes {
        let over = segment.ends <= oldest;
        if !over && (bytes <= limits.bytes || segment.ends > now.0) {
            break;
        }
        bytes = bytes.saturating_sub(*size);
        gone.push(*segment);
    }
    gone
}

/// The segments there are, oldest first.
pub(super) async fn all(client: &impl GenericClient) -> Result<Vec<Segment>, Failure> {
    let rows = client
        .query(
            "select number, starts, ends from levada_segment order by starts",
            &[],
        )
        .await?;
    let segment = |row: &tokio_postgres::Row| {
        Ok(Segment {
            number: row.try_get(0)?,
            starts: row.try_get(1)?,
            ends: row.try_get(2)?,
        })
    };
    rows.iter().map(segment).collect()
}

/// The bytes of a segment's tables, or with `rest` of those that belong to none.
async fn bytes(client: &impl GenericClient, suffix: &str) -> Result<u64, Failure> {
    let names: Vec<String> = TABLES
        .iter()
        .map(|(table, _)| format!("{table}_{suffix}"))
        .collect();
    let row = client
        .query_one(
            "select coalesce(sum(pg_total_relation_size(to_regclass(name))), 0)::bigint from unnest($1::text[]) as t(name)",
            &[&names],
        )
        .await?;
    Ok(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
}

/// Makes the segments that these times need. `known` is brought up to date.
pub(super) async fn cover(
    client: &mut Object,
    known: &mut Vec<Segment>,
    times: impl Iterator<Item = i64>,
    now: UnixMillis,
    limits: &Limits,
) -> Result<(), Failure> {
    let mut times: Vec<i64> = times
        .filter(|time| lacks(known, *time, now, limits))
        .collect();
    times.sort_unstable();
    times.dedup();
    for time in times {
        if lacks(known, time, now, limits) {
            let transaction = client.transaction().await?;
            transaction.execute(LOCK, &[]).await?;
            *known = all(&transaction).await?;
            if lacks(known, time, now, limits) {
                make(&transaction, known, time, limits).await?;
            }
            *known = all(&transaction).await?;
            transaction.commit().await?;
        }
    }
    Ok(())
}

async fn make(
    transaction: &Transaction<'_>,
    known: &[Segment],
    time: i64,
    limits: &Limits,
) -> Result<(), Failure> {
    let last = known.iter().rfind(|segment| segment.ends <= time);
    let last = match last {
        Some(last) => {
            let size = bytes(transaction, &last.number.to_string()).await?;
            Some((*last, size))
        }
        None => None,
    };
    let (starts, ends) = span_of(time, known, width(limits, last));
    let number = known.iter().map(|segment| segment.number).max();
    let number = number.unwrap_or(0).saturating_add(1);
    for (table, column) in TABLES {
        // What was dated ahead is in the rest until its time comes.
        transaction
            .batch_execute(&format!(
                "create table {table}_{number} (like {table} including all);
                 with moved as (delete from {table}_rest where {column} >= {starts} and {column} < {ends} returning *)
                   insert into {table}_{number} select * from moved;
                 alter table {table} attach partition {table}_{number} for values from ({starts}) to ({ends})",
            ))
            .await?;
    }
    transaction
        .execute(
            "insert into levada_segment values ($1, $2, $3)",
            &[&number, &starts, &ends],
        )
        .await?;
    Ok(())
}

/// Lets go of what is too old or too much. One node at a time: who comes second leaves it.
pub(super) async fn retain(
    client: &mut Object,
    now: UnixMillis,
    limits: &Limits,
) -> Result<(), Failure> {
    let transaction = client.transaction().await?;
    let row = transaction.query_one(TRY_LOCK, &[]).await?;
    if !row.try_get::<_, bool>(0)? {
        return Ok(());
    }
    let mut sizes = Vec::new();
    for segment in all(&transaction).await? {
        let size = bytes(&transaction, &segment.number.to_string()).await?;
        sizes.push((segment, size));
    }
    let rest = bytes(&transaction, "rest").await?;
    for Segment { number, .. } in outworn(&sizes, rest, now, limits) {
        let tables: Vec<_> = TABLES
            .iter()
            .map(|(table, _)| format!("{table}_{number}"))
            .collect();
        let tables = tables.join(", ");
        transaction
            .batch_execute(&format!(
                "drop table if exists {tables}; delete from levada_segment where number = {number}"
            ))
            .await?;
        tracing::info!(
            segment = number,
            "a segment of the journal is over its time or size"
        );
    }
    transaction.commit().await?;
    sweep(client, limits.oldest(now)).await
}

/// Deletes what is too old and has no segment.
async fn sweep(client: &Object, oldest: i64) -> Result<(), Failure> {
    let rest = TABLES
        .iter()
        .map(|(table, column)| (format!("{table}_rest"), *column));
    for (table, column) in rest.chain([("levada_gap".to_owned(), "until")]) {
        let delete = format!(
            "delete from {table} where ctid = any(array(select ctid from {table} where {column} < $1 limit $2))"
        );
        for _ in 0..GOES {
            let deleted = client.execute(&delete, &[&oldest, &FEW]).await?;
            if deleted < FEW.unsigned_abs() {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: i32, starts: i64, ends: i64) -> Segment {
        Segment {
            number,
            starts,
            ends,
        }
    }

    #[test]
    fn a_span_fits_between_those_that_are_there() {
        assert_eq!(span_of(25, &[], 10), (20, 30));
        assert_eq!(span_of(-5, &[], 10), (-10, 0));
        let known = [segment(1, 0, 22), segment(2, 27, 40)];
        assert_eq!(span_of(25, &known, 10), (22, 27));
        assert_eq!(span_of(45, &known, 10), (40, 50));
        assert_eq!(span_of(45, &known, 1000), (40, 1000));
    }

    #[test]
    fn what_is_far_off_gets_no_span() {
        let limits = Limits::new(DAY, 1000);
        let now = UnixMillis(10 * 86_400_000);
        let known = [segment(1, now.0 - 5, now.0 + 5)];
        assert!(!lacks(&known, now.0, now, &limits), "it has one");
        assert!(lacks(&known, now.0 + 5, now, &limits));
        assert!(lacks(&known, now.0 - 86_400_000, now, &limits));
        assert!(!lacks(&known, now.0 - 86_400_001, now, &limits));
        assert!(!lacks(&known, now.0 + AHEAD, now, &limits));
    }

    #[test]
    fn spans_get_narrow_while_much_comes_in_and_wide_again() {
        let limits = Limits::new(DAY * 7, 3200);
        let most = millis(limits.span);
        assert_eq!(most, 7 * 3_600_000);
        let last = |width: i64, bytes| Some((segment(1, 0, width), bytes));
        assert_eq!(width(&limits, None), most);
        assert_eq!(width(&limits, last(most, 401)), most / 2);
        assert_eq!(width(&limits, last(60_000, 401)), 60_000, "not without end");
        assert_eq!(width(&limits, last(most / 2, 200)), most / 2);
        assert_eq!(width(&limits, last(most / 2, 99)), most);
        assert_eq!(width(&limits, last(most, 99)), most);
    }

    #[test]
    fn what_is_too_old_goes_and_the_oldest_when_it_is_too_much() {
        let limits = Limits {
            age: Duration::from_millis(100),
            bytes: 50,
            span: Duration::from_millis(10),
        };
        let sizes = [
            (segment(1, 0, 10), 20),
            (segment(2, 10, 20), 20),
            (segment(3, 20, 30), 20),
        ];
        let gone = |now, rest| -> Vec<i32> {
            outworn(&sizes, rest, UnixMillis(now), &limits)
                .iter()
                .map(|segment| segment.number)
                .collect()
        };
        assert_eq!(gone(109, 0), [1], "60 bytes are 10 too much");
        assert_eq!(gone(120, 0), [1, 2], "they are over 100 ms old");
        assert_eq!(gone(25, 90), [1, 2], "the one that is written stays");
        assert_eq!(gone(1000, 0), [1, 2, 3]);
    }
}
