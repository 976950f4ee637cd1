//! The seam to the event log: Kafka, or the embedded one.
//!
//! Two implementations pass the same contract tests ([`kafka`] and [`embedded`]). The seam speaks
//! of topics, partitions, offsets and group commits; it knows nothing of CloudEvents, HTTP or
//! subscriptions. An offset that is committed names the next record to read.

pub mod embedded;
pub mod kafka;
pub mod murmur2;
mod record;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

pub use record::{Headers, HeadersBuilder, Record, StoredRecord};

use crate::clock::UnixMillis;

/// The name of a topic: 1 to 249 of `[a-zA-Z0-9._-]`, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// A name that Kafka would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "topic name {name:?} is not allowed: 1 to 249 of a-z A-Z 0-9 . _ - (it has {} characters)",
    name.chars().count()
)]
pub struct TopicNameError {
    name: String,
}

impl TopicName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`TopicNameError`] for an empty or too long name, `.`, `..`, or a character out of the set.
    pub fn try_new(name: &str) -> Result<Self, TopicNameError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let fits = (1..=249).contains(&name.len()) && name != "." && name != "..";
        if fits && name.chars().all(legal) {
            Ok(Self(name.into()))
        } else {
            Err(TopicNameError {
                name: name.to_owned(),
            })
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A consumer group's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub Arc<str>);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A partition of a topic, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i32);

impl Partition {
    /// The place of this partition in a list that has one entry a partition.
    #[must_use]
    pub fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// The place of a record in its partition, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// Its partition.
    pub partition: Partition,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition.0)
    }
}

/// Where a record was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The partition that was chosen.
    pub partition: Partition,
    /// The offset that was given.
    pub offset: Offset,
}

/// Which partition an appended record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// As Kafka's Java client: murmur2 of the key, any partition without one.
    ByKey,
    /// This one.
    Partition(Partition),
}

/// What a topic is to look like when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: TopicName,
    /// How many partitions, at least 1.
    pub partitions: u32,
    /// How many replicas, at least 1; the embedded log has one whatever is asked.
    pub replicas: u16,
    /// How long records are kept; `None`: until they are trimmed.
    pub retention: Option<Duration>,
    /// The largest record that is taken, in bytes (`max.message.bytes`).
    pub max_record_bytes: u32,
    /// Segment size and age, where trimming is to free disk soon (Kafka only).
    pub segments: Option<Segments>,
}

/// How a Kafka topic is cut into files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// `segment.bytes`
    pub bytes: u32,
    /// `segment.ms`
    pub age: Duration,
}

/// Whether [`EventLog::create_topic`] made the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// It is new.
    Created,
    /// It was there and was left as it is.
    Existed,
}

/// A topic as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Number of partitions.
    pub partitions: u32,
    /// Number of replicas of partition 0.
    pub replicas: u16,
    /// `retention.ms`; `None`: for ever.
    pub retention: Option<Duration>,
    /// `max.message.bytes`
    pub max_record_bytes: u32,
    /// `min.insync.replicas`
    pub min_in_sync: u16,
}

/// The first offset that is kept and the one the next record will get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// First offset kept.
    pub low: Offset,
    /// Offset of the next record.
    pub high: Offset,
}

/// A group's commit for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The next record to read.
    pub offset: Offset,
    /// At most 4,095 ASCII characters of the group's own; empty when there is nothing to say.
    pub metadata: String,
}

/// Commits of several partitions.
pub type Commits = Vec<(TopicPartition, Commit)>;

/// What went wrong in the log, by what a caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The topic is not there (yet).
    #[error("topic {0} does not exist in the log")]
    UnknownTopic(TopicName),
    /// The topic has no such partition.
    #[error("partition {0} does not exist in the log")]
    UnknownPartition(TopicPartition),
    /// The offset read is not in the log: deleted before it was read, or not there yet. Start
    /// the partition at another.
    #[error("the offset to read from {0} is not in the log")]
    OutOfRange(TopicPartition),
    /// The record is larger than the topic takes; sending it again cannot help.
    #[error("the record is larger than topic {topic} takes{detail}")]
    TooLarge {
        /// The topic.
        topic: TopicName,
        /// The sizes, where they are known, beginning with a colon.
        detail: String,
    },
    /// The append queue is full; there is room again soon.
    #[error("the append queue to the log is full")]
    Overloaded,
    /// Nothing came back in time; the record may or may not be stored.
    #[error("the log did not answer in time: {0}")]
    TimedOut(String),
    /// The log cannot be reached or cannot store now; it may recover by itself.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// This membership is over (fenced, or fatal to the client): join anew.
    #[error("the group membership ended: {0}")]
    MembershipLost(String),
    /// A commit was refused for its metadata; it may be repeated without.
    #[error("the commit's metadata was refused: {0}")]
    MetadataRefused(String),
    /// The log refuses, and would again: authorization, policy, a bad setting.
    #[error("the log refused: {0}")]
    Refused(String),
    /// What is stored cannot be read.
    #[error("the log's data is damaged: {0}")]
    Damaged(String),
}

impl LogError {
    /// Whether the same call may succeed later without anyone doing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::UnknownTopic(_)
            | Self::UnknownPartition(_)
            | Self::Overloaded
            | Self::TimedOut(_)
            | Self::Unavailable(_)
            | Self::MembershipLost(_) => true,
            Self::TooLarge { .. }
            | Self::MetadataRefused(_)
            | Self::OutOfRange(_)
            | Self::Refused(_)
            | Self::Damaged(_) => false,
        }
    }
}

/// A boxed future of a log operation off the hot path.
pub type LogFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, LogError>> + Send + 'a>>;

/// An append on its way: resolves when the record is stored (acks=all, or fsync), or is not.
///
/// Dropping it does not take the record back.
#[derive(Debug)]
pub struct Appending(AppendState);

#[derive(Debug)]
enum AppendState {
    Failed(Option<LogError>),
    Waiting(oneshot::Receiver<Result<Position, LogError>>),
}

impl Appending {
    /// An append whose result comes through `receiver`.
    #[must_use]
    pub fn waiting(receiver: oneshot::Receiver<Result<Position, LogError>>) -> Self {
        Self(AppendState::Waiting(receiver))
    }

    /// An append that was refused at once.
    #[must_use]
    pub fn failed(error: LogError) -> Self {
        Self(AppendState::Failed(Some(error)))
    }
}

impl Future for Appending {
    type Output = Result<Position, LogError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            AppendState::Failed(error) => Poll::Ready(Err(error
                .take()
                .unwrap_or_else(|| LogError::Unavailable("append polled after its end".into())))),
            AppendState::Waiting(receiver) => Pin::new(receiver).poll(cx).map(|answer| {
                answer.unwrap_or_else(|_| {
                    Err(LogError::Unavailable(
                        "the log closed before it answered".into(),
                    ))
                })
            }),
        }
    }
}

/// The event log.
pub trait EventLog: Send + Sync + fmt::Debug + 'static {
    /// Hands `record` to the log; the future resolves once it is stored. Never blocks; a full
    /// queue is [`LogError::Overloaded`] at once.
    fn append(&self, topic: &TopicName, target: Target, record: Record) -> Appending;

    /// Makes a topic; one that exists is left as it is. When this returns the topic can be
    /// appended to and read.
    fn create_topic<'a>(&'a self, spec: &'a TopicSpec) -> LogFuture<'a, Creation>;

    /// Deletes a topic with its records; deleting one that is not there succeeds.
    fn delete_topic<'a>(&'a self, topic: &'a TopicName) -> LogFuture<'a, ()>;

    /// What a topic is like, `None` when it does not exist.
    fn describe_topic<'a>(
        &'a self,
        topic: &'a TopicName,
    ) -> LogFuture<'a, Option<TopicDescription>>;

    /// Low and high watermark of each partition, in order.
    fn watermarks<'a>(&'a self, topic: &'a TopicName) -> LogFuture<'a, Vec<Watermarks>>;

    /// For each partition the first offset whose record is not older than `time`, else the high
    /// watermark.
    fn offsets_at<'a>(
        &'a self,
        topic: &'a TopicName,
        time: UnixMillis,
    ) -> LogFuture<'a, Vec<Offset>>;

    /// Reads at most `max` records from `from` on (or from the low watermark where that is
    /// higher), without a group. Fewer, or none, when the end is reached.
    fn read<'a>(
        &'a self,
        from: &'a TopicPartition,
        offset: Offset,
        max: usize,
    ) -> LogFuture<'a, Vec<StoredRecord>>;

    /// Deletes the records before the offset given for each partition of `topic`.
    fn trim<'a>(
        &'a self,
        topic: &'a TopicName,
        before: &'a [(Partition, Offset)],
    ) -> LogFuture<'a, ()>;

    /// The group's commit for each of `partitions`, in order.
    fn committed<'a>(
        &'a self,
        group: &'a GroupId,
        partitions: &'a [TopicPartition],
    ) -> LogFuture<'a, Vec<Option<Commit>>>;

    /// Commits for a group that has no members; refused while it has some.
    fn commit_idle<'a>(&'a self, group: &'a GroupId, commits: Commits) -> LogFuture<'a, ()>;

    /// Forgets a group that has no members; one that is not there is fine.
    fn delete_group<'a>(&'a self, group: &'a GroupId) -> LogFuture<'a, ()>;

    /// Joins a group and subscribes to its topics.
    ///
    /// # Errors
    /// [`LogError`] when the settings are refused; an unreachable log is no error here.
    fn join(&self, spec: &GroupSpec) -> Result<Box<dyn Membership>, LogError>;

    /// Asks the log for a sign of life; what `/readyz` rests on. Bounded by about a second.
    fn probe(&self) -> LogFuture<'_, ()>;

    /// Waits until what was appended is stored, at most `limit`, and frees the log's threads.
    fn close(&self, limit: Duration) -> LogFuture<'_, ()>;
}

/// Which group to join, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// The group.
    pub group: GroupId,
    /// What it reads. The first topic is shared out among the members; the others follow it:
    /// partition p of each belongs to the owner of partition p of the first. (Shared out by
    /// themselves they would be balanced by their number alone, and one member could get all of
    /// the channel while another gets all of its retry topic.)
    pub topics: Vec<TopicName>,
    /// The static member's id (`group.instance.id`); `None`: a dynamic member.
    pub instance: Option<String>,
}

/// What happens to a membership.
#[derive(Debug)]
pub enum GroupEvent {
    /// These partitions are now ours; answer with [`Membership::start`], also when empty.
    Assigned(Vec<TopicPartition>),
    /// These are to be given up; answer with [`Membership::release`], also when empty.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// They are already another's: commit nothing for them.
        lost: bool,
    },
    /// Something failed; after [`LogError::MembershipLost`] leave and join anew.
    Failed(LogError),
}

/// A member of a consumer group. One owner; every call but `next` is brief.
///
/// `wake` is notified when a group event or, in a started source, a record may be there to take.
/// A notification may be spurious and one may stand for many: look at everything, then wait.
pub trait Membership: Send + fmt::Debug {
    /// Notified when there may be something to take; the same one for the membership's life.
    fn wake(&self) -> Arc<Notify>;

    /// The next group event, if there is one. Never blocks.
    fn next_event(&mut self) -> Option<GroupEvent>;

    /// Begins to read each partition at the offset given (an answer to `Assigned`).
    ///
    /// # Errors
    /// [`LogError`] when the assignment is not (or no longer) ours.
    fn start(
        &mut self,
        partitions: Vec<(TopicPartition, Offset)>,
    ) -> Result<Vec<Started>, LogError>;

    /// Gives the partitions up (an answer to `Revoked`); their sources must be dropped first.
    fn release(&mut self, partitions: Vec<TopicPartition>);

    /// Commits as this member. The future needs no borrow of the membership.
    fn commit(&self, commits: Commits) -> LogFuture<'static, ()>;

    /// How many partitions of the group's topics no member has although the group is at rest; 0
    /// while it shares anew, and where that cannot be told. The future needs no borrow of the
    /// membership.
    fn unowned(&self) -> LogFuture<'static, usize>;

    /// Ends the membership; sources must be dropped first. With `stay` a static member's place
    /// in the group is kept for its successor.
    fn leave(self: Box<Self>, stay: bool) -> LogFuture<'static, ()>;
}

/// A partition that is being read, and where its records come from.
pub type Started = (TopicPartition, Box<dyn Source>);

/// The records of one assigned partition, in order. Not taking from it is back-pressure: it
/// fetches ahead to a bound and then waits.
pub trait Source: Send + fmt::Debug {
    /// Moves at most `max` records to the end of `out` and returns how many. Never blocks.
    ///
    /// # Errors
    /// [`LogError`] when the partition cannot be read; the caller goes on or leaves.
    fn take(&mut self, max: usize, out: &mut Vec<StoredRecord>) -> Result<usize, LogError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_are_checked() {
        for good in [
            "a",
            "knative-messaging-kafka.default.orders",
            &"x".repeat(249),
        ] {
            assert_eq!(TopicName::try_new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a b", "ü", "a/b", &"x".repeat(250)] {
            assert!(TopicName::try_new(bad).is_err(), "{bad:?}");
        }
    }
}
