//! Takes events over HTTP: decode, append to the log, answer 202 once they are stored.
//!
//! [`Ingress::serve`] runs an accept task and a task a connection (HTTP/1.1 and HTTP/2 with prior
//! knowledge). A request goes through checks in a fixed order: channel and
//! method, framing and size, the event itself, the log. Everything that a sender can make grow
//! has a bound in [`Settings`].

mod answer;
mod body;
mod connection;
mod handler;
mod listener;
mod load;
mod metrics;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;

pub use self::metrics::Metrics;
pub use self::routes::{Route, RouteTable};

use self::load::Load;
use self::metrics::Answers;
use crate::log::EventLog;
use crate::shutdown::Tasks;

/// Bounds and timeouts of the ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The largest event (attributes and data), in bytes.
    pub max_event_bytes: usize,
    /// The largest body of a batch, in bytes.
    pub max_batch_bytes: usize,
    /// The largest request line and headers together, in bytes; at least 8 KiB are taken.
    pub max_header_bytes: usize,
    /// The most headers of a request.
    pub max_headers: usize,
    /// Open connections; further ones wait to be accepted.
    pub max_connections: usize,
    /// Requests at one time on one HTTP/2 connection.
    pub max_streams: u32,
    /// Bytes of all requests that are being read or stored; past it the answer is 500 with
    /// `Retry-After`. At least one batch of the largest size is taken.
    pub max_bytes_in_flight: usize,
    /// How long the log may take to store an event before the answer is 500.
    pub append_timeout: Duration,
    /// How long the headers of a request may take from their first byte.
    pub header_timeout: Duration,
    /// How long the body of a request may take.
    pub body_timeout: Duration,
    /// How long a connection may be open without a request.
    pub idle_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_event_bytes: 1024 * 1024,
            max_batch_bytes: 8 * 1024 * 1024,
            max_header_bytes: 64 * 1024,
            max_headers: 512,
            max_connections: 10_240,
            max_streams: 256,
            max_bytes_in_flight: 64 * 1024 * 1024,
            append_timeout: Duration::from_secs(9),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(180),
        }
    }
}

/// The ingress: one for all its listeners.
#[derive(Debug)]
pub struct Ingress {
    log: Arc<dyn EventLog>,
    routes: Arc<ArcSwap<RouteTable>>,
    settings: Settings,
    metrics: Metrics,
    /// Requests for channels that do not exist.
    unknown: Answers,
    load: Load,
}

impl Ingress {
    /// An ingress that appends to `log` what comes in for the channels in `routes`, which may be
    /// replaced at any time.
    #[must_use]
    pub fn new(
        log: Arc<dyn EventLog>,
        routes: Arc<ArcSwap<RouteTable>>,
        settings: Settings,
        metrics: Metrics,
    ) -> Self {
        let load = Load::new(settings.max_bytes_in_flight.max(settings.max_batch_bytes));
        Self {
            log,
            routes,
            settings,
            unknown: metrics.of_channel("", ""),
            metrics,
            load,
        }
    }

    /// Accepts connections on `listener` in tasks of `tasks`. When these are told to stop, the
    /// listener is closed, requests in progress are finished, and connections are closed.
    pub fn serve(self: Arc<Self>, listener: TcpListener, tasks: &Tasks) {
        let inner = tasks.clone();
        tasks.spawn("ingress listener", async move {
            listener::accept(self, listener, &inner).await;
        });
    }
}
