//! The loop of one subscription: records in, attempts out, commits.
//!
//! One task owns everything of the subscription on this node: its membership in the consumer
//! group, the sources of its partitions, the [`Engine`] that decides, and the work in progress.
//! Each turn of the loop looks at everything there may be, then sleeps until one of its wakers
//! says that there may be more.

mod commits;
mod group;
mod shown;
mod unowned;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::FutureExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, Now, SlotId, Told};
use super::metrics::SubscriptionMetrics;
use super::perform::{Done, perform};
use super::progress::Progress;
use super::tools::Tools;
use crate::channel::Subscription;
use crate::delivery::{AttemptReport, Deliver, check};
use crate::journal::Ticket;
use crate::log::{
    GroupSpec, LogError, Membership, Offset, Partition, Source, StoredRecord, TopicPartition,
};

use commits::{Committing, Stepped, Trim, Trimming, step_of, trimmed};
use group::{Lookup, Revocation, found_by};
use shown::Shown;

/// Records taken from one partition before the next has its turn.
const TAKE: usize = 256;
/// How often in one turn of the loop records are taken from a partition: reading a long backlog
/// must not hold up attempts that are due.
const TAKES: usize = 4;
/// How soon memory that other subscriptions held is noticed to be free.
const MEMORY_INTERVAL: Duration = Duration::from_millis(50);
/// How long a final commit may take.
const FINAL_COMMIT: Duration = Duration::from_secs(5);
/// After that, what a rebalance may take besides.
const SETTLES: Duration = Duration::from_secs(2);

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
    /// Records were left for the next turn.
    more: bool,
    /// How far the journal has to be for what was told last.
    told: Ticket,
    /// How far each partition was read by this process, to count what is read again.
    furthest: HashMap<TopicPartition, Offset>,
    /// Assignments that are not answered yet, in order.
    lookups: VecDeque<(Vec<TopicPartition>, Lookup)>,
    /// How far the retry topic is committed, and how far it was trimmed.
    trims: HashMap<Partition, Trim>,
    trimming: Option<Trimming>,
    next_trim: Instant,
    shown: Shown,
    committing: Option<Committing>,
    next_commit: Instant,
    revocations: Vec<Revocation>,
    watch: unowned::Watch,
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
        let settled = tools.settings.revocation_timeout + FINAL_COMMIT + SETTLES;
        let watch = unowned::Watch::new(instance.is_some(), settled, Instant::now());
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
            more: false,
            told: Ticket::default(),
            furthest: HashMap::new(),
            lookups: VecDeque::new(),
            trims: HashMap::new(),
            trimming: None,
            next_trim: Instant::now() + TRIM_INTERVAL,
            shown: Shown::new(Instant::now()),
            committing: None,
            next_commit: Instant::now(),
            revocations: Vec::new(),
            watch,
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
            self.tell();
            self.group_events();
            self.take_records();
            if let Some(error) = self.lost.take() {
                drop(work);
                return self.abandon(error).await;
            }
            let now = self.now();
            // A journal that falls behind is waited for, never long: it must not grow.
            let crowded = self.tools.journal.is_crowded();
            while !crowded && let Some(job) = self.engine.next_work(now) {
                let at = job.slot().map(|slot| self.engine.partition(slot).clone());
                let tools = Arc::clone(&self.tools);
                work.push(perform(tools, Arc::clone(&self.subscription), at, job));
            }
            // First, so that no commit goes out for partitions that are lost.
            self.end_revocations(now.mono);
            self.begin_commit(now.mono);
            self.begin_trim(now.mono);
            self.watch.look(now.mono, || self.membership.unowned());
            self.shown
                .look(now.mono, || self.progress.look(self.engine.look(now)));
            if stopping.is_some_and(|deadline| self.is_drained(deadline, now.mono)) {
                drop(work);
                return self.leave().await;
            }
            self.set_timer(timer.as_mut(), stopping);
            tokio::select! {
                biased;
                () = stop.cancelled(), if stopping.is_none() => {
                    stopping = Some(Instant::now() + self.tools.settings.drain_timeout);
                    // What is still looked up is not begun.
                    self.lookups.clear();
                    for slot in self.engine.live_slots() {
                        self.engine.close(slot);
                    }
                }
                // What is rare comes before what may never cease.
                step = step_of(&mut self.committing) => self.commit_stepped(step),
                found = found_by(&mut self.lookups), if stopping.is_none() => self.start(found),
                result = trimmed(&mut self.trimming) => self.trim_ended(result),
                unowned = unowned::answer(&mut self.watch), if stopping.is_none() => {
                    if self.watch.answered(&unowned, Instant::now(), rand::random()) {
                        drop(work);
                        return self.share_anew(unowned.unwrap_or(0)).await;
                    }
                }
                Ok(()) = changes.changed(), if stopping.is_none() => {
                    self.subscription = Arc::clone(&changes.borrow_and_update());
                    self.engine.update(Arc::clone(&self.subscription));
                }
                Some(done) = work.next(), if !work.is_empty() => {
                    self.done(done);
                    while let Some(Some(done)) = work.next().now_or_never() {
                        self.done(done);
                    }
                }
                () = wake.notified() => {}
                () = &mut timer => {}
                () = self.tools.journal.room(), if crowded => {}
                () = tokio::task::yield_now(), if self.more => {}
            }
        }
    }

    /// Hands over what there is to tell.
    fn tell(&mut self) {
        if let Some(outbox) = self.engine.outbox() {
            self.told = self.tools.journal.record(outbox);
        }
    }

    /// Attempts that are cut by the end of their partitions count as not made.
    fn interrupt(&mut self, slots: &[SlotId]) {
        let now = self.now();
        for slot in slots {
            self.engine.tell_interrupted(*slot, now);
        }
        self.tell();
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
        let now = Instant::now();
        let revocation = self.revocations.iter().map(|r| r.due(now)).min();
        let memory = self
            .engine
            .waits_for_memory()
            .then(|| now + MEMORY_INTERVAL);
        let behind = |trim: &Trim| trim.committed > trim.trimmed;
        let trim =
            (self.trimming.is_none() && self.trims.values().any(behind)).then_some(self.next_trim);
        let due = [
            self.shown.due(),
            self.engine.next_due(),
            commit,
            revocation,
            stopping,
            memory,
            trim,
            self.watch.due(),
        ];
        let next = due.into_iter().flatten().min().unwrap_or(far);
        // An hour more or less is no reason to touch the timer on every turn.
        if timer.deadline() != next && (next < far || timer.deadline() <= Instant::now()) {
            timer.as_mut().reset(next);
        }
    }

    fn done(&mut self, done: Done) {
        let now = self.now();
        match done {
            Done::Attempted(id, report, request) => {
                self.metrics.attempt(&report);
                self.engine.receipt(self.receipt(&report));
                let told = request.map(|request| Told {
                    started: report.started,
                    duration: report.duration,
                    answer: report.answer,
                    request,
                });
                self.engine.attempted_told(id, report.result, told, now);
            }
            Done::Checked(id, report, request) => {
                let told = request.map(|request| Told {
                    started: report.started,
                    duration: report.duration,
                    answer: report.answer.clone(),
                    request,
                });
                let answer = report.answer.as_ref();
                self.engine
                    .checked_told(id, &report.result, answer, told, now);
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

    /// Where the provider that took an event tells what became of it.
    fn receipt(&self, report: &AttemptReport) -> Option<Result<String, String>> {
        let check = self.subscription.delivery.status_check.as_deref()?;
        let sink = &self.subscription.subscriber;
        report.result.as_ref().ok()?;
        Some(check::address(check, sink, report.answer.as_ref()))
    }

    // ---- records

    fn take_records(&mut self) {
        let mut full = 0;
        let mut cut = Vec::new();
        self.more = false;
        // Another one is first each time: a backlog of one must not take all the room.
        if self.sources.len() > 1 {
            self.sources.rotate_left(1);
        }
        for (slot, source) in &mut self.sources {
            let mut takes = 0;
            loop {
                let room = self.engine.credit(*slot).min(TAKE);
                if room == 0 {
                    break;
                }
                if takes == TAKES {
                    self.more = true;
                    break;
                }
                takes += 1;
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
        self.commit_the_last().await;
        let stay = self.tools.settings.stay_in_group;
        self.go(stay).await;
        End::Stopped
    }

    /// Ends a membership that is over, or that cannot go on. What is finished is committed where
    /// that is still possible.
    async fn abandon(mut self, error: LogError) -> End {
        if !matches!(error, LogError::MembershipLost(_)) {
            self.commit_the_last().await;
        }
        self.go(true).await;
        End::MembershipLost(error)
    }

    /// Leaves the group and joins again, which makes it share its partitions anew.
    async fn share_anew(mut self, unowned: usize) -> End {
        self.commit_the_last().await;
        self.go(false).await;
        End::MembershipLost(LogError::MembershipLost(format!(
            "{unowned} partitions have no owner since a rebalance broke off"
        )))
    }

    async fn commit_the_last(&mut self) {
        let slots = self.engine.live_slots();
        self.interrupt(&slots);
        let before = self.commit_answer().await;
        let slots = self.engine.live_slots();
        let answer = if self.commit(&slots) {
            self.commit_answer().await
        } else {
            before
        };
        if let Err(error) = answer {
            tracing::warn!(
                subscription = %self.subscription.name, %error,
                "the last commit failed: some events will be delivered again"
            );
        }
    }

    /// The result of the commit on its way, if there is one, repeated without its metadata if that
    /// is refused.
    async fn commit_answer(&mut self) -> Result<(), LogError> {
        let deadline = Instant::now() + FINAL_COMMIT;
        let mut answer = Ok(());
        while self.committing.is_some() {
            let step = timeout_at(deadline, step_of(&mut self.committing)).await;
            let step = step
                .unwrap_or_else(|_| Stepped::Answered(Err(LogError::TimedOut("a commit".into()))));
            if let Stepped::Answered(result) = &step {
                answer.clone_from(result);
            }
            self.commit_stepped(step);
        }
        answer
    }

    async fn go(self, stay: bool) {
        for slot in self.engine.live_slots() {
            self.progress.gone(self.engine.partition(slot));
        }
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
#[cfg(test)]
mod tests;
