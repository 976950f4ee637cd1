//! What the admin port asks for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::filter::Filter;
use super::ledger::{self, Entry, Ledger, Redrive, State, Terms};
use super::letter::DeadLetter;
use super::listing::{self, Listed, Listing, Page};
use super::outcomes::Outcomes;
use super::redrive::{Command, RedriveId, Worker, is_meant};
use super::scan::Direction;
use super::shared::{Plan, Shared, lock};
use crate::channel::{ResourceName, Subscription};
use crate::clock::{Clock, UnixMillis};
use crate::journal::Reader;
use crate::log::{EventLog, LogError};
use crate::message::MessageId;
use crate::registry::Snapshot;
use crate::shutdown::Tasks;

/// How long a plan is good.
const PLAN_LIFE: Duration = Duration::from_secs(15 * 60);
/// Plans that are kept.
const PLANS: usize = 100;
/// Another node's redrive that wrote something within this time is at work.
const ALIVE: Duration = Duration::from_secs(60);
/// How long to wait before redrives are looked for again after the log failed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Why something asked for is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("{0}")]
    NotFound(String),
    /// It does not go with how things stand.
    #[error("{0}")]
    Conflict(String),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What to send round again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// Which dead letters.
    pub filter: Filter,
    /// At most so many, the oldest.
    pub limit: Option<u64>,
    /// Also those that were sent again before.
    pub again: bool,
}

/// A frozen selection.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The name to start it by; good for 15 minutes, on this node, until it restarts.
    pub plan: String,
    /// How many dead letters it means.
    pub count: u64,
    /// Until when it is good.
    pub expires_at: UnixMillis,
}

/// Dead letters and redrives of all subscriptions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl DeadLetters {
    /// Those of the subscriptions in `snapshots`. `node` is this node's name, the same after a
    /// restart; its redrives run in `tasks` and learn from `journal` what became of what they sent.
    #[must_use]
    pub fn new(
        log: Arc<dyn EventLog>,
        journal: Option<Arc<dyn Reader>>,
        clock: Clock,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        node: String,
        tasks: &Tasks,
    ) -> Self {
        let shared = Shared {
            log,
            journal,
            clock,
            snapshots,
            node,
            ledgers: Mutex::default(),
            plans: Mutex::default(),
            workers: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            tasks: tasks.clone(),
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Goes on with the redrives that this node had when it ended, as their subscriptions come
    /// into force. Runs until `tasks` are stopped.
    pub async fn resume(self) {
        let stop = self.tasks.stop_signal();
        let mut snapshots = self.shared.snapshots.clone();
        let mut known = BTreeSet::new();
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let mut complete = true;
            for (name, entry) in &snapshot.subscriptions {
                if entry.resolved().is_none() || known.contains(name) {
                    continue;
                }
                match self.resume_one(name).await {
                    Ok(()) => {
                        known.insert(name.clone());
                    }
                    Err(_) => complete = false,
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = snapshots.changed() => if changed.is_err() { return },
                () = sleep(LOOK_AGAIN), if !complete => {}
            }
        }
    }

    async fn resume_one(&self, name: &ResourceName) -> Result<(), Error> {
        let ledger = self.shared.ledger(name).await?;
        let own = |redrive: &&Redrive| {
            redrive.terms.node == self.shared.node && !redrive.state.is_final()
        };
        if let Some(redrive) = ledger.all().find(own) {
            let paused = redrive.state == State::Paused;
            let command = if paused {
                Command::Pause
            } else {
                Command::Resume
            };
            tracing::info!(redrive = %redrive.id, ?command, "a redrive of before the restart");
            if let Some(commands) = self.shared.reserve(&redrive.id, command) {
                self.work(redrive.clone(), Arc::clone(&ledger), commands);
            }
        }
        Ok(())
    }

    fn work(&self, redrive: Redrive, ledger: Arc<Ledger>, commands: watch::Receiver<Command>) {
        let outcomes = match self.shared.journal {
            Some(_) => Outcomes::default(),
            None => Outcomes::unknowable(),
        };
        let worker = Worker {
            outcomes,
            shared: Arc::clone(&self.shared),
            redrive,
            ledger,
            commands,
            stop: self.tasks.stop_signal(),
        };
        self.tasks.spawn("redrive", worker.run());
    }

    /// A page of a subscription's dead letters, the newest first.
    ///
    /// # Errors
    /// [`Error`] when there is no such subscription, or the log fails.
    pub async fn list(
        &self,
        name: &ResourceName,
        filter: &Filter,
        page: Page,
    ) -> Result<Listing, Error> {
        let shared = &self.shared;
        let subscription = shared.find(name)?;
        let ledger = shared.ledger(name).await?;
        let ranges = shared
            .ranges(&subscription, filter, page.after.as_deref())
            .await?;
        let mut scan = shared.scan(&subscription, Direction::NewestFirst, ranges);
        Ok(listing::collect(&mut scan, &subscription, filter, page.size, &ledger).await?)
    }

    /// The newest dead letter of a message.
    ///
    /// # Errors
    /// [`Error`] when there is none, or the log fails.
    pub async fn get(&self, name: &ResourceName, id: MessageId) -> Result<Listed, Error> {
        let shared = &self.shared;
        let subscription = shared.find(name)?;
        let ledger = shared.ledger(name).await?;
        let mut ranges = shared
            .ranges(&subscription, &Filter::default(), None)
            .await?;
        // It went to the partition with the number of its origin.
        for (index, range) in ranges.iter_mut().enumerate() {
            if index != id.partition().index() {
                range.end = range.start;
            }
        }
        let mut scan = shared.scan(&subscription, Direction::NewestFirst, ranges);
        while let Some((partition, stored)) = scan.next().await? {
            let letter = DeadLetter::read(&subscription, partition, stored);
            if let Some(letter) = letter.filter(|letter| letter.id == id) {
                return Ok(Listed::new(letter, &subscription, &ledger));
            }
        }
        Err(Error::NotFound(format!(
            "{name} has no dead letter {id}, or has it no more"
        )))
    }

    /// Counts what a selection means and freezes it.
    ///
    /// # Errors
    /// [`Error`] when there is no such subscription, or the log fails.
    pub async fn plan(&self, name: &ResourceName, selection: Selection) -> Result<Planned, Error> {
        let terms = self.terms(name, selection).await?;
        let now = self.shared.clock.now();
        let planned = Planned {
            plan: uuid::Uuid::new_v4().simple().to_string(),
            count: terms.count,
            expires_at: now.plus(PLAN_LIFE),
        };
        let plan = Plan {
            subscription: name.clone(),
            terms,
            expires_at: planned.expires_at,
        };
        let mut plans = lock(&self.shared.plans);
        plans.retain(|_, plan| plan.expires_at > now);
        if plans.len() >= PLANS {
            let oldest = plans.iter().min_by_key(|(_, plan)| plan.expires_at);
            let oldest = oldest.map(|(id, _)| id.clone());
            oldest.and_then(|id| plans.remove(&id));
        }
        plans.insert(planned.plan.clone(), plan);
        Ok(planned)
    }

    /// A plan that is still good, with the filter it was made with.
    #[must_use]
    pub fn planned(&self, name: &ResourceName, plan: &str) -> Option<(Planned, Selection)> {
        let now = self.shared.clock.now();
        let plans = lock(&self.shared.plans);
        let good = |plan: &&Plan| plan.subscription == *name && plan.expires_at > now;
        let found = plans.get(plan).filter(good)?;
        let planned = Planned {
            plan: plan.to_owned(),
            count: found.terms.count,
            expires_at: found.expires_at,
        };
        let selection = Selection {
            filter: found.terms.filter.clone(),
            limit: found.terms.limit,
            again: found.terms.again,
        };
        Some((planned, selection))
    }

    /// The redrives of a subscription that are still known, the newest first.
    ///
    /// # Errors
    /// [`Error`] when there is no such subscription, or the log fails.
    pub async fn redrives(&self, name: &ResourceName) -> Result<Vec<Redrive>, Error> {
        let ledger = self.shared.ledger(name).await?;
        let mut all: Vec<_> = ledger.all().cloned().collect();
        all.sort_by_key(|redrive| std::cmp::Reverse(redrive.created_at));
        Ok(all)
    }

    /// The messages that a redrive sent again, at most `limit`, oldest dead letter first.
    ///
    /// # Errors
    /// [`Error`] when there is none of this name, or the log fails.
    pub async fn sent_by(&self, id: &RedriveId, limit: usize) -> Result<Vec<MessageId>, Error> {
        let redrive = self.redrive(id).await?;
        let subscription = self.shared.find(&id.subscription)?;
        let all = Filter::default();
        let mut ranges = self.shared.ranges(&subscription, &all, None).await?;
        for (partition, range) in (0..).zip(&mut ranges) {
            let sent = redrive.sent_range(crate::log::Partition(partition));
            *range = range.start.max(sent.start)..range.end.min(sent.end).max(range.start);
        }
        let mut scan = self
            .shared
            .scan(&subscription, Direction::OldestFirst, ranges);
        let mut sent = Vec::new();
        while sent.len() < limit {
            let Some((partition, stored)) = scan.next().await? else {
                break;
            };
            let letter = DeadLetter::read(&subscription, partition, stored);
            sent.extend(
                letter
                    .filter(|l| redrive.has_sent(l))
                    .map(|letter| letter.id),
            );
        }
        Ok(sent)
    }

    async fn terms(&self, name: &ResourceName, selection: Selection) -> Result<Terms, Error> {
        let shared = &self.shared;
        let subscription = shared.find(name)?;
        let ledger = shared.ledger(name).await?;
        let filter = &selection.filter;
        let ranges = shared.ranges(&subscription, filter, None).await?;
        let mut terms = Terms {
            ends: ranges.iter().map(|range| range.end).collect(),
            filter: filter.clone(),
            limit: selection.limit,
            rate: None,
            again: selection.again,
            count: 0,
            node: shared.node.clone(),
        };
        let mut scan = shared.scan(&subscription, Direction::OldestFirst, ranges);
        while terms.limit.is_none_or(|limit| terms.count < limit) {
            let Some((partition, stored)) = scan.next().await? else {
                break;
            };
            let letter = DeadLetter::read(&subscription, partition, stored);
            if letter.is_some_and(|l| is_meant(&l, &subscription, &terms, None, &ledger)) {
                terms.count += 1;
            }
        }
        Ok(terms)
    }

    /// Starts a redrive of what a plan means.
    ///
    /// # Errors
    /// [`Error`] when there is no such plan (any more), a redrive of the subscription is at work,
    /// or the log fails.
    pub async fn start_plan(
        &self,
        name: &ResourceName,
        plan: &str,
        rate: Option<f64>,
    ) -> Result<Redrive, Error> {
        let now = self.shared.clock.now();
        let terms = {
            let plans = lock(&self.shared.plans);
            let good = |plan: &&Plan| plan.subscription == *name && plan.expires_at > now;
            plans.get(plan).filter(good).map(|plan| plan.terms.clone())
        };
        let Some(terms) = terms else {
            return Err(Error::NotFound(
                "there is no such plan: plans are good for 15 minutes, on the node that made \
                 them, until it restarts; make another with dry_run"
                    .into(),
            ));
        };
        let redrive = self.begin(name, Terms { rate, ..terms }).await?;
        lock(&self.shared.plans).remove(plan);
        Ok(redrive)
    }

    /// Starts a redrive.
    ///
    /// # Errors
    /// As [`DeadLetters::start_plan`], but for the plan.
    pub async fn start(
        &self,
        name: &ResourceName,
        selection: Selection,
        rate: Option<f64>,
    ) -> Result<Redrive, Error> {
        let terms = self.terms(name, selection).await?;
        self.begin(name, Terms { rate, ..terms }).await
    }

    async fn begin(&self, name: &ResourceName, terms: Terms) -> Result<Redrive, Error> {
        let subscription = self.shared.find(name)?;
        let id = RedriveId::random(name);
        let Some(commands) = self.shared.reserve(&id, Command::Resume) else {
            return Err(Error::Conflict(format!(
                "a redrive of {name} is at work already; let it end, or cancel it"
            )));
        };
        match self.written(&subscription, &id, terms).await {
            Ok((redrive, ledger)) => {
                self.work(redrive.clone(), ledger, commands);
                Ok(redrive)
            }
            Err(error) => {
                self.shared.forget_worker(&id);
                Err(error)
            }
        }
    }

    /// Writes down that a redrive begins.
    async fn written(
        &self,
        subscription: &Subscription,
        id: &RedriveId,
        terms: Terms,
    ) -> Result<(Redrive, Arc<Ledger>), Error> {
        let shared = &self.shared;
        let log = &*shared.log;
        let dead_letters = &subscription.dead_letter_topic;
        let ledger = shared.ledger(&subscription.name).await?;
        let now = shared.clock.now();
        let at_work = |redrive: &&Redrive| {
            let alive = now.since(redrive.updated_at) < ALIVE;
            redrive.state == State::Running && redrive.terms.node != shared.node && alive
        };
        if let Some(other) = ledger.all().find(at_work) {
            return Err(Error::Conflict(format!(
                "redrive {} of {} is at work on another node",
                other.id, subscription.name
            )));
        }
        let replicas = log.describe_topic(dead_letters).await?;
        let replicas = replicas.map_or(1, |topic| topic.replicas);
        let topic = ledger::topic(dead_letters);
        ledger::create(log, &topic, replicas).await?;
        let marks = log.watermarks(dead_letters).await?;
        if let Err(error) = ledger.trim(log, &topic, &marks).await {
            tracing::warn!(%topic, %error, "the redrive topic cannot be trimmed");
        }
        ledger::write(log, &topic, id, Entry::Begun(terms)).await?;
        let ledger = shared.ledger(&subscription.name).await?;
        let redrive = ledger.get(id).cloned().ok_or_else(|| {
            LogError::Unavailable("what was written about the redrive is not to be read".into())
        })?;
        tracing::info!(redrive = %id, count = redrive.terms.count, "a redrive begins");
        Ok((redrive, ledger))
    }

    /// How a redrive stands.
    ///
    /// # Errors
    /// [`Error`] when there is none of this name, or the log fails.
    pub async fn redrive(&self, id: &RedriveId) -> Result<Redrive, Error> {
        let ledger = self.shared.ledger(&id.subscription).await?;
        ledger
            .get(id)
            .cloned()
            .ok_or_else(|| Error::NotFound(format!("there is no redrive {id}")))
    }

    /// Tells a redrive of this node what to do.
    ///
    /// # Errors
    /// [`Error`] when there is none of this name, it has ended or is another node's, or the log
    /// fails.
    pub async fn command(&self, id: &RedriveId, command: Command) -> Result<Redrive, Error> {
        let redrive = self.redrive(id).await?;
        if redrive.state.is_final() {
            return Err(Error::Conflict(format!("redrive {id} has ended")));
        }
        if redrive.terms.node != self.shared.node {
            return Err(Error::Conflict(format!(
                "redrive {id} belongs to another node ({}): ask that one",
                redrive.terms.node
            )));
        }
        let subscription = self.shared.find(&id.subscription)?;
        let topic = ledger::topic(&subscription.dead_letter_topic);
        let entry = Entry::State {
            state: command.state(),
            why: None,
        };
        ledger::write(&*self.shared.log, &topic, id, entry).await?;
        self.shared.tell(id, command);
        self.redrive(id).await
    }
}
