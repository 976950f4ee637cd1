//! Memberships.

use super::*;
use crate::log::{GroupEvent, Source};

fn group(topics: &[&str]) -> GroupSpec {
    GroupSpec {
        group: GroupId("g".into()),
        topics: topics.iter().map(|name| topic(name)).collect(),
        instance: None,
    }
}

fn assigned(membership: &mut dyn Membership) -> Vec<TopicPartition> {
    match membership.next_event() {
        Some(GroupEvent::Assigned(partitions)) => partitions,
        event => panic!("{event:?}"),
    }
}

fn start(membership: &mut dyn Membership, at: &TopicPartition) -> Box<dyn Source> {
    let mut sources = membership.start(vec![(at.clone(), Offset(0))]).unwrap();
    sources.pop().unwrap().1
}

fn commit_to(offset: i64) -> Commit {
    Commit {
        offset: Offset(offset),
        metadata: String::new(),
    }
}

#[tokio::test]
async fn the_newest_member_has_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    log.create_topic(&spec("t", 2)).await.unwrap();
    let (zero, one) = (part("t", 0), part("t", 1));
    let both = vec![zero.clone(), one];
    let mut old = log.join(&group(&["t"])).unwrap();
    assert_eq!(assigned(&mut *old), both);
    old.commit(vec![(zero.clone(), commit_to(1))])
        .await
        .unwrap();

    let wake = old.wake();
    let mut new = log.join(&group(&["t"])).unwrap();
    timeout(LIMIT, wake.notified()).await.unwrap();
    match old.next_event() {
        Some(GroupEvent::Revoked {
            partitions,
            lost: true,
        }) => assert_eq!(partitions, both),
        event => panic!("{event:?}"),
    }
    let failed = old.next_event();
    assert!(matches!(
        failed,
        Some(GroupEvent::Failed(LogError::MembershipLost(_)))
    ));
    assert!(old.next_event().is_none());
    let refused = old
        .commit(vec![(zero.clone(), commit_to(2))])
        .await
        .unwrap_err();
    assert!(matches!(refused, LogError::MembershipLost(_)), "{refused}");
    let refused = old.start(vec![(zero.clone(), Offset(0))]).unwrap_err();
    assert!(matches!(refused, LogError::MembershipLost(_)), "{refused}");

    assert_eq!(assigned(&mut *new), both);
    new.commit(vec![(zero.clone(), commit_to(3))])
        .await
        .unwrap();
    // The old one's end is not the new one's.
    old.leave(false).await.unwrap();
    new.commit(vec![(zero.clone(), commit_to(4))])
        .await
        .unwrap();
    let found = log.committed(&group(&[]).group, &[zero]).await.unwrap();
    assert_eq!(found, [Some(commit_to(4))]);
    drop(new);
    log.delete_group(&group(&[]).group).await.unwrap();
    log.close(LIMIT).await.unwrap();
}

#[tokio::test]
async fn commits_given_before_leaving_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    log.create_topic(&spec("t", 1)).await.unwrap();
    let member = log.join(&group(&["t"])).unwrap();
    let commit = member.commit(vec![(part("t", 0), commit_to(1))]);
    member.leave(false).await.unwrap();
    commit.await.unwrap();
    log.close(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_topic_made_later_is_assigned_then_and_taken_back_when_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    log.create_topic(&spec("a", 1)).await.unwrap();
    let mut member = log.join(&group(&["a", "b"])).unwrap();
    assert_eq!(assigned(&mut *member), [part("a", 0)]);
    let early = member.start(vec![(part("b", 0), Offset(0))]).unwrap_err();
    assert!(matches!(early, LogError::Refused(_)), "{early}");

    for _ in 0..2 {
        log.create_topic(&spec("b", 2)).await.unwrap();
        assert_eq!(assigned(&mut *member), [part("b", 0), part("b", 1)]);
        let mut source = start(&mut *member, &part("b", 1));
        append(&log, &part("b", 1), "x").await.unwrap();
        let mut records = Vec::new();
        assert_eq!(source.take(10, &mut records), Ok(1));

        log.delete_topic(&topic("b")).await.unwrap();
        match member.next_event() {
            Some(GroupEvent::Revoked { partitions, lost }) => {
                assert_eq!(partitions, [part("b", 0), part("b", 1)]);
                assert!(lost);
            }
            event => panic!("{event:?}"),
        }
        let gone = source.take(10, &mut records).unwrap_err();
        assert_eq!(gone, LogError::UnknownTopic(topic("b")));
    }
    member.leave(false).await.unwrap();
    log.close(LIMIT).await.unwrap();
}

#[tokio::test]
async fn the_first_event_is_an_assignment_even_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let mut member = log.join(&group(&["not-yet"])).unwrap();
    timeout(LIMIT, member.wake().notified()).await.unwrap();
    assert_eq!(assigned(&mut *member), []);
    assert!(member.next_event().is_none());
    log.close(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_source_skips_what_was_trimmed_and_goes_on_after_a_repair() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    log.create_topic(&spec("t", 1)).await.unwrap();
    let at = part("t", 0);
    let mut member = log.join(&group(&["t"])).unwrap();
    let mut source = start(&mut *member, &at);
    for _ in 0..5 {
        append(&log, &at, "x").await.unwrap();
    }
    log.trim(&at.topic, &[(at.partition, Offset(3))])
        .await
        .unwrap();
    let mut records = Vec::new();
    assert_eq!(source.take(1, &mut records), Ok(1));
    assert_eq!(records[0].offset, Offset(3));

    let failed = log.shared.ask(|writer| {
        let cause = LogError::Unavailable("no space left on device".to_owned());
        Err::<(), _>(writer.fail(WriteError::Failed(cause)))
    });
    failed.await.unwrap_err();
    assert!(source.take(10, &mut records).unwrap_err().is_retryable());
    assert_eq!(records.len(), 1);
    eventually("it is mended", async || log.probe().await.is_ok()).await;
    assert_eq!(source.take(10, &mut records), Ok(1));
    append(&log, &at, "y").await.unwrap();
    assert_eq!(source.take(10, &mut records), Ok(1));
    let offsets: Vec<_> = records.iter().map(|record| record.offset.0).collect();
    assert_eq!(offsets, [3, 4, 5]);
    log.close(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_take_is_bounded_in_bytes_and_says_when_there_is_more() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    log.create_topic(&spec("t", 1)).await.unwrap();
    let at = part("t", 0);
    for _ in 0..5 {
        append(&log, &at, &"x".repeat(400_000)).await.unwrap();
    }
    let mut member = log.join(&group(&["t"])).unwrap();
    let wake = member.wake();
    let mut source = start(&mut *member, &at);
    timeout(LIMIT, wake.notified()).await.unwrap();
    let mut records = Vec::new();
    assert_eq!(source.take(100, &mut records), Ok(3));
    timeout(LIMIT, wake.notified()).await.unwrap();
    assert_eq!(source.take(100, &mut records), Ok(2));
    assert_eq!(source.take(100, &mut records), Ok(0));
    log.close(LIMIT).await.unwrap();
}
