use std::sync::Arc;

use tempfile::TempDir;

use super::ledger::{self, Entry, Ledger};
use super::scan::{Direction, Scan};
use super::*;
use crate::channel::{
    Backoff, BackoffPolicy, DeliverySpec, HttpSink, Ordering, ResourceName, RetryCodes, Sink,
    Subscription,
};
use crate::clock::{Clock, UnixMillis};
use crate::log::embedded::{EmbeddedLog, Settings};
use crate::log::{
    EventLog, GroupId, Headers, Offset, Partition, Position, Record, StoredRecord, Target,
    TopicName, TopicSpec,
};

fn topic(name: &str) -> TopicName {
    TopicName::try_new(name).unwrap()
}

fn billing() -> Subscription {
    let url = "http://127.0.0.1:1/";
    Subscription {
        name: ResourceName::try_new("a", "billing").unwrap(),
        uid: "a.billing".into(),
        generation: 1,
        channel: ResourceName::try_new("a", "orders").unwrap(),
        topic: topic("orders"),
        retry_topic: topic("orders.billing.retry"),
        dead_letter_topic: topic("orders.billing.dead-letter"),
        group: GroupId("g".into()),
        subscriber: Sink::Http(HttpSink {
            url: url.into(),
            uri: url.parse().unwrap(),
            headers: [].into(),
            ca_certs: None,
        }),
        reply: None,
        dead_letter: None,
        delivery: DeliverySpec {
            retry: 0,
            backoff: Backoff {
                policy: BackoffPolicy::Linear,
                delay: std::time::Duration::ZERO,
                max: None,
                jitter: 0.0,
            },
            retry_window: None,
            timeout: std::time::Duration::from_secs(1),
            retry_after_max: std::time::Duration::ZERO,
            retry_codes: RetryCodes::Standard,
            format: None,
            ordering: Ordering::None,
            max_in_flight: 1,
            max_window: 1,
            dead_letter_topic: true,
            rate_limit: None,
            accepted: crate::channel::Accepted::Delivered,
            sandbox: false,
            status_check: None,
        },
    }
}

fn headers(all: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::builder(all.len(), 64);
    for (name, value) in all {
        headers.push(name.as_bytes(), value.as_bytes());
    }
    headers.finish()
}

fn stored(offset: i64, time: i64, all: &[(&str, &str)]) -> StoredRecord {
    StoredRecord {
        offset: Offset(offset),
        time: UnixMillis(time),
        record: Record {
            headers: headers(all),
            ..Record::default()
        },
    }
}

const LETTER: [(&str, &str); 16] = [
    ("ce_specversion", "1.0"),
    ("ce_id", "e1"),
    ("ce_type", "t"),
    ("ce_source", "/s"),
    ("ce_knativeerrordest", "http://s/"),
    ("ce_knativeerrorcode", "503"),
    ("ce_knativeerrordata", "bm8="),
    ("levada-origin-topic", "orders"),
    ("levada-origin-partition", "3"),
    ("levada-origin-offset", "42"),
    ("levada-origin-time", "7"),
    ("levada-attempts", "4"),
    ("levada-outcome", "http_503"),
    ("levada-error-code", "503"),
    ("levada-redriven", "2"),
    ("levada-phase", "subscriber"),
];

fn letter(offset: i64, time: i64) -> DeadLetter {
    let stored = stored(offset, time, &LETTER);
    DeadLetter::read(&billing(), Partition(3), stored).unwrap()
}

#[test]
fn a_dead_letter_goes_round_again_as_the_event_it_was() {
    let letter = letter(5, 100);
    assert_eq!(
        (letter.code, letter.attempts, letter.redriven()),
        (Some(503), Some(4), 2)
    );
    assert!(letter.is_redrivable(&billing()));
    let (partition, record) = letter.redrive(UnixMillis(200)).unwrap();
    assert_eq!(partition, Partition(3));
    for (name, value) in [
        ("ce_id", Some("e1")),
        ("ce_knativeerrordest", None),
        ("ce_knativeerrorcode", None),
        ("ce_knativeerrordata", None),
        ("levada-kind", Some("redrive")),
        ("levada-phase", Some("subscriber")),
        ("levada-attempts", Some("0")),
        ("levada-due", Some("200")),
        ("levada-redriven", Some("3")),
        ("levada-origin-topic", Some("orders")),
        ("levada-origin-partition", Some("3")),
        ("levada-origin-offset", Some("42")),
        ("levada-origin-time", Some("7")),
        ("levada-error-code", None),
        ("levada-first-attempt", None),
    ] {
        let found = record.headers.get(name.as_bytes());
        assert_eq!(found, value.map(str::as_bytes), "{name}");
    }
}

#[test]
fn what_is_no_event_is_shown_and_stays() {
    let raw: Vec<_> = LETTER
        .into_iter()
        .filter(|(name, _)| *name != "ce_id")
        .collect();
    let read = |record| DeadLetter::read(&billing(), Partition(0), record);
    let letter = read(stored(0, 0, &raw)).unwrap();
    assert!(!letter.is_redrivable(&billing()));
    assert!(letter.redrive(UnixMillis(0)).is_none());
    let mut elsewhere = LETTER;
    elsewhere[7].1 = "orders.billing.retry";
    let letter = read(stored(0, 0, &elsewhere)).unwrap();
    assert!(
        !letter.is_redrivable(&billing()),
        "it came from the retry topic"
    );
    assert!(
        read(stored(0, 0, &LETTER[..7])).is_none(),
        "another program's record"
    );
}

#[test]
fn filters_hold_in_all_they_say() {
    let letter = letter(0, 100);
    let none = Filter::default;
    let text = |text: &str| Some(text.to_owned());
    for (filter, matches) in [
        (none(), true),
        (
            Filter {
                since: Some(UnixMillis(100)),
                ..none()
            },
            true,
        ),
        (
            Filter {
                since: Some(UnixMillis(101)),
                ..none()
            },
            false,
        ),
        (
            Filter {
                until: Some(UnixMillis(100)),
                ..none()
            },
            false,
        ),
        (
            Filter {
                until: Some(UnixMillis(101)),
                ..none()
            },
            true,
        ),
        (
            Filter {
                event_type: text("t"),
                ..none()
            },
            true,
        ),
        (
            Filter {
                event_type: text("T"),
                ..none()
            },
            false,
        ),
        (
            Filter {
                event_id: text("e1"),
                ..none()
            },
            true,
        ),
        (
            Filter {
                event_id: text("e"),
                ..none()
            },
            false,
        ),
        (
            Filter {
                error_code: Some(503),
                ..none()
            },
            true,
        ),
        (
            Filter {
                error_code: Some(500),
                event_id: text("e1"),
                ..none()
            },
            false,
        ),
    ] {
        assert_eq!(filter.matches(&letter), matches, "{filter:?}");
    }
}

async fn log(dir: &TempDir, clock: &Clock, partitions: u32) -> Arc<EmbeddedLog> {
    let settings = Settings {
        dir: dir.path().to_owned(),
        ..Settings::default()
    };
    let log = EmbeddedLog::open(settings, clock.clone()).unwrap();
    let spec = TopicSpec {
        name: topic("t"),
        partitions,
        replicas: 1,
        retention: None,
        max_record_bytes: 1 << 20,
        segments: None,
    };
    log.create_topic(&spec).await.unwrap();
    log
}

async fn all(log: &dyn EventLog, direction: Direction, ends: &[i64]) -> Vec<(i32, i64)> {
    let ranges = ends.iter().map(|end| 0..*end).collect();
    let mut scan = Scan::new(log, &topic("t"), direction, ranges);
    let mut found = Vec::new();
    while let Some((partition, stored)) = scan.next().await.unwrap() {
        found.push((partition.0, stored.offset.0));
    }
    assert!(scan.is_at_end());
    found
}

#[tokio::test]
async fn partitions_are_read_side_by_side_in_both_directions() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::fixed(UnixMillis(0)));
    let log = log(&dir, &clock, 3).await;
    let mut written = Vec::new();
    for number in 0..1500 {
        clock.set(UnixMillis(number));
        // The last partition stays empty.
        let partition = Partition(i32::from(number % 3 == 0));
        let record = Record {
            value: Some("x".into()),
            ..Record::default()
        };
        let target = Target::Partition(partition);
        let Position { offset, .. } = log.append(&topic("t"), target, record).await.unwrap();
        written.push((partition.0, offset.0));
    }
    let oldest = all(&*log, Direction::OldestFirst, &[1000, 500, 0]).await;
    assert_eq!(oldest, written);
    let newest = all(&*log, Direction::NewestFirst, &[1000, 500, 0]).await;
    written.reverse();
    assert_eq!(newest, written);
    let bounded = all(&*log, Direction::OldestFirst, &[2, 1]).await;
    assert_eq!(bounded, [(1, 0), (0, 0), (0, 1)]);
    log.close(std::time::Duration::from_secs(5)).await.unwrap();
}

fn terms() -> Terms {
    Terms {
        filter: Filter::default(),
        limit: None,
        rate: None,
        again: false,
        ends: vec![10],
        count: 4,
        node: "n".into(),
    }
}

#[tokio::test]
async fn a_ledger_knows_what_was_sent_and_how_redrives_stand() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::fixed(UnixMillis(1000)));
    let log = log(&dir, &clock, 1).await;
    let name = ledger::topic(&billing().dead_letter_topic);
    assert_eq!(name.as_str(), "orders.billing.redrives");
    let empty = Ledger::default();
    assert!(empty.refreshed(&*log, &name).await.unwrap().is_none());

    ledger::create(&*log, &name, 1).await.unwrap();
    let id = RedriveId::random(&billing().name);
    assert_eq!(id.to_string().parse(), Ok(id.clone()));
    let sent = [5, 6, 9].map(|offset| (Partition(3), Offset(offset)));
    for entry in [
        Entry::Begun(terms()),
        Entry::sent(&sent, 1),
        Entry::State {
            state: State::Paused,
            why: Some("w".into()),
        },
        Entry::State {
            state: State::Cancelled,
            why: None,
        },
        Entry::State {
            state: State::Running,
            why: None,
        },
    ] {
        ledger::write(&*log, &name, &id, entry).await.unwrap();
    }
    let full = empty.refreshed(&*log, &name).await.unwrap().unwrap();
    let redrive = full.get(&id).unwrap();
    assert_eq!(
        (redrive.sent, redrive.failed, redrive.state),
        (3, 1, State::Cancelled)
    );
    assert_eq!(redrive.terms, terms());
    for (offset, time, sent) in [
        (5, 900, true),
        (6, 1000, true),
        (7, 900, false),
        (9, 900, true),
    ] {
        assert_eq!(full.has_sent(&letter(offset, time)), sent, "{offset}");
    }
    // One that came later stands in a topic that was made anew.
    assert!(!full.has_sent(&letter(5, 1001)));
    assert!(full.refreshed(&*log, &name).await.unwrap().is_none());

    // Once the dead letters are gone, so is what was written about them.
    let marks = |low| crate::log::Watermarks {
        low: Offset(low),
        high: Offset(20),
    };
    let low = |low| vec![marks(0), marks(0), marks(0), marks(low)];
    full.trim(&*log, &name, &low(9)).await.unwrap();
    assert_eq!(log.watermarks(&name).await.unwrap()[0].low, Offset(0));
    full.trim(&*log, &name, &low(10)).await.unwrap();
    assert_eq!(log.watermarks(&name).await.unwrap()[0].low, Offset(5));
    log.delete_topic(&name).await.unwrap();
    let anew = full.refreshed(&*log, &name).await.unwrap().unwrap();
    assert!(anew.get(&id).is_none());
    log.close(std::time::Duration::from_secs(5)).await.unwrap();
}
