//! Two nodes that prepare the same new subscription at one time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::clock::{Clock, UnixMillis};
use crate::log::embedded::{EmbeddedLog, Settings};
use crate::log::{
    Appending, Commits, Creation, GroupSpec, LogFuture, Membership, Offset, Position, Record,
    StoredRecord, Target, Watermarks,
};

fn topic() -> TopicName {
    TopicName::try_new("orders").unwrap()
}

fn group() -> GroupId {
    GroupId("billing".into())
}

fn partition() -> TopicPartition {
    TopicPartition {
        topic: topic(),
        partition: Partition(0),
    }
}

async fn store(log: &EmbeddedLog) -> Position {
    let record = Record {
        value: Some("x".into()),
        ..Record::default()
    };
    log.append(&topic(), Target::ByKey, record).await.unwrap()
}

/// The log as a slow node sees it: between two of its calls another node does the same from
/// beginning to end, says Ready, and an event is accepted.
#[derive(Debug)]
struct Overtaken {
    log: Arc<EmbeddedLog>,
    /// How many calls the slow node makes before.
    calls: std::sync::atomic::AtomicUsize,
    done: AtomicBool,
}

impl Overtaken {
    async fn call(&self) {
        if self.calls.fetch_sub(1, Ordering::Relaxed) == 0 {
            fix_start(&*self.log, &group(), &topic(), vec![partition()])
                .await
                .unwrap();
            store(&self.log).await;
            self.done.store(true, Ordering::Relaxed);
        }
    }
}

fn not_called<T>() -> LogFuture<'static, T> {
    Box::pin(async { Err(LogError::Refused("not called here".into())) })
}

impl EventLog for Overtaken {
    fn watermarks<'a>(&'a self, topic: &'a TopicName) -> LogFuture<'a, Vec<Watermarks>> {
        Box::pin(async move {
            self.call().await;
            self.log.watermarks(topic).await
        })
    }

    fn committed<'a>(
        &'a self,
        group: &'a GroupId,
        partitions: &'a [TopicPartition],
    ) -> LogFuture<'a, Vec<Option<Commit>>> {
        Box::pin(async move {
            self.call().await;
            self.log.committed(group, partitions).await
        })
    }

    fn commit_idle<'a>(&'a self, group: &'a GroupId, commits: Commits) -> LogFuture<'a, ()> {
        Box::pin(async move {
            self.call().await;
            self.log.commit_idle(group, commits).await
        })
    }

    fn append(&self, _: &TopicName, _: Target, _: Record) -> Appending {
        Appending::failed(LogError::Refused("not called here".into()))
    }

    fn create_topic<'a>(&'a self, _: &'a TopicSpec) -> LogFuture<'a, Creation> {
        not_called()
    }

    fn delete_topic<'a>(&'a self, _: &'a TopicName) -> LogFuture<'a, ()> {
        not_called()
    }

    fn describe_topic<'a>(&'a self, _: &'a TopicName) -> LogFuture<'a, Option<TopicDescription>> {
        not_called()
    }

    fn offsets_at<'a>(&'a self, _: &'a TopicName, _: UnixMillis) -> LogFuture<'a, Vec<Offset>> {
        not_called()
    }

    fn read<'a>(
        &'a self,
        _: &'a TopicPartition,
        _: Offset,
        _: usize,
    ) -> LogFuture<'a, Vec<StoredRecord>> {
        not_called()
    }

    fn trim<'a>(&'a self, _: &'a TopicName, _: &'a [(Partition, Offset)]) -> LogFuture<'a, ()> {
        not_called()
    }

    fn delete_group<'a>(&'a self, _: &'a GroupId) -> LogFuture<'a, ()> {
        not_called()
    }

    fn join(&self, _: &GroupSpec) -> Result<Box<dyn Membership>, LogError> {
        Err(LogError::Refused("not called here".into()))
    }

    fn probe(&self) -> LogFuture<'_, ()> {
        not_called()
    }

    fn close(&self, _: Duration) -> LogFuture<'_, ()> {
        not_called()
    }
}

#[tokio::test]
async fn what_is_accepted_after_one_node_is_ready_is_not_skipped_by_another() {
    for calls in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            dir: dir.path().to_owned(),
            ..Settings::default()
        };
        let log = EmbeddedLog::open(settings, Clock::system()).unwrap();
        let spec = TopicSpec {
            name: topic(),
            partitions: 1,
            replicas: 1,
            retention: None,
            max_record_bytes: 1000,
            segments: None,
        };
        log.create_topic(&spec).await.unwrap();
        let before = store(&log).await;
        let overtaken = Overtaken {
            log: Arc::clone(&log),
            calls: calls.into(),
            done: AtomicBool::new(false),
        };
        fix_start(&overtaken, &group(), &topic(), vec![partition()])
            .await
            .unwrap();
        assert!(overtaken.done.into_inner(), "{calls}");
        let found = log.committed(&group(), &[partition()]).await.unwrap();
        let start = found[0].as_ref().unwrap().offset;
        assert_eq!(
            start.0,
            before.offset.0 + 1,
            "overtaken after {calls} calls"
        );
    }
}
