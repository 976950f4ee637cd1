//! What a group has committed, without members.

use levada::log::{Commit, EventLog, GroupSpec, LogError, Offset};

use super::member::Member;
use super::{Names, append_numbers, new_topic, part, within};

/// A commit.
pub fn commit(offset: i64, metadata: &str) -> Commit {
    Commit {
        offset: Offset(offset),
        metadata: metadata.to_owned(),
    }
}

pub async fn what_was_committed_is_found_and_nothing_else(log: &dyn EventLog, names: &mut Names) {
    let (topic, group) = (new_topic(log, names, 3).await, names.group());
    append_numbers(log, &part(&topic, 0), 0..9).await;
    let partitions: Vec<_> = (0..3).rev().map(|n| part(&topic, n)).collect();
    let none = log.committed(&group, &partitions).await.unwrap();
    assert_eq!(none, [None, None, None]);

    let commits = vec![
        (part(&topic, 0), commit(7, "lv1:a")),
        (part(&topic, 2), commit(0, "")),
    ];
    log.commit_idle(&group, commits).await.unwrap();
    let found = log.committed(&group, &partitions).await.unwrap();
    assert_eq!(found, [Some(commit(0, "")), None, Some(commit(7, "lv1:a"))]);
    assert_eq!(log.committed(&group, &[]).await.unwrap(), []);
}

pub async fn a_commit_replaces_offset_and_metadata(log: &dyn EventLog, names: &mut Names) {
    let (topic, group) = (new_topic(log, names, 1).await, names.group());
    append_numbers(log, &part(&topic, 0), 0..9).await;
    // Forth and back: a commit is taken as it is, whatever was committed before.
    for (offset, metadata) in [(3, "lv1:abc"), (3, ""), (9, "x"), (1, "lv1:b"), (1, "")] {
        let commits = vec![(part(&topic, 0), commit(offset, metadata))];
        log.commit_idle(&group, commits).await.unwrap();
        let found = log.committed(&group, &[part(&topic, 0)]).await.unwrap();
        assert_eq!(found, [Some(commit(offset, metadata))]);
    }
}

pub async fn metadata_is_taken_up_to_4095_characters(log: &dyn EventLog, names: &mut Names) {
    let (topic, group) = (new_topic(log, names, 1).await, names.group());
    let longest = commit(0, &"m".repeat(4095));
    let commits = vec![(part(&topic, 0), longest.clone())];
    log.commit_idle(&group, commits).await.unwrap();

    let too_long = commit(0, &"m".repeat(4096));
    let commits = vec![(part(&topic, 0), too_long)];
    let refused = log.commit_idle(&group, commits).await.unwrap_err();
    assert!(matches!(refused, LogError::MetadataRefused(_)), "{refused}");
    let found = log.committed(&group, &[part(&topic, 0)]).await.unwrap();
    assert_eq!(found, [Some(longest)]);
}

pub async fn groups_know_nothing_of_each_other(log: &dyn EventLog, names: &mut Names) {
    let topic = new_topic(log, names, 1).await;
    let groups = [names.group(), names.group(), names.group()];
    for (n, group) in groups[..2].iter().enumerate() {
        let offset = i64::try_from(n).unwrap();
        let commits = vec![(part(&topic, 0), commit(offset, &offset.to_string()))];
        log.commit_idle(group, commits).await.unwrap();
    }
    let of = async |group| log.committed(group, &[part(&topic, 0)]).await.unwrap();
    assert_eq!(of(&groups[0]).await, [Some(commit(0, "0"))]);
    assert_eq!(of(&groups[1]).await, [Some(commit(1, "1"))]);
    assert_eq!(of(&groups[2]).await, [None]);
}

pub async fn a_forgotten_group_has_no_commits(log: &dyn EventLog, names: &mut Names) {
    let (topic, group, other) = (new_topic(log, names, 1).await, names.group(), names.group());
    for group in [&group, &other] {
        let commits = vec![(part(&topic, 0), commit(0, "x"))];
        log.commit_idle(group, commits).await.unwrap();
    }
    log.delete_group(&group).await.unwrap();
    log.delete_group(&group).await.unwrap();
    let of = async |group| log.committed(group, &[part(&topic, 0)]).await.unwrap();
    assert_eq!(of(&group).await, [None]);
    assert_eq!(of(&other).await, [Some(commit(0, "x"))]);
}

pub async fn only_a_group_without_members_takes_idle_commits(
    log: &dyn EventLog,
    names: &mut Names,
) {
    let (topic, group) = (new_topic(log, names, 1).await, names.group());
    append_numbers(log, &part(&topic, 0), 0..5).await;
    let mut member = Member::join(
        log,
        GroupSpec {
            group: group.clone(),
            topics: vec![topic.clone()],
            instance: None,
        },
    );
    member.start_at(&[(part(&topic, 0), 0)]).await;

    let commits = vec![(part(&topic, 0), commit(2, "intruder"))];
    let refused = log.commit_idle(&group, commits.clone()).await.unwrap_err();
    assert!(
        matches!(refused, LogError::Refused(_) | LogError::MembershipLost(_)),
        "{refused}"
    );
    let found = log.committed(&group, &[part(&topic, 0)]).await.unwrap();
    assert_eq!(found, [None]);

    member.leave(false).await;
    within("the commit", log.commit_idle(&group, commits))
        .await
        .unwrap();
    let found = log.committed(&group, &[part(&topic, 0)]).await.unwrap();
    assert_eq!(found, [Some(commit(2, "intruder"))]);
}
