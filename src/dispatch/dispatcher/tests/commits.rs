//! When commits are sent, and what follows when they do not get through.

use super::*;
use crate::log::Commit;

fn gaps(times: &[Instant]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn guarantee_5_commits_follow_each_other_while_something_changes_and_end_when_nothing_does() {
    let (world, sub) = (world(2), subscription("sub"));
    let _running = Running::start(&world, &sub);
    world.pass(SECOND).await;
    assert!(
        world.story.commit_times().is_empty(),
        "nothing has changed yet"
    );
    for n in 0..100 {
        let id = n.to_string();
        world.log.put(&at(n % 2), event(&id, None, 0));
        world.pass(10 * MS).await;
    }
    world.committed(0, 50).await;
    world.committed(1, 50).await;
    let times = world.story.commit_times();
    assert!((9..=11).contains(&times.len()), "{}", times.len());
    let gaps = gaps(&times);
    assert!(gaps.iter().all(|gap| *gap >= 100 * MS), "{gaps:?}");
    world.pass(10 * SECOND).await;
    assert_eq!(world.story.commit_times().len(), times.len(), "idle");
}

#[tokio::test(start_paused = true)]
async fn one_commit_is_on_its_way_at_a_time_and_holds_up_no_delivery() {
    let (world, sub) = (world(1), subscription("sub"));
    world.log.answer_commits([CommitAnswer::After(10 * SECOND)]);
    let _running = Running::start(&world, &sub);
    for n in 0..50 {
        world.log.put(&at(0), event(&n.to_string(), None, 0));
        world.pass(100 * MS).await;
    }
    assert_eq!(world.story.began().len(), 50);
    assert_eq!(world.story.commit_times().len(), 1);
    world.committed(0, 50).await;
    let times = world.story.commit_times();
    assert_eq!(times.len(), 2);
    assert!(gaps(&times)[0] >= 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_never_answered_holds_up_no_delivery() {
    let (world, sub) = (world(1), subscription("sub"));
    world.log.answer_commits([CommitAnswer::Hang]);
    put(&world, 0, 5000);
    let _running = Running::start(&world, &sub);
    world.begun("0.4999", 1).await;
    assert_eq!(world.story.commit_times().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_failed_is_repeated_at_the_next_turn() {
    let (world, sub) = (world(1), subscription("sub"));
    let down = || CommitAnswer::Fail(LogError::Unavailable("down".into()));
    world.log.answer_commits([down(), down()]);
    put(&world, 0, 1);
    let _running = Running::start(&world, &sub);
    world.committed(0, 1).await;
    world.pass(SECOND).await;
    let times = world.story.commit_times();
    assert_eq!(times.len(), 3);
    assert!(gaps(&times).iter().all(|gap| *gap >= 100 * MS));
}

/// Sends the metadata of every commit.
fn metadata(world: &World) -> Vec<String> {
    let sent = world.story.pick(|_, happening| match happening {
        Happening::CommitSent(commits) => Some(commits.clone()),
        _ => None,
    });
    let channel = |(at, _): &(TopicPartition, Commit)| at.topic.as_str() == "ch";
    let all = sent.into_iter().flatten().filter(channel);
    all.map(|(_, commit)| commit.metadata).collect()
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_metadata_is_refused_is_repeated_without() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.retry = 5;
    world.sinks.answer(|call| match (&*call.id, call.number) {
        ("0.1", 1) => Answer::BUSY,
        _ => Answer::NOW,
    });
    let refused = LogError::MetadataRefused("too long".into());
    world.log.answer_commits([CommitAnswer::Fail(refused)]);
    put(&world, 0, 3);
    let _running = Running::start(&world, &sub);
    world.committed(0, 1).await;
    let sent = metadata(&world);
    assert_eq!(sent.len(), 2);
    assert!(!sent[0].is_empty() && sent[1].is_empty(), "{sent:?}");
    let times = world.story.commit_times();
    assert_eq!(times[0], times[1], "at once");
    assert_eq!(world.metric("levada_commit_metadata_refused_total"), 1.0);
    world.committed(0, 3).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_commit_too_is_repeated_without_metadata() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.retry = 5;
    sub.delivery.backoff.delay = 800 * MS;
    world.sinks.answer(|call| match &*call.id {
        "0.1" => Answer::BUSY,
        _ => Answer::NOW,
    });
    put(&world, 0, 3);
    let running = Running::start(&world, &sub);
    world.committed(0, 1).await;
    let refused = LogError::MetadataRefused("too long".into());
    world.log.answer_commits([CommitAnswer::Fail(refused)]);
    // Finished too late for another commit before the end.
    world.log.put(&at(0), event("late", None, 0));
    world.begun("late", 1).await;
    let before = metadata(&world).len();
    running.stop().await;
    let sent = metadata(&world).split_off(before);
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(!sent[0].is_empty() && sent[1].is_empty(), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn commits_go_out_while_answers_never_stop_coming() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.max_in_flight = 1;
    put(&world, 0, 5000);
    // At once, so there is always an answer to look at.
    let changes = Arc::new(std::sync::OnceLock::<watch::Sender<Arc<Subscription>>>::new());
    let mut moved = sub.clone();
    moved.subscriber = http("http://moved.test/");
    let moved = Arc::new(moved);
    let (sender, calls) = (
        Arc::clone(&changes),
        Arc::new(std::sync::Mutex::new((0, 0))),
    );
    let counted = Arc::clone(&calls);
    world.sinks.answer(move |call| {
        let mut calls = counted.lock().unwrap();
        if call.url.contains("moved") {
            calls.1 += 1;
        } else {
            calls.0 += 1;
        }
        if calls.0 == 100 {
            sender.get().unwrap().send_replace(Arc::clone(&moved));
        }
        Answer::NOW
    });
    let running = Running::start(&world, &sub);
    changes.set(running.changes).unwrap();
    world.committed(0, 5000).await;
    let (before, after) = *calls.lock().unwrap();
    assert_eq!(before + after, 5000);
    assert!(before < 200, "{before} calls before the change was seen");
}
