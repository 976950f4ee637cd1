//! The channels and subscriptions in force.
//!
//! Manifests are read from files and directories and watched for changes. What is in force is
//! published as one immutable [`Snapshot`] after another; who acts on it compares two of them.
//!
//! ```text
//! files ─▶ parse ─▶ state: last good document of each resource ─▶ resolve ─▶ Snapshot
//! ```
//!
//! A file that is broken, a document that is invalid and a change to an immutable field leave the
//! last good state of their resources in force and are reported as [`Problem`]s.

mod files;
mod naming;
mod resolve;
mod state;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch as channel;

pub use files::sources;
pub use naming::{TemplateError, Templates};
pub use resolve::{Declared, resolve};

use crate::channel::{Channel, DeliverySpec, ResourceName, Subscription};
use crate::clock::UnixMillis;
use crate::manifest::{DeliveryOptions, Problem};
use crate::shutdown::Tasks;

/// Everything that is in force at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The channels. An unchanged one is the same [`Arc`] as in the snapshot before.
    pub channels: BTreeMap<ResourceName, Arc<Channel>>,
    /// How each channel was declared.
    pub channel_manifests: BTreeMap<ResourceName, Arc<Manifest>>,
    /// The subscriptions, also those that cannot be served.
    pub subscriptions: BTreeMap<ResourceName, SubscriptionEntry>,
    /// What is wrong in the manifests, in the order of files and lines.
    pub problems: Vec<Problem>,
    /// Whether the manifests were read once; an empty directory counts.
    pub loaded_once: bool,
}

/// A subscription, and whether it can be served.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionEntry {
    /// The channel it reads, which may not exist.
    pub channel: ResourceName,
    /// `metadata.uid`, else `<namespace>.<name>`.
    pub uid: String,
    /// `metadata.generation`, else 1 and one more for every change seen.
    pub generation: i64,
    /// How events are delivered, or would be.
    pub delivery: DeliverySpec,
    /// The subscription with every reference followed, or why that failed.
    pub resolution: Resolution,
    /// How it was declared.
    pub manifest: Arc<Manifest>,
}

impl SubscriptionEntry {
    /// The subscription, if it can be served.
    #[must_use]
    pub fn resolved(&self) -> Option<&Arc<Subscription>> {
        match &self.resolution {
            Resolution::Resolved(subscription) => Some(subscription),
            Resolution::Unresolved { .. } => None,
        }
    }
}

/// What following a subscription's references came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// All lead somewhere. Unchanged, it is the same [`Arc`] as in the snapshot before.
    Resolved(Arc<Subscription>),
    /// One does not, the first in the order of [`Reason`].
    Unresolved {
        /// Which, for the condition's reason.
        reason: Reason,
        /// What is missing, for people.
        message: String,
    },
}

/// Why a subscription cannot be served; shown by these names in its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The channel does not exist, or its topics cannot be named.
    ChannelReferenceFailed,
    /// The subscriber leads nowhere.
    SubscriberResolveFailed,
    /// The reply sink leads nowhere.
    ReplyResolveFailed,
    /// The dead-letter sink leads nowhere.
    DeadLetterSinkResolveFailed,
}

impl Reason {
    /// The name that conditions show.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChannelReferenceFailed => "ChannelReferenceFailed",
            Self::SubscriberResolveFailed => "SubscriberResolveFailed",
            Self::ReplyResolveFailed => "ReplyResolveFailed",
            Self::DeadLetterSinkResolveFailed => "DeadLetterSinkResolveFailed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where and how a resource was declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line its document begins at, from 1.
    pub line: usize,
    /// `metadata.creationTimestamp`, else when it was first seen.
    pub created: UnixMillis,
    /// `spec` as it was written; references to secrets are not filled in.
    pub spec: serde_json::Value,
}

/// What to read, and how to name things in the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Files, and directories whose `*.yaml`, `*.yml` and `*.json` are read (not those in
    /// directories inside, and none that begins with a dot).
    pub paths: Vec<PathBuf>,
    /// The names of topics and groups.
    pub templates: Templates,
    /// What holds where neither a subscription nor its channel says anything.
    pub defaults: DeliveryOptions,
}

/// Publishes what is in force. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    snapshots: channel::Receiver<Arc<Snapshot>>,
}

impl Registry {
    /// Starts to read and watch the manifests. The first snapshot is empty and not
    /// [`Snapshot::loaded_once`]; the next one holds what was found. Ends with `tasks`.
    #[must_use]
    pub fn load_and_watch(settings: Settings, clock: crate::clock::Clock, tasks: &Tasks) -> Self {
        let (sender, snapshots) = channel::channel(Arc::default());
        let stop = tasks.stop_signal();
        tasks.spawn("manifests", watch::run(settings, clock, sender, stop));
        Self { snapshots }
    }

    /// A registry that others publish to.
    #[must_use]
    pub fn from_receiver(snapshots: channel::Receiver<Arc<Snapshot>>) -> Self {
        Self { snapshots }
    }

    /// What is in force now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Tells of every change; the present state counts as seen.
    #[must_use]
    pub fn subscribe(&self) -> channel::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }
}
