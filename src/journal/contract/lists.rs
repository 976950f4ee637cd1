//! Lists: filters, pages, bounded searches.

use super::{Journal, change, delivered, first, offsets, opened};
use crate::channel::ResourceName;
use crate::clock::UnixMillis;
use crate::dispatch::testing::subscription;
use crate::journal::{Change, Cursor, Filter, PageRequest, Status};

pub(in crate::journal) async fn each_filter_finds_what_it_asks_for_in_all_segments(
    open: impl AsyncFn(u64) -> Option<Journal>,
) {
    let mut journal = opened!(open, 3);
    for offset in 0..10 {
        let (status, reason) = match offset % 5 {
            0 => (Status::Undelivered, Some(422)),
            _ => (Status::Delivered, None),
        };
        journal.write(&[change("sub", offset, 1, status, reason)]);
    }
    journal.write(&[change("other", 20, 1, Status::Queued, Some(503))]);
    let name = |name: &str| vec![ResourceName::try_new("ns", name).unwrap()];
    let (sub, other) = (subscription("sub"), subscription("other"));
    let all = [20, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];
    type Set<'a> = &'a dyn Fn(&mut Filter);
    let cases: [(Set<'_>, &[i64]); 17] = [
        (&|_| {}, &all),
        (&|f| f.status = vec![Status::Undelivered], &[5, 0]),
        (
            &|f| f.status = vec![Status::Undelivered, Status::Queued],
            &[20, 5, 0],
        ),
        (
            &|f| f.status = vec![Status::Delivered],
            &[9, 8, 7, 6, 4, 3, 2, 1],
        ),
        (&|f| f.retrying = true, &[20]),
        (&|f| f.is_final = Some(false), &[20]),
        (&|f| f.subscription = vec![other.name.clone()], &[20]),
        (&|f| f.subscription = name("nobody"), &[]),
        (&|f| f.channel = vec![sub.channel.clone()], &all),
        (&|f| f.channel = name("nothing"), &[]),
        (&|f| f.reason = vec!["http_422".into()], &[5, 0]),
        (
            &|f| {
                f.reason = vec!["http_422".into()];
                f.subscription = vec![sub.name.clone()];
            },
            &[5, 0],
        ),
        (&|f| f.event_id = Some("e3".into()), &[3]),
        (&|f| f.event_type = Some("odd".into()), &[9, 7, 5, 3, 1]),
        (&|f| f.event_source = Some("/none".into()), &[]),
        (
            &|f| {
                (f.from, f.to) = (Some(UnixMillis(3000)), Some(UnixMillis(6000)));
            },
            &[5, 4, 3],
        ),
        (
            &|f| {
                f.status = vec![Status::Undelivered];
                f.subscription = vec![sub.name.clone()];
                f.event_type = Some("odd".into());
            },
            &[5],
        ),
    ];
    for (set, expected) in cases {
        let mut filter = Filter::default();
        set(&mut filter);
        assert_eq!(journal.list(&filter).await, expected, "{filter:?}");
    }
}

pub(in crate::journal) async fn the_messages_of_many_subscriptions_are_merged_by_time(
    open: impl AsyncFn(u64) -> Option<Journal>,
) {
    let mut journal = opened!(open, 40);
    let told = |offset: i64| {
        let (status, reason) = match offset % 3 {
            0 => (Status::Undelivered, Some(422)),
            _ => (Status::Delivered, None),
        };
        let sub = format!("sub{}", offset * 7 % 20);
        change(&sub, offset, 1, status, reason)
    };
    for part in (0..60).map(told).collect::<Vec<Change>>().chunks(10) {
        journal.write(part);
    }
    let of_channel = Filter {
        channel: vec![subscription("sub0").channel],
        ..Filter::default()
    };
    let of_reason = Filter {
        reason: vec!["http_422".into()],
        ..Filter::default()
    };
    let undelivered = Filter {
        status: vec![Status::Undelivered, Status::Bounced],
        ..of_channel.clone()
    };
    for (filter, step) in [(of_channel, 1), (of_reason, 3), (undelivered, 3)] {
        let (mut seen, mut request) = (Vec::new(), first(7));
        loop {
            let page = journal.reader.list(&filter, &request).await.unwrap();
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

pub(in crate::journal) async fn pages_are_stable_while_messages_arrive(
    open: impl AsyncFn(u64) -> Option<Journal>,
) {
    let mut journal = opened!(open, 7);
    for offset in 0..30 {
        journal.write(&[delivered("sub", offset)]);
    }
    let filter = Filter::default();
    let (mut seen, mut after, mut newest) = (Vec::new(), None, 30);
    loop {
        let request = PageRequest {
            after: after.take(),
            ..first(4)
        };
        let page = journal.reader.list(&filter, &request).await.unwrap();
        assert_eq!(page.before.is_some(), request.after.is_some());
        seen.extend(offsets(&page));
        journal.write(&[delivered("sub", newest)]);
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
    let page = journal.reader.list(&filter, &request).await.unwrap();
    assert_eq!(offsets(&page), [14, 13, 12, 11]);
    assert!(page.before.is_some() && page.after.is_some());
    assert_eq!(
        journal
            .reader
            .count_newer(&filter, &than, 200)
            .await
            .unwrap(),
        27
    );
    assert_eq!(
        journal.reader.count_newer(&filter, &than, 5).await.unwrap(),
        5
    );
}

pub(in crate::journal) async fn a_bounded_search_says_how_far_it_came_and_goes_on_there(
    open: impl AsyncFn(u64) -> Option<Journal>,
) {
    let mut journal = opened!(open, 100_000);
    let many: Vec<Change> = (1..=45_000)
        .map(|offset| delivered("sub", offset))
        .collect();
    journal.write(&[change("sub", 0, 1, Status::Queued, Some(418))]);
    journal.write(&many);
    let filter = Filter {
        is_final: Some(false),
        event_source: Some("/s".into()),
        ..Filter::default()
    };
    let mut request = first(10);
    let mut pages = 0;
    loop {
        let page = journal.reader.list(&filter, &request).await.unwrap();
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
