//! Members of groups: reading, waking, back-pressure, succession.

use std::time::Duration;

use levada::log::{EventLog, GroupSpec, LogError, Offset};

use super::groups::commit;
use super::member::{Member, dynamic};
use super::{Names, append_numbers, new_topic, number_texts, part, texts};

pub async fn a_member_reads_its_partitions_in_order_and_at_most_what_it_asks_for(
    log: &dyn EventLog,
    names: &mut Names,
) {
    let (topic, group) = (new_topic(log, names, 2).await, names.group());
    let (zero, one) = (part(&topic, 0), part(&topic, 1));
    append_numbers(log, &zero, 0..100).await;
    append_numbers(log, &one, 1000..1050).await;
    let mut member = Member::join(log, dynamic(&group, &[&topic]));
    member
        .start_at(&[(zero.clone(), 0), (one.clone(), 0)])
        .await;

    let records = member.take(&zero, 100, 7).await;
    assert_eq!(texts(&records), number_texts(0..100));
    let offsets: Vec<_> = records.iter().map(|r| r.offset).collect();
    assert_eq!(offsets, (0..100).map(Offset).collect::<Vec<_>>());
    let records = member.take(&one, 50, 1000).await;
    assert_eq!(texts(&records), number_texts(1000..1050));
    assert_eq!(member.take_now(&zero, 10), []);
    assert_eq!(member.take_now(&one, 10), []);
    member.leave(false).await;
}

pub async fn a_member_starts_where_it_is_told(log: &dyn EventLog, names: &mut Names) {
    let (topic, group) = (new_topic(log, names, 1).await, names.group());
    let partition = part(&topic, 0);
    append_numbers(log, &partition, 0..20).await;
    // The commit is no say in it: the owner decides.
    let committed = vec![(partition.clone(), commit(3, ""))];
    log.commit_idle(&group, committed).await.unwrap();
    let mut member = Member::join(log, dynamic(&group, &[&topic]));
    member.start_at(&[(partition.clone(), 12)]).await;
    let records = member.take(&partition, 8, 100).await;
    assert_eq!(texts(&records), number_texts(12..20));
    assert_eq!(records[0].offset, Offset(12));
    member.leave(false).await;
}

pub async fn a_member_is_woken_by_new_records(log: &dyn EventLog, names: &mut Names) {
    let (topic, group) = (new_topic(log, names, 1).await, names.group());
    let partition = part(&topic, 0);
    let mut member = Member::join(log, dynamic(&group, &[&topic]));
    member.start_at(&[(partition.clone(), 0)]).await;
    for n in 0..20 {
        assert_eq!(member.take_now(&partition, 10), []);
        append_numbers(log, &partition, n..n + 1).await;
        // `take` waits for nothing but the wake-up.
        let records = member.take(&partition, 1, 10).await;
        assert_eq!(texts(&records), number_texts(n..n + 1));
    }
    // Also where the wait began before the append.
    let (appended, ()) = tokio::join!(biased;
        async {
            member.woken().await;
            true
        },
        async {
            append_numbers(log, &partition, 20..21).await;
        }
    );
    assert!(appended);
    member.leave(false).await;
}

pub async fn what_is_not_taken_stays_where_it_is(log: &dyn EventLog, names: &mut Names) {
    let (topic, group) = (new_topic(log, names, 2).await, names.group());
    let (slow, brisk) = (part(&topic, 0), part(&topic, 1));
    append_numbers(log, &slow, 0..1000).await;
    let mut member = Member::join(log, dynamic(&group, &[&topic]));
    member
        .start_at(&[(slow.clone(), 0), (brisk.clone(), 0)])
        .await;

    let first = member.take(&slow, 10, 10).await;
    assert_eq!(texts(&first), number_texts(0..10));
    // Meanwhile the other partition goes on, and more comes to the slow one.
    append_numbers(log, &brisk, 0..500).await;
    append_numbers(log, &slow, 1000..1500).await;
    let others = member.take(&brisk, 500, 64).await;
    assert_eq!(texts(&others), number_texts(0..500));
    let rest = member.take(&slow, 1490, 100).await;
    assert_eq!(texts(&rest), number_texts(10..1500));
    member.leave(false).await;
}

pub async fn a_successor_goes_on_at_the_commit(log: &dyn EventLog, names: &mut Names) {
    let (topic, group) = (new_topic(log, names, 1).await, names.group());
    let partition = part(&topic, 0);
    append_numbers(log, &partition, 0..10).await;

    let mut member = Member::join(log, dynamic(&group, &[&topic]));
    member.start_at(&[(partition.clone(), 0)]).await;
    member.take(&partition, 6, 10).await;
    member
        .commit(&[(&partition, commit(3, "lv1:x"))])
        .await
        .unwrap();
    let longest = commit(4, &"m".repeat(4095));
    member
        .commit(&[(&partition, longest.clone())])
        .await
        .unwrap();
    let too_long = commit(5, &"m".repeat(4096));
    let refused = member.commit(&[(&partition, too_long)]).await.unwrap_err();
    assert!(matches!(refused, LogError::MetadataRefused(_)), "{refused}");
    let found = log
        .committed(&group, std::slice::from_ref(&partition))
        .await;
    assert_eq!(found.unwrap(), [Some(longest)]);
    member.commit(&[(&partition, commit(4, ""))]).await.unwrap();
    member.leave(false).await;

    let found = log
        .committed(&group, std::slice::from_ref(&partition))
        .await;
    assert_eq!(found.unwrap(), [Some(commit(4, ""))]);
    let mut successor = Member::join(log, dynamic(&group, &[&topic]));
    successor.start_at(&[(partition.clone(), 4)]).await;
    let records = successor.take(&partition, 6, 10).await;
    assert_eq!(texts(&records), number_texts(4..10));
    successor.leave(false).await;
}

pub async fn a_member_reads_several_topics(log: &dyn EventLog, names: &mut Names) {
    let (channel, retry) = (
        new_topic(log, names, 2).await,
        new_topic(log, names, 2).await,
    );
    let group = names.group();
    append_numbers(log, &part(&channel, 1), 0..5).await;
    append_numbers(log, &part(&retry, 1), 100..105).await;
    let mut member = Member::join(log, dynamic(&group, &[&channel, &retry]));
    let starts: Vec<_> = [&channel, &retry]
        .into_iter()
        .flat_map(|topic| [(part(topic, 0), 0), (part(topic, 1), 0)])
        .collect();
    member.start_at(&starts).await;
    let records = member.take(&part(&retry, 1), 5, 10).await;
    assert_eq!(texts(&records), number_texts(100..105));
    let records = member.take(&part(&channel, 1), 5, 10).await;
    assert_eq!(texts(&records), number_texts(0..5));
    let (a, b) = (part(&channel, 1), part(&retry, 1));
    let both = [(&a, commit(5, "a")), (&b, commit(3, "b"))];
    member.commit(&both).await.unwrap();
    member.leave(false).await;
    let found = log.committed(&group, &[b, a]).await.unwrap();
    assert_eq!(found, [Some(commit(3, "b")), Some(commit(5, "a"))]);
}

pub async fn two_groups_read_the_same_records(log: &dyn EventLog, names: &mut Names) {
    let topic = new_topic(log, names, 1).await;
    let partition = part(&topic, 0);
    let (group_a, group_b) = (names.group(), names.group());
    let mut a = Member::join(log, dynamic(&group_a, &[&topic]));
    let mut b = Member::join(log, dynamic(&group_b, &[&topic]));
    a.start_at(&[(partition.clone(), 0)]).await;
    b.start_at(&[(partition.clone(), 0)]).await;
    append_numbers(log, &partition, 0..10).await;
    for member in [&mut a, &mut b] {
        let records = member.take(&partition, 10, 10).await;
        assert_eq!(texts(&records), number_texts(0..10));
    }
    a.commit(&[(&partition, commit(10, "a"))]).await.unwrap();
    let found = log.committed(&group_b, &[partition]).await.unwrap();
    assert_eq!(found, [None]);
    a.leave(false).await;
    b.leave(false).await;
}

pub async fn a_static_member_that_stays_is_back_at_once(log: &dyn EventLog, names: &mut Names) {
    let (topic, group) = (new_topic(log, names, 1).await, names.group());
    let partition = part(&topic, 0);
    append_numbers(log, &partition, 0..4).await;
    let spec = GroupSpec {
        instance: Some(names.name("instance")),
        ..dynamic(&group, &[&topic])
    };
    let mut member = Member::join(log, spec.clone());
    member.start_at(&[(partition.clone(), 0)]).await;
    member.take(&partition, 2, 2).await;
    member.commit(&[(&partition, commit(2, ""))]).await.unwrap();
    member.leave(true).await;

    let mut successor = Member::join(log, spec);
    let starts = [(partition.clone(), 2)];
    let back = successor.start_at(&starts);
    // Below Kafka's shortest session timeout: its place was kept, not given up after a wait.
    tokio::time::timeout(Duration::from_secs(5), back)
        .await
        .expect("a static member is assigned at once");
    let records = successor.take(&partition, 2, 10).await;
    assert_eq!(texts(&records), number_texts(2..4));
    successor.leave(false).await;
}
