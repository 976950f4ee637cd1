//! Numbers in the stores' tables for what is a word elsewhere.

use crate::clock::UnixMillis;
use crate::delivery::Reason;
use crate::journal::{FinalReason, LogKind, Status, StatusEvent, StoredStatus, Trigger};

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

/// A status code stands for itself, all else for less than 100; 0 is free for "none".
pub(super) fn of_reason(reason: Reason) -> i64 {
    match reason {
        Reason::Http(code) => code.into(),
        Reason::ConnectRefused => 1,
        Reason::ConnectTimeout => 2,
        Reason::AttemptTimeout => 3,
        Reason::ConnectionReset => 4,
        Reason::Dns => 5,
        Reason::Tls => 6,
        Reason::InvalidResponse => 7,
        Reason::BodyTooLarge => 8,
        Reason::AddressBlocked => 9,
        Reason::Interrupted => 10,
        Reason::PipelineError => 11,
    }
}

pub(super) fn reason(code: i64) -> Option<Reason> {
    Some(match code {
        1 => Reason::ConnectRefused,
        2 => Reason::ConnectTimeout,
        3 => Reason::AttemptTimeout,
        4 => Reason::ConnectionReset,
        5 => Reason::Dns,
        6 => Reason::Tls,
        7 => Reason::InvalidResponse,
        8 => Reason::BodyTooLarge,
        9 => Reason::AddressBlocked,
        10 => Reason::Interrupted,
        11 => Reason::PipelineError,
        100.. => Reason::Http(u16::try_from(code).ok()?),
        _ => return None,
    })
}

/// The name of the reason in a column.
pub(super) fn reason_name(code: Option<i64>) -> Option<String> {
    code.and_then(reason).map(|reason| reason.to_string())
}

const PHASES: [&str; 4] = ["subscriber", "reply", "dead-letter", "check"];

pub(super) fn of_phase(phase: &str) -> i64 {
    let at = PHASES.iter().position(|known| *known == phase);
    at.and_then(|at| i64::try_from(at).ok()).unwrap_or(0)
}

pub(super) fn phase(code: i64) -> &'static str {
    let at = usize::try_from(code).unwrap_or(0);
    PHASES.get(at).copied().unwrap_or(PHASES[0])
}

/// Bytes of a packed change of status.
const PACKED: usize = 20;

/// Appends a change of status to packed ones: status, retryable, reason (2 bytes), attempt and
/// attempts at most (4 each), time (8), all little-endian.
pub(super) fn pack(event: &StatusEvent, into: &mut Vec<u8>) {
    let small = |code: i64| u8::try_from(code).unwrap_or(0);
    let reason = event.reason.map_or(0, of_reason);
    into.extend([small(of_status(event.status)), event.retryable.into()]);
    into.extend(u16::try_from(reason).unwrap_or(0).to_le_bytes());
    into.extend(event.attempt.to_le_bytes());
    into.extend(event.max_attempts.to_le_bytes());
    into.extend(event.at.0.to_le_bytes());
}

/// Undoes [`pack`]; the first has the number `number`.
pub(super) fn unpack(packed: &[u8], number: u32) -> Vec<StoredStatus> {
    let one = |(number, bytes): (u32, &[u8])| {
        let four = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let time = std::array::from_fn(|byte| bytes[12 + byte]);
        let reason_code = u16::from_le_bytes([bytes[2], bytes[3]]);
        StoredStatus {
            number,
            status: status(bytes[0].into()),
            at: UnixMillis(i64::from_le_bytes(time)),
            attempt: four(4),
            max_attempts: four(8),
            retryable: bytes[1] != 0,
            reason: reason_name(Some(reason_code.into())),
        }
    };
    (number..)
        .zip(packed.chunks_exact(PACKED))
        .map(one)
        .collect()
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

/// The hash that event ids are found by: FNV-1a. Texts are compared after it.
pub(super) fn event_hash(id: &str) -> i64 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
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
        for code in (1..=11).chain([100, 503, 999]) {
            assert_eq!(reason(code).map(of_reason), Some(code));
        }
        assert_eq!((reason(0), reason(12)), (None, None));
        for name in PHASES {
            assert_eq!(phase(of_phase(name)), name);
        }
        for number in [0, 1, u64::MAX, 1 << 63] {
            assert_eq!(unsigned(signed(number)), number);
        }
    }

    #[test]
    fn changes_of_status_come_back_in_order() {
        let event = |status, attempt, reason| StatusEvent {
            status,
            at: UnixMillis(1_790_000_000_123 + i64::from(attempt)),
            attempt,
            max_attempts: 9,
            retryable: true,
            reason,
        };
        let events = [
            event(Status::Undelivered, u32::MAX, Some(Reason::Http(503))),
            event(Status::Queued, 3, None),
        ];
        let mut packed = Vec::new();
        events.iter().for_each(|event| pack(event, &mut packed));
        let stored = unpack(&packed, 7);
        assert_eq!(stored.len(), 2);
        for (number, (stored, event)) in (7..).zip(stored.iter().zip(&events)) {
            assert_eq!((stored.number, stored.status), (number, event.status));
            assert_eq!((stored.at, stored.attempt), (event.at, event.attempt));
            assert_eq!((stored.max_attempts, stored.retryable), (9, true));
            let reason = event.reason.map(|reason| reason.to_string());
            assert_eq!(stored.reason, reason);
        }
        assert!(
            unpack(&packed[..19], 1).is_empty(),
            "a broken one is left out"
        );
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
