//! Records: where they go, what comes back, what is refused.

use bytes::Bytes;
use futures_util::future::join_all;
use levada::log::{EventLog, LogError, Offset, Partition, Record, Target, TopicSpec, murmur2};

use super::{
    Names, append, append_numbers, headers, new_topic, number_texts, part, read_all, spec, texts,
    valued, within,
};

pub async fn offsets_of_a_partition_are_consecutive_from_zero(
    log: &dyn EventLog,
    names: &mut Names,
) {
    let topic = new_topic(log, names, 2).await;
    let mut offsets = append_numbers(log, &part(&topic, 1), 0..100).await;
    offsets.extend(append_numbers(log, &part(&topic, 1), 100..150).await);
    let expected: Vec<_> = (0..150).map(Offset).collect();
    assert_eq!(offsets, expected);
    let marks = log.watermarks(&topic).await.unwrap();
    assert_eq!(marks[0].high, Offset(0));
    assert_eq!((marks[1].low, marks[1].high), (Offset(0), Offset(150)));

    let records = read_all(log, &part(&topic, 1), 0).await;
    assert_eq!(texts(&records), number_texts(0..150));
    let found: Vec<_> = records.iter().map(|r| r.offset).collect();
    assert_eq!(found, expected);
}

pub async fn a_key_decides_the_partition_as_in_kafka(log: &dyn EventLog, names: &mut Names) {
    let topic = new_topic(log, names, 7).await;
    for n in 0..30 {
        let key = format!("key-{n}");
        for _ in 0..2 {
            let record = Record {
                key: Some(key.clone().into()),
                ..valued("x")
            };
            let position = append(log, &topic, Target::ByKey, record).await.unwrap();
            let expected = murmur2::partition(key.as_bytes(), 7);
            assert_eq!(position.partition, expected, "{key}");
        }
    }
}

pub async fn records_without_a_key_are_stored_somewhere(log: &dyn EventLog, names: &mut Names) {
    let topic = new_topic(log, names, 3).await;
    let waiting: Vec<_> = (0..30)
        .map(|_| log.append(&topic, Target::ByKey, valued("x")))
        .collect();
    for answer in within("the appends", join_all(waiting)).await {
        assert!((0..3).contains(&answer.unwrap().partition.0));
    }
    let marks = log.watermarks(&topic).await.unwrap();
    assert_eq!(marks.iter().map(|m| m.high.0).sum::<i64>(), 30);
}

pub async fn what_was_appended_comes_back_unchanged(log: &dyn EventLog, names: &mut Names) {
    let topic = new_topic(log, names, 1).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let records = [
        Record::default(),
        valued(""),
        valued(every_byte),
        Record {
            key: Some(Bytes::from_static(b"k\0\xff")),
            ..Record::default()
        },
        Record {
            headers: headers(&[("a", "1"), ("b", ""), ("a", "2"), ("ce_id", "ü")]),
            ..valued("v")
        },
        Record {
            key: Some("key".into()),
            value: None,
            headers: headers(&[("only", "header")]),
        },
        valued(vec![7; 300_000]),
    ];
    for record in &records {
        append(log, &topic, Target::ByKey, record.clone())
            .await
            .unwrap();
    }
    let stored = read_all(log, &part(&topic, 0), 0).await;
    assert_eq!(stored.len(), records.len());
    for (stored, record) in stored.iter().zip(&records) {
        assert_eq!(stored.record, *record);
    }
}

pub async fn reads_begin_where_asked_and_end_at_the_end(log: &dyn EventLog, names: &mut Names) {
    let topic = new_topic(log, names, 1).await;
    let partition = part(&topic, 0);
    assert_eq!(log.read(&partition, Offset(0), 10).await.unwrap(), []);
    append_numbers(log, &partition, 0..20).await;

    let some = log.read(&partition, Offset(3), 4).await.unwrap();
    assert_eq!(texts(&some), number_texts(3..7));
    let last = log.read(&partition, Offset(19), 10).await.unwrap();
    assert_eq!(texts(&last), number_texts(19..20));
    for past in [20, 21, 1000] {
        assert_eq!(log.read(&partition, Offset(past), 10).await.unwrap(), []);
    }
    assert_eq!(log.read(&partition, Offset(0), 0).await.unwrap(), []);
}

pub async fn a_record_that_is_too_large_is_refused_and_harms_no_other(
    log: &dyn EventLog,
    names: &mut Names,
) {
    let topic = names.topic();
    let small_records_only = TopicSpec {
        max_record_bytes: 20_000,
        ..spec(&topic, 1)
    };
    log.create_topic(&small_records_only).await.unwrap();
    // Random, so that no compression makes it fit.
    let noise = |len: usize| {
        let bytes: Vec<u8> = (0..len).map(|_| rand::random()).collect();
        valued(bytes)
    };
    let waiting: Vec<_> = (0..60)
        .map(|n| {
            let len = if n % 6 == 5 { 25_000 } else { 5_000 };
            log.append(&topic, Target::ByKey, noise(len))
        })
        .collect();
    let answers = within("the appends", join_all(waiting)).await;
    for (n, answer) in answers.into_iter().enumerate() {
        match answer {
            Err(LogError::TooLarge { topic: named, .. }) => {
                assert_eq!((n % 6, named), (5, topic.clone()));
            }
            answer => assert!(answer.is_ok() && n % 6 != 5, "{n}: {answer:?}"),
        }
    }
    append(log, &topic, Target::ByKey, noise(19_000))
        .await
        .unwrap();
    let marks = log.watermarks(&topic).await.unwrap();
    assert_eq!(marks[0].high, Offset(51));
}

pub async fn a_partition_that_does_not_exist_is_refused(log: &dyn EventLog, names: &mut Names) {
    let topic = new_topic(log, names, 2).await;
    let unknown = LogError::UnknownPartition(part(&topic, 2));
    let target = Target::Partition(Partition(2));
    let appended = append(log, &topic, target, valued("x")).await;
    assert_eq!(appended.unwrap_err(), unknown);
    let read = log.read(&part(&topic, 2), Offset(0), 1).await;
    assert_eq!(read.unwrap_err(), unknown);
}
