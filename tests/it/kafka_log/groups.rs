//! Groups on a real Kafka: rebalances, static members, offsets that are gone.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that calls them"
)]

use std::sync::Arc;
use std::time::Duration;

use levada::log::kafka::{GroupProtocol, KafkaLog, Settings};
use levada::log::{
    EventLog, GroupEvent, GroupId, GroupSpec, LogError, Membership, Offset, Partition, TopicName,
    TopicPartition,
};

use super::{connect, settings};
use crate::log_contract::groups::commit;
use crate::log_contract::member::{Member, dynamic};
use crate::log_contract::{Names, append_numbers, new_topic, number_texts, part, texts, within};

/// Below the session timeout of 10 s: nothing here came about by waiting for it.
const NO_TIMEOUT: Duration = Duration::from_secs(8);

fn passes(error: &LogError) -> bool {
    error.is_retryable() && !matches!(error, LogError::MembershipLost(_))
}

/// The next event that is no failure that passes.
async fn event(membership: &mut dyn Membership) -> GroupEvent {
    let wake = membership.wake();
    let next = async {
        loop {
            match membership.next_event() {
                Some(GroupEvent::Failed(error)) if passes(&error) => {}
                Some(event) => return event,
                None => wake.notified().await,
            }
        }
    };
    within("a group event", next).await
}

/// Starts what is assigned, at its beginning, until that is `count` partitions.
async fn assigned(membership: &mut dyn Membership, count: usize) -> Vec<TopicPartition> {
    let mut started = Vec::new();
    while started.len() < count {
        match event(membership).await {
            GroupEvent::Assigned(partitions) => {
                let starts = partitions.iter().map(|at| (at.clone(), Offset(0)));
                drop(membership.start(starts.collect()).unwrap());
                started.extend(partitions);
            }
            GroupEvent::Revoked { partitions, lost } => {
                assert!(partitions.is_empty() && !lost, "{partitions:?}");
                membership.release(partitions);
            }
            GroupEvent::Failed(error) => panic!("{error}"),
        }
    }
    started
}

fn static_member(group: &GroupId, topic: &TopicName, instance: &str) -> GroupSpec {
    GroupSpec {
        instance: Some(instance.to_owned()),
        ..dynamic(group, &[topic])
    }
}

/// A log whose members hear of a rebalance soon.
fn quick() -> Option<Arc<KafkaLog>> {
    let settings = Settings {
        properties: [("heartbeat.interval.ms".to_owned(), "300".to_owned())].into(),
        ..settings()?
    };
    Some(KafkaLog::connect(settings).unwrap())
}

#[tokio::test]
async fn partitions_move_to_a_member_that_joins_and_back_when_it_leaves() {
    let (Some(log_a), Some(log_b)) = (quick(), quick()) else {
        return;
    };
    let names = &mut Names::random();
    let (topic, group) = (new_topic(&*log_a, names, 4).await, names.group());
    let mut a = log_a.join(&dynamic(&group, &[&topic])).unwrap();
    assigned(&mut *a, 4).await;

    let mut b = log_b.join(&dynamic(&group, &[&topic])).unwrap();
    let mut given = loop {
        match event(&mut *a).await {
            GroupEvent::Revoked { partitions, lost } => {
                assert!(!lost);
                break partitions;
            }
            GroupEvent::Assigned(none) => {
                assert_eq!(none, []);
                a.start(Vec::new()).unwrap();
            }
            GroupEvent::Failed(error) => panic!("{error}"),
        }
    };
    assert_eq!(given.len(), 2, "{given:?}");
    // What the old owner commits before it gives up is what the new one finds.
    let last_words: Vec<_> = given
        .iter()
        .cloned()
        .map(|at| (at, commit(0, "a")))
        .collect();
    within("the commit", a.commit(last_words)).await.unwrap();
    match b.next_event() {
        Some(GroupEvent::Assigned(early)) => {
            assert_eq!(early, [], "assigned before it was given up");
            b.start(Vec::new()).unwrap();
        }
        other => assert!(other.is_none(), "{other:?}"),
    }
    a.release(given.clone());

    // A is assigned once more, nothing, and the group waits for its answer to that too.
    let nothing = event(&mut *a).await;
    assert!(matches!(nothing, GroupEvent::Assigned(none) if none.is_empty()));
    a.start(Vec::new()).unwrap();
    let mut taken = assigned(&mut *b, 2).await;
    given.sort();
    taken.sort();
    assert_eq!(taken, given);
    let found = log_b.committed(&group, &taken).await.unwrap();
    assert!(found.iter().all(|found| *found == Some(commit(0, "a"))));

    b.leave(false).await.unwrap();
    assigned(&mut *a, 2).await;
    a.leave(false).await.unwrap();
    log_a.delete_topic(&topic).await.unwrap();
}

#[tokio::test]
async fn a_static_member_that_vanished_is_succeeded_at_once() {
    let (Some(log), Some(other)) = (connect(), connect()) else {
        return;
    };
    let names = &mut Names::random();
    let (topic, group) = (new_topic(&*log, names, 2).await, names.group());
    let spec = static_member(&group, &topic, &names.name("instance"));
    let mut member = log.join(&spec).unwrap();
    assigned(&mut *member, 2).await;
    // Neither left nor dropped: as after a crash, it is still in the group.
    let mut successor = other.join(&spec).unwrap();
    let back = assigned(&mut *successor, 2);
    tokio::time::timeout(NO_TIMEOUT, back).await.unwrap();
    // The first is told that it is out, at its next heartbeat.
    let fenced = loop {
        if let GroupEvent::Failed(error) = event(&mut *member).await {
            break error;
        }
    };
    assert!(matches!(fenced, LogError::MembershipLost(_)), "{fenced}");
    let commits = vec![(part(&topic, 0), commit(1, ""))];
    let refused = member.commit(commits).await.unwrap_err();
    assert!(matches!(refused, LogError::MembershipLost(_)), "{refused}");
    member.leave(true).await.unwrap();
    successor.leave(false).await.unwrap();
    log.delete_topic(&topic).await.unwrap();
}

#[tokio::test]
async fn a_static_member_that_leaves_for_good_is_replaced_by_another() {
    let Some(log) = connect() else { return };
    let names = &mut Names::random();
    let (topic, group) = (new_topic(&*log, names, 2).await, names.group());
    let spec = static_member(&group, &topic, &names.name("instance"));
    let mut member = log.join(&spec).unwrap();
    assigned(&mut *member, 2).await;
    member.leave(false).await.unwrap();

    let spec = static_member(&group, &topic, &names.name("instance"));
    let mut other = log.join(&spec).unwrap();
    let taken = assigned(&mut *other, 2);
    tokio::time::timeout(NO_TIMEOUT, taken).await.unwrap();
    other.leave(false).await.unwrap();
    log.delete_topic(&topic).await.unwrap();
}

#[tokio::test]
async fn a_static_member_leaves_for_good_also_while_it_owes_an_answer() {
    let Some(log) = connect() else { return };
    let names = &mut Names::random();
    let (topic, group) = (new_topic(&*log, names, 2).await, names.group());
    let spec = static_member(&group, &topic, &names.name("instance"));
    let mut member = log.join(&spec).unwrap();
    let told = event(&mut *member).await;
    assert!(matches!(told, GroupEvent::Assigned(_)), "{told:?}");
    let start = tokio::time::Instant::now();
    member.leave(false).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));

    let mut other = log.join(&dynamic(&group, &[&topic])).unwrap();
    let taken = assigned(&mut *other, 2);
    tokio::time::timeout(NO_TIMEOUT, taken).await.unwrap();
    other.leave(false).await.unwrap();
    log.delete_topic(&topic).await.unwrap();
}

#[tokio::test]
async fn a_member_that_is_dropped_unanswered_holds_nobody_up() {
    let Some(log) = connect() else { return };
    let names = &mut Names::random();
    let (topic, group) = (new_topic(&*log, names, 1).await, names.group());
    let mut member = log.join(&dynamic(&group, &[&topic])).unwrap();
    // Told of its assignment, it never answers.
    let told = event(&mut *member).await;
    assert!(matches!(told, GroupEvent::Assigned(_)), "{told:?}");
    drop(member);
    let mut other = log.join(&dynamic(&group, &[&topic])).unwrap();
    let taken = assigned(&mut *other, 1);
    tokio::time::timeout(NO_TIMEOUT, taken).await.unwrap();
    other.leave(false).await.unwrap();
    log.delete_topic(&topic).await.unwrap();
}

#[tokio::test]
async fn a_member_that_is_dropped_while_it_should_give_up_holds_nobody_up() {
    let (Some(log_a), Some(log_b)) = (quick(), quick()) else {
        return;
    };
    let names = &mut Names::random();
    let (topic, group) = (new_topic(&*log_a, names, 2).await, names.group());
    let mut a = log_a.join(&dynamic(&group, &[&topic])).unwrap();
    assigned(&mut *a, 2).await;
    let mut b = log_b.join(&dynamic(&group, &[&topic])).unwrap();
    while !matches!(event(&mut *a).await, GroupEvent::Revoked { .. }) {}
    drop(a);
    let taken = assigned(&mut *b, 2);
    tokio::time::timeout(NO_TIMEOUT, taken).await.unwrap();
    b.leave(false).await.unwrap();
    log_a.delete_topic(&topic).await.unwrap();
}

#[tokio::test]
async fn an_offset_that_is_gone_is_told_and_the_partition_starts_anew() {
    let Some(log) = connect() else { return };
    let names = &mut Names::random();
    let (topic, group) = (new_topic(&*log, names, 1).await, names.group());
    let partition = part(&topic, 0);
    append_numbers(&*log, &partition, 0..10).await;
    log.trim(&topic, &[(Partition(0), Offset(4))])
        .await
        .unwrap();
    let mut membership = log.join(&dynamic(&group, &[&topic])).unwrap();
    let wake = membership.wake();
    let told = event(&mut *membership).await;
    assert!(matches!(told, GroupEvent::Assigned(_)), "{told:?}");

    let start_at = |membership: &mut dyn Membership, offset| {
        let starts = vec![(partition.clone(), Offset(offset))];
        membership.start(starts).unwrap().remove(0).1
    };
    let mut source = start_at(&mut *membership, 1);
    let mut records = Vec::new();
    let failed = async {
        loop {
            match source.take(10, &mut records) {
                Ok(_) => wake.notified().await,
                Err(error) => return error,
            }
        }
    };
    let error = within("the error", failed).await;
    assert_eq!(error, LogError::OutOfRange(partition.clone()));
    assert_eq!(records, []);

    drop(source);
    let mut source = start_at(&mut *membership, 4);
    let read = async {
        while records.len() < 6 {
            if source.take(10, &mut records).unwrap() == 0 {
                wake.notified().await;
            }
        }
    };
    within("the records", read).await;
    assert_eq!(texts(&records), number_texts(4..10));
    drop(source);
    membership.leave(false).await.unwrap();
    log.delete_topic(&topic).await.unwrap();
}

#[tokio::test]
async fn the_consumer_protocol_is_spoken_by_choice() {
    let Some(settings) = settings() else { return };
    let log = KafkaLog::connect(Settings {
        group_protocol: GroupProtocol::Consumer,
        ..settings
    })
    .unwrap();
    let names = &mut Names::random();
    let (topic, group) = (new_topic(&*log, names, 2).await, names.group());
    let (zero, one) = (part(&topic, 0), part(&topic, 1));
    append_numbers(&*log, &zero, 0..3).await;
    let mut member = Member::join(&*log, static_member(&group, &topic, "is-not-sent"));
    member.start_at(&[(zero.clone(), 0), (one, 0)]).await;
    let records = member.take(&zero, 3, 10).await;
    assert_eq!(texts(&records), number_texts(0..3));
    member.commit(&[(&zero, commit(3, "x"))]).await.unwrap();
    member.leave(false).await;
    let found = log.committed(&group, &[zero]).await.unwrap();
    assert_eq!(found, [Some(commit(3, "x"))]);
    log.delete_topic(&topic).await.unwrap();
}
