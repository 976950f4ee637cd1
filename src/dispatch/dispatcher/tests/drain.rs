//! What happens between the order to stop and the end.

use super::*;

#[tokio::test(start_paused = true)]
async fn guarantee_9_a_drain_finishes_what_is_in_flight_commits_and_leaves_with_its_place_kept() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.max_in_flight = 4;
    world.sinks.answer(|_| Answer::Ok(3 * SECOND));
    put(&world, 0, 10);
    let running = Running::start(&world, &sub);
    world.begun("0.3", 1).await;
    world.pass(SECOND).await;
    let before = Instant::now();
    assert!(matches!(running.stop().await, End::Stopped));
    assert_eq!(Instant::now() - before, 2 * SECOND);
    assert_eq!(world.story.began().len(), 4, "nothing new began");
    assert_eq!(world.offset(0), 4);
    let place = |is: fn(&Happening) -> bool| world.story.last_place(is).unwrap();
    let committed = place(|h| matches!(h, Happening::Committed(_)));
    let dropped = place(|h| matches!(h, Happening::SourceDropped(_)));
    let left = place(|h| *h == Happening::Left { stay: true });
    assert!(committed < dropped && dropped < left);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_to_leave_gives_up_its_place() {
    let settings = Settings {
        stay_in_group: false,
        ..Settings::default()
    };
    let world = with(settings, 1);
    let running = Running::start(&world, &subscription("sub"));
    running.stop().await;
    assert!(
        world
            .story
            .place(|h| *h == Happening::Left { stay: false })
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn guarantee_9_a_subscriber_that_hangs_holds_up_a_drain_only_to_its_bound_and_the_cut_is_not_counted()
 {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.retry = 1;
    sub.delivery.timeout = 60 * SECOND;
    world.sinks.answer(|call| match &*call.id {
        "0.0" => Answer::Hang,
        _ => Answer::NOW,
    });
    put(&world, 0, 3);
    let running = Running::start(&world, &sub);
    world.begun("0.2", 1).await;
    let before = Instant::now();
    assert!(matches!(running.stop().await, End::Stopped));
    assert_eq!(Instant::now() - before, 20 * SECOND);
    let cut = Happening::Ended("0.0".into(), Ended::Cut);
    assert!(world.story.place(|h| *h == cut).is_some());
    assert_eq!(world.offset(0), 0);

    // The successor has both attempts, and nothing else to do.
    world.sinks.answer(|_| Answer::BUSY);
    let _successor = Running::start(&world, &sub);
    world.committed(0, 3).await;
    assert_eq!(world.story.attempts("0.0"), 3);
    assert_eq!(world.story.attempts("0.1") + world.story.attempts("0.2"), 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_commit_may_hang_only_to_its_bound() {
    let (world, sub) = (world(1), subscription("sub"));
    world
        .log
        .answer_commits([CommitAnswer::After(MS), CommitAnswer::Hang]);
    put(&world, 0, 1);
    let running = Running::start(&world, &sub);
    world.committed(0, 1).await;
    put(&world, 0, 1);
    world.begun("0.0", 2).await;
    let before = Instant::now();
    assert!(matches!(running.stop().await, End::Stopped));
    let bound = world.tools.settings.drain_timeout + 2 * FINAL_COMMIT;
    assert!(Instant::now() - before <= bound);
}

#[tokio::test(start_paused = true)]
async fn what_is_assigned_while_it_stops_is_not_begun() {
    let (world, sub) = (world(2), subscription("sub"));
    world.log.by_hand();
    world.sinks.answer(|call| match &*call.id {
        "0.0" => Answer::Ok(5 * SECOND),
        _ => Answer::NOW,
    });
    put(&world, 0, 1);
    put(&world, 1, 1);
    let running = Running::start(&world, &sub);
    world.log.assign(&sub.group, &[at(0)]);
    world.begun("0.0", 1).await;
    world.log.hold(true);
    world.log.assign(&sub.group, &[at(1)]);
    world.pass(SECOND).await;
    running.stop.cancel();
    world.pass(SECOND).await;
    world.log.hold(false);
    assert!(matches!(running.stop().await, End::Stopped));
    assert_eq!(world.story.began(), ["0.0"]);
    assert_eq!((world.offset(0), world.offset(1)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_log_that_does_not_answer() {
    let (world, sub) = (world(1), subscription("sub"));
    world.log.fail(Some(LogError::Unavailable("down".into())));
    let running = Running::start(&world, &sub);
    world.pass(10 * SECOND).await;
    let before = Instant::now();
    assert!(matches!(running.stop().await, End::Stopped));
    assert_eq!(Instant::now(), before);
}
