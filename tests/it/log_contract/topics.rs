//! Topics: making, describing, trimming, finding by time, deleting; the log's life and end.

use std::time::Duration;

use futures_util::future::join_all;
use levada::clock::UnixMillis;
use levada::log::{Creation, EventLog, LogError, Offset, Partition, Target, TopicSpec, Watermarks};

use super::{
    LIMIT, Names, append, append_numbers, new_topic, number_texts, part, read_all, spec, texts,
    valued, within,
};

pub async fn a_topic_is_made_described_and_left_as_it_is(log: &dyn EventLog, names: &mut Names) {
    let name = names.topic();
    assert_eq!(log.describe_topic(&name).await.unwrap(), None);

    let asked = TopicSpec {
        retention: Some(Duration::from_secs(86_400)),
        max_record_bytes: 200_000,
        ..spec(&name, 3)
    };
    assert_eq!(log.create_topic(&asked).await.unwrap(), Creation::Created);
    let made = log.describe_topic(&name).await.unwrap().unwrap();
    assert_eq!((made.partitions, made.replicas), (3, 1));
    assert_eq!(made.retention, asked.retention);
    assert_eq!(made.max_record_bytes, 200_000);
    assert_eq!(made.min_in_sync, 1);

    let other = spec(&name, 5);
    assert_eq!(log.create_topic(&other).await.unwrap(), Creation::Existed);
    assert_eq!(log.describe_topic(&name).await.unwrap(), Some(made));

    let for_ever = names.topic();
    log.create_topic(&spec(&for_ever, 1)).await.unwrap();
    let made = log.describe_topic(&for_ever).await.unwrap().unwrap();
    assert_eq!(made.retention, None);
    assert_eq!(log.watermarks(&for_ever).await.unwrap(), [marks(0, 0)]);
}

pub async fn an_unknown_topic_is_said_to_be_unknown(log: &dyn EventLog, names: &mut Names) {
    let name = names.topic();
    let unknown = LogError::UnknownTopic(name.clone());
    for target in [Target::ByKey, Target::Partition(Partition(0))] {
        let appended = append(log, &name, target, valued("x")).await;
        assert_eq!(appended.unwrap_err(), unknown);
    }
    assert_eq!(log.watermarks(&name).await.unwrap_err(), unknown);
    let found = log.offsets_at(&name, UnixMillis(0)).await;
    assert_eq!(found.unwrap_err(), unknown);
    let read = log.read(&part(&name, 0), Offset(0), 1).await;
    assert_eq!(read.unwrap_err(), unknown);
    let trimmed = log.trim(&name, &[(Partition(0), Offset(0))]).await;
    assert_eq!(trimmed.unwrap_err(), unknown);
    // None of these made it.
    assert_eq!(log.describe_topic(&name).await.unwrap(), None);
}

pub async fn a_topic_can_be_deleted_and_deleting_again_is_fine(
    log: &dyn EventLog,
    names: &mut Names,
) {
    let (gone, kept) = (
        new_topic(log, names, 2).await,
        new_topic(log, names, 1).await,
    );
    append_numbers(log, &part(&gone, 1), 0..3).await;
    append_numbers(log, &part(&kept, 0), 0..3).await;
    log.delete_topic(&gone).await.unwrap();
    // A cluster may take a moment to forget it everywhere.
    let forgotten = async {
        while log.describe_topic(&gone).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("the end of the topic", forgotten).await;
    log.delete_topic(&gone).await.unwrap();
    log.delete_topic(&names.topic()).await.unwrap();
    assert_eq!(read_all(log, &part(&kept, 0), 0).await.len(), 3);
}

pub async fn trimming_moves_the_low_watermark_of_that_partition_only(
    log: &dyn EventLog,
    names: &mut Names,
) {
    let topic = new_topic(log, names, 2).await;
    append_numbers(log, &part(&topic, 0), 0..10).await;
    append_numbers(log, &part(&topic, 1), 0..10).await;
    log.trim(&topic, &[(Partition(1), Offset(4))])
        .await
        .unwrap();
    assert_eq!(
        log.watermarks(&topic).await.unwrap(),
        [marks(0, 10), marks(4, 10)]
    );
    // A read below the low watermark begins there.
    let left = log.read(&part(&topic, 1), Offset(0), 100).await.unwrap();
    assert_eq!(left.first().unwrap().offset, Offset(4));
    assert_eq!(
        texts(&read_all(log, &part(&topic, 1), 0).await),
        number_texts(4..10)
    );
    assert_eq!(read_all(log, &part(&topic, 0), 0).await.len(), 10);

    // To the end: empty, and the offsets go on.
    log.trim(&topic, &[(Partition(1), Offset(10))])
        .await
        .unwrap();
    assert_eq!(log.watermarks(&topic).await.unwrap()[1], marks(10, 10));
    assert_eq!(read_all(log, &part(&topic, 1), 0).await, []);
    assert_eq!(
        append_numbers(log, &part(&topic, 1), 10..11).await,
        [Offset(10)]
    );
    assert_eq!(
        texts(&read_all(log, &part(&topic, 1), 0).await),
        number_texts(10..11)
    );
}

pub async fn trimming_lower_again_and_beyond_the_end_moves_nothing(
    log: &dyn EventLog,
    names: &mut Names,
) {
    let topic = new_topic(log, names, 1).await;
    append_numbers(log, &part(&topic, 0), 0..10).await;
    log.trim(&topic, &[(Partition(0), Offset(6))])
        .await
        .unwrap();
    log.trim(&topic, &[(Partition(0), Offset(2))])
        .await
        .unwrap();
    assert_eq!(log.watermarks(&topic).await.unwrap(), [marks(6, 10)]);
    let beyond = log.trim(&topic, &[(Partition(0), Offset(11))]).await;
    assert!(beyond.is_err(), "{beyond:?}");
    assert_eq!(log.watermarks(&topic).await.unwrap(), [marks(6, 10)]);
}

pub async fn offsets_are_found_by_time(log: &dyn EventLog, names: &mut Names) {
    let topic = new_topic(log, names, 2).await;
    let partition = part(&topic, 0);
    // Until the log's clock has moved twice.
    let mut times = Vec::new();
    let distinct = |times: &[UnixMillis]| {
        let mut times = times.to_vec();
        times.dedup();
        times.len()
    };
    while distinct(&times) < 3 {
        let position = append(log, &topic, Target::Partition(Partition(0)), valued("x"));
        let offset = position.await.unwrap().offset;
        let stored = log.read(&partition, offset, 1).await.unwrap();
        times.push(stored[0].time);
    }
    assert!(times.is_sorted(), "{times:?}");

    let end = Offset(times.len().try_into().unwrap());
    let find = async |time: UnixMillis| log.offsets_at(&topic, time).await.unwrap();
    assert_eq!(find(UnixMillis(0)).await, [Offset(0), Offset(0)]);
    for &time in &times {
        let first = times.iter().position(|&t| t >= time).unwrap();
        let first = Offset(first.try_into().unwrap());
        assert_eq!(find(time).await, [first, Offset(0)], "{times:?}");
    }
    let later = UnixMillis(times.last().unwrap().0 + 1);
    assert_eq!(find(later).await, [end, Offset(0)]);
}

pub async fn a_probe_is_answered(log: &dyn EventLog, _: &mut Names) {
    log.probe().await.unwrap();
}

pub async fn closing_waits_for_what_was_appended_and_then_nothing_is_taken(
    log: &dyn EventLog,
    names: &mut Names,
) {
    let topic = new_topic(log, names, 1).await;
    let waiting: Vec<_> = (0..100)
        .map(|n: u32| log.append(&topic, Target::ByKey, valued(n.to_string())))
        .collect();
    log.close(LIMIT).await.unwrap();
    for answer in join_all(waiting).await {
        answer.unwrap();
    }
    let late = append(log, &topic, Target::ByKey, valued("late")).await;
    assert!(late.unwrap_err().is_retryable());
}

fn marks(low: i64, high: i64) -> Watermarks {
    Watermarks {
        low: Offset(low),
        high: Offset(high),
    }
}
