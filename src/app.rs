//! Joins the parts.

use std::future::Future;
use std::net::SocketAddr;

use crate::config::Config;

/// Everything that runs in one process.
#[derive(Debug)]
pub struct App {}

/// The parts cannot be joined.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

/// The parts did not end in order.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(String);

impl App {
    /// Builds everything and binds the listeners.
    ///
    /// # Errors
    /// [`StartError`] when a part cannot start.
    #[expect(clippy::unused_async, reason = "the parts start asynchronously")]
    pub async fn build(_config: Config) -> Result<Self, StartError> {
        Err(StartError("not there yet".into()))
    }

    /// Where producers post.
    #[must_use]
    pub fn ingress_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Where the admin port listens.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Runs until `shutdown` resolves, then drains.
    ///
    /// # Errors
    /// [`RunError`] when the drain was cut short or a part failed.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        shutdown.await;
        Ok(())
    }
}
