//! Numbers in the tables for what is a word elsewhere.

use crate::journal::{FinalReason, LogKind, Status, Trigger};

/// `delivered` is 2: the partial indexes know it.
pub(super) fn of_status(status: Status) -> i64 {
    match status {
        Status::Queued => 0,
        Status::Sent => 1,
        Status::Delivered => 2,
        Status::Undelivered => 3,
        Status::Bounced => 4,
        Status::NotSent => 5,
    }
}

pub(super) fn status(code: i64) -> Status {
    let found = Status::ALL
        .into_iter()
        .find(|status| of_status(*status) == code);
    found.unwrap_or(Status::Queued)
}

pub(super) fn of_failure(reason: FinalReason) -> i64 {
    match reason {
        FinalReason::RetriesExhausted => 0,
        FinalReason::FatalError => 1,
        FinalReason::Dropped => 2,
        FinalReason::Expired => 3,
    }
}

pub(super) fn failure(code: i64) -> Option<FinalReason> {
    FinalReason::ALL
        .into_iter()
        .find(|reason| of_failure(*reason) == code)
}

pub(super) fn of_kind(kind: LogKind) -> i64 {
    match kind {
        LogKind::Attempt => 0,
        LogKind::StatusCheck => 1,
    }
}

pub(super) fn kind(code: i64) -> LogKind {
    if code == 1 {
        LogKind::StatusCheck
    } else {
        LogKind::Attempt
    }
}

pub(super) fn of_trigger(trigger: Trigger) -> i64 {
    match trigger {
        Trigger::First => 0,
        Trigger::Retry => 1,
        Trigger::Redeliver => 2,
        Trigger::Redrive => 3,
    }
}

pub(super) fn trigger(code: i64) -> Trigger {
    match code {
        0 => Trigger::First,
        2 => Trigger::Redeliver,
        3 => Trigger::Redrive,
        _ => Trigger::Retry,
    }
}

/// A number without a sign in a column that has one.
pub(super) fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

/// Undoes [`signed`].
pub(super) fn unsigned(number: i64) -> u64 {
    u64::from_ne_bytes(number.to_ne_bytes())
}

/// The hash that event ids are found by.
pub(super) fn event_hash(id: &str) -> i64 {
    let (hash, _) = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, id.as_bytes()).as_u64_pair();
    signed(hash)
}

/// Buckets of durations are this much wider from one to the next.
const GROWTH: f64 = 1.08;

/// The bucket of a duration in microseconds.
pub(super) fn bucket(micros: u64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a logarithm of 64 bits is small"
    )]
    let bucket = ((micros.max(1) as f64).ln() / GROWTH.ln()).floor() as i64;
    bucket
}

/// The middle of a bucket, in milliseconds.
pub(super) fn bucket_ms(bucket: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "buckets are few hundred")]
    let exponent = bucket as f64 + 0.5;
    GROWTH.powf(exponent) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_as_what_they_were() {
        for status_ in Status::ALL {
            assert_eq!(status(of_status(status_)), status_);
        }
        assert_eq!(
            of_status(Status::Delivered),
            2,
            "the partial indexes leave it out"
        );
        for reason in FinalReason::ALL {
            assert_eq!(failure(of_failure(reason)), Some(reason));
        }
        for number in [0, 1, u64::MAX, 1 << 63] {
            assert_eq!(unsigned(signed(number)), number);
        }
    }

    #[test]
    fn buckets_are_about_eight_percent_wide() {
        for micros in [1, 10, 999, 41_000, 30_000_000] {
            let middle = bucket_ms(bucket(micros)) * 1000.0;
            #[expect(clippy::cast_precision_loss, reason = "it is small")]
            let ratio = middle / micros as f64;
            assert!((0.9..1.1).contains(&ratio), "{micros}: {ratio}");
        }
    }
}
