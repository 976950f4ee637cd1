//! Charts and reasons out of the counts by minute.

use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;

use super::codes;
use super::connect::Failure;
use crate::clock::UnixMillis;
use crate::journal::counts::{Chart, MINUTE, by_frequency, minutes};
use crate::journal::{Bucket, ReasonCount, Span};

pub(super) async fn chart(
    client: &Object,
    subscription: Option<&str>,
    span: Span,
    step: u32,
) -> Result<Vec<Bucket>, Failure> {
    let mut chart = Chart::new(span, step);
    let (from, to) = bounds(span);
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![&from, &to];
    let of_one = match &subscription {
        Some(name) => {
            values.push(name);
            "and sub = (select id from levada_name where text = $3)"
        }
        None => "",
    };
    let statement = client
        .prepare_cached(&format!(
            "select at, outcome, bucket, sum(n)::bigint from levada_stat where at >= $1 and at < $2 {of_one}
             group by at, outcome, bucket"
        ))
        .await?;
    for row in client.query(&statement, &values).await? {
        let minute: i64 = row.try_get(0)?;
        chart.count(
            minute.div_euclid(MINUTE),
            row.try_get::<_, i16>(1)?.into(),
            row.try_get::<_, i16>(2)?.into(),
            codes::unsigned(row.try_get(3)?),
        );
    }
    Ok(chart.buckets())
}

/// The whole minutes of a span, in milliseconds.
fn bounds(span: Span) -> (i64, i64) {
    let (from, to) = minutes(span);
    (from.saturating_mul(MINUTE), to.saturating_mul(MINUTE))
}

pub(super) async fn reasons(
    client: &Object,
    subscription: &str,
    span: Span,
) -> Result<Vec<ReasonCount>, Failure> {
    let (from, to) = bounds(span);
    let statement = client
        .prepare_cached(
            "select s.reason, s.n, s.first, s.last, p.at, p.text
             from (select sub, reason, sum(n)::bigint as n, min(at) as first, max(at) as last from levada_stat
                   where sub = (select id from levada_name where text = $1) and at >= $2 and at < $3 and outcome > 0
                   group by sub, reason) as s
             left join lateral (select at, text from levada_sample
                   where sub = s.sub and reason = s.reason order by at desc limit 1) as p on true",
        )
        .await?;
    let mut all = Vec::new();
    for row in client
        .query(&statement, &[&subscription, &from, &to])
        .await?
    {
        let reason: i16 = row.try_get(0)?;
        let Some(reason) = codes::reason_name(Some(reason.into())) else {
            continue;
        };
        let minute: i64 = row.try_get(3)?;
        // The sample is of the last failure; it may be later than the span.
        let sampled: Option<i64> = row.try_get(4)?;
        let last = sampled.map_or(minute, |at| at.min(span.to.0)).max(minute);
        all.push(ReasonCount {
            reason,
            attempts: codes::unsigned(row.try_get(1)?),
            first: UnixMillis(row.try_get(2)?),
            last: UnixMillis(last),
            sample: row.try_get::<_, Option<String>>(5)?.unwrap_or_default(),
        });
    }
    by_frequency(&mut all);
    Ok(all)
}
