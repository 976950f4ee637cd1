//! The admin port: health, metrics, the resources with their status, dead letters, and the page.
//!
//! The port is meant for the machine itself. Beyond loopback it needs a token or an explicit
//! choice, and in any case it answers only to names it knows (`guard`), so that a web page cannot
//! reach it through the browser of someone who may.

mod answer;
mod dead_letters;
mod guard;
mod messages;
mod openapi;
mod page;
mod query;
mod routes;
mod server;
mod sessions;
mod shapes;
mod table;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use prometheus::Registry;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

pub use messages::Messages;
pub use openapi::document;
pub use server::{ServeError, serve};

use crate::channel::ResourceName;
use crate::config::Secret;
use crate::dashboard::Dashboard;
use crate::dead_letters::DeadLetters;
use crate::log::{Offset, Partition};
use crate::status::Lag;

/// Where and to whom the admin port answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What requests have to carry; empty: nothing.
    pub token: Secret,
    /// Whether it may listen beyond loopback without a token.
    pub open: bool,
    /// Whether it changes nothing.
    pub read_only: bool,
    /// Names it answers to besides `localhost` and IP addresses.
    pub allowed_hosts: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            token: Secret::default(),
            open: false,
            read_only: false,
            allowed_hosts: Vec::new(),
        }
    }
}

/// The admin port would be reachable from other machines by anyone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "admin.listen {0} can be reached from other machines by anyone: set a token \
     (LEVADA_ADMIN_TOKEN), or allow it with --admin-open"
)]
pub struct Exposed(pub SocketAddr);

impl Settings {
    /// Checks that `address` may be listened on.
    ///
    /// # Errors
    /// [`Exposed`] beyond loopback with neither a token nor `open`.
    pub fn check(&self, address: SocketAddr) -> Result<(), Exposed> {
        if address.ip().is_loopback() || self.open || !self.token.is_empty() {
            Ok(())
        } else {
            Err(Exposed(address))
        }
    }
}

/// One of the things that `/readyz` rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ReadinessCheck {
    /// What is checked, such as `log`.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// How it is, in words.
    pub message: String,
}

/// What the admin port shows. Called for each request; must be brief.
///
/// A resource is an object as Kubernetes shapes it: `apiVersion`, `kind`, `metadata` (`name`,
/// `namespace`, `uid`, `generation`), `spec`, `status`.
pub trait AdminView: Send + Sync {
    /// The channels, by namespace and name.
    fn channels(&self) -> Vec<Value>;

    /// The subscriptions, by namespace and name.
    fn subscriptions(&self) -> Vec<Value>;

    /// How far a subscription is behind; `None`: that is not known on this node.
    fn lag(&self, subscription: &ResourceName) -> Option<Lag>;

    /// What a subscription has committed of a partition; `None`: this node does not hold it.
    fn committed(&self, subscription: &ResourceName, partition: Partition) -> Option<Offset>;

    /// What is wrong with the manifests: `file`, `line`, `field`, `message`.
    fn problems(&self) -> Vec<Value>;

    /// Whether the node can serve: every check, also those that pass.
    fn readiness(&self) -> Vec<ReadinessCheck>;
}

/// What the admin port needs to answer.
#[derive(Clone)]
pub struct AdminState {
    view: Arc<dyn AdminView>,
    registry: Registry,
    settings: Settings,
    dead_letters: Option<DeadLetters>,
    messages: Option<Messages>,
    dashboard: Option<Dashboard>,
    sessions: sessions::Sessions,
}

impl std::fmt::Debug for AdminState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminState")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl AdminState {
    /// What `view` shows and `registry` counts, to whom `settings` allow.
    #[must_use]
    pub fn new(view: Arc<dyn AdminView>, registry: Registry, settings: Settings) -> Self {
        Self {
            view,
            registry,
            settings,
            dead_letters: None,
            messages: None,
            dashboard: None,
            sessions: sessions::Sessions::default(),
        }
    }

    /// The same with what became of messages.
    #[must_use]
    pub fn with_messages(self, messages: Messages) -> Self {
        Self {
            messages: Some(messages),
            ..self
        }
    }

    /// The same with dead letters to look at and to send round again.
    #[must_use]
    pub fn with_dead_letters(self, dead_letters: DeadLetters) -> Self {
        Self {
            dead_letters: Some(dead_letters),
            ..self
        }
    }

    /// The same with the operator's page.
    #[must_use]
    pub fn with_dashboard(self, dashboard: Dashboard) -> Self {
        Self {
            dashboard: Some(dashboard),
            ..self
        }
    }
}

#[cfg(test)]
mod tests;
