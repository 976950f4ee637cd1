//! A log in memory whose answers can be scripted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::member::{Membered, TestMembership};
use super::{Happening, Story};
use crate::clock::{Clock, UnixMillis};
use crate::log::{
    Appending, Commit, Commits, Creation, EventLog, GroupEvent, GroupId, GroupSpec, LogError,
    LogFuture, Membership, Offset, Partition, Position, Record, StoredRecord, Target,
    TopicDescription, TopicName, TopicPartition, TopicSpec, Watermarks,
};

/// What becomes of an append.
#[derive(Clone, Debug)]
pub(crate) enum AppendAnswer {
    Fail(LogError),
    Hang,
}

/// What becomes of a commit.
#[derive(Clone, Debug)]
pub(crate) enum CommitAnswer {
    /// It is taken after so long.
    After(Duration),
    Fail(LogError),
    Hang,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct TestLog {
    story: Story,
    clock: Clock,
    this: Weak<Self>,
    state: Mutex<State>,
    /// `true`: commits and watermarks are not answered for now.
    held: watch::Sender<bool>,
    /// Partitions that no member has, as members are told.
    pub(crate) unowned: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<TopicName, Vec<Stored>>,
    commits: BTreeMap<(GroupId, TopicPartition), Commit>,
    members: BTreeMap<GroupId, Arc<Membered>>,
    /// Groups whose members get no partitions by themselves.
    by_hand: bool,
    appends: VecDeque<(TopicName, AppendAnswer)>,
    /// Appends that hang.
    hanging: Vec<oneshot::Sender<Result<Position, LogError>>>,
    commit_answers: VecDeque<CommitAnswer>,
    take_errors: BTreeMap<TopicPartition, LogError>,
    failing: Option<LogError>,
}

/// A partition.
#[derive(Clone, Debug, Default)]
struct Stored {
    low: i64,
    records: Vec<StoredRecord>,
}

impl Stored {
    fn high(&self) -> i64 {
        self.records.last().map_or(self.low, |r| r.offset.0 + 1)
    }
}

impl TestLog {
    pub(super) fn new(story: Story, clock: Clock) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            story,
            clock,
            this: this.clone(),
            state: Mutex::default(),
            held: watch::Sender::new(false),
            unowned: AtomicUsize::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- what a test does

    /// Makes a topic of so many partitions.
    pub(crate) fn topic(&self, name: &TopicName, partitions: usize) {
        let topic = vec![Stored::default(); partitions];
        self.lock().topics.insert(name.clone(), topic);
    }

    /// Stores a record as if a producer had sent it.
    pub(crate) fn put(&self, at: &TopicPartition, record: Record) -> Offset {
        let mut state = self.lock();
        let stored = &mut state.topics.get_mut(&at.topic).unwrap()[at.partition.index()];
        let offset = Offset(stored.high());
        stored.records.push(StoredRecord {
            offset,
            time: self.clock.now(),
            record,
        });
        let members: Vec<_> = state.members.values().cloned().collect();
        drop(state);
        members.iter().for_each(|member| member.wake.notify_one());
        offset
    }

    /// Deletes what lies before `low`, as retention does; the next record comes at `low` or later.
    pub(crate) fn cut(&self, at: &TopicPartition, low: i64) {
        let mut state = self.lock();
        let stored = &mut state.topics.get_mut(&at.topic).unwrap()[at.partition.index()];
        stored.records.retain(|record| record.offset.0 >= low);
        stored.low = low;
    }

    /// The records of a topic.
    pub(crate) fn records(&self, name: &TopicName) -> Vec<StoredRecord> {
        let state = self.lock();
        let topic = state.topics.get(name).into_iter().flatten();
        topic.flat_map(|stored| stored.records.clone()).collect()
    }

    /// Puts a commit into force.
    pub(crate) fn set_commit(&self, group: &GroupId, at: &TopicPartition, offset: i64) {
        let commit = Commit {
            offset: Offset(offset),
            metadata: String::new(),
        };
        self.lock()
            .commits
            .insert((group.clone(), at.clone()), commit);
    }

    /// Takes a commit away.
    pub(crate) fn forget_commit(&self, group: &GroupId, at: &TopicPartition) {
        self.lock().commits.remove(&(group.clone(), at.clone()));
    }

    /// What a group has committed.
    pub(crate) fn commit_of(&self, group: &GroupId, at: &TopicPartition) -> Option<Commit> {
        let key = (group.clone(), at.clone());
        self.lock().commits.get(&key).cloned()
    }

    /// Where a group goes on.
    pub(crate) fn offset_of(&self, group: &GroupId, at: &TopicPartition) -> Option<i64> {
        self.commit_of(group, at).map(|commit| commit.offset.0)
    }

    /// From now on members get only what a test assigns.
    pub(crate) fn by_hand(&self) {
        self.lock().by_hand = true;
    }

    /// Tells the member of a group something.
    pub(crate) fn tell(&self, group: &GroupId, event: GroupEvent) {
        let member = self.member(group).expect("the group has a member");
        member.push(event);
    }

    /// The member of a group.
    pub(crate) fn member(&self, group: &GroupId) -> Option<Arc<Membered>> {
        self.lock().members.get(group).cloned()
    }

    pub(crate) fn assign(&self, group: &GroupId, partitions: &[TopicPartition]) {
        self.tell(group, GroupEvent::Assigned(partitions.to_vec()));
    }

    pub(crate) fn revoke(&self, group: &GroupId, partitions: &[TopicPartition], lost: bool) {
        let partitions = partitions.to_vec();
        self.tell(group, GroupEvent::Revoked { partitions, lost });
    }

    /// What becomes of the next commits, in order; after these all are taken at once.
    pub(crate) fn answer_commits(&self, answers: impl IntoIterator<Item = CommitAnswer>) {
        self.lock().commit_answers.extend(answers);
    }

    /// What becomes of the next appends to `topic`; after these all are stored.
    pub(crate) fn answer_appends(&self, topic: &TopicName, answer: &AppendAnswer, times: usize) {
        let answers = std::iter::repeat_n((topic.clone(), answer.clone()), times);
        self.lock().appends.extend(answers);
    }

    /// The next take from the partition fails.
    pub(crate) fn fail_take(&self, at: &TopicPartition, error: LogError) {
        let mut state = self.lock();
        state.take_errors.insert(at.clone(), error);
        let members: Vec<_> = state.members.values().cloned().collect();
        drop(state);
        members.iter().for_each(|member| member.wake.notify_one());
    }

    /// Holds back the answers to reads of commits and watermarks, or lets them go.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Every call about topics and commits fails with this.
    pub(crate) fn fail(&self, error: Option<LogError>) {
        self.lock().failing = error;
    }

    // ---- what members do

    pub(super) fn take_from(
        &self,
        at: &TopicPartition,
        next: &mut i64,
        max: usize,
        out: &mut Vec<StoredRecord>,
    ) -> Result<usize, LogError> {
        let mut state = self.lock();
        if let Some(error) = state.take_errors.remove(at) {
            return Err(error);
        }
        let topic = state.topics.get(&at.topic);
        let topic = topic.ok_or_else(|| LogError::UnknownTopic(at.topic.clone()))?;
        let records = &topic[at.partition.index()].records;
        let first = records.partition_point(|record| record.offset.0 < *next);
        let before = out.len();
        out.extend(records[first..].iter().take(max).cloned());
        if let Some(last) = out[before..].last() {
            *next = last.offset.0 + 1;
        }
        Ok(out.len() - before)
    }

    pub(super) fn commit(&self, group: GroupId, commits: Commits) -> LogFuture<'static, ()> {
        self.story.tell(Happening::CommitSent(commits.clone()));
        let answer = self.lock().commit_answers.pop_front();
        let this = self.this.upgrade().expect("the log is in use");
        Box::pin(async move {
            match answer {
                None => {}
                Some(CommitAnswer::After(time)) => tokio::time::sleep(time).await,
                Some(CommitAnswer::Fail(error)) => return Err(error),
                Some(CommitAnswer::Hang) => std::future::pending().await,
            }
            let mut state = this.lock();
            for (at, commit) in &commits {
                let key = (group.clone(), at.clone());
                state.commits.insert(key, commit.clone());
            }
            drop(state);
            this.story.tell(Happening::Committed(commits));
            Ok(())
        })
    }

    pub(super) fn left(&self, group: &GroupId, member: &Arc<Membered>) {
        let mut state = self.lock();
        let current = state.members.get(group);
        if current.is_some_and(|current| Arc::ptr_eq(current, member)) {
            state.members.remove(group);
        }
    }

    /// A future that answers once nothing is held back.
    fn answer<'a, T: Send + 'a>(
        &'a self,
        read: impl FnOnce(&mut State) -> Result<T, LogError> + Send + 'a,
    ) -> LogFuture<'a, T> {
        Box::pin(async move {
            let mut held = self.held.subscribe();
            held.wait_for(|held| !held).await.expect("the log lives");
            let mut state = self.lock();
            match &state.failing {
                Some(error) => Err(error.clone()),
                None => read(&mut state),
            }
        })
    }
}

fn partitions_of<'a>(state: &'a State, topic: &TopicName) -> Result<&'a Vec<Stored>, LogError> {
    let found = state.topics.get(topic);
    found.ok_or_else(|| LogError::UnknownTopic(topic.clone()))
}

impl EventLog for TestLog {
    fn append(&self, topic: &TopicName, target: Target, record: Record) -> Appending {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        let scripted = state.appends.iter().position(|(name, _)| name == topic);
        match scripted.and_then(|place| state.appends.remove(place)) {
            Some((_, AppendAnswer::Fail(error))) => return Appending::failed(error),
            Some((_, AppendAnswer::Hang)) => {
                state.hanging.push(sender);
                return Appending::waiting(receiver);
            }
            None => {}
        }
        if let Err(error) = partitions_of(&state, topic) {
            return Appending::failed(error);
        }
        drop(state);
        let partition = match target {
            Target::Partition(partition) => partition,
            Target::ByKey => Partition(0),
        };
        let at = TopicPartition {
            topic: topic.clone(),
            partition,
        };
        let offset = self.put(&at, record);
        sender.send(Ok(Position { partition, offset })).ok();
        Appending::waiting(receiver)
    }

    fn create_topic<'a>(&'a self, spec: &'a TopicSpec) -> LogFuture<'a, Creation> {
        self.answer(|state| {
            if state.topics.contains_key(&spec.name) {
                return Ok(Creation::Existed);
            }
            let partitions = vec![Stored::default(); spec.partitions as usize];
            state.topics.insert(spec.name.clone(), partitions);
            Ok(Creation::Created)
        })
    }

    fn delete_topic<'a>(&'a self, topic: &'a TopicName) -> LogFuture<'a, ()> {
        self.answer(|state| {
            state.topics.remove(topic);
            Ok(())
        })
    }

    fn describe_topic<'a>(
        &'a self,
        topic: &'a TopicName,
    ) -> LogFuture<'a, Option<TopicDescription>> {
        self.answer(|state| {
            let describe = |partitions: &Vec<Stored>| TopicDescription {
                partitions: u32::try_from(partitions.len()).unwrap(),
                replicas: 1,
                retention: None,
                max_record_bytes: 1 << 20,
                min_in_sync: 1,
            };
            Ok(state.topics.get(topic).map(describe))
        })
    }

    fn watermarks<'a>(&'a self, topic: &'a TopicName) -> LogFuture<'a, Vec<Watermarks>> {
        self.answer(|state| {
            let marks = |stored: &Stored| Watermarks {
                low: Offset(stored.low),
                high: Offset(stored.high()),
            };
            Ok(partitions_of(state, topic)?.iter().map(marks).collect())
        })
    }

    fn offsets_at<'a>(
        &'a self,
        topic: &'a TopicName,
        time: UnixMillis,
    ) -> LogFuture<'a, Vec<Offset>> {
        self.answer(move |state| {
            let first = |stored: &Stored| {
                let found = stored.records.iter().find(|record| record.time >= time);
                found.map_or(Offset(stored.high()), |record| record.offset)
            };
            Ok(partitions_of(state, topic)?.iter().map(first).collect())
        })
    }

    fn read<'a>(
        &'a self,
        from: &'a TopicPartition,
        offset: Offset,
        max: usize,
    ) -> LogFuture<'a, Vec<StoredRecord>> {
        self.answer(move |state| {
            let stored = &partitions_of(state, &from.topic)?[from.partition.index()];
            let found = stored.records.iter().filter(|r| r.offset >= offset);
            Ok(found.take(max).cloned().collect())
        })
    }

    fn trim<'a>(
        &'a self,
        topic: &'a TopicName,
        before: &'a [(Partition, Offset)],
    ) -> LogFuture<'a, ()> {
        Box::pin(async move {
            for (partition, offset) in before {
                let at = TopicPartition {
                    topic: topic.clone(),
                    partition: *partition,
                };
                self.cut(&at, offset.0);
            }
            Ok(())
        })
    }

    fn committed<'a>(
        &'a self,
        group: &'a GroupId,
        partitions: &'a [TopicPartition],
    ) -> LogFuture<'a, Vec<Option<Commit>>> {
        self.answer(|state| {
            let commit =
                |at: &TopicPartition| state.commits.get(&(group.clone(), at.clone())).cloned();
            Ok(partitions.iter().map(commit).collect())
        })
    }

    fn commit_idle<'a>(&'a self, group: &'a GroupId, commits: Commits) -> LogFuture<'a, ()> {
        self.answer(move |state| {
            if state.members.contains_key(group) {
                return Err(LogError::Refused("the group has members".into()));
            }
            let keyed = commits
                .into_iter()
                .map(|(at, commit)| ((group.clone(), at), commit));
            state.commits.extend(keyed);
            Ok(())
        })
    }

    fn delete_group<'a>(&'a self, group: &'a GroupId) -> LogFuture<'a, ()> {
        self.answer(move |state| {
            state.commits.retain(|(of, _), _| of != group);
            Ok(())
        })
    }

    fn join(&self, spec: &GroupSpec) -> Result<Box<dyn Membership>, LogError> {
        let member = Arc::new(Membered::default());
        let mut state = self.lock();
        if !state.by_hand {
            let mut partitions = Vec::new();
            for topic in &spec.topics {
                let count = state.topics.get(topic).map_or(0, Vec::len);
                partitions.extend((0..count).map(|partition| TopicPartition {
                    topic: topic.clone(),
                    partition: Partition(i32::try_from(partition).unwrap()),
                }));
            }
            member.push(GroupEvent::Assigned(partitions));
        }
        let before = state
            .members
            .insert(spec.group.clone(), Arc::clone(&member));
        drop(state);
        assert!(before.is_none(), "two members of {} at once", spec.group);
        self.story.tell(Happening::Joined(spec.group.clone()));
        let log = self.this.upgrade().expect("the log is in use");
        let story = self.story.clone();
        let group = spec.group.clone();
        Ok(Box::new(TestMembership::new(log, story, group, member)))
    }

    fn probe(&self) -> LogFuture<'_, ()> {
        self.answer(|_| Ok(()))
    }

    fn close(&self, _limit: Duration) -> LogFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}
