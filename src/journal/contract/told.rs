//! What a journal is told in tests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use crate::clock::UnixMillis;
use crate::delivery::{Answer, Reason};
use crate::dispatch::testing::subscription;
use crate::event::Event;
use crate::journal::{
    Change, DeliveryLog, FinalReason, LogKind, LogRequest, MessageKey, MessageState, Status,
    StatusEvent, Trigger,
};
use crate::log::{Headers, Offset, Partition, Record, TopicName, TopicPartition};
use crate::message::MessageId;

fn event(id: &str, kind: &str) -> Arc<Event> {
    let mut headers = Headers::builder(5, 64);
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", id),
        ("ce_type", kind),
        ("ce_source", "/s"),
    ] {
        headers.push(name.as_bytes(), value.as_bytes());
    }
    let record = Record {
        key: None,
        value: None,
        headers: headers.finish(),
    };
    Arc::new(Event::from_record(record).unwrap())
}

/// What a message of the subscription at this offset is told with; accepted `offset` seconds after
/// the epoch. The reason is a status code.
pub(in crate::journal) fn change(
    sub: &str,
    offset: i64,
    attempt: u32,
    status: Status,
    reason: Option<u16>,
) -> Change {
    let key = key(sub, offset);
    let at = key
        .accepted
        .plus(Duration::from_millis(u64::from(attempt) * 10));
    let reason = reason.map(Reason::Http);
    let kind = if offset % 2 == 0 { "even" } else { "odd" };
    Change {
        key,
        event: Some(event(&format!("e{offset}"), kind)),
        at,
        state: Some(MessageState {
            status,
            is_final: matches!(status, Status::Delivered | Status::Undelivered),
            failure: (status == Status::Undelivered).then_some(FinalReason::FatalError),
            last_reason: reason,
            attempts: attempt,
            max_attempts: 4,
            next_attempt: (status == Status::Queued).then_some(at),
            round: 1,
        }),
        events: vec![StatusEvent {
            status,
            at,
            attempt,
            max_attempts: 4,
            retryable: status == Status::Queued,
            reason,
        }],
        log: Some(Box::new(log(at, attempt, status, reason))),
    }
}

pub(in crate::journal) fn delivered(sub: &str, offset: i64) -> Change {
    change(sub, offset, 1, Status::Delivered, None)
}

fn key(sub: &str, offset: i64) -> MessageKey {
    let subscription = Arc::new(subscription(sub));
    let at = TopicPartition {
        topic: TopicName::try_new("t").unwrap(),
        partition: Partition(0),
    };
    MessageKey {
        id: MessageId::new(&subscription.uid, &at, Offset(offset)),
        subscription,
        at,
        offset: Offset(offset),
        accepted: UnixMillis(offset * 1000),
    }
}

fn log(at: UnixMillis, attempt: u32, status: Status, reason: Option<Reason>) -> DeliveryLog {
    let mut request = HeaderMap::new();
    request.insert("authorization", HeaderValue::from_static("Bearer secret"));
    DeliveryLog {
        kind: LogKind::Attempt,
        phase: "subscriber",
        trigger: if attempt == 1 {
            Trigger::First
        } else {
            Trigger::Retry
        },
        round: 1,
        attempt,
        started: at,
        duration: Duration::from_millis(40),
        reason,
        retryable: status == Status::Queued,
        request: LogRequest {
            method: "POST",
            url: "http://sink.test/".into(),
            headers: request,
        },
        response: Some(Answer {
            code: if reason.is_some() { 503 } else { 200 },
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"as it came"),
            truncated: false,
        }),
        error: None,
        wait: None,
    }
}
