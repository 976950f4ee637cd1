//! The embedded log: durable, in this process, one node.
//!
//! ```text
//! append, commit, trim ... ─▶ queue ─▶ writer thread ─▶ store (journal, fsync, tables)
//!                                          │ then                      ▲
//!                              watermarks, answers, wake-ups       take, read
//! ```
//! One thread writes. It takes all that waits, gives offsets, writes one batch, waits for the
//! disk, and only then moves the high watermarks and answers; so many callers share one fsync,
//! and nobody reads what a crash could take back. Readers read the store below the high watermark.
//! A store that fails is Unavailable to everyone and opened anew, every second, until it works.
//!
//! Of Kafka's groups there is one member a group, the newest: a second one that joins fences the
//! first, whose commits are refused from then on.

mod catalog;
mod codec;
mod groups;
mod member;
mod queue;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::catalog::Catalog;
use self::groups::Groups;
use self::member::EmbeddedMembership;
use self::queue::{Queue, Refusal};
use self::store::{Limit, MAX_GROUP_BYTES, Store};
use self::writer::{Append, Command, CommitAs, GroupCommit, Writer};
use crate::clock::{Clock, UnixMillis};
use crate::log::{
    Appending, Commit, Commits, Creation, EventLog, GroupId, GroupSpec, LogError, LogFuture,
    Membership, Offset, Partition, Record, StoredRecord, Target, TopicDescription, TopicName,
    TopicPartition, TopicSpec, Watermarks, murmur2,
};

/// How long [`EventLog::probe`] waits.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// How the embedded log is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its directory, made if it is not there. One process at a time.
    pub dir: PathBuf,
    /// Records that may wait to be written; more are refused as [`LogError::Overloaded`].
    pub queue_records: usize,
    /// Bytes of them.
    pub queue_bytes: usize,
    /// Memory for what was read from disk.
    pub cache_bytes: u64,
    /// How often records past their topic's retention are looked for.
    pub expiry_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("levada-data/log"),
            queue_records: 8192,
            queue_bytes: 32 << 20,
            cache_bytes: 16 << 20,
            expiry_interval: Duration::from_secs(30),
        }
    }
}

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error(
        "the log in {} is in use by another process: stop that one, or choose another directory",
        .0.display()
    )]
    InUse(PathBuf),
    /// The directory cannot be made, read or written.
    #[error("the log's directory {} cannot be used: {source}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is in the directory cannot be opened.
    #[error("the log in {} cannot be opened: {source}", dir.display())]
    Store {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        source: LogError,
    },
}

/// The embedded log.
#[derive(Debug)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    /// Cancelled when the writer thread has ended and the directory is free.
    ended: CancellationToken,
}

/// What the log, its members and the writer thread share.
#[derive(Debug)]
struct Shared {
    catalog: Catalog,
    groups: Groups,
    queue: Queue<Command>,
    store: ArcSwap<StoreState>,
}

#[derive(Debug)]
enum StoreState {
    Open(Store),
    /// Why not.
    Down(String),
}

impl Shared {
    /// Does something with the store, if it is open.
    fn with_store<T>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        match &**self.store.load() {
            StoreState::Open(store) => work(store),
            StoreState::Down(reason) => Err(LogError::Unavailable(reason.clone())),
        }
    }

    /// Has the writer thread do something, after all that was asked of it before.
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, LogError> + Send + 'static,
    ) -> LogFuture<'static, T> {
        let (answer, waiting) = oneshot::channel();
        // Nobody waits for the answer any more: then nobody needs it.
        let job = move |writer: &mut Writer| drop(answer.send(work(writer)));
        let pushed = self.queue.push(Command::Job(Box::new(job)));
        answered(pushed, waiting)
    }

    /// Has commits written with the next round.
    fn commit(&self, group: GroupId, by: CommitAs, commits: Commits) -> LogFuture<'static, ()> {
        let (answer, waiting) = oneshot::channel();
        let commit = GroupCommit {
            group,
            by,
            commits,
            answer,
        };
        let pushed = self.queue.push(Command::Commit(commit));
        answered(pushed, waiting)
    }
}

fn answered<T: Send + 'static>(
    pushed: Result<(), Refusal>,
    waiting: oneshot::Receiver<Result<T, LogError>>,
) -> LogFuture<'static, T> {
    Box::pin(async move {
        pushed?;
        waiting.await.unwrap_or_else(|_| Err(closed()))
    })
}

fn closed() -> LogError {
    LogError::Unavailable("the log is closed".to_owned())
}

impl From<Refusal> for LogError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Overloaded,
            Refusal::Closed => closed(),
        }
    }
}

impl EmbeddedLog {
    /// Opens the log in `settings.dir`, or makes an empty one there. Blocks while it reads what
    /// was not yet sorted in, at most a second or so.
    ///
    /// # Errors
    /// [`OpenError`] when the directory is in use, cannot be used, or holds what cannot be read.
    pub fn open(settings: Settings, clock: Clock) -> Result<Arc<Self>, OpenError> {
        let lock = lock_directory(&settings.dir)?;
        let shared = Arc::new(Shared {
            catalog: Catalog::default(),
            groups: Groups::default(),
            queue: Queue::new(settings.queue_records, settings.queue_bytes),
            store: ArcSwap::from_pointee(StoreState::Down("the log is being opened".to_owned())),
        });
        let dir = settings.dir.clone();
        let ended = CancellationToken::new();
        let mut writer = Writer::new(Arc::clone(&shared), settings, clock);
        if let Err(source) = writer.open_store() {
            return Err(OpenError::Store { dir, source });
        }
        let ending = (lock, ended.clone().drop_guard());
        thread::Builder::new()
            .name("levada-log".to_owned())
            .spawn(move || {
                writer.run();
                drop(ending);
            })
            .map_err(|source| OpenError::Directory { dir, source })?;
        Ok(Arc::new(Self { shared, ended }))
    }

    fn try_append(
        &self,
        topic: &TopicName,
        target: Target,
        record: &Record,
    ) -> Result<Appending, LogError> {
        let topic = self.shared.catalog.get(topic)?;
        let partition = match (target, &record.key) {
            (Target::Partition(partition), _) => partition,
            (Target::ByKey, Some(key)) => murmur2::partition(key, topic.entry.partitions),
            (Target::ByKey, None) => topic.any_partition(),
        };
        topic.bounds(partition)?;
        let (size, most) = (codec::kafka_size(record), topic.entry.max_record_bytes);
        if size > most as usize {
            return Err(LogError::TooLarge {
                topic: topic.name.clone(),
                detail: format!(": {size} bytes, {most} are allowed"),
            });
        }
        // Encoded here, so that all callers' threads share the work.
        let record = codec::encode(record);
        let (answer, waiting) = oneshot::channel();
        let bytes = record.len();
        let append = Append {
            topic,
            partition,
            record,
            answer,
        };
        self.shared
            .queue
            .push_record(Command::Append(append), bytes)?;
        Ok(Appending::waiting(waiting))
    }

    /// Runs something that may have to wait for the disk on a thread that may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let shared = Arc::clone(&self.shared);
        let done = tokio::task::spawn_blocking(move || shared.with_store(work)).await;
        done.unwrap_or_else(|error| Err(LogError::Unavailable(error.to_string())))
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

fn lock_directory(dir: &Path) -> Result<File, OpenError> {
    let unusable = |source| OpenError::Directory {
        dir: dir.to_owned(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(unusable)?;
    // The lock is the system's and ends with the process; the file itself says nothing.
    let path = dir.join("lock");
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    let file = opened.map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

fn check_group(group: &GroupId) -> Result<(), LogError> {
    if group.0.len() <= MAX_GROUP_BYTES {
        Ok(())
    } else {
        Err(LogError::Refused(format!(
            "a group's id may have {MAX_GROUP_BYTES} bytes, this one has {}",
            group.0.len()
        )))
    }
}

/// A future of what is known already.
fn ready<'a, T: Send + 'a>(answer: Result<T, LogError>) -> LogFuture<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl EventLog for EmbeddedLog {
    fn append(&self, topic: &TopicName, target: Target, record: Record) -> Appending {
        self.try_append(topic, target, &record)
            .unwrap_or_else(Appending::failed)
    }

    fn create_topic<'a>(&'a self, spec: &'a TopicSpec) -> LogFuture<'a, Creation> {
        let spec = spec.clone();
        self.shared.ask(move |writer| writer.create_topic(&spec))
    }

    fn delete_topic<'a>(&'a self, topic: &'a TopicName) -> LogFuture<'a, ()> {
        let topic = topic.clone();
        self.shared.ask(move |writer| writer.delete_topic(&topic))
    }

    fn describe_topic<'a>(
        &'a self,
        topic: &'a TopicName,
    ) -> LogFuture<'a, Option<TopicDescription>> {
        let found = self.shared.catalog.find(topic);
        ready(Ok(found.map(|topic| topic.description())))
    }

    fn watermarks<'a>(&'a self, topic: &'a TopicName) -> LogFuture<'a, Vec<Watermarks>> {
        let found = self.shared.catalog.get(topic);
        ready(found.map(|topic| topic.all().map(|(_, bounds)| bounds.watermarks()).collect()))
    }

    fn offsets_at<'a>(
        &'a self,
        topic: &'a TopicName,
        time: UnixMillis,
    ) -> LogFuture<'a, Vec<Offset>> {
        let found = self.shared.catalog.get(topic);
        Box::pin(async move {
            let topic = found?;
            self.blocking(move |store| {
                let at = |(partition, bounds): (Partition, &catalog::Bounds)| {
                    let marks = bounds.watermarks();
                    let span = marks.low.0..marks.high.0;
                    let first = store.first_since(topic.entry.id, partition, span, time);
                    first.map(Offset)
                };
                topic.all().map(at).collect()
            })
            .await
        })
    }

    fn read<'a>(
        &'a self,
        from: &'a TopicPartition,
        offset: Offset,
        max: usize,
    ) -> LogFuture<'a, Vec<StoredRecord>> {
        Box::pin(async move {
            let topic = self.shared.catalog.get(&from.topic)?;
            let partition = from.partition;
            let marks = topic.bounds(partition)?.watermarks();
            let span = offset.0.max(marks.low.0)..marks.high.0;
            if span.is_empty() {
                return Ok(Vec::new());
            }
            let limit = Limit {
                records: max,
                bytes: usize::MAX,
            };
            self.blocking(move |store| {
                let mut records = Vec::new();
                store.read(topic.entry.id, partition, span, limit, &mut records)?;
                Ok(records)
            })
            .await
        })
    }

    fn trim<'a>(
        &'a self,
        topic: &'a TopicName,
        before: &'a [(Partition, Offset)],
    ) -> LogFuture<'a, ()> {
        let (topic, before) = (topic.clone(), before.to_vec());
        self.shared.ask(move |writer| writer.trim(&topic, &before))
    }

    fn committed<'a>(
        &'a self,
        group: &'a GroupId,
        partitions: &'a [TopicPartition],
    ) -> LogFuture<'a, Vec<Option<Commit>>> {
        if let Err(error) = check_group(group) {
            return ready(Err(error));
        }
        // By way of the writer: what it was given before is then written or refused, so that a
        // new member finds the last word of the one before.
        let (group, partitions) = (group.clone(), partitions.to_vec());
        self.shared
            .ask(move |writer| writer.committed(&group, &partitions))
    }

    fn commit_idle<'a>(&'a self, group: &'a GroupId, commits: Commits) -> LogFuture<'a, ()> {
        if let Err(error) = check_group(group) {
            return ready(Err(error));
        }
        self.shared.commit(group.clone(), CommitAs::Nobody, commits)
    }

    fn delete_group<'a>(&'a self, group: &'a GroupId) -> LogFuture<'a, ()> {
        if let Err(error) = check_group(group) {
            return ready(Err(error));
        }
        let group = group.clone();
        self.shared.ask(move |writer| writer.delete_group(&group))
    }

    fn join(&self, spec: &GroupSpec) -> Result<Box<dyn Membership>, LogError> {
        check_group(&spec.group)?;
        let member = self.shared.groups.join(spec, &self.shared.catalog);
        let membership = EmbeddedMembership::new(Arc::clone(&self.shared), member);
        Ok(Box::new(membership))
    }

    fn probe(&self) -> LogFuture<'_, ()> {
        let answer = self.shared.ask(Writer::probe);
        Box::pin(async move {
            let late = || LogError::TimedOut(format!("no answer within {PROBE_LIMIT:?}"));
            timeout(PROBE_LIMIT, answer).await.map_err(|_| late())?
        })
    }

    fn close(&self, limit: Duration) -> LogFuture<'_, ()> {
        self.shared.queue.close();
        Box::pin(async move {
            let late = || LogError::TimedOut(format!("not everything was stored within {limit:?}"));
            timeout(limit, self.ended.cancelled())
                .await
                .map_err(|_| late())
        })
    }
}
