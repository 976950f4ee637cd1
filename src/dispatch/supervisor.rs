//! Follows the registry: one topic keeper per channel, one member per subscription.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::engine::Budgets;
use super::member::{Member, SubscriptionState};
use super::metrics::DispatchMetrics;
use super::progress::Progress;
use super::tools::Tools;
use crate::channel::{ResourceName, Subscription};
use crate::delivery::Deliver;
use crate::registry::{Resolution, Snapshot};
use crate::shutdown::Tasks;
use crate::status::Board;
use crate::topics::{TopicState, Topics};

/// Beyond the drain's own bounds: a member that is still there then is given up on.
const GRACE: Duration = Duration::from_secs(15);

/// Which of a node's duties the supervisor has.
#[derive(Clone, Debug)]
pub struct Duties {
    /// Whether this node delivers.
    pub dispatch: bool,
    /// Prefix of static members' ids; `None`: dynamic members.
    pub instance: Option<String>,
}

/// See the module.
pub struct Supervisor<D> {
    tools: Arc<Tools<D>>,
    topics: Topics,
    duties: Duties,
    metrics: DispatchMetrics,
    budgets: Budgets,
    board: Board,
    tasks: Tasks,
    channels: BTreeMap<ResourceName, RunningChannel>,
    subscriptions: BTreeMap<ResourceName, RunningSubscription>,
    /// Members that were told to stop; their successor in the same group waits for them.
    leaving: BTreeMap<ResourceName, Tasks>,
}

struct RunningChannel {
    state: watch::Receiver<TopicState>,
    tasks: Tasks,
}

struct RunningSubscription {
    current: Arc<Subscription>,
    changes: watch::Sender<Arc<Subscription>>,
    tasks: Tasks,
}

impl<D> std::fmt::Debug for Supervisor<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("duties", &self.duties)
            .finish_non_exhaustive()
    }
}

impl<D: Deliver> Supervisor<D> {
    /// A supervisor whose members run in `tasks`.
    #[must_use]
    pub fn new(
        tools: Arc<Tools<D>>,
        topics: Topics,
        duties: Duties,
        metrics: DispatchMetrics,
        board: Board,
        tasks: &Tasks,
    ) -> Self {
        Self {
            budgets: Budgets {
                events: Budget::new(tools.settings.max_total_bytes),
                parked: Budget::new(tools.settings.parked_index_bytes),
            },
            tools,
            topics,
            duties,
            metrics,
            board,
            tasks: tasks.child(),
            channels: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            leaving: BTreeMap::new(),
        }
    }

    /// Follows the registry until `stop`, then drains every member.
    pub async fn run(
        mut self,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        stop: CancellationToken,
    ) {
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            self.apply(&snapshot);
            tokio::select! {
                () = stop.cancelled() => break,
                changed = snapshots.changed() => if changed.is_err() { stop.cancelled().await; break },
            }
        }
        let limit = self.tools.settings.drain_timeout + GRACE;
        let members: Vec<Tasks> = self
            .subscriptions
            .into_values()
            .map(|running| running.tasks)
            .chain(self.leaving.into_values())
            .chain(self.channels.into_values().map(|running| running.tasks))
            .collect();
        members.iter().for_each(Tasks::stop);
        for member in members {
            if let Err(error) = member.drain(limit).await {
                tracing::error!(%error, "a subscription did not stop in time");
            }
        }
    }

    fn apply(&mut self, snapshot: &Snapshot) {
        let channels = &snapshot.channels;
        self.channels.retain(|name, running| {
            let keep = channels.contains_key(name);
            if !keep {
                running.tasks.stop();
            }
            keep
        });
        for (name, channel) in channels {
            if !self.channels.contains_key(name) {
                let (sender, state) = watch::channel(TopicState::Pending);
                let tasks = self.tasks.child();
                let keeper =
                    self.topics
                        .clone()
                        .keep(Arc::clone(channel), sender, tasks.stop_signal());
                tasks.spawn("channel topic", keeper);
                self.board.channel(name.clone(), state.clone());
                self.channels
                    .insert(name.clone(), RunningChannel { state, tasks });
            }
        }
        if self.duties.dispatch {
            self.apply_subscriptions(snapshot);
        }
        self.board.snapshot(snapshot);
    }

    fn apply_subscriptions(&mut self, snapshot: &Snapshot) {
        let wanted: BTreeMap<&ResourceName, &Arc<Subscription>> = snapshot
            .subscriptions
            .iter()
            .filter_map(|(name, entry)| match &entry.resolution {
                Resolution::Resolved(subscription) => Some((name, subscription)),
                Resolution::Unresolved { .. } => None,
            })
            .collect();
        self.leaving.retain(|_, tasks| !tasks.is_empty());
        let gone: Vec<ResourceName> = self
            .subscriptions
            .iter()
            .filter(|(name, running)| {
                wanted
                    .get(name)
                    .is_none_or(|wanted| must_restart(&running.current, wanted))
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(running) = self.subscriptions.remove(&name) {
                tracing::info!(subscription = %name, "delivery stops");
                running.tasks.stop();
                self.metrics.forget(&name);
                self.leaving.insert(name, running.tasks);
            }
        }
        for (name, subscription) in wanted {
            match self.subscriptions.get_mut(name) {
                Some(running) if running.current == *subscription => {}
                Some(running) => {
                    tracing::info!(subscription = %name, "the subscription changed");
                    running.current = Arc::clone(subscription);
                    running.changes.send_replace(Arc::clone(subscription));
                }
                None => self.begin(name, subscription),
            }
        }
    }

    fn begin(&mut self, name: &ResourceName, subscription: &Arc<Subscription>) {
        let Some(channel) = self.channels.get(&subscription.channel) else {
            return;
        };
        let (changes, receiver) = watch::channel(Arc::clone(subscription));
        let (state, states) = watch::channel(SubscriptionState::WaitingForChannel);
        let progress = Progress::default();
        let member = Member {
            tools: Arc::clone(&self.tools),
            topics: self.topics.clone(),
            changes: receiver,
            channel: channel.state.clone(),
            state,
            metrics: self.metrics.subscription(name),
            progress: progress.clone(),
            budgets: self.budgets.clone(),
            instance: self
                .duties
                .instance
                .as_ref()
                .map(|node| format!("{node}.{}", subscription.group)),
        };
        let tasks = self.tasks.child();
        let stop = tasks.stop_signal();
        let before = self.leaving.remove(name);
        let limit = self.tools.settings.drain_timeout + GRACE;
        tasks.spawn("subscription", async move {
            if let Some(before) = before
                && let Err(error) = before.drain(limit).await
            {
                tracing::error!(%error, "the subscription's earlier form did not stop in time");
            }
            member.run(stop).await;
        });
        self.board.subscription(name.clone(), states, progress);
        let current = Arc::clone(subscription);
        self.subscriptions.insert(
            name.clone(),
            RunningSubscription {
                current,
                changes,
                tasks,
            },
        );
    }
}

/// Whether a change is more than a running member can take over: who it is, or what it keeps in
/// order.
fn must_restart(before: &Subscription, after: &Subscription) -> bool {
    before.group != after.group
        || before.topic != after.topic
        || before.retry_topic != after.retry_topic
        || before.dead_letter_topic != after.dead_letter_topic
        || before.delivery.ordering != after.delivery.ordering
}

#[cfg(test)]
mod tests;
