//! The life of one subscription on this node: prepare, join, run; again after a failure.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::dispatcher::{Dispatcher, End};
use super::engine::{Budgets, Engine};
use super::metrics::SubscriptionMetrics;
use super::prepare::{is_fixed, prepare};
use super::progress::Progress;
use super::tools::Tools;
use crate::channel::Subscription;
use crate::delivery::Deliver;
use crate::log::{LogError, TopicDescription};
use crate::topics::{TopicState, Topics};

/// The wait after a first failure; it doubles from failure to failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A failure after so long a time without one counts as the first.
const GOOD_WHILE: Duration = Duration::from_secs(60);

/// How far a subscription has come on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
    /// Its channel's topic is not ready.
    WaitingForChannel,
    /// Its topics and its start are being made.
    Preparing,
    /// Every event accepted from now on will reach it.
    Ready,
    /// Something failed; it is tried again.
    Failed(LogError),
}

/// One subscription's member.
pub(crate) struct Member<D> {
    pub(crate) tools: Arc<Tools<D>>,
    pub(crate) topics: Topics,
    pub(crate) changes: watch::Receiver<Arc<Subscription>>,
    pub(crate) channel: watch::Receiver<TopicState>,
    pub(crate) state: watch::Sender<SubscriptionState>,
    pub(crate) metrics: SubscriptionMetrics,
    pub(crate) progress: Progress,
    pub(crate) budgets: Budgets,
    pub(crate) instance: Option<String>,
}

impl<D: Deliver> Member<D> {
    /// Runs until `stop`, however often something fails.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let prepared = tokio::select! {
                () = stop.cancelled() => return,
                prepared = self.prepare() => prepared,
            };
            let began = Instant::now();
            let ended = match prepared {
                Ok(()) => self.dispatch(&stop).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(End::Stopped) => return,
                Ok(End::MembershipLost(error)) | Err(error) => {
                    let name = self.changes.borrow().name.clone();
                    tracing::warn!(subscription = %name, %error, "delivery stands still, trying again");
                    self.state.send_replace(SubscriptionState::Failed(error));
                }
            }
            if began.elapsed() >= GOOD_WHILE {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn prepare(&mut self) -> Result<(), LogError> {
        let topic = self.channel_topic().await;
        self.state.send_if_modified(|state| {
            let waiting = *state == SubscriptionState::WaitingForChannel;
            if waiting {
                *state = SubscriptionState::Preparing;
            }
            waiting
        });
        let subscription = Arc::clone(&self.changes.borrow());
        let log = Arc::clone(&self.tools.log);
        let bytes = self.topics.side_record_bytes();
        self.topics
            .admin(prepare(&*log, &subscription, &topic, bytes))
            .await?;
        if self
            .topics
            .admin(is_fixed(&*log, &subscription, &topic))
            .await?
        {
            self.state.send_replace(SubscriptionState::Ready);
        }
        Ok(())
    }

    /// The channel's topic, once it is ready.
    async fn channel_topic(&mut self) -> TopicDescription {
        loop {
            if let TopicState::Ready { topic, .. } = &*self.channel.borrow_and_update() {
                return *topic;
            }
            if self.channel.changed().await.is_err() {
                // The channel is gone and this subscription is about to be stopped.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn dispatch(&mut self, stop: &CancellationToken) -> Result<End, LogError> {
        let subscription = Arc::clone(&self.changes.borrow_and_update());
        let engine = Engine::new(
            Arc::clone(&subscription),
            self.tools.settings.clone(),
            self.metrics.clone(),
            self.budgets.clone(),
            rand::random(),
        )
        .telling(self.tools.journal.is_on());
        let dispatcher = Dispatcher::join(
            Arc::clone(&self.tools),
            subscription,
            self.instance.clone(),
            self.metrics.clone(),
            self.progress.clone(),
            engine,
        )?;
        let fixed = self.wait_until_fixed();
        let running = dispatcher.run(stop.clone(), self.changes.clone());
        let mut running = std::pin::pin!(running);
        tokio::select! {
            end = &mut running => return Ok(end),
            () = fixed => {}
        }
        Ok(running.await)
    }

    /// Some partition had no commit: the owners commit their start when they get them, and only
    /// then is the subscription ready.
    async fn wait_until_fixed(&self) {
        let topic = match &*self.channel.borrow() {
            TopicState::Ready { topic, .. } => *topic,
            TopicState::Pending | TopicState::Failed(_) => return,
        };
        while *self.state.borrow() != SubscriptionState::Ready {
            let subscription = Arc::clone(&self.changes.borrow());
            let fixed = is_fixed(&*self.tools.log, &subscription, &topic);
            if let Ok(true) = self.topics.admin(fixed).await {
                self.state.send_replace(SubscriptionState::Ready);
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}

#[cfg(test)]
mod tests;
