//! The loop of one subscription: records in, attempts out, commits.
//!
//! One task owns everything of the subscription on this node: its membership in the consumer
//! group, the sources of its partitions, the [`Engine`] that decides, and the work in progress.
//! Each turn of the loop looks at everything there may be, then sleeps until one of its wakers
//! says that there may be more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::FutureExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::engine::{AttemptWork, Engine, MessageId, Now, SlotId, Work};
use super::metrics::SubscriptionMetrics;
use super::progress::Progress;
use super::start::{Basis, start};
use super::tools::Tools;
use crate::channel::{Sink, Subscription};
use crate::delivery::{Attempt, AttemptReport, Deliver, Failure, Reason, Success};
use crate::log::{
    Commit, Commits, EventLog, GroupEvent, GroupSpec, LogError, LogFuture, Membership, Offset,
    Source, StoredRecord, Target, TopicPartition, Watermarks,
};

/// Records taken from one partition before the next has its turn.
const TAKE: usize = 256;
/// How long a final commit may take.
const FINAL_COMMIT: Duration = Duration::from_secs(5);

/// Why a dispatcher ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was told to, and drained.
    Stopped,
    /// It is no member any more; a new one may join.
    MembershipLost(LogError),
}

#[expect(
    clippy::large_enum_variant,
    reason = "a box for every attempt would cost more"
)]
enum Done {
    Attempted(MessageId, AttemptReport),
    Kept(MessageId, Result<(), LogError>),
}

type Found = Vec<(TopicPartition, Option<Commit>, Watermarks)>;
type Lookup = std::pin::Pin<Box<dyn Future<Output = Found> + Send>>;

/// A commit on its way.
struct Committing {
    slots: Vec<SlotId>,
    commits: Commits,
    result: LogFuture<'static, ()>,
}

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
    lookup: Option<(Vec<TopicPartition>, Lookup)>,
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
            topics: vec![subscription.topic.clone()],
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
            lookup: None,
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
                work.push(perform(
                    Arc::clone(&self.tools),
                    Arc::clone(&self.subscription),
                    job,
                ));
            }
            self.begin_commit(now.mono);
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
                found = found_by(&mut self.lookup) => self.start(found),
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
        }
    }

    // ---- records

    fn take_records(&mut self) {
        let mut full = 0;
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
                    Err(error) => {
                        self.lost.get_or_insert(error);
                        break;
                    }
                }
            }
            full += usize::from(self.engine.window_is_full(*slot));
        }
        self.metrics.paused(full);
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
                    let lookup = look_up(
                        Arc::clone(&self.tools.log),
                        Arc::clone(&self.subscription),
                        partitions.clone(),
                    );
                    let before = self.lookup.take();
                    debug_assert!(before.is_none(), "an assignment was not answered");
                    self.lookup = Some((partitions, Box::pin(lookup)));
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

    fn start(&mut self, found: Found) {
        let Some((wanted, _)) = self.lookup.take() else {
            return;
        };
        // What was revoked while its commits were looked up is not ours to start.
        let mut starts = Vec::with_capacity(found.len());
        let mut commits = HashMap::new();
        for (at, commit, marks) in found.into_iter().filter(|(at, ..)| wanted.contains(at)) {
            let begin = start(commit.as_ref(), marks);
            self.report_start(&at, begin.basis);
            let kept = commit.filter(|_| begin.basis == Basis::Commit);
            commits.insert(at.clone(), (begin.offset, kept));
            starts.push((at, begin.offset));
        }
        match self.membership.start(starts) {
            Ok(sources) => {
                for (at, source) in sources {
                    let Some((offset, commit)) = commits.remove(&at) else {
                        continue;
                    };
                    self.progress
                        .committed(&at, commit.as_ref().map_or(offset, |c| c.offset));
                    let slot = self.engine.open(at, offset, commit);
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
        if let Some((wanted, _)) = &mut self.lookup {
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
                self.progress.gone(self.engine.partition(*slot));
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
                    self.progress.committed(at, commit.offset);
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

async fn found_by(lookup: &mut Option<(Vec<TopicPartition>, Lookup)>) -> Found {
    match lookup {
        Some((_, lookup)) => lookup.await,
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
        let commits = log.committed(&subscription.group, &partitions).await;
        let marks = log.watermarks(&subscription.topic).await;
        match (commits, marks) {
            (Ok(commits), Ok(marks)) => {
                return partitions
                    .into_iter()
                    .zip(commits)
                    .filter_map(|(at, commit)| {
                        let marks = *marks.get(at.partition.index())?;
                        Some((at, commit, marks))
                    })
                    .collect();
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(
                    subscription = %subscription.name, %error,
                    "the group's commits could not be read, trying again"
                );
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
    Vec::new()
}

async fn perform<D: Deliver>(
    tools: Arc<Tools<D>>,
    subscription: Arc<Subscription>,
    work: Work,
) -> Done {
    match work {
        Work::Attempt(work) => {
            let id = work.id;
            Done::Attempted(id, attempt(&tools, &subscription, work).await)
        }
        Work::Keep {
            id,
            partition,
            record,
        } => {
            let target = Target::Partition(partition);
            let kept = tools
                .log
                .append(&subscription.dead_letter_topic, target, record)
                .await;
            Done::Kept(id, kept.map(|_| ()))
        }
    }
}

async fn attempt<D: Deliver>(
    tools: &Tools<D>,
    subscription: &Subscription,
    work: AttemptWork,
) -> AttemptReport {
    let delivery = &subscription.delivery;
    match work.sink {
        Sink::Http(sink) => {
            let attempt = Attempt {
                sink,
                format: delivery.format.unwrap_or(work.event.received_as()),
                event: work.event,
                timeout: delivery.timeout,
                retry_codes: delivery.retry_codes.clone(),
                take_reply: work.take_reply,
                pass_through: Vec::new(),
            };
            tools.deliver.attempt(attempt).await
        }
        Sink::Channel { topic, .. } => {
            let (began, started) = (Instant::now(), tools.clock.now());
            let record = work.event.to_record();
            let appending = tools.log.append(&topic, Target::ByKey, record);
            let result = match timeout(delivery.timeout, appending).await {
                Ok(Ok(_)) => Ok(Success {
                    code: 202,
                    reply: None,
                }),
                Ok(Err(error)) => {
                    let failure = Failure::without_answer(Reason::PipelineError, error.to_string());
                    Err(Failure {
                        retryable: error.is_retryable(),
                        ..failure
                    })
                }
                Err(_) => Err(Failure::without_answer(
                    Reason::AttemptTimeout,
                    format!("the log did not answer within {:?}", delivery.timeout),
                )),
            };
            AttemptReport {
                started,
                duration: began.elapsed(),
                answer: None,
                result,
            }
        }
    }
}
