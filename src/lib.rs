//! Levada: an event channel broker on Apache Kafka.
//!
//! ```text
//! producer ─HTTP─▶ ingress ─append─▶ log: channel topic ─group per subscription─▶ dispatch ─▶ delivery ─HTTP─▶ subscriber
//! ```

pub mod admin;
pub mod app;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dashboard;
pub mod dead_letters;
pub mod delivery;
pub mod dispatch;
pub mod duration;
pub mod event;
pub mod health;
pub mod ingress;
pub mod journal;
pub mod log;
pub mod manifest;
pub mod message;
pub mod registry;
pub mod shutdown;
mod spelling;
pub mod status;
pub mod telemetry;
pub mod topics;
pub mod untried;
