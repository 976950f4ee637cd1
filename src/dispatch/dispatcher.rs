//! The loop of one subscription: records in, attempts out, commits.
//!
//! One task owns everything of the subscription on this node: its membership in the consumer
//! group, the sources of its partitions, the [`Engine`] that decides, and the work in progress.
//! Each turn of the loop looks at everything there may be, then sleeps until one of its wakers
//! says that there may be more.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::FutureExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, Now, SlotId};
use super::metrics::SubscriptionMetrics;
use super::perform::{Done, perform};
use super::progress::Progress;
use super::start::{Basis, start};
use super::tools::Tools;
use crate::channel::Subscription;
use crate::delivery::Deliver;
use crate::log::{
    Commit, Commits, EventLog, GroupEvent, GroupSpec, LogError, LogFuture, Membership, Offset,
    Partition, Source, StoredRecord, TopicPartition, Watermarks,
};

/// Records taken from one partition before the next has its turn.
const TAKE: usize = 256;
/// How long a final commit may take.
const FINAL_COMMIT: Duration = Duration::from_secs(5);

/// At most so often the retry topic is trimmed.
const TRIM_INTERVAL: Duration = Duration::from_secs(10);

/// Why a dispatcher ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was told to, and drained.
    Stopped,
    /// It is no member any more; a new one may join.
    MembershipLost(LogError),
}

type Found = Vec<(TopicPartition, Option<Commit>, Watermarks)>;
type Lookup = std::pin::Pin<Box<dyn Future<Output = Found> + Send>>;

/// A commit on its way.
struct Committing {
    slots: Vec<SlotId>,
    commits: Commits,
    result: LogFuture<'static, ()>,
}

/// How far one partition of the retry topic is.
#[derive(Clone, Copy, Debug)]
struct Trim {
    committed: Offset,
    trimmed: Offset,
}

type Trimming = (Vec<(Partition, Offset)>, LogFuture<'static, ()>);

/// Partitions that are being given up.
struct Revocation {
    partitions: Vec<TopicPartition>,
    slots: Vec<SlotId>,
    /// Until then what is in flight may finish, and the last commit get through.
    deadline: Instant,
    lost: bool,
    committed: bool,
}

/// See the module.
pub(crate) struct Dispatcher<D> {
    tools: Arc<Tools<D>>,
    subscription: Arc<Subscription>,
    metrics: SubscriptionMetrics,
    progress: Progress,
    engine: Engine,
    membership: Box<dyn Membership>,
    sources: Vec<(SlotId, Box<dyn Source>)>,
    buffer: Vec<StoredRecord>,
    /// How far each partition was read by this process, to count what is read again.
    furthest: HashMap<TopicPartition, Offset>,
    /// Assignments that are not answered yet, in order.
    lookups: VecDeque<(Vec<TopicPartition>, Lookup)>,
    /// How far the retry topic is committed, and how far it was trimmed.
    trims: HashMap<Partition, Trim>,
    trimming: Option<Trimming>,
    next_trim: Instant,
    committing: Option<Committing>,
    next_commit: Instant,
    revocations: Vec<Revocation>,
    lost: Option<LogError>,
}

impl<D: Deliver> Dispatcher<D> {
    pub(crate) fn join(
        tools: Arc<Tools<D>>,
        subscription: Arc<Subscription>,
        instance: Option<String>,
        metrics: SubscriptionMetrics,
        progress: Progress,
        engine: Engine,
    ) -> Result<Self, LogError> {
        let membership = tools.log.join(&GroupSpec {
            group: subscription.group.clone(),
            topics: vec![subscription.topic.clone(), subscription.retry_topic.clone()],
            instance,
        })?;
        Ok(Self {
            tools,
            subscription,
            metrics,
            progress,
            engine,
            membership,
            sources: Vec::new(),
            buffer: Vec::with_capacity(TAKE),
            furthest: HashMap::new(),
            lookups: VecDeque::new(),
            trims: HashMap::new(),
            trimming: None,
            next_trim: Instant::now() + TRIM_INTERVAL,
            committing: None,
            next_commit: Instant::now(),
            revocations: Vec::new(),
            lost: None,
        })
    }

    /// Runs until `stop`, then drains. `changes` brings the subscription as it is now.
    pub(crate) async fn run(
        mut self,
        stop: CancellationToken,
        mut changes: watch::Receiver<Arc<Subscription>>,
    ) -> End {
        let wake = self.membership.wake();
        let mut work = FuturesUnordered::new();
        let mut timer = std::pin::pin!(sleep_until(Instant::now()));
        let mut stopping = None;
        loop {
            self.group_events();
            if let Some(error) = self.lost.take() {
                return self.abandon(error).await;
            }
            self.take_records();
            let now = self.now();
            while let Some(job) = self.engine.next_work(now) {
                let at = job.slot().map(|slot| self.engine.partition(slot).clone());
                let tools = Arc::clone(&self.tools);
                work.push(perform(tools, Arc::clone(&self.subscription), at, job));
            }
            self.begin_commit(now.mono);
            self.begin_trim(now.mono);
            self.end_revocations(now.mono);
            if stopping.is_some_and(|deadline| self.is_drained(deadline, now.mono)) {
                drop(work);
                return self.leave().await;
            }
            self.set_timer(timer.as_mut(), stopping);
            tokio::select! {
                biased;
                () = stop.cancelled(), if stopping.is_none() => {
                    stopping = Some(Instant::now() + self.tools.settings.drain_timeout);
                    for slot in self.engine.live_slots() {
                        self.engine.close(slot);
                    }
                }
                Some(done) = work.next(), if !work.is_empty() => {
                    self.done(done);
                    while let Some(Some(done)) = work.next().now_or_never() {
                        self.done(done);
                    }
                }
                result = result_of(&mut self.committing) => self.commit_ended(result),
                found = found_by(&mut self.lookups) => self.start(found),
                result = trimmed(&mut self.trimming) => self.trim_ended(result),
                () = wake.notified() => {}
                () = &mut timer => {}
                Ok(()) = changes.changed(), if stopping.is_none() => {
                    self.subscription = Arc::clone(&changes.borrow_and_update());
                    self.engine.update(Arc::clone(&self.subscription));
                }
            }
        }
    }

    fn now(&self) -> Now {
        Now {
            wall: self.tools.clock.now(),
            mono: Instant::now(),
        }
    }

    fn set_timer(&self, mut timer: std::pin::Pin<&mut Sleep>, stopping: Option<Instant>) {
        let far = Instant::now() + Duration::from_secs(3600);
        let commit = (self.engine.is_dirty() && self.committing.is_none())
            .then_some(self.next_commit.max(Instant::now()));
        let revocation = self
            .revocations
            .iter()
            .map(|revocation| revocation.deadline)
            .min();
        let due = [self.engine.next_due(), commit, revocation, stopping];
        let next = due.into_iter().flatten().min().unwrap_or(far);
        // An hour more or less is no reason to touch the timer on every turn.
        if timer.deadline() != next && (next < far || timer.deadline() < Instant::now()) {
            timer.as_mut().reset(next);
        }
    }

    fn done(&mut self, done: Done) {
        let now = self.now();
        match done {
            Done::Attempted(id, report) => {
                self.metrics.attempt(&report);
                self.engine.attempted(id, report.result, now);
            }
            Done::Kept(id, result) => self.engine.kept(id, result, now),
            Done::Parked(id, result) => self.engine.parked(id, result, now),
            Done::Fetched(slot, wanted, result) => self.engine.fetched(slot, wanted, result, now),
            Done::Checkpointed(slot, result) => {
                if let Err(error) = &result {
                    tracing::warn!(subscription = %self.subscription.name, %error, "a checkpoint was not stored");
                }
                self.engine.checkpointed(slot, result.is_ok());
            }
        }
    }

    // ---- records

    fn take_records(&mut self) {
        let mut full = 0;
        let mut cut = Vec::new();
        for (slot, source) in &mut self.sources {
            loop {
                let room = self.engine.credit(*slot).min(TAKE);
                if room == 0 {
                    break;
                }
                match source.take(room, &mut self.buffer) {
                    Ok(0) => break,
                    Ok(taken) => {
                        let now = Now {
                            wall: self.tools.clock.now(),
                            mono: Instant::now(),
                        };
                        note_reread(
                            &mut self.furthest,
                            self.engine.partition(*slot),
                            &self.buffer,
                            &self.metrics,
                        );
                        for record in self.buffer.drain(..) {
                            self.engine.record(*slot, record, now);
                        }
                        if taken < room {
                            break;
                        }
                    }
                    Err(LogError::OutOfRange(at)) => {
                        cut.push((*slot, at));
                        break;
                    }
                    Err(error) => {
                        self.lost.get_or_insert(error);
                        break;
                    }
                }
            }
            full += usize::from(self.engine.window_is_full(*slot));
        }
        self.metrics.paused(full);
        for (slot, at) in cut {
            self.begin_anew(slot, at);
        }
    }

    /// Records were deleted before they were read: the partition begins anew at what is left.
    fn begin_anew(&mut self, slot: SlotId, at: TopicPartition) {
        tracing::warn!(
            subscription = %self.subscription.name, partition = %at,
            "the records to read next are gone: reading begins anew"
        );
        self.engine.drop_slot(slot);
        self.sources.retain(|(source, _)| *source != slot);
        self.look_up(vec![at]);
    }

    // ---- the group

    fn group_events(&mut self) {
        while let Some(event) = self.membership.next_event() {
            match event {
                GroupEvent::Assigned(partitions) => {
                    self.metrics.rebalanced();
                    tracing::info!(
                        subscription = %self.subscription.name, partitions = partitions.len(),
                        "partitions assigned"
                    );
                    self.look_up(partitions);
                }
                GroupEvent::Revoked { partitions, lost } => self.revoked(partitions, lost),
                GroupEvent::Failed(error @ LogError::MembershipLost(_)) => {
                    self.lost.get_or_insert(error);
                }
                GroupEvent::Failed(error) => {
                    tracing::warn!(subscription = %self.subscription.name, %error, "the consumer group");
                }
            }
        }
    }

    fn look_up(&mut self, partitions: Vec<TopicPartition>) {
        let log = Arc::clone(&self.tools.log);
        let lookup = look_up(log, Arc::clone(&self.subscription), partitions.clone());
        self.lookups.push_back((partitions, Box::pin(lookup)));
    }

    fn start(&mut self, found: Found) {
        let Some((wanted, _)) = self.lookups.pop_front() else {
            return;
        };
        // What was revoked while its commits were looked up is not ours to start.
        let mut starts = Vec::with_capacity(found.len());
        let mut commits = HashMap::new();
        for (at, commit, marks) in found.into_iter().filter(|(at, ..)| wanted.contains(at)) {
            let begin = start(commit.as_ref(), marks);
            self.report_start(&at, begin.basis);
            let kept = commit.filter(|_| begin.basis == Basis::Commit);
            commits.insert(at.clone(), (begin.offset, marks.high, kept));
            starts.push((at, begin.offset));
        }
        match self.membership.start(starts) {
            Ok(sources) => {
                for (at, source) in sources {
                    let Some((offset, end, commit)) = commits.remove(&at) else {
                        continue;
                    };
                    self.note_commit(&at, commit.as_ref().map_or(offset, |c| c.offset));
                    let slot = self.engine.open(at, offset, end, commit);
                    self.sources.push((slot, source));
                }
            }
            Err(error) => {
                self.lost.get_or_insert(error);
            }
        }
    }

    fn report_start(&self, at: &TopicPartition, basis: Basis) {
        let subscription = &self.subscription.name;
        match basis {
            Basis::Commit => {}
            Basis::Missing => tracing::info!(
                %subscription, partition = %at, "no commit: reading begins at the earliest record"
            ),
            Basis::Beyond => tracing::warn!(
                %subscription, partition = %at,
                "the commit lies beyond the end, the topic was made anew: reading begins at the earliest record"
            ),
            Basis::Expired(records) => {
                self.metrics.expired(records);
                self.progress.expired(records);
                tracing::error!(
                    %subscription, partition = %at, records,
                    "records were deleted by retention before they were delivered"
                );
            }
        }
    }

    fn revoked(&mut self, partitions: Vec<TopicPartition>, lost: bool) {
        self.metrics.rebalanced();
        tracing::info!(
            subscription = %self.subscription.name, partitions = partitions.len(), lost,
            "partitions revoked"
        );
        for (wanted, _) in &mut self.lookups {
            wanted.retain(|at| !partitions.contains(at));
        }
        let slots: Vec<SlotId> = self
            .engine
            .live_slots()
            .into_iter()
            .filter(|slot| partitions.contains(self.engine.partition(*slot)))
            .collect();
        for slot in &slots {
            self.engine.close(*slot);
        }
        let deadline = Instant::now() + self.tools.settings.revocation_timeout;
        self.revocations.push(Revocation {
            partitions,
            slots,
            deadline,
            lost,
            committed: false,
        });
    }

    /// Ends the revocations whose attempts are over, after a last commit.
    fn end_revocations(&mut self, now: Instant) {
        let mut index = 0;
        while index < self.revocations.len() {
            let revocation = &self.revocations[index];
            let quiet = revocation
                .slots
                .iter()
                .all(|slot| self.engine.is_quiet(*slot));
            let late = now >= revocation.deadline + FINAL_COMMIT;
            if !revocation.lost && !late {
                let in_time = now < revocation.deadline;
                if (!quiet && in_time) || self.committing.is_some() {
                    index += 1;
                    continue;
                }
                if !revocation.committed {
                    self.revocations[index].committed = true;
                    let slots = self.revocations[index].slots.clone();
                    if self.commit(&slots) {
                        index += 1;
                        continue;
                    }
                }
            }
            let revocation = self.revocations.remove(index);
            for slot in &revocation.slots {
                self.engine.drop_slot(*slot);
                let at = self.engine.partition(*slot);
                if at.topic == self.subscription.retry_topic {
                    self.trims.remove(&at.partition);
                } else {
                    self.progress.gone(at);
                }
            }
            self.sources
                .retain(|(slot, _)| !revocation.slots.contains(slot));
            self.membership.release(revocation.partitions);
        }
    }

    // ---- commits

    fn begin_commit(&mut self, now: Instant) {
        if self.committing.is_none() && now >= self.next_commit && self.engine.is_dirty() {
            let slots = self.engine.live_slots();
            self.commit(&slots);
        }
    }

    /// Sends what changed on `slots`; whether there was anything.
    fn commit(&mut self, slots: &[SlotId]) -> bool {
        let changed = self.engine.commits(slots);
        self.next_commit = Instant::now() + self.tools.settings.commit_interval;
        if changed.is_empty() {
            return false;
        }
        let slots: Vec<SlotId> = changed.iter().map(|(slot, _)| *slot).collect();
        let commits: Commits = changed
            .into_iter()
            .map(|(slot, commit)| (self.engine.partition(slot).clone(), commit))
            .collect();
        let result = self.membership.commit(commits.clone());
        self.committing = Some(Committing {
            slots,
            commits,
            result,
        });
        true
    }

    fn commit_ended(&mut self, result: Result<(), LogError>) {
        let Some(Committing {
            slots, mut commits, ..
        }) = self.committing.take()
        else {
            return;
        };
        self.next_commit = Instant::now() + self.tools.settings.commit_interval;
        match result {
            Ok(()) => {
                for (at, commit) in &commits {
                    self.note_commit(at, commit.offset);
                }
            }
            Err(LogError::MetadataRefused(why))
                if commits.iter().any(|c| !c.1.metadata.is_empty()) =>
            {
                self.metrics.metadata_refused();
                tracing::warn!(
                    subscription = %self.subscription.name, why,
                    "the commit's metadata was refused: it is repeated without"
                );
                for (_, commit) in &mut commits {
                    commit.metadata.clear();
                }
                let result = self.membership.commit(commits.clone());
                self.committing = Some(Committing {
                    slots,
                    commits,
                    result,
                });
            }
            Err(error) => {
                tracing::debug!(subscription = %self.subscription.name, %error, "a commit failed");
                for slot in slots {
                    self.engine.commit_failed(slot);
                }
                for revocation in &mut self.revocations {
                    // Another try, as long as there is time.
                    revocation.committed = Instant::now() >= revocation.deadline;
                }
                if let LogError::MembershipLost(_) = error {
                    self.lost.get_or_insert(error);
                }
            }
        }
    }

    fn note_commit(&mut self, at: &TopicPartition, offset: Offset) {
        if at.topic == self.subscription.retry_topic {
            let trim = Trim {
                committed: offset,
                trimmed: offset,
            };
            self.trims.entry(at.partition).or_insert(trim).committed = offset;
        } else {
            self.progress.committed(at, offset);
        }
    }

    /// Nothing in the retry topic expires: what is behind the commits is deleted, now and then.
    fn begin_trim(&mut self, now: Instant) {
        if self.trimming.is_some() || now < self.next_trim {
            return;
        }
        self.next_trim = now + TRIM_INTERVAL;
        let behind = |(partition, trim): (&Partition, &Trim)| {
            (trim.committed > trim.trimmed).then_some((*partition, trim.committed))
        };
        let before: Vec<(Partition, Offset)> = self.trims.iter().filter_map(behind).collect();
        if before.is_empty() {
            return;
        }
        let (log, topic) = (
            Arc::clone(&self.tools.log),
            self.subscription.retry_topic.clone(),
        );
        let what = before.clone();
        let trimming = Box::pin(async move { log.trim(&topic, &what).await });
        self.trimming = Some((before, trimming));
    }

    fn trim_ended(&mut self, result: Result<(), LogError>) {
        let Some((before, _)) = self.trimming.take() else {
            return;
        };
        if let Err(error) = result {
            tracing::warn!(
                subscription = %self.subscription.name, %error,
                "the retry topic cannot be trimmed: it grows until it can"
            );
        }
        for (partition, offset) in before {
            if let Some(trim) = self.trims.get_mut(&partition) {
                trim.trimmed = offset;
            }
        }
    }

    // ---- the end

    fn is_drained(&self, deadline: Instant, now: Instant) -> bool {
        let quiet = self
            .engine
            .live_slots()
            .iter()
            .all(|slot| self.engine.is_quiet(*slot));
        (quiet && self.committing.is_none()) || now >= deadline
    }

    /// Commits what is finished and leaves the group.
    async fn leave(mut self) -> End {
        if let Some(committing) = self.committing.take() {
            let result = timeout(FINAL_COMMIT, committing.result).await;
            if !matches!(result, Ok(Ok(()))) {
                committing
                    .slots
                    .iter()
                    .for_each(|slot| self.engine.commit_failed(*slot));
            }
        }
        let slots = self.engine.live_slots();
        if self.commit(&slots)
            && let Some(committing) = self.committing.take()
        {
            match timeout(FINAL_COMMIT, committing.result).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(
                    subscription = %self.subscription.name, %error,
                    "the last commit failed: some events will be delivered again"
                ),
                Err(_) => tracing::warn!(
                    subscription = %self.subscription.name,
                    "the last commit was not answered: some events may be delivered again"
                ),
            }
        }
        let stay = self.tools.settings.stay_in_group;
        self.go(stay).await;
        End::Stopped
    }

    /// The membership is over: nothing can be committed any more.
    async fn abandon(self, error: LogError) -> End {
        self.go(true).await;
        End::MembershipLost(error)
    }

    async fn go(self, stay: bool) {
        drop(self.sources);
        let leaving = self.membership.leave(stay);
        if timeout(self.tools.settings.leave_timeout, leaving)
            .await
            .is_err()
        {
            tracing::warn!(subscription = %self.subscription.name, "leaving the group took too long");
        }
    }
}

/// Counts the records that this process had taken before.
fn note_reread(
    furthest: &mut HashMap<TopicPartition, Offset>,
    at: &TopicPartition,
    records: &[StoredRecord],
    metrics: &SubscriptionMetrics,
) {
    let Some(last) = records.last() else { return };
    if let Some(before) = furthest.get_mut(at) {
        let again = records
            .iter()
            .take_while(|record| record.offset <= *before)
            .count();
        if again > 0 {
            metrics.redelivered(again);
        }
        *before = last.offset.max(*before);
    } else {
        furthest.insert(at.clone(), last.offset);
    }
}

/// The result of the commit on its way; never, when there is none.
async fn result_of(committing: &mut Option<Committing>) -> Result<(), LogError> {
    match committing {
        Some(committing) => (&mut committing.result).await,
        None => std::future::pending().await,
    }
}

async fn found_by(lookups: &mut VecDeque<(Vec<TopicPartition>, Lookup)>) -> Found {
    match lookups.front_mut() {
        Some((_, lookup)) => lookup.await,
        None => std::future::pending().await,
    }
}

async fn trimmed(trimming: &mut Option<Trimming>) -> Result<(), LogError> {
    match trimming {
        Some((_, result)) => result.await,
        None => std::future::pending().await,
    }
}

/// Commits and watermarks of the partitions; tries until the log answers.
async fn look_up(
    log: Arc<dyn EventLog>,
    subscription: Arc<Subscription>,
    partitions: Vec<TopicPartition>,
) -> Found {
    let mut pause = Duration::from_millis(50);
    while !partitions.is_empty() {
        match look_up_once(&*log, &subscription, &partitions).await {
            Ok(found) => return found,
            Err(error) => tracing::warn!(
                subscription = %subscription.name, %error,
                "the group's commits could not be read, trying again"
            ),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
    Vec::new()
}

async fn look_up_once(
    log: &dyn EventLog,
    subscription: &Subscription,
    partitions: &[TopicPartition],
) -> Result<Found, LogError> {
    let commits = log.committed(&subscription.group, partitions).await?;
    let mut marks = HashMap::new();
    for topic in [&subscription.topic, &subscription.retry_topic] {
        if partitions.iter().any(|at| at.topic == *topic) {
            marks.insert(topic.clone(), log.watermarks(topic).await?);
        }
    }
    let found = |(at, commit): (&TopicPartition, Option<Commit>)| {
        let marks = *marks.get(&at.topic)?.get(at.partition.index())?;
        Some((at.clone(), commit, marks))
    };
    Ok(partitions.iter().zip(commits).filter_map(found).collect())
}
