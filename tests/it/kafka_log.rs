//! The log on Kafka: the contract of every log, and what only Kafka has.
//!
//! Runs on the cluster that `KAFKA_BOOTSTRAP_SERVERS` names; without it each test says that it
//! was skipped. Faults of a broker are played on librdkafka's mock of one, which needs nothing.

mod faults;
mod groups;

use std::sync::Arc;

use levada::log::kafka::{KafkaLog, Settings};

use crate::log_contract::{Fixture, log_contract_tests};

/// Settings for the cluster to test on, if there is one.
fn settings() -> Option<Settings> {
    let Ok(bootstrap_servers) = std::env::var("KAFKA_BOOTSTRAP_SERVERS") else {
        eprintln!("skipped: set KAFKA_BOOTSTRAP_SERVERS=host:port to test on that Kafka");
        return None;
    };
    Some(Settings {
        bootstrap_servers,
        ..Settings::default()
    })
}

/// A log on that cluster.
fn connect() -> Option<Arc<KafkaLog>> {
    let log = KafkaLog::connect(settings()?);
    Some(log.expect("the default settings are taken"))
}

#[expect(clippy::unused_async, reason = "the contract's openers may wait")]
async fn open() -> Option<Fixture> {
    connect().map(|log| Fixture::new(log, ()))
}

mod contract {
    use super::log_contract_tests;

    log_contract_tests!(super::open);
}
