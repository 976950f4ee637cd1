//! Attempts counted by minute, so that charts never touch messages.

use std::collections::HashMap;

use rusqlite::{Transaction, params};

use super::codes;
use crate::journal::counts::{MINUTE, outcome_of, sample};
use crate::journal::{DeliveryLog, LogKind};

#[derive(PartialEq, Eq, Hash)]
struct Key {
    sub: i64,
    minute: i64,
    outcome: i64,
    reason: i64,
    bucket: i64,
}

/// What a batch adds.
#[derive(Default)]
pub(super) struct Stats {
    counts: HashMap<Key, i64>,
    samples: HashMap<(i64, i64), (i64, String)>,
}

impl Stats {
    /// Counts an attempt on the subscriber.
    pub(super) fn count(&mut self, sub: i64, log: &DeliveryLog) {
        if log.kind != LogKind::Attempt || log.phase != "subscriber" {
            return;
        }
        let reason = log.reason.map_or(0, codes::of_reason);
        let outcome = outcome_of(log);
        let micros = u64::try_from(log.duration.as_micros()).unwrap_or(u64::MAX);
        let key = Key {
            sub,
            minute: log.started.0.div_euclid(MINUTE),
            outcome,
            reason,
            bucket: codes::bucket(micros),
        };
        *self.counts.entry(key).or_default() += 1;
        if outcome > 0 {
            self.samples
                .insert((sub, reason), (log.started.0, sample(log)));
        }
    }

    pub(super) fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut statement = transaction.prepare_cached(
            "insert into stat values (?, ?, ?, ?, ?, ?)
             on conflict (sub, minute, outcome, reason, bucket) do update set n = n + excluded.n",
        )?;
        for (key, count) in &self.counts {
            statement.execute([
                key.sub,
                key.minute,
                key.outcome,
                key.reason,
                key.bucket,
                *count,
            ])?;
        }
        let mut statement =
            transaction.prepare_cached("insert or replace into sample values (?, ?, ?, ?)")?;
        for ((sub, reason), (at, text)) in &self.samples {
            statement.execute(params![sub, reason, at, text])?;
        }
        Ok(())
    }
}
