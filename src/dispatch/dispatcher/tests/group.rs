//! Partitions that come and go.

use super::*;
use crate::log::{Commit, GroupEvent};

fn sends_of(world: &World, partition: i32) -> usize {
    let sent = world.story.pick(|_, happening| match happening {
        Happening::CommitSent(commits) => Some(commits.clone()),
        _ => None,
    });
    let of = |(at, _): &(TopicPartition, Commit)| at.partition.0 == partition;
    sent.into_iter().flatten().filter(of).count()
}

async fn released(world: &World, partition: i32) {
    let of = |h: &Happening| matches!(h, Happening::Released(p) if p.contains(&at(partition)));
    let what = format!("{partition} is released");
    world
        .story
        .until(&what, || world.story.place(of).is_some())
        .await;
}

#[tokio::test(start_paused = true)]
async fn guarantee_9_a_revoked_partition_finishes_what_is_in_flight_commits_and_is_let_go() {
    let (world, mut sub) = (world(2), subscription("sub"));
    sub.delivery.max_in_flight = 4;
    world.sinks.answer(|_| Answer::Ok(3 * SECOND));
    put(&world, 0, 10);
    let _running = Running::start(&world, &sub);
    world.begun("0.3", 1).await;
    world.pass(SECOND).await;
    let before = Instant::now();
    world.log.revoke(&sub.group, &[at(0)], false);
    released(&world, 0).await;
    assert_eq!(Instant::now() - before, 2 * SECOND);
    assert_eq!(world.story.began().len(), 4, "nothing new began");
    assert_eq!(world.offset(0), 4);
    let place = |is: fn(&Happening) -> bool| world.story.last_place(is).unwrap();
    let committed = place(|h| matches!(h, Happening::Committed(_)));
    let dropped = place(|h| *h == Happening::SourceDropped(at(0)));
    let let_go = place(|h| matches!(h, Happening::Released(_)));
    assert!(committed < dropped && dropped < let_go);

    put(&world, 1, 1);
    world.committed(1, 1).await;
    assert_eq!(world.story.began().len(), 5, "the other goes on");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_outlasts_a_revocation_counts_for_nothing() {
    let (world, mut sub) = (world(1), subscription("sub"));
    sub.delivery.retry = 1;
    world.sinks.answer(|call| match &*call.id {
        "0.0" => Answer::Code(503, 10 * SECOND),
        _ => Answer::NOW,
    });
    put(&world, 0, 2);
    let budgets = budgets(&world);
    let _running = Running::within(&world, &sub, &budgets);
    world.begun("0.1", 1).await;
    let before = Instant::now();
    world.log.revoke(&sub.group, &[at(0)], false);
    released(&world, 0).await;
    assert_eq!(
        Instant::now() - before,
        world.tools.settings.revocation_timeout
    );
    assert_eq!(world.offset(0), 0);
    assert!(budgets.events.is_used());
    world.pass(20 * SECOND).await;
    assert!(!budgets.events.is_used(), "its memory is given back");
    let commits = world.story.commit_times().len();

    // The next owner, this node too, has both attempts.
    world.sinks.answer(|_| Answer::BUSY);
    world.log.assign(&sub.group, &[at(0)]);
    world.committed(0, 2).await;
    assert_eq!(world.story.attempts("0.0"), 3);
    assert_eq!(world.story.attempts("0.1"), 1, "it was finished before");
    assert!(world.story.commit_times().len() > commits);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_committed_for_a_partition_that_is_lost() {
    let (world, sub) = (world(2), subscription("sub"));
    // The second time it is lost in the very turn in which something of it is finished.
    let (log, group) = (Arc::clone(&world.log), sub.group.clone());
    world.sinks.answer(move |call| {
        if (&*call.id, call.number) == ("0.0", 2) {
            log.revoke(&group, &[at(0)], true);
        }
        Answer::NOW
    });
    let _running = Running::start(&world, &sub);
    put(&world, 0, 1);
    world.committed(0, 1).await;
    world.pass(SECOND).await;
    let before = sends_of(&world, 0);
    put(&world, 0, 1);
    released(&world, 0).await;
    assert_eq!(world.story.deliveries("0.0"), 2);
    put(&world, 1, 1);
    world.committed(1, 1).await;
    world.pass(SECOND).await;
    assert_eq!(sends_of(&world, 0), before);
    assert_eq!(world.offset(0), 1);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_lost_amid_its_revocation_is_let_go_at_once() {
    let (world, sub) = (world(1), subscription("sub"));
    world.sinks.answer(|_| Answer::Hang);
    put(&world, 0, 1);
    let _running = Running::start(&world, &sub);
    world.begun("0.0", 1).await;
    world.log.revoke(&sub.group, &[at(0)], false);
    world.pass(SECOND).await;
    world.log.revoke(&sub.group, &[at(0)], true);
    world.pass(MS).await;
    world.sinks.answer(|_| Answer::NOW);
    world.log.assign(&sub.group, &[at(0)]);
    world.committed(0, 1).await;
    world.pass(10 * SECOND).await;
    let releases = world
        .story
        .last_place(|h| matches!(h, Happening::Released(_)));
    let starts = world
        .story
        .last_place(|h| matches!(h, Happening::Started(..)));
    assert!(releases < starts, "what came back was given up");
}

#[tokio::test(start_paused = true)]
async fn a_last_commit_that_hangs_holds_a_partition_only_to_a_bound() {
    let (world, sub) = (world(1), subscription("sub"));
    world.log.answer_commits([CommitAnswer::Hang]);
    put(&world, 0, 1);
    let _running = Running::start(&world, &sub);
    world.begun("0.0", 1).await;
    world.pass(SECOND).await;
    let before = Instant::now();
    world.log.revoke(&sub.group, &[at(0)], false);
    released(&world, 0).await;
    let bound = world.tools.settings.revocation_timeout + FINAL_COMMIT;
    assert_eq!(Instant::now() - before, bound);
}

#[tokio::test(start_paused = true)]
async fn a_last_commit_that_fails_is_repeated_in_time_and_then_given_up() {
    let (world, sub) = (world(1), subscription("sub"));
    let down = || CommitAnswer::Fail(LogError::Unavailable("down".into()));
    world
        .log
        .answer_commits(std::iter::repeat_with(down).take(1000));
    put(&world, 0, 1);
    let _running = Running::start(&world, &sub);
    world.begun("0.0", 1).await;
    let before = Instant::now();
    world.log.revoke(&sub.group, &[at(0)], false);
    released(&world, 0).await;
    let took = Instant::now() - before;
    assert!(took >= 5 * SECOND && took <= 6 * SECOND, "{took:?}");
    let tries = world.story.commit_times().len();
    assert!((40..=60).contains(&tries), "{tries}");
}

#[tokio::test(start_paused = true)]
async fn assignments_that_come_while_commits_are_read_are_all_answered() {
    let (world, sub) = (world(3), subscription("sub"));
    world.log.by_hand();
    world.log.hold(true);
    for partition in 0..3 {
        put(&world, partition, 1);
    }
    let _running = Running::start(&world, &sub);
    for partition in 0..3 {
        world.log.assign(&sub.group, &[at(partition)]);
        world.pass(MS).await;
    }
    world.log.hold(false);
    for partition in 0..3 {
        world.committed(partition, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_revoked_while_its_commits_are_read_is_not_begun() {
    let (world, sub) = (world(2), subscription("sub"));
    world.log.by_hand();
    world.log.hold(true);
    put(&world, 0, 1);
    put(&world, 1, 1);
    let _running = Running::start(&world, &sub);
    world.log.assign(&sub.group, &[at(0), at(1)]);
    world.pass(MS).await;
    world.log.revoke(&sub.group, &[at(0)], false);
    released(&world, 0).await;
    world.log.hold(false);
    world.committed(1, 1).await;
    assert_eq!(world.story.began(), ["1.0"]);
}

#[tokio::test(start_paused = true)]
async fn commits_are_read_again_until_the_log_answers() {
    let (world, sub) = (world(1), subscription("sub"));
    world.log.fail(Some(LogError::Unavailable("down".into())));
    put(&world, 0, 1);
    let _running = Running::start(&world, &sub);
    world.pass(60 * SECOND).await;
    world.log.fail(None);
    let before = Instant::now();
    world.committed(0, 1).await;
    assert!(Instant::now() - before <= 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_membership_that_is_lost_ends_it() {
    let (world, sub) = (world(1), subscription("sub"));
    world.sinks.answer(|_| Answer::Ok(SECOND));
    put(&world, 0, 1);
    let running = Running::start(&world, &sub);
    world.begun("0.0", 1).await;
    let fenced = LogError::MembershipLost("fenced".into());
    world
        .log
        .tell(&sub.group, GroupEvent::Failed(fenced.clone()));
    match running.end.await.unwrap() {
        End::MembershipLost(error) => assert_eq!(error, fenced),
        End::Stopped => panic!("nobody stopped it"),
    }
    assert!(world.story.commit_times().is_empty());
    assert!(running.progress.commits().is_empty());
    let cut = Happening::Ended("0.0".into(), Ended::Cut);
    let left = Happening::Left { stay: true };
    assert!(world.story.place(|h| *h == cut) < world.story.place(|h| *h == left));
}

#[tokio::test(start_paused = true)]
async fn another_failure_of_the_group_ends_nothing() {
    let (world, sub) = (world(1), subscription("sub"));
    let _running = Running::start(&world, &sub);
    world.pass(MS).await;
    let down = GroupEvent::Failed(LogError::Unavailable("down".into()));
    world.log.tell(&sub.group, down);
    put(&world, 0, 1);
    world.committed(0, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_cannot_be_read_ends_it_at_once_with_its_commits_made() {
    let (world, sub) = (world(2), subscription("sub"));
    let running = Running::start(&world, &sub);
    put(&world, 0, 1);
    world.committed(0, 1).await;
    put(&world, 0, 1);
    world.begun("0.0", 2).await;
    let before = Instant::now();
    world
        .log
        .fail_take(&at(1), LogError::Damaged("test".into()));
    match running.end.await.unwrap() {
        End::MembershipLost(error) => assert_eq!(error, LogError::Damaged("test".into())),
        End::Stopped => panic!("nobody stopped it"),
    }
    assert_eq!(Instant::now(), before);
    assert_eq!(world.offset(0), 2);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_the_log_does_not_know_yet_is_begun_when_it_does() {
    let (world, sub) = (world(1), subscription("sub"));
    world.log.by_hand();
    let _running = Running::start(&world, &sub);
    world.log.assign(&sub.group, &[at(0), at(1)]);
    world.pass(SECOND).await;
    world.log.topic(&sub.topic, 2);
    world.log.topic(&sub.dead_letter_topic, 2);
    put(&world, 1, 1);
    world.committed(1, 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_assignment_behind_one_of_what_is_gone_is_answered() {
    let (world, sub) = (world(2), subscription("sub"));
    world.log.by_hand();
    let _running = Running::start(&world, &sub);
    // Nothing will ever be found out about the first.
    world.log.assign(&sub.group, &[at(5)]);
    world.log.assign(&sub.group, &[at(1)]);
    world.pass(SECOND).await;
    world.log.revoke(&sub.group, &[at(5)], true);
    put(&world, 1, 1);
    world.committed(1, 1).await;
    assert_eq!(world.story.began(), ["1.0"]);
}

#[tokio::test(start_paused = true)]
async fn a_static_member_joins_anew_when_partitions_have_no_owner() {
    let (world, sub) = (world(1), subscription("sub"));
    let running = Running::as_instance(&world, &sub, &budgets(&world), Some("a"));
    put(&world, 0, 1);
    world.committed(0, 1).await;
    // What is seen once may be a rebalance under way.
    world
        .log
        .unowned
        .store(2, std::sync::atomic::Ordering::Relaxed);
    world.pass(12 * SECOND).await;
    let left = |stay| world.story.place(|h| *h == Happening::Left { stay });
    assert_eq!((left(true), left(false)), (None, None));
    put(&world, 0, 1);
    world.committed(0, 2).await;
    let End::MembershipLost(error) = running.end.await.unwrap() else {
        panic!("it was not told to stop");
    };
    assert!(
        error.to_string().contains("2 partitions have no owner"),
        "{error}"
    );
    assert!(
        left(false).is_some(),
        "only a leave makes the group share anew"
    );
}
