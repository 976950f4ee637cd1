//! What every view shows and nobody is to wait for: looked at in the background.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, sleep};

use super::{Parts, patiently};
use crate::channel::ResourceName;
use crate::dead_letters::Groups;
use crate::journal::Reach;

/// Between two looks, if they cost little.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looking takes no larger share of the time than one in so many.
const SHARE: u32 = 20;

/// Open dead letters by subscription.
pub(super) type Letters = BTreeMap<ResourceName, Arc<Groups>>;

/// How far the journal reaches, as it was heard last.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// The last answer; `None`: there was none yet.
    pub(super) reach: Option<Reach>,
    /// Why the journal does not answer now.
    pub(super) error: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Background {
    letters: ArcSwap<Letters>,
    heard: ArcSwap<Heard>,
}

impl Background {
    pub(super) fn letters(&self) -> Arc<Letters> {
        self.letters.load_full()
    }

    pub(super) fn heard(&self) -> Arc<Heard> {
        self.heard.load_full()
    }

    /// Open dead letters of all subscriptions, and whether there may be more.
    pub(super) fn open(&self) -> (u64, bool) {
        let letters = self.letters();
        let open = letters.values().map(|groups| groups.open).sum();
        (open, letters.values().any(|groups| groups.cut))
    }

    /// Looks again and again.
    pub(super) async fn keep(&self, parts: &Parts) {
        loop {
            let started = Instant::now();
            self.look(parts).await;
            sleep(INTERVAL.max(started.elapsed() * SHARE)).await;
        }
    }

    /// Looks once.
    pub(super) async fn look(&self, parts: &Parts) {
        tokio::join!(self.listen(parts), self.count(parts));
    }

    async fn listen(&self, parts: &Parts) {
        let Some(journal) = parts.journal.as_deref() else {
            let heard = Heard {
                error: Some("this node keeps no journal".into()),
                ..Heard::default()
            };
            self.heard.store(Arc::new(heard));
            return;
        };
        let heard = match patiently(journal.reach(), "the journal").await {
            Ok(reach) => Heard {
                reach: Some(reach),
                error: None,
            },
            Err(error) => Heard {
                error: Some(error),
                ..Heard::clone(&self.heard())
            },
        };
        self.heard.store(Arc::new(heard));
    }

    async fn count(&self, parts: &Parts) {
        let Some(dead_letters) = &parts.dead_letters else {
            return;
        };
        let names: Vec<_> = {
            let snapshot = parts.snapshots.borrow();
            let served = snapshot.subscriptions.iter();
            let served = served.filter(|(_, entry)| entry.resolved().is_some());
            served.map(|(name, _)| name.clone()).collect()
        };
        let known = self.letters();
        let mut letters = Letters::new();
        for name in names {
            let before = known.get(&name);
            // One that cannot be counted now keeps its last count.
            let counted = dead_letters.groups(&name, before).await.ok();
            if let Some(groups) = counted.or_else(|| before.cloned()) {
                letters.insert(name, groups);
            }
        }
        self.letters.store(Arc::new(letters));
    }
}
