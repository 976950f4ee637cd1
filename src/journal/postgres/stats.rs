//! Attempts counted by minute, so that charts never touch messages.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;

use super::connect::Failure;
use super::copy::{Names, number};
use super::{codes, reason, small, text};
use crate::journal::counts::{MINUTE, outcome_of, sample};
use crate::journal::{Change, LogKind};

const COUNT: &str = "insert into levada_stat (sub, at, outcome, reason, bucket, n, node)
     select sub, at, outcome::smallint, reason::smallint, bucket::smallint, n, $7
     from unnest($1::integer[], $2::bigint[], $3::integer[], $4::integer[], $5::integer[], $6::bigint[])
       as t(sub, at, outcome, reason, bucket, n)
     on conflict (sub, at, outcome, reason, bucket, node) do update set n = levada_stat.n + excluded.n";
const SAMPLE: &str = "insert into levada_sample (sub, reason, at, text, node)
     select sub, reason, at, text, $5
     from unnest($1::integer[], $2::smallint[], $3::bigint[], $4::text[]) as t(sub, reason, at, text)
     on conflict (sub, reason, node) do update set at = excluded.at, text = excluded.text";

/// Subscription, minute in milliseconds, outcome, reason (0: none), bucket of durations.
type Key = (i32, i64, i16, i16, i16);

/// What a batch adds, in the order of the keys: everybody locks rows in that order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    counts: BTreeMap<Key, i64>,
    /// By subscription and reason the latest failure.
    samples: BTreeMap<(i32, i16), (i64, String)>,
}

impl Stats {
    /// Counts the attempts on subscribers.
    pub(super) fn new(changes: &[Change], names: &Names) -> Self {
        let mut stats = Self::default();
        for change in changes {
            let Some(log) = &change.log else { continue };
            if log.kind != LogKind::Attempt || log.phase != "subscriber" {
                continue;
            }
            let sub = number(names, &change.key.subscription.name.to_string());
            let reason = log.reason.map_or(0, reason);
            let outcome = outcome_of(log);
            let minute = log.started.0.div_euclid(MINUTE) * MINUTE;
            let micros = u64::try_from(log.duration.as_micros()).unwrap_or(u64::MAX);
            let bucket = small(codes::bucket(micros));
            let key = (sub, minute, small(outcome), reason, bucket);
            *stats.counts.entry(key).or_default() += 1;
            if outcome > 0 {
                let sample = (log.started.0, text(&sample(log)).into_owned());
                stats.samples.insert((sub, reason), sample);
            }
        }
        stats
    }

    /// Adds them to what `node` has counted. Nodes never wait for each other's rows.
    pub(super) async fn write(
        &self,
        transaction: &Transaction<'_>,
        node: i32,
    ) -> Result<(), Failure> {
        if !self.counts.is_empty() {
            let column = |pick: fn(&Key) -> i32| self.counts.keys().map(pick).collect::<Vec<_>>();
            let minutes: Vec<i64> = self.counts.keys().map(|key| key.1).collect();
            let numbers: Vec<i64> = self.counts.values().copied().collect();
            let count = transaction.prepare_cached(COUNT).await?;
            transaction
                .execute(
                    &count,
                    &[
                        &column(|key| key.0),
                        &minutes,
                        &column(|key| key.2.into()),
                        &column(|key| key.3.into()),
                        &column(|key| key.4.into()),
                        &numbers,
                        &node,
                    ],
                )
                .await?;
        }
        if !self.samples.is_empty() {
            let subs: Vec<i32> = self.samples.keys().map(|key| key.0).collect();
            let reasons: Vec<i16> = self.samples.keys().map(|key| key.1).collect();
            let (times, texts): (Vec<i64>, Vec<&str>) = self
                .samples
                .values()
                .map(|(at, text)| (*at, text.as_str()))
                .unzip();
            let sample = transaction.prepare_cached(SAMPLE).await?;
            transaction
                .execute(&sample, &[&subs, &reasons, &times, &texts, &node])
                .await?;
        }
        Ok(())
    }
}
