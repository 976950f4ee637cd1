//! Levada: an event channel broker on Apache Kafka.
//!
//! ```text
//! producer ─HTTP─▶ ingress ─append─▶ log: channel topic ─group per subscription─▶ dispatch ─▶ delivery ─HTTP─▶ subscriber
//! ```

pub mod channel;
pub mod clock;
pub mod duration;
pub mod delivery;
pub mod dispatch;
pub mod event;
pub mod ingress;
pub mod log;
pub mod manifest;
pub mod registry;
pub mod shutdown;
