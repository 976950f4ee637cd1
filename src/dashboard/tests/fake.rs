use std::time::Duration;

use super::super::*;
use crate::channel::ResourceName;
use crate::journal::*;

pub(in crate::dashboard) const NOW: UnixMillis = UnixMillis(1_763_129_521_000);

/// A journal that holds what it is given.
#[derive(Debug, Default)]
pub(in crate::dashboard) struct Fake {
    pub(in crate::dashboard) stories: Vec<Story>,
    pub(in crate::dashboard) down: bool,
    pub(in crate::dashboard) reach: Reach,
}

impl Fake {
    fn answer<T: Send + 'static>(&self, value: T) -> ReadFuture<'_, T> {
        let down = self.down;
        Box::pin(async move {
            if down {
                Err(JournalError::Unavailable("database is locked".into()))
            } else {
                Ok(value)
            }
        })
    }

    fn matching(&self, filter: &Filter) -> Vec<Message> {
        let messages = self.stories.iter().map(|story| &story.message);
        let fits = |message: &&Message| {
            (filter.status.is_empty() || filter.status.contains(&message.status))
                && filter
                    .event_id
                    .as_ref()
                    .is_none_or(|id| *id == message.event.id)
                && filter.from.is_none_or(|from| message.accepted >= from)
        };
        let mut fitting: Vec<_> = messages.filter(fits).cloned().collect();
        fitting.sort_by_key(|message| std::cmp::Reverse(message.accepted));
        fitting
    }
}

impl Reader for Fake {
    fn list<'a>(&'a self, filter: &'a Filter, _: &'a PageRequest) -> ReadFuture<'a, Page<Message>> {
        self.answer(Page {
            items: self.matching(filter),
            after: None,
            before: None,
            searched_to: None,
        })
    }

    fn count_newer<'a>(
        &'a self,
        filter: &'a Filter,
        than: &'a Cursor,
        limit: usize,
    ) -> ReadFuture<'a, usize> {
        let newer = self.matching(filter).into_iter();
        let newer = newer.filter(|message| message.accepted > than.accepted);
        self.answer(newer.count().min(limit))
    }

    fn story<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Story>> {
        let found = self.stories.iter().find(|story| story.message.id == id);
        self.answer(found.cloned())
    }

    fn message<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Message>> {
        let found = self.stories.iter().find(|story| story.message.id == id);
        self.answer(found.map(|story| story.message.clone()))
    }

    fn siblings<'a>(&'a self, event_id: &'a str, limit: usize) -> ReadFuture<'a, Vec<Message>> {
        let messages = self.stories.iter().map(|story| story.message.clone());
        let found = messages.filter(|message| message.event.id == event_id);
        self.answer(found.take(limit).collect())
    }

    fn chart<'a>(
        &'a self,
        _: Option<&'a ResourceName>,
        span: Span,
        step: u32,
    ) -> ReadFuture<'a, Vec<Bucket>> {
        let step = i64::from(step) * 60_000;
        let starts = (span.from.0..span.to.0).step_by(usize::try_from(step).unwrap());
        let bucket = |(index, start): (u64, i64)| Bucket {
            start: UnixMillis(start),
            ok: 200 - index * 3,
            retryable: index * 2,
            permanent: index / 10,
            p50_ms: Some(12.0),
            p95_ms: Some(40.0 + index as f64 * 30.0),
            p99_ms: Some(90.0 + index as f64 * 90.0),
        };
        self.answer((0..).zip(starts).take(60).map(bucket).collect())
    }

    fn reasons<'a>(&'a self, _: &'a ResourceName, span: Span) -> ReadFuture<'a, Vec<ReasonCount>> {
        self.answer(vec![ReasonCount {
            reason: "http_503".into(),
            attempts: 7412,
            first: span.from,
            last: NOW,
            sample: "<b>upstream</b>".into(),
        }])
    }

    fn reach(&self) -> ReadFuture<'_, Reach> {
        self.answer(self.reach.clone())
    }
}

pub(in crate::dashboard) fn billing() -> ResourceName {
    ResourceName::try_new("prod", "billing").unwrap()
}

/// A message with an event of this id, queued for its second attempt.
pub(in crate::dashboard) fn story(number: i64, event_id: &str) -> Story {
    let accepted = UnixMillis(NOW.0 - 10_000 + number);
    let message = Message {
        id: format!("6ec31f2fcd0f49ba-3-{number}"),
        channel: ResourceName::try_new("prod", "orders").unwrap(),
        subscription: billing(),
        status: Status::Queued,
        is_final: false,
        failure: None,
        last_reason: Some("http_503".into()),
        attempts: 1,
        max_attempts: 4,
        next_attempt: Some(UnixMillis(NOW.0 + 5_000)),
        round: 1,
        accepted,
        updated: NOW,
        event: EventFacts {
            id: event_id.into(),
            source: "/shop".into(),
            r#type: "order.created".into(),
            subject: None,
            time: None,
        },
        topic: "knative-messaging-kafka.prod.orders".into(),
        partition: 3,
        offset: number,
    };
    Story {
        message,
        statuses: Vec::new(),
        logs: vec![log(1, accepted)],
    }
}

/// An attempt that was answered 503 and waits 7 s.
pub(in crate::dashboard) fn log(attempt: u32, started: UnixMillis) -> StoredLog {
    StoredLog {
        number: attempt,
        kind: LogKind::Attempt,
        phase: "subscriber".into(),
        trigger: if attempt == 1 {
            Trigger::First
        } else {
            Trigger::Retry
        },
        round: 1,
        attempt,
        started,
        duration_us: 41_000,
        reason: Some("http_503".into()),
        node: "a1".into(),
        method: "POST".into(),
        url: "https://billing.int/hook".into(),
        request_headers: vec![("ce-id".into(), "x".into())],
        code: Some(503),
        response_headers: Vec::new(),
        body: b"upstream timed out".to_vec(),
        truncated: false,
        error: None,
        wait: Some(Wait {
            delay: Duration::from_millis(5_900),
            planned: Duration::from_secs(7),
            retry_after: false,
            parked: true,
        }),
    }
}
