//! What both stores have to do, tested on both.

mod lists;
mod told;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::*;
use crate::clock::UnixMillis;
use crate::delivery::Answer;
use crate::dispatch::testing::subscription;

pub(super) use lists::{
    a_bounded_search_says_how_far_it_came_and_goes_on_there,
    each_filter_finds_what_it_asks_for_in_all_segments, pages_are_stable_while_messages_arrive,
    the_messages_of_many_subscriptions_are_merged_by_time,
};
pub(super) use told::{change, delivered};

/// How long a test's journal keeps messages.
pub(super) const AGE: Duration = Duration::from_secs(7 * 86_400);

/// A journal that is written and read as a node does.
pub(super) struct Journal {
    pub(super) keeper: Box<dyn Keeper>,
    pub(super) reader: Arc<dyn Reader>,
    /// Goes with it.
    pub(super) _place: Box<dyn Any>,
}

/// Makes of each contract a test of the store that `open` opens: an async function that takes how many
/// messages, a second apart, a segment holds, and gives `None` where there is no such store.
macro_rules! contracts {
    ($open:path) => {
        crate::journal::contract::contracts!($open:
            a_message_has_its_whole_story,
            a_message_goes_on_where_it_was_left,
            what_the_store_cannot_hold_as_it_is_keeps_nothing_out,
            each_filter_finds_what_it_asks_for_in_all_segments,
            the_messages_of_many_subscriptions_are_merged_by_time,
            pages_are_stable_while_messages_arrive,
            a_bounded_search_says_how_far_it_came_and_goes_on_there,
            charts_and_reasons_come_from_counts,
            what_is_too_old_goes_a_segment_at_a_time,
            gaps_are_told_newest_first,
        );
    };
    ($open:path: $($name:ident),+ $(,)?) => { $(
        #[tokio::test]
        async fn $name() {
            crate::journal::contract::$name(async |portion| $open(portion).await).await;
        }
    )+ };
}
pub(super) use contracts;

/// Opens a journal, or ends the test where there is none.
macro_rules! opened {
    ($open:ident, $portion:expr) => {
        match $open($portion).await {
            Some(journal) => journal,
            None => return,
        }
    };
}
use opened;

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

impl Journal {
    /// Writes as the journal's thread does, away from the test's runtime.
    pub(super) fn write(&mut self, changes: &[Change]) {
        for batch in changes.chunks(4_000) {
            self.on_a_thread(|keeper| keeper.write(batch)).unwrap();
        }
    }

    pub(super) fn on_a_thread<T: Send>(
        &mut self,
        work: impl FnOnce(&mut dyn Keeper) -> T + Send,
    ) -> T {
        let keeper = &mut *self.keeper;
        std::thread::scope(|scope| scope.spawn(|| work(keeper)).join().unwrap())
    }

    pub(super) async fn list(&self, filter: &Filter) -> Vec<i64> {
        offsets(&self.reader.list(filter, &first(250)).await.unwrap())
    }
}

pub(super) async fn a_message_has_its_whole_story(open: impl AsyncFn(u64) -> Option<Journal>) {
    let mut journal = opened!(open, 100);
    let failed = change("sub", 7, 1, Status::Queued, Some(503));
    let id = failed.key.id.to_string();
    journal.write(&[failed]);
    journal.write(&[change("sub", 7, 2, Status::Delivered, None)]);
    let story = journal.reader.story(&id).await.unwrap().unwrap();
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
    assert_eq!(
        journal.reader.message(&id).await.unwrap(),
        Some(story.message)
    );
    assert_eq!(journal.reader.story("no id").await.unwrap(), None);
}

pub(super) async fn charts_and_reasons_come_from_counts(
    open: impl AsyncFn(u64) -> Option<Journal>,
) {
    let mut journal = opened!(open, 4);
    for offset in 0..12 {
        let (status, reason) = match offset % 3 {
            0 => (Status::Queued, Some(503)),
            1 => (Status::Undelivered, Some(422)),
            _ => (Status::Delivered, None),
        };
        journal.write(&[change("sub", offset * 30, 1, status, reason)]);
    }
    let span = Span {
        from: UnixMillis(0),
        to: UnixMillis(6 * 60_000),
    };
    let name = subscription("sub").name;
    let chart = journal.reader.chart(Some(&name), span, 2).await.unwrap();
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
    assert_eq!(journal.reader.chart(None, span, 6).await.unwrap()[0].ok, 4);
    let reasons = journal.reader.reasons(&name, span).await.unwrap();
    let told: Vec<_> = reasons
        .iter()
        .map(|r| (r.reason.as_str(), r.attempts, r.sample.as_str()))
        .collect();
    assert_eq!(
        told,
        [("http_422", 4, "as it came"), ("http_503", 4, "as it came")]
    );
}

pub(super) async fn a_message_goes_on_where_it_was_left(
    open: impl AsyncFn(u64) -> Option<Journal>,
) {
    let mut journal = opened!(open, 2);
    journal.write(&[change("sub", 0, 1, Status::Queued, Some(503))]);
    for offset in 1..6 {
        journal.write(&[delivered("sub", offset)]);
    }
    journal.write(&[
        change("sub", 0, 2, Status::Queued, Some(503)),
        change("sub", 0, 3, Status::Delivered, None),
    ]);
    assert_eq!(journal.list(&Filter::default()).await, [5, 4, 3, 2, 1, 0]);
    let id = delivered("sub", 0).key.id.to_string();
    let story = journal.reader.story(&id).await.unwrap().unwrap();
    let logs: Vec<_> = story
        .logs
        .iter()
        .map(|log| (log.number, log.attempt))
        .collect();
    assert_eq!(logs, [(1, 1), (2, 2), (3, 3)]);
    let statuses: Vec<_> = story.statuses.iter().map(|status| status.number).collect();
    assert_eq!(statuses, [1, 2, 3]);
    assert_eq!(story.logs[0].reason.as_deref(), Some("http_503"));
    assert_eq!(
        (story.message.attempts, story.message.last_reason),
        (3, None)
    );
    assert_eq!(story.message.event.r#type, "even");
    assert_eq!(journal.reader.siblings("e0", 10).await.unwrap().len(), 1);
    // A change that leaves a message as it stands.
    let mut noted = change("sub", 0, 4, Status::Bounced, None);
    (noted.state, noted.log) = (None, None);
    journal.write(&[noted.clone()]);
    let message = journal.reader.message(&id).await.unwrap().unwrap();
    assert_eq!((message.status, message.attempts), (Status::Delivered, 3));
    assert_eq!(message.updated, noted.at);
}

pub(super) async fn what_the_store_cannot_hold_as_it_is_keeps_nothing_out(
    open: impl AsyncFn(u64) -> Option<Journal>,
) {
    let mut journal = opened!(open, 100);
    let mut odd = change("sub", 1, 1, Status::Undelivered, Some(500));
    let log = odd.log.as_mut().unwrap();
    log.error = Some(LogError {
        kind: log.reason.unwrap(),
        message: "a\0b".into(),
    });
    log.request.url = "http://sink.test/\0".into();
    log.response = Some(Answer {
        code: 500,
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"\0\xff"),
        truncated: true,
    });
    let mut none = change("sub", 2, 1, Status::Undelivered, Some(500));
    none.event = None;
    journal.write(&[odd.clone(), none]);
    let id = odd.key.id.to_string();
    let story = journal.reader.story(&id).await.unwrap().unwrap();
    let log = &story.logs[0];
    assert_eq!((&*log.body, log.truncated), (&b"\0\xff"[..], true));
    let (_, message) = log.error.clone().unwrap();
    assert!(
        message.starts_with('a') && message.ends_with('b'),
        "{message:?}"
    );
    assert_eq!(journal.list(&Filter::default()).await, [2, 1]);
}

pub(super) async fn what_is_too_old_goes_a_segment_at_a_time(
    open: impl AsyncFn(u64) -> Option<Journal>,
) {
    let mut journal = opened!(open, 2);
    for offset in 0..6 {
        journal.write(&[delivered("sub", offset)]);
    }
    let retain = |journal: &mut Journal, at: i64| {
        let now = UnixMillis(at).plus(AGE);
        journal.on_a_thread(|keeper| keeper.retain(now));
    };
    retain(&mut journal, 2_000);
    assert_eq!(journal.list(&Filter::default()).await.last(), Some(&2));
    let reach = journal.reader.reach().await.unwrap();
    assert_eq!(reach.oldest, Some(UnixMillis(2_000)));
    assert!(reach.bytes > 0);
    retain(&mut journal, 4_000);
    assert_eq!(journal.list(&Filter::default()).await, [5, 4]);
    let id = delivered("sub", 0).key.id.to_string();
    assert_eq!(journal.reader.story(&id).await.unwrap(), None);
}

pub(super) async fn gaps_are_told_newest_first(open: impl AsyncFn(u64) -> Option<Journal>) {
    let mut journal = opened!(open, 2);
    for (since, changes) in [(10, 3), (20, u64::from(u32::MAX) + 1)] {
        let (since, until) = (UnixMillis(since), UnixMillis(since + 5));
        let told = journal.on_a_thread(|keeper| keeper.write_gap(since, until, changes));
        told.unwrap();
    }
    let gaps = journal.reader.reach().await.unwrap().gaps;
    let told: Vec<_> = gaps
        .iter()
        .map(|gap| (gap.from.0, gap.to, gap.changes))
        .collect();
    let until = |at| Some(UnixMillis(at));
    assert_eq!(told, [(20, until(25), 1 << 32), (10, until(15), 3)]);
}
