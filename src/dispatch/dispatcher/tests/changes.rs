//! A subscription that changes while it runs.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_next_attempt_goes_to_the_new_subscriber_by_the_new_rules() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.retry = 2;
    let urls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&urls);
    world.sinks.answer(move |call| {
        seen.lock()
            .unwrap()
            .push((call.id.clone(), call.url.clone(), call.timeout));
        Answer::BUSY
    });
    put(&world, 0, 1);
    let running = Running::start(&world, &sub);
    world.begun("0.0", 1).await;
    let mut changed = sub.clone();
    changed.subscriber = http("http://new.test/");
    changed.delivery.retry = 4;
    changed.delivery.timeout = 7 * SECOND;
    running.changes.send_replace(Arc::new(changed));
    world.committed(0, 1).await;
    let urls = urls.lock().unwrap().clone();
    let old = |(_, url, _): &&(String, String, Duration)| url == "http://sub.test/";
    assert_eq!(urls.len(), 5);
    assert_eq!(urls.iter().filter(old).count(), 1);
    assert!(urls[1..].iter().all(|call| call.2 == 7 * SECOND));
    assert_eq!(world.log.records(&sub.dead_letter_topic).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn fewer_retries_end_what_has_had_them() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.retry = 100;
    world.sinks.answer(|_| Answer::BUSY);
    put(&world, 0, 1);
    let running = Running::start(&world, &sub);
    world.begun("0.0", 5).await;
    let mut changed = sub.clone();
    changed.delivery.retry = 1;
    running.changes.send_replace(Arc::new(changed));
    world.committed(0, 1).await;
    assert!(world.story.attempts("0.0") <= 6);
    assert_eq!(world.log.records(&sub.dead_letter_topic).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn changes_under_load_lose_and_repeat_nothing() {
    let (world, mut sub) = (world(2), subscription("sub"));
    sub.delivery.retry = 3;
    world.sinks.answer(|call| match call.number {
        1 if call.id.ends_with('3') => Answer::Code(503, 5 * MS),
        _ => Answer::Ok(5 * MS),
    });
    put(&world, 0, 300);
    put(&world, 1, 300);
    let running = Running::start(&world, &sub);
    for round in 1..20 {
        world.pass(10 * MS).await;
        sub.delivery.max_in_flight = 1 + round % 5;
        sub.delivery.rate_limit = (round % 2 == 0).then_some(500.0);
        sub.generation += 1;
        running.changes.send_replace(Arc::new(sub.clone()));
    }
    world.committed(0, 300).await;
    world.committed(1, 300).await;
    for id in (0..600).map(|n| format!("{}.{}", n / 300, n % 300)) {
        assert_eq!(world.story.deliveries(&id), 1, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_back_off_without_end_is_no_panic() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.retry = 1000;
    sub.delivery.backoff.policy = crate::channel::BackoffPolicy::Exponential;
    sub.delivery.backoff.delay = Duration::ZERO;
    world.sinks.answer(|_| Answer::Code(503, MS));
    put(&world, 0, 1);
    let running = Running::start(&world, &sub);
    let slow = sub.clone();
    world.begun("0.0", 100).await;
    sub.delivery.backoff.delay = SECOND;
    running.changes.send_replace(Arc::new(sub));
    world.pass(SECOND).await;
    assert!(!running.stop.is_cancelled());
    put(&world, 0, 1);
    world.sinks.answer(|_| Answer::NOW);
    running.changes.send_replace(Arc::new(slow));
    world.log.put(&at(0), event("after", None, 0));
    world.begun("after", 1).await;
}
