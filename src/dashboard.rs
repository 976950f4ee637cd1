//! The operator's page: what is wrong, what became of an event, and what can be done about it.
//!
//! HTML made on the server, one view an address, all of it without scripts; one script keeps it
//! live by asking for the same address again. What events and subscribers say is shown as text
//! and never becomes markup, an address or a name of ours (`words`).

mod assets;
mod background;
mod body;
mod chart;
mod curl;
mod frame;
mod ladder;
mod query;
mod serve;
#[cfg(test)]
mod tests;
mod views;
mod words;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::AdminView;
use crate::channel::ResourceName;
use crate::clock::{Clock, UnixMillis};
use crate::dead_letters::DeadLetters;
use crate::health::Watch;
use crate::journal::{Message, ReadFuture, Reader};
use crate::log::EventLog;
use crate::message::MessageId;
use crate::registry::{Snapshot, SubscriptionEntry};
use crate::untried;

use background::Background;

/// How long a part of a page waits for the journal or the log.
const PATIENCE: Duration = Duration::from_secs(2);

/// The answer of an action: what was done, in words, or why nothing was.
pub type ActionFuture<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;

/// What can be done about one message.
pub trait MessageActions: Send + Sync + fmt::Debug {
    /// Sends it again, in a round of its own.
    fn redeliver(&self, id: MessageId) -> ActionFuture<'_>;

    /// Makes the attempt that it waits for now.
    fn retry_now(&self, id: MessageId) -> ActionFuture<'_>;
}

/// Where the page takes what it shows.
#[derive(Clone)]
pub struct Parts {
    /// The resources with their conditions.
    pub view: Arc<dyn AdminView>,
    /// How everything is doing.
    pub watch: Watch,
    /// The resources in force.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What became of every message; `None`: this node keeps no journal.
    pub journal: Option<Arc<dyn Reader>>,
    /// Dead letters and redrives.
    pub dead_letters: Option<DeadLetters>,
    /// Where the events are.
    pub log: Option<Arc<dyn EventLog>>,
    /// What can be done about one message.
    pub actions: Option<Arc<dyn MessageActions>>,
    /// Whether it only shows.
    pub read_only: bool,
    /// The time.
    pub clock: Clock,
    /// This node's name.
    pub node: String,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// The page. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dashboard {
    parts: Arc<Parts>,
    background: Arc<Background>,
}

impl Dashboard {
    /// A page of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
            background: Arc::default(),
        }
    }

    /// Keeps what every view shows (dead letters, the journal's reach) fresh until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.background.keep(&self.parts))
            .await;
    }

    fn now(&self) -> UnixMillis {
        self.parts.clock.now()
    }

    /// A subscription as it is in force; `None`: there is none of this name.
    fn entry(&self, name: &ResourceName) -> Option<SubscriptionEntry> {
        let snapshot = self.parts.snapshots.borrow();
        snapshot.subscriptions.get(name).cloned()
    }

    /// A message that waits for its first attempt; `None`: there is none of this id.
    async fn untried(&self, id: &str) -> Option<Message> {
        let (log, id) = (self.parts.log.as_deref()?, id.parse().ok()?);
        let snapshot = Arc::clone(&self.parts.snapshots.borrow());
        let found = tokio::time::timeout(PATIENCE, untried::event(log, &snapshot, id)).await;
        let found = found.ok()?.ok()?;
        (!found.is_past(&*self.parts.view)).then(|| found.message(id))
    }

    /// Asks the journal, with patience.
    async fn ask<'a, T, F>(&'a self, question: F) -> Result<T, String>
    where
        F: FnOnce(&'a dyn Reader) -> ReadFuture<'a, T>,
    {
        let Some(journal) = self.parts.journal.as_deref() else {
            return Err("this node keeps no journal".into());
        };
        patiently(question(journal), "the journal").await
    }
}

/// Waits for `answer`, but not for long.
async fn patiently<T, E: fmt::Display>(
    answer: impl Future<Output = Result<T, E>>,
    whose: &str,
) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("{whose} did not answer within 2 s")),
    }
}
