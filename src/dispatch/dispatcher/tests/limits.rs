//! Bounds: window, memory, rate, attempts at one time; and events that do not get on.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_full_window_stops_its_partition_alone() {
    let (world, mut sub) = (world(2), subscription("sub"));
    sub.delivery.max_window = 5;
    sub.delivery.max_in_flight = 50;
    let held = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let script = Arc::clone(&held);
    world.sinks.answer(move |call| {
        let first = call.id.starts_with("0.");
        match first && script.load(std::sync::atomic::Ordering::Relaxed) {
            true => Answer::Ok(10 * SECOND),
            false => Answer::NOW,
        }
    });
    put(&world, 0, 50);
    put(&world, 1, 50);
    let _running = Running::start(&world, &sub);
    world.committed(1, 50).await;
    let of_0 = |world: &World| {
        let begun = world.story.began();
        begun.iter().filter(|id| id.starts_with("0.")).count()
    };
    assert_eq!(of_0(&world), 5);
    assert_eq!(world.metric("levada_dispatch_paused_partitions"), 1.0);
    held.store(false, std::sync::atomic::Ordering::Relaxed);
    world.committed(0, 50).await;
    assert_eq!(world.metric("levada_dispatch_paused_partitions"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn never_more_attempts_at_one_time_than_allowed() {
    let (world, mut sub) = (world(2), subscription("sub"));
    sub.delivery.max_in_flight = 3;
    world.sinks.answer(|_| Answer::Ok(10 * MS));
    put(&world, 0, 50);
    put(&world, 1, 50);
    let _running = Running::start(&world, &sub);
    world.committed(0, 50).await;
    world.committed(1, 50).await;
    assert_eq!(world.sinks.most_at_once(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_partition_with_a_backlog_does_not_keep_the_others_waiting() {
    let (world, mut sub) = (world(2), subscription("sub"));
    sub.delivery.max_in_flight = 2;
    world.sinks.answer(|_| Answer::Ok(10 * MS));
    put(&world, 0, 500);
    put(&world, 1, 1);
    let _running = Running::start(&world, &sub);
    world.begun("1.0", 1).await;
    let begun = world.story.began().len();
    assert!(begun < 20, "after {begun} of another partition");
}

fn bytes_settings(subscription: usize, total: usize) -> Settings {
    Settings {
        max_subscription_bytes: subscription,
        max_total_bytes: total,
        ..Settings::default()
    }
}

/// Two subscriptions of a channel with so many events of 10 kB.
fn two(settings: Settings, count: usize) -> (World, Subscription, Subscription, Budgets) {
    let world = with(settings, 1);
    let budget = budgets(&world);
    let (mut stuck, mut other) = (subscription("stuck"), subscription("other"));
    for sub in [&mut stuck, &mut other] {
        world.log.topic(&sub.retry_topic, 1);
        world.log.topic(&sub.dead_letter_topic, 1);
        world.log.set_commit(&sub.group, &at(0), 0);
        sub.delivery.max_in_flight = 1000;
    }
    for n in 0..count {
        world
            .log
            .put(&at(0), event(&format!("0.{n}"), None, 10_000));
    }
    (world, stuck, other, budget)
}

#[tokio::test(start_paused = true)]
async fn guarantee_8_a_subscription_that_hangs_holds_no_more_than_its_share_of_memory() {
    let (world, stuck, other, budget) = two(bytes_settings(100_000, 1_000_000), 200);
    world.sinks.answer(|call| match &*call.url {
        "http://stuck.test/" => Answer::Hang,
        _ => Answer::Ok(MS),
    });
    let _stuck = Running::within(&world, &stuck, &budget);
    world.pass(SECOND).await;
    let held = world.sinks.at_once();
    assert!(
        (10..=12).contains(&held),
        "{held} events of 10 kB in 100 kB"
    );
    let _other = Running::within(&world, &other, &budget);
    let done = || world.log.offset_of(&other.group, &at(0)) == Some(200);
    world.story.until("the other goes on", done).await;
}

#[tokio::test(start_paused = true)]
async fn guarantee_8_spent_memory_slows_a_subscription_down_and_never_stops_it() {
    // One subscription holds all there is.
    let (world, stuck, other, budget) = two(bytes_settings(500_000, 500_000), 200);
    world.sinks.answer(|call| match &*call.url {
        "http://stuck.test/" => Answer::Hang,
        _ => Answer::Ok(MS),
    });
    let _stuck = Running::within(&world, &stuck, &budget);
    world.pass(SECOND).await;
    let held = world.sinks.at_once();
    let _other = Running::within(&world, &other, &budget);
    let done = || world.log.offset_of(&other.group, &at(0)) == Some(200);
    world.story.until("the other goes on", done).await;
    let most = world.sinks.most_at_once() - held;
    assert!(most <= 40, "{most} events of 10 kB beyond the bound");
}

#[tokio::test(start_paused = true)]
async fn memory_that_another_gives_back_is_noticed() {
    let (world, stuck, mut other, budget) = two(bytes_settings(400_000, 400_000), 40);
    other.delivery.retry = 1;
    other.delivery.backoff.delay = 900 * MS;
    // The other one holds on to what it has while it waits, too much to take more beyond the
    // bound, and nothing of its own happens meanwhile.
    world.sinks.answer(|call| match &*call.url {
        "http://stuck.test/" => Answer::Ok(100 * MS),
        _ if call.number == 1 => Answer::BUSY,
        _ => Answer::NOW,
    });
    let _stuck = Running::within(&world, &stuck, &budget);
    world.pass(10 * MS).await;
    let _other = Running::within(&world, &other, &budget);
    world.pass(50 * MS).await;
    let began = |world: &World| world.story.began().len();
    let before = began(&world);
    assert!((60..75).contains(&before), "{before}: not all has begun");
    world.pass(300 * MS).await;
    assert_eq!(
        began(&world),
        80,
        "{before} at first: the rest does not wait for a retry"
    );
}

#[tokio::test(start_paused = true)]
async fn attempts_keep_to_the_rate() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.rate_limit = Some(20.0);
    put(&world, 0, 100);
    let _running = Running::start(&world, &sub);
    let before = Instant::now();
    world.committed(0, 100).await;
    let took = Instant::now() - before;
    assert!(took >= 4900 * MS && took <= 5500 * MS, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_waits_for_room_does_not_spin() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.rate_limit = Some(1000.0);
    sub.delivery.max_in_flight = 2;
    world.sinks.answer(|_| Answer::Ok(SECOND));
    put(&world, 0, 10);
    let _running = Running::start(&world, &sub);
    let before = Instant::now();
    world.committed(0, 10).await;
    let took = Instant::now() - before;
    assert!(took >= 5 * SECOND && took < 6 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn guarantee_2_a_dead_letter_is_kept_once_however_often_the_topic_fails() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.retry = 1;
    world.sinks.answer(|call| match &*call.id {
        "0.0" => Answer::BUSY,
        _ => Answer::NOW,
    });
    let down = AppendAnswer::Fail(LogError::Unavailable("down".into()));
    world.log.answer_appends(&sub.dead_letter_topic, &down, 4);
    put(&world, 0, 3);
    let _running = Running::start(&world, &sub);
    world.begun("0.0", 2).await;
    world.pass(SECOND).await;
    assert_eq!(world.offset(0), 0, "not before it is kept");
    assert_eq!(world.story.deliveries("0.2"), 1, "the others go on");
    world.committed(0, 3).await;
    let kept = world.log.records(&sub.dead_letter_topic);
    assert_eq!(kept.len(), 1);
    assert_eq!(world.story.attempts("0.0"), 2);
}

#[tokio::test(start_paused = true)]
async fn who_takes_over_from_a_failing_dead_letter_topic_calls_no_subscriber_again() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.retry = 1;
    world.sinks.answer(|call| match &*call.id {
        "0.0" => Answer::BUSY,
        _ => Answer::NOW,
    });
    let down = AppendAnswer::Fail(LogError::Unavailable("down".into()));
    world.log.answer_appends(&sub.dead_letter_topic, &down, 3);
    put(&world, 0, 1);
    let running = Running::start(&world, &sub);
    world.begun("0.0", 2).await;
    // Between two tries to keep it.
    world.pass(300 * MS).await;
    // A commit has just gone out, so it is the last one that tells of the late event.
    let commits = world.story.commit_times().len();
    world.log.put(&at(0), event("early", None, 0));
    let sent = || world.story.commit_times().len() > commits;
    world.story.until("a commit goes out", sent).await;
    world.log.put(&at(0), event("late", None, 0));
    world.begun("late", 1).await;
    running.stop().await;
    let _successor = Running::start(&world, &sub);
    world.committed(0, 3).await;
    assert_eq!(world.log.records(&sub.dead_letter_topic).len(), 1);
    assert_eq!(world.story.attempts("0.0"), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_letter_topic_never_answered_is_kept_by_the_next_owner() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.ordering = crate::channel::Ordering::Partition;
    world.sinks.answer(|call| match &*call.id {
        "0.0" => Answer::Code(400, Duration::ZERO),
        _ => Answer::NOW,
    });
    let hang = AppendAnswer::Hang;
    world.log.answer_appends(&sub.dead_letter_topic, &hang, 1);
    put(&world, 0, 3);
    let running = Running::start(&world, &sub);
    world.begun("0.0", 1).await;
    world.pass(60 * SECOND).await;
    assert_eq!(world.offset(0), 0, "not before it is kept");
    let before = Instant::now();
    running.stop().await;
    assert_eq!(Instant::now() - before, 20 * SECOND);
    let _successor = Running::start(&world, &sub);
    world.committed(0, 3).await;
    assert_eq!(world.log.records(&sub.dead_letter_topic).len(), 1);
    assert_eq!(world.story.attempts("0.0"), 1, "it was given up before");
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_and_delivered_is_trimmed_although_nothing_else_happens() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.retry = 1;
    sub.delivery.backoff.delay = 20 * SECOND;
    world.sinks.answer(|call| match call.number {
        1 => Answer::BUSY,
        _ => Answer::NOW,
    });
    put(&world, 0, 3);
    let _running = Running::start(&world, &sub);
    world.committed(0, 3).await;
    assert_eq!(world.log.records(&sub.retry_topic).len(), 3);
    world.pass(19 * SECOND).await;
    assert_eq!(world.story.began().len(), 3, "none is due");
    world.pass(2 * SECOND).await;
    for id in ["0.0", "0.1", "0.2"] {
        assert_eq!(world.story.deliveries(id), 1);
    }
    world.pass(11 * SECOND).await;
    assert!(world.log.records(&sub.retry_topic).is_empty());
}
