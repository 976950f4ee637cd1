//! The whole broker: the real program, real sockets, a scripted subscriber, both logs.
//!
//! Tests named `kafka` need `KAFKA_BOOTSTRAP_SERVERS`, those of the journal in PostgreSQL
//! `TEST_POSTGRES_URL`; `tests/run` provides them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "real time on plain threads: no clock of Tokio's is paused here"
)]

mod api;
mod content_mode;
mod dead_letters;
mod delivery_vectors;
mod end_to_end;
mod foreign_records;
mod harness;
mod journal;
mod kafka_log;
mod kafka_outage;
mod log_contract;
mod manifests;
mod messages;
mod metrics;
mod nodes;
mod openapi;
mod postgres_journal;
mod process;
mod purge;
mod random_bytes;
mod redrive;
mod restart;
mod status_checks;
