//! A store that is written and read as a node does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::*;
use crate::channel::ResourceName;
use crate::clock::UnixMillis;
use crate::delivery::{Answer, Reason};
use crate::dispatch::testing::subscription;
use crate::event::Event;
use crate::journal::Message;
use crate::journal::{
    Change, Cursor, DeliveryLog, Filter, FinalReason, LogKind, LogRequest, MessageKey,
    MessageState, Page, PageRequest, Reader, Span, Status, StatusEvent, Trigger,
};
use crate::log::{Headers, Offset, Partition, Record, TopicName, TopicPartition};
use crate::message::MessageId;

fn open(path: &Path, rows: u64) -> (Store, SqliteReader) {
    let limits = Limits {
        rows,
        ..Limits::default()
    };
    let store = Store::open(path, "node", limits).unwrap();
    let reader = SqliteReader::new(store.directory(), Arc::new(|| 0));
    (store, reader)
}

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
/// the epoch.
pub(in crate::journal) fn change(
    sub: &str,
    offset: i64,
    attempt: u32,
    status: Status,
    reason: Option<&str>,
) -> Change {
    let subscription = Arc::new(subscription(sub));
    let at = TopicPartition {
        topic: TopicName::try_new("t").unwrap(),
        partition: Partition(0),
    };
    let accepted = UnixMillis(offset * 1000);
    let now = accepted.plus(Duration::from_millis(u64::from(attempt) * 10));
    let mut request = HeaderMap::new();
    request.insert("authorization", HeaderValue::from_static("Bearer secret"));
    let reason: Option<Reason> = reason.map(|reason| reason.parse().unwrap());
    Change {
        key: MessageKey {
            id: MessageId::new(&subscription.uid, &at, Offset(offset)),
            subscription,
            at,
            offset: Offset(offset),
            accepted,
        },
        event: Some(event(
            &format!("e{offset}"),
            if offset % 2 == 0 { "even" } else { "odd" },
        )),
        at: now,
        state: Some(MessageState {
            status,
            is_final: matches!(status, Status::Delivered | Status::Undelivered),
            failure: (status == Status::Undelivered).then_some(FinalReason::FatalError),
            last_reason: reason,
            attempts: attempt,
            max_attempts: 4,
            next_attempt: (status == Status::Queued).then_some(now),
            round: 1,
        }),
        events: vec![StatusEvent {
            status,
            at: now,
            attempt,
            max_attempts: 4,
            retryable: status == Status::Queued,
            reason,
        }],
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
            started: now,
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
        })),
    }
}

pub(in crate::journal) fn delivered(sub: &str, offset: i64) -> Change {
    change(sub, offset, 1, Status::Delivered, None)
}

fn first(size: usize) -> PageRequest {
    PageRequest {
        after: None,
        before: None,
        size,
    }
}

fn offsets(page: &Page<Message>) -> Vec<i64> {
    page.items.iter().map(|message| message.offset).collect()
}

async fn list(reader: &SqliteReader, filter: &Filter) -> Vec<i64> {
    offsets(&reader.list(filter, &first(250)).await.unwrap())
}

#[tokio::test]
async fn a_message_has_its_whole_story() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, reader) = open(directory.path(), 100);
    let failed = change("sub", 7, 1, Status::Queued, Some("http_503"));
    let id = failed.key.id.to_string();
    store.write(&[failed]).unwrap();
    store
        .write(&[change("sub", 7, 2, Status::Delivered, None)])
        .unwrap();
    let story = reader.story(&id).await.unwrap().unwrap();
    assert_eq!(story.message.status, Status::Delivered);
    assert_eq!(story.message.attempts, 2);
    assert_eq!(story.message.event.id, "e7");
    let statuses: Vec<_> = story.statuses.iter().map(|change| change.status).collect();
    assert_eq!(statuses, [Status::Queued, Status::Delivered]);
    let codes: Vec<_> = story
        .logs
        .iter()
        .map(|log| (log.number, log.code))
        .collect();
    assert_eq!(codes, [(1, Some(503)), (2, Some(200))]);
    assert_eq!(
        story.logs[0].request_headers,
        [("authorization".to_owned(), "***".to_owned())]
    );
    assert_eq!(story.logs[0].body, b"as it came");
    assert_eq!(reader.message(&id).await.unwrap(), Some(story.message));
    assert_eq!(reader.story("no id").await.unwrap(), None);
}

#[tokio::test]
async fn headers_that_repeat_come_back_with_each_message() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, reader) = open(directory.path(), 100);
    let told: Vec<Change> = (0..6).map(|offset| delivered("sub", offset)).collect();
    // In one batch, in another, and after the names were read anew.
    store.write(&told[..3]).unwrap();
    store.write(&told[3..5]).unwrap();
    drop(store);
    let (mut store, _) = open(directory.path(), 100);
    store.write(&told[5..]).unwrap();
    for change in &told {
        let id = change.key.id.to_string();
        let story = reader.story(&id).await.unwrap().unwrap();
        let log = &story.logs[0];
        assert_eq!(log.url, "http://sink.test/");
        assert_eq!(log.node, "node");
        let masked = ("authorization".to_owned(), "***".to_owned());
        assert_eq!(log.request_headers, [masked], "{id}");
        assert!(log.response_headers.is_empty());
    }
}

#[tokio::test]
async fn each_filter_finds_what_it_asks_for_in_all_segments() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, reader) = open(directory.path(), 3);
    for offset in 0..10 {
        let status = if offset % 5 == 0 {
            Status::Undelivered
        } else {
            Status::Delivered
        };
        let reason = (offset % 5 == 0).then_some("http_422");
        store
            .write(&[change("sub", offset, 1, status, reason)])
            .unwrap();
    }
    store
        .write(&[change("other", 20, 1, Status::Queued, Some("http_503"))])
        .unwrap();
    assert!(
        store.directory().load().len() > 3,
        "there are several segments"
    );
    let with = |filter: Filter| filter;
    let name = |name: &str| ResourceName::try_new("ns", name).unwrap();
    let sub = subscription("sub");
    for (filter, expected) in [
        (
            with(Filter::default()),
            vec![20, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
        ),
        (
            Filter {
                status: vec![Status::Undelivered],
                ..Filter::default()
            },
            vec![5, 0],
        ),
        (
            Filter {
                status: vec![Status::Undelivered, Status::Queued],
                ..Filter::default()
            },
            vec![20, 5, 0],
        ),
        (
            Filter {
                status: vec![Status::Delivered],
                ..Filter::default()
            },
            vec![9, 8, 7, 6, 4, 3, 2, 1],
        ),
        (
            Filter {
                retrying: true,
                ..Filter::default()
            },
            vec![20],
        ),
        (
            Filter {
                is_final: Some(false),
                ..Filter::default()
            },
            vec![20],
        ),
        (
            Filter {
                subscription: vec![subscription("other").name],
                ..Filter::default()
            },
            vec![20],
        ),
        (
            Filter {
                subscription: vec![name("nobody")],
                ..Filter::default()
            },
            vec![],
        ),
        (
            Filter {
                channel: vec![sub.channel.clone()],
                ..Filter::default()
            },
            vec![20, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
        ),
        (
            Filter {
                channel: vec![name("nothing")],
                ..Filter::default()
            },
            vec![],
        ),
        (
            Filter {
                reason: vec!["http_422".into()],
                ..Filter::default()
            },
            vec![5, 0],
        ),
        (
            Filter {
                reason: vec!["http_422".into()],
                subscription: vec![sub.name.clone()],
                ..Filter::default()
            },
            vec![5, 0],
        ),
        (
            Filter {
                event_id: Some("e3".into()),
                ..Filter::default()
            },
            vec![3],
        ),
        (
            Filter {
                event_type: Some("odd".into()),
                ..Filter::default()
            },
            vec![9, 7, 5, 3, 1],
        ),
        (
            Filter {
                event_source: Some("/none".into()),
                ..Filter::default()
            },
            vec![],
        ),
        (
            Filter {
                from: Some(UnixMillis(3000)),
                to: Some(UnixMillis(6000)),
                ..Filter::default()
            },
            vec![5, 4, 3],
        ),
        (
            Filter {
                status: vec![Status::Undelivered],
                subscription: vec![sub.name.clone()],
                event_type: Some("odd".into()),
                ..Filter::default()
            },
            vec![5],
        ),
    ] {
        assert_eq!(list(&reader, &filter).await, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn the_messages_of_many_subscriptions_are_merged_by_time() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, reader) = open(directory.path(), 40);
    let all: Vec<Change> = (0..60)
        .map(|offset| {
            let reason = (offset % 3 == 0).then_some("http_422");
            let status = if reason.is_some() {
                Status::Undelivered
            } else {
                Status::Delivered
            };
            change(
                &format!("sub{}", offset * 7 % 20),
                offset,
                1,
                status,
                reason,
            )
        })
        .collect();
    for part in all.chunks(10) {
        store.write(part).unwrap();
    }
    let channel = subscription("sub0").channel;
    for (filter, step) in [
        (
            Filter {
                channel: vec![channel.clone()],
                ..Filter::default()
            },
            1,
        ),
        (
            Filter {
                reason: vec!["http_422".into()],
                ..Filter::default()
            },
            3,
        ),
        (
            Filter {
                channel: vec![channel],
                status: vec![Status::Undelivered, Status::Bounced],
                ..Filter::default()
            },
            3,
        ),
    ] {
        let (mut seen, mut request) = (Vec::new(), first(7));
        loop {
            let page = reader.list(&filter, &request).await.unwrap();
            seen.extend(offsets(&page));
            request.after = page.after;
            if request.after.is_none() {
                break;
            }
        }
        let expected: Vec<i64> = (0..60).rev().filter(|offset| offset % step == 0).collect();
        assert_eq!(seen, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn pages_are_stable_while_messages_arrive() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, reader) = open(directory.path(), 7);
    for offset in 0..30 {
        store.write(&[delivered("sub", offset)]).unwrap();
    }
    let filter = Filter::default();
    let (mut seen, mut after, mut newest) = (Vec::new(), None, 30);
    loop {
        let request = PageRequest {
            after: after.take(),
            ..first(4)
        };
        let page = reader.list(&filter, &request).await.unwrap();
        assert_eq!(page.before.is_some(), request.after.is_some());
        seen.extend(offsets(&page));
        store.write(&[delivered("sub", newest)]).unwrap();
        newest += 1;
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..30).rev().collect::<Vec<_>>());
    // And back, to what came meanwhile.
    let oldest = delivered("sub", 10);
    let than = Cursor {
        accepted: oldest.key.accepted,
        id: oldest.key.id.to_string(),
    };
    let request = PageRequest {
        before: Some(than.clone()),
        ..first(4)
    };
    let page = reader.list(&filter, &request).await.unwrap();
    assert_eq!(offsets(&page), [14, 13, 12, 11]);
    assert!(page.before.is_some() && page.after.is_some());
    assert_eq!(reader.count_newer(&filter, &than, 200).await.unwrap(), 27);
    assert_eq!(reader.count_newer(&filter, &than, 5).await.unwrap(), 5);
}

#[tokio::test]
async fn a_message_of_an_older_segment_is_taken_over_and_listed_once() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, reader) = open(directory.path(), 2);
    store
        .write(&[change("sub", 0, 1, Status::Queued, Some("http_503"))])
        .unwrap();
    for offset in 1..6 {
        store.write(&[delivered("sub", offset)]).unwrap();
    }
    store
        .write(&[change("sub", 0, 2, Status::Delivered, None)])
        .unwrap();
    assert_eq!(list(&reader, &Filter::default()).await, [5, 4, 3, 2, 1, 0]);
    let id = delivered("sub", 0).key.id.to_string();
    let story = reader.story(&id).await.unwrap().unwrap();
    assert_eq!(story.logs.len(), 2);
    assert_eq!(story.logs[0].reason.as_deref(), Some("http_503"));
    assert_eq!(story.message.event.r#type, "even");
    assert_eq!(reader.siblings("e0", 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_bounded_search_says_how_far_it_came_and_goes_on_there() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, reader) = open(directory.path(), 100_000);
    let many: Vec<Change> = (1..=45_000)
        .map(|offset| delivered("sub", offset))
        .collect();
    store
        .write(&[change("sub", 0, 1, Status::Queued, Some("tls"))])
        .unwrap();
    store.write(&many).unwrap();
    let filter = Filter {
        is_final: Some(false),
        event_source: Some("/s".into()),
        ..Filter::default()
    };
    let mut request = first(10);
    let mut pages = 0;
    loop {
        let page = reader.list(&filter, &request).await.unwrap();
        pages += 1;
        if !page.items.is_empty() {
            assert_eq!(offsets(&page), [0]);
            assert_eq!(page.searched_to, None);
            break;
        }
        assert!(page.searched_to.is_some());
        request.after = Some(page.after.unwrap());
    }
    assert!(pages >= 3, "{pages} pages of at most 20,000 entries");
}

#[tokio::test]
async fn charts_and_reasons_come_from_counts() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, reader) = open(directory.path(), 4);
    for offset in 0..12 {
        let (status, reason) = match offset % 3 {
            0 => (Status::Queued, Some("http_503")),
            1 => (Status::Undelivered, Some("http_422")),
            _ => (Status::Delivered, None),
        };
        store
            .write(&[change("sub", offset * 30, 1, status, reason)])
            .unwrap();
    }
    let span = Span {
        from: UnixMillis(0),
        to: UnixMillis(6 * 60_000),
    };
    let name = subscription("sub").name;
    let chart = reader.chart(Some(&name), span, 2).await.unwrap();
    assert_eq!(chart.len(), 3);
    assert_eq!(
        chart
            .iter()
            .map(|point| point.ok + point.retryable + point.permanent)
            .sum::<u64>(),
        12
    );
    assert_eq!(chart[0].retryable, 2);
    assert!((chart[0].p50_ms.unwrap() / 40.0 - 1.0).abs() < 0.1);
    assert_eq!(reader.chart(None, span, 6).await.unwrap()[0].ok, 4);
    let reasons = reader.reasons(&name, span).await.unwrap();
    let told: Vec<_> = reasons
        .iter()
        .map(|r| (r.reason.as_str(), r.attempts, r.sample.as_str()))
        .collect();
    assert_eq!(
        told,
        [("http_422", 4, "as it came"), ("http_503", 4, "as it came")]
    );
}

#[tokio::test]
async fn what_is_too_old_or_too_much_goes_a_segment_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, reader) = open(directory.path(), 2);
    for offset in 0..6 {
        store.write(&[delivered("sub", offset)]).unwrap();
    }
    store.write_gap(UnixMillis(1), UnixMillis(2), 3).unwrap();
    let week = Limits::default().age;
    store.retain(UnixMillis(1_500).plus(week));
    assert_eq!(list(&reader, &Filter::default()).await, [5, 4, 3, 2]);
    store.retain(UnixMillis(i64::MAX));
    assert_eq!(
        list(&reader, &Filter::default()).await,
        [5, 4],
        "the one that is written stays"
    );
    let reach = reader.reach().await.unwrap();
    assert_eq!((reach.oldest, reach.messages), (Some(UnixMillis(4000)), 2));
    assert_eq!(reach.gaps[0].changes, 3);
}

#[tokio::test]
async fn a_file_that_was_only_begun_or_is_broken_keeps_nothing_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("segment-000001.db"), b"").unwrap();
    let (mut store, reader) = open(directory.path(), 10);
    store.write(&[delivered("sub", 1)]).unwrap();
    assert_eq!(list(&reader, &Filter::default()).await, [1]);
    drop(store);
    std::fs::write(directory.path().join("segment-000002.db"), vec![b'x'; 8192]).unwrap();
    let (mut store, reader) = open(directory.path(), 10);
    store.write(&[delivered("sub", 2)]).unwrap();
    assert_eq!(list(&reader, &Filter::default()).await, [2, 1]);
    assert!(directory.path().join("segment-000002.broken").exists());
}
