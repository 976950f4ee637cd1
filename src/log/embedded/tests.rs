//! The embedded log's own: what the contract does not ask of every log.

mod members;
mod model;

use std::ops::Range;
use std::sync::mpsc;

use tempfile::TempDir;

use super::store::WriteError;
use super::*;

const LIMIT: Duration = Duration::from_secs(30);

fn settings(dir: &TempDir) -> Settings {
    Settings {
        dir: dir.path().to_owned(),
        expiry_interval: Duration::from_millis(5),
        ..Settings::default()
    }
}

fn open(dir: &TempDir) -> Arc<EmbeddedLog> {
    EmbeddedLog::open(settings(dir), Clock::system()).unwrap()
}

fn topic(name: &str) -> TopicName {
    TopicName::try_new(name).unwrap()
}

fn part(name: &str, number: i32) -> TopicPartition {
    TopicPartition {
        topic: topic(name),
        partition: Partition(number),
    }
}

fn spec(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec {
        name: topic(name),
        partitions,
        replicas: 3,
        retention: None,
        max_record_bytes: 2_000_000,
        segments: None,
    }
}

fn record(value: impl Into<bytes::Bytes>) -> Record {
    Record {
        value: Some(value.into()),
        ..Record::default()
    }
}

async fn append(log: &EmbeddedLog, to: &TopicPartition, value: &str) -> Result<Offset, LogError> {
    let target = Target::Partition(to.partition);
    let appending = log.append(&to.topic, target, record(value.to_owned()));
    timeout(LIMIT, appending).await.unwrap().map(|at| at.offset)
}

/// Waits until `is_so`; what it looks at is not announced to anyone.
async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LIMIT, waited)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

/// The offsets of a partition's records in the store, wherever its watermarks are.
fn stored(log: &EmbeddedLog, id: u32, span: Range<i64>) -> Vec<i64> {
    let limit = Limit {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    let mut records = Vec::new();
    let id = catalog::TopicId(id);
    let read = |store: &Store| store.read(id, Partition(0), span, limit, &mut records);
    log.shared.with_store(read).unwrap();
    records.iter().map(|record| record.offset.0).collect()
}

#[tokio::test]
async fn records_past_retention_are_trimmed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(UnixMillis(1_000_000));
    let log = EmbeddedLog::open(settings(&dir), clock.clone()).unwrap();
    let spec = TopicSpec {
        retention: Some(Duration::from_secs(10)),
        ..spec("t", 1)
    };
    log.create_topic(&spec).await.unwrap();
    let at = part("t", 0);
    for n in 0..5 {
        clock.set(UnixMillis(1_000_000 + n * 4000));
        append(&log, &at, "x").await.unwrap();
    }
    // Times 0, 4, 8, 12, 16 s; at 19 s those before 9 s are too old.
    clock.set(UnixMillis(1_000_000 + 19_000));
    let low = async || log.watermarks(&at.topic).await.unwrap()[0].low;
    eventually("the old ones go", async || low().await == Offset(3)).await;
    eventually("and are removed", async || stored(&log, 1, 0..10) == [3, 4]).await;
    // At the very end of its retention a record is still kept.
    clock.set(UnixMillis(1_000_000 + 22_000));
    log.shared.ask(|_| Ok(())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(low().await, Offset(3));
    clock.set(UnixMillis(1_000_000 + 22_001));
    eventually("the next one goes", async || low().await == Offset(4)).await;
    log.close(LIMIT).await.unwrap();
}

#[tokio::test]
async fn what_is_trimmed_or_deleted_is_removed_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    for name in ["trimmed", "deleted"] {
        log.create_topic(&spec(name, 1)).await.unwrap();
        let appends = (0..6000).map(|_| log.append(&topic(name), Target::ByKey, record("x")));
        let answers = futures_util::future::join_all(appends).await;
        assert!(answers.iter().all(Result::is_ok));
    }
    log.trim(&topic("trimmed"), &[(Partition(0), Offset(5990))])
        .await
        .unwrap();
    log.delete_topic(&topic("deleted")).await.unwrap();
    log.close(LIMIT).await.unwrap();

    let log = open(&dir);
    let kept: Vec<_> = (5990..6000).collect();
    eventually("trimmed", async || stored(&log, 1, 0..9999) == kept).await;
    eventually("deleted", async || stored(&log, 2, 0..9999).is_empty()).await;
    let left = || log.shared.with_store(|store| store.load()).unwrap().len();
    eventually("its last trace", async || left() == 1).await;
    // Its number is not given again.
    log.create_topic(&spec("third", 1)).await.unwrap();
    let third = log.shared.catalog.get(&topic("third")).unwrap();
    assert_eq!(third.entry.id, catalog::TopicId(3));
    log.close(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_full_queue_refuses_records_and_takes_commits() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        queue_records: 3,
        ..settings(&dir)
    };
    let log = EmbeddedLog::open(settings, Clock::system()).unwrap();
    log.create_topic(&spec("t", 1)).await.unwrap();
    // The writer is held up until we say.
    let (go, wait) = mpsc::channel::<()>();
    let (started, running) = oneshot::channel();
    let held = log.shared.ask(move |_| {
        started.send(()).unwrap();
        wait.recv().map_err(|_| closed())
    });
    running.await.unwrap();
    let append = || log.append(&topic("t"), Target::ByKey, record("x"));
    let waiting = [append(), append(), append()];
    assert_eq!(append().await, Err(LogError::Overloaded));
    let to = Commit {
        offset: Offset(1),
        metadata: String::new(),
    };
    let group = GroupId("g".into());
    let commit = log.commit_idle(&group, vec![(part("t", 0), to)]);
    go.send(()).unwrap();
    held.await.unwrap();
    commit.await.unwrap();
    for answer in futures_util::future::join_all(waiting).await {
        answer.unwrap();
    }
    append().await.unwrap();
    log.close(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_record_is_as_large_as_kafka_finds_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let spec = TopicSpec {
        max_record_bytes: 1000,
        ..spec("t", 1)
    };
    log.create_topic(&spec).await.unwrap();
    // 61 of the batch, 2 the record's length, 3, 1 null key, 2 the value's length, 1 no headers.
    let fits = log.append(&topic("t"), Target::ByKey, record(vec![0; 1000 - 70]));
    fits.await.unwrap();
    let large = log.append(&topic("t"), Target::ByKey, record(vec![0; 1000 - 69]));
    let error = large.await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the record is larger than topic t takes: 1001 bytes, 1000 are allowed"
    );
    log.close(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_store_that_failed_is_opened_anew_and_everything_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    log.create_topic(&spec("t", 1)).await.unwrap();
    let at = part("t", 0);
    append(&log, &at, "before").await.unwrap();
    let failed = log.shared.ask(|writer| {
        let cause = LogError::Unavailable("no space left on device".to_owned());
        Err::<(), _>(writer.fail(WriteError::Failed(cause)))
    });
    failed.await.unwrap_err();

    let error = append(&log, &at, "meanwhile").await.unwrap_err();
    assert!(matches!(&error, LogError::Unavailable(why) if why.contains("no space left")));
    assert!(log.probe().await.is_err());
    assert!(log.read(&at, Offset(0), 10).await.is_err());
    eventually("it is mended", async || log.probe().await.is_ok()).await;
    assert_eq!(append(&log, &at, "after").await, Ok(Offset(1)));
    assert_eq!(log.read(&at, Offset(0), 10).await.unwrap().len(), 2);
    log.close(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_did_not_confirm_is_not_trusted_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    log.create_topic(&spec("t", 1)).await.unwrap();
    let failed = log.shared.ask(|writer| {
        let cause = LogError::Unavailable("input/output error".to_owned());
        writer.fail(WriteError::Unconfirmed(cause));
        writer.mend();
        Ok(matches!(writer.repair, writer::Repair::Never))
    });
    assert!(failed.await.unwrap());
    let error = append(&log, &part("t", 0), "x").await.unwrap_err();
    assert!(error.to_string().contains("restart"), "{error}");
    log.close(LIMIT).await.unwrap();
}

#[tokio::test]
async fn odd_requests_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    for partitions in [0, u32::MAX] {
        let refused = log.create_topic(&spec("t", partitions)).await.unwrap_err();
        assert!(matches!(refused, LogError::Refused(_)), "{refused}");
    }
    let group = GroupId("g".repeat(2000).into());
    let refused = log.committed(&group, &[part("t", 0)]).await.unwrap_err();
    assert!(matches!(refused, LogError::Refused(_)), "{refused}");
    let group_spec = GroupSpec {
        group,
        topics: Vec::new(),
        instance: None,
    };
    assert!(log.join(&group_spec).is_err());
    let target = Target::Partition(Partition(-1));
    log.create_topic(&spec("t", 1)).await.unwrap();
    let refused = log
        .append(&topic("t"), target, record("x"))
        .await
        .unwrap_err();
    assert_eq!(refused, LogError::UnknownPartition(part("t", -1)));
    log.close(LIMIT).await.unwrap();
}
