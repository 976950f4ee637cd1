//! What lists, plans and workers share.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::filter::Filter;
use super::ledger::{self, Ledger, Terms};
use super::redrive::{Command, RedriveId};
use super::scan::{Direction, Scan};
use super::service::Error;
use crate::channel::{ResourceName, Subscription};
use crate::clock::{Clock, UnixMillis};
use crate::journal::Reader;
use crate::log::{EventLog, LogError};
use crate::registry::Snapshot;

/// Records may lie so much out of the order of their times.
const DISORDER: Duration = Duration::from_secs(60);

/// A selection that is frozen.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) subscription: ResourceName,
    pub(super) terms: Terms,
    pub(super) expires_at: UnixMillis,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) log: Arc<dyn EventLog>,
    /// What became of what was sent; `None`: this node does not know.
    pub(super) journal: Option<Arc<dyn Reader>>,
    pub(super) clock: Clock,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) node: String,
    pub(super) ledgers: Mutex<BTreeMap<ResourceName, Arc<Ledger>>>,
    pub(super) plans: Mutex<HashMap<String, Plan>>,
    /// At most one a subscription.
    pub(super) workers: Mutex<BTreeMap<ResourceName, (RedriveId, watch::Sender<Command>)>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn subscription(&self, name: &ResourceName) -> Option<Arc<Subscription>> {
        let snapshot = self.snapshots.borrow();
        snapshot.subscriptions.get(name)?.resolved().cloned()
    }

    pub(super) fn find(&self, name: &ResourceName) -> Result<Arc<Subscription>, Error> {
        self.subscription(name).ok_or_else(|| {
            Error::NotFound(format!(
                "there is no subscription {name}, or it cannot be served"
            ))
        })
    }

    /// What the log says about a subscription's redrives now.
    pub(super) async fn ledger(&self, name: &ResourceName) -> Result<Arc<Ledger>, Error> {
        let subscription = self.find(name)?;
        let topic = ledger::topic(&subscription.dead_letter_topic);
        let known = lock(&self.ledgers).get(name).cloned().unwrap_or_default();
        match known.refreshed(&*self.log, &topic).await? {
            None => Ok(known),
            Some(ledger) => {
                let ledger = Arc::new(ledger);
                lock(&self.ledgers).insert(name.clone(), Arc::clone(&ledger));
                Ok(ledger)
            }
        }
    }

    pub(super) fn scan(
        &self,
        subscription: &Subscription,
        direction: Direction,
        ranges: Vec<Range<i64>>,
    ) -> Scan<'_> {
        Scan::new(
            &*self.log,
            &subscription.dead_letter_topic,
            direction,
            ranges,
        )
    }

    /// The offsets of each partition of the dead-letter topic where what is meant can be.
    pub(super) async fn ranges(
        &self,
        subscription: &Subscription,
        filter: &Filter,
        ends: Option<&[i64]>,
    ) -> Result<Vec<Range<i64>>, LogError> {
        let (log, topic) = (&*self.log, &subscription.dead_letter_topic);
        if log.describe_topic(topic).await?.is_none() {
            return Ok(Vec::new());
        }
        let marks = log.watermarks(topic).await?;
        let mut ranges: Vec<_> = marks
            .iter()
            .map(|marks| marks.low.0..marks.high.0)
            .collect();
        if let Some(since) = filter.since {
            let starts = log.offsets_at(topic, since).await?;
            for (range, start) in ranges.iter_mut().zip(starts) {
                range.start = range.start.max(start.0);
            }
        }
        if let Some(until) = filter.until {
            let late = log.offsets_at(topic, until.plus(DISORDER)).await?;
            for (range, end) in ranges.iter_mut().zip(late) {
                range.end = range.end.min(end.0);
            }
        }
        // A partition that was added since has no end among them: nothing of it is meant.
        if let Some(ends) = ends {
            for (index, range) in ranges.iter_mut().enumerate() {
                range.end = range.end.min(ends.get(index).copied().unwrap_or(0));
            }
        }
        Ok(ranges)
    }

    /// Takes the subscription's place for a worker, if it is free.
    pub(super) fn reserve(
        &self,
        id: &RedriveId,
        command: Command,
    ) -> Option<watch::Receiver<Command>> {
        let mut workers = lock(&self.workers);
        if workers.contains_key(&id.subscription) {
            return None;
        }
        let (sender, receiver) = watch::channel(command);
        workers.insert(id.subscription.clone(), (id.clone(), sender));
        Some(receiver)
    }

    pub(super) fn forget_worker(&self, id: &RedriveId) {
        let mut workers = lock(&self.workers);
        if workers
            .get(&id.subscription)
            .is_some_and(|(other, _)| other == id)
        {
            workers.remove(&id.subscription);
        }
    }

    /// Has a redrive wait, unless it is to end.
    pub(super) fn pause(&self, id: &RedriveId) {
        if let Some((worker, sender)) = lock(&self.workers).get(&id.subscription)
            && worker == id
        {
            sender.send_if_modified(|command| {
                let waits = *command != Command::Cancel;
                if waits {
                    *command = Command::Pause;
                }
                waits
            });
        }
    }

    pub(super) fn tell(&self, id: &RedriveId, command: Command) {
        if let Some((worker, sender)) = lock(&self.workers).get(&id.subscription)
            && worker == id
        {
            sender.send_replace(command);
        }
    }
}
