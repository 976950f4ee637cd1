//! Messages for a journal, as a busy node tells them: 100 subscriptions of one channel, 3 of 200
//! messages fail at least once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use levada::channel::{
    Accepted, Backoff, BackoffPolicy, DeliverySpec, Ordering, ResourceName, RetryCodes, Sink,
    Subscription,
};
use levada::clock::UnixMillis;
use levada::delivery::{Answer, Reason};
use levada::event::Event;
use levada::journal::transitions::{self, Facts, Outcome};
use levada::journal::{
    Change, DeliveryLog, FinalReason, Keeper, LogKind, LogRequest, MessageKey, MessageState,
    Trigger,
};
use levada::log::{GroupId, Headers, Offset, Partition, Record, TopicName, TopicPartition};
use levada::message::MessageId;

/// Changes of one batch, as the recorder makes them.
const BATCH: usize = 4_000;
const SUBSCRIPTIONS: u64 = 100;
const PARTITIONS: u64 = 4;
/// Messages a millisecond.
const PACE: u64 = 2;

/// When the oldest message was accepted.
pub(crate) const START: UnixMillis = UnixMillis(1_790_000_000_000);

/// Fills a journal; `told` hears how many messages are in after each batch.
pub(crate) fn fill(store: &mut dyn Keeper, messages: u64, mut told: impl FnMut(u64)) {
    let subscriptions: Vec<_> = (0..SUBSCRIPTIONS).map(subscription).collect();
    let mut batch = Vec::with_capacity(BATCH + 2);
    for number in 0..messages {
        let subscription = &subscriptions[usize::try_from(number % SUBSCRIPTIONS).unwrap_or(0)];
        tell(subscription, number, &mut batch);
        if batch.len() >= BATCH || number + 1 == messages {
            store.write(&batch).expect("the batch can be written");
            batch.clear();
            told(number + 1);
        }
    }
}

/// The name of a subscription.
pub(crate) fn name(number: u64) -> ResourceName {
    ResourceName::try_new("bench", &format!("billing-{number}")).expect("it is a label")
}

fn topic(name: &str) -> TopicName {
    TopicName::try_new(name).expect("it is a topic's name")
}

fn subscription(number: u64) -> Arc<Subscription> {
    let name = name(number);
    let channel = ResourceName::try_new("bench", "orders").expect("it is a label");
    Arc::new(Subscription {
        uid: format!("bench.{}", name.name()),
        generation: 1,
        topic: topic("knative-messaging-kafka.bench.orders"),
        retry_topic: topic("knative-messaging-kafka.bench.orders.retry"),
        dead_letter_topic: topic("knative-messaging-kafka.bench.orders.dead-letter"),
        group: GroupId("kafka.bench.orders".into()),
        subscriber: Sink::Channel {
            name: channel.clone(),
            topic: topic("t"),
        },
        channel,
        name,
        reply: None,
        dead_letter: None,
        delivery: DeliverySpec {
            retry: 3,
            backoff: Backoff {
                policy: BackoffPolicy::Linear,
                delay: Duration::from_secs(1),
                max: None,
                jitter: 0.0,
            },
            retry_window: None,
            timeout: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(600),
            retry_codes: RetryCodes::Standard,
            format: None,
            ordering: Ordering::None,
            max_in_flight: 16,
            max_window: 1000,
            dead_letter_topic: true,
            rate_limit: None,
            accepted: Accepted::Delivered,
            sandbox: false,
            status_check: None,
        },
    })
}

/// Tells of the attempts of one message.
fn tell(subscription: &Arc<Subscription>, number: u64, batch: &mut Vec<Change>) {
    let at = TopicPartition {
        topic: subscription.topic.clone(),
        partition: Partition(i32::try_from(number / SUBSCRIPTIONS % PARTITIONS).unwrap_or(0)),
    };
    let offset = Offset(i64::try_from(number / SUBSCRIPTIONS / PARTITIONS).unwrap_or(i64::MAX));
    let key = MessageKey {
        id: MessageId::new(&subscription.uid, &at, offset),
        subscription: Arc::clone(subscription),
        at,
        offset,
        accepted: START.plus(Duration::from_millis(number / PACE)),
    };
    let event = Arc::new(event(number));
    let outcomes: &[(Outcome, u16)] = match number % 200 {
        7 | 107 => &[(Outcome::Retry, 503), (Outcome::Delivered, 200)],
        57 => &[(Outcome::GaveUp(FinalReason::FatalError), 404)],
        _ => &[(Outcome::Delivered, 200)],
    };
    for (attempt, (outcome, code)) in (1..).zip(outcomes) {
        batch.push(change(&key, &event, attempt, *outcome, *code));
    }
}

/// The id of an event.
pub(crate) fn event_id(number: u64) -> String {
    format!("order-{number}-{:08x}", number.wrapping_mul(0x9E37_79B1))
}

fn event(number: u64) -> Event {
    let id = event_id(number);
    let source = format!("/shops/{}", number % 20);
    let kind = ["placed", "paid", "sent", "returned"][usize::try_from(number % 4).unwrap_or(0)];
    let mut headers = Headers::builder(5, 160);
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", &id),
        ("ce_source", &source),
        ("ce_type", &format!("shop.order.{kind}")),
        ("content-type", "application/json"),
    ] {
        headers.push(name.as_bytes(), value.as_bytes());
    }
    let record = Record {
        key: None,
        value: Some(Bytes::from_static(b"{}")),
        headers: headers.finish(),
    };
    Event::from_record(record).expect("it is an event")
}

fn change(
    key: &MessageKey,
    event: &Arc<Event>,
    attempt: u32,
    outcome: Outcome,
    code: u16,
) -> Change {
    let started = key
        .accepted
        .plus(Duration::from_millis(u64::from(attempt) * 1000));
    let reason = (code != 200).then_some(Reason::Http(code));
    let facts = Facts {
        attempt,
        max_attempts: 4,
        reason,
        at: started.plus(Duration::from_millis(3)),
        queued: (attempt == 1).then_some(key.accepted),
    };
    let (_, standing) = transitions::follow(outcome);
    let mut answer = HeaderMap::new();
    answer.insert("content-length", HeaderValue::from_static("0"));
    answer.insert(
        "date",
        HeaderValue::from_static("Sun, 29 Nov 2026 10:00:00 GMT"),
    );
    Change {
        key: key.clone(),
        event: Some(Arc::clone(event)),
        at: facts.at,
        state: Some(MessageState {
            status: standing.status,
            is_final: standing.is_final,
            failure: standing.failure,
            last_reason: reason,
            attempts: attempt,
            max_attempts: 4,
            next_attempt: (outcome == Outcome::Retry)
                .then(|| facts.at.plus(Duration::from_secs(1))),
            round: 1,
        }),
        events: transitions::events(outcome, &facts),
        log: Some(Box::new(DeliveryLog {
            kind: LogKind::Attempt,
            phase: "subscriber",
            trigger: if attempt == 1 {
                Trigger::First
            } else {
                Trigger::Retry
            },
            round: 1,
            attempt,
            started,
            duration: Duration::from_millis(3),
            reason,
            retryable: outcome == Outcome::Retry,
            request: LogRequest {
                method: "POST",
                url: "http://billing.bench.svc.cluster.local/".into(),
                headers: event.to_http_binary().0,
            },
            response: Some(Answer {
                code,
                headers: answer,
                body: Bytes::new(),
                truncated: false,
            }),
            error: None,
            wait: None,
        })),
    }
}
