//! The log on Kafka: the contract of every log, and what only Kafka has.
//!
//! Runs on the cluster named by `KAFKA_BOOTSTRAP_SERVERS`; without it each test says that it was
//! skipped.

use std::sync::Arc;

use levada::log::kafka::{KafkaLog, Settings};

use crate::log_contract::{Fixture, log_contract_tests};

/// The cluster to test on, if there is one.
pub fn bootstrap_servers() -> Option<String> {
    let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok();
    if servers.is_none() {
        eprintln!("skipped: set KAFKA_BOOTSTRAP_SERVERS=host:port to test on that Kafka");
    }
    servers
}

fn settings(bootstrap_servers: String) -> Settings {
    Settings {
        bootstrap_servers,
        ..Settings::default()
    }
}

/// A log of its own on that cluster.
pub fn connect() -> Option<Arc<KafkaLog>> {
    bootstrap_servers().map(|servers| KafkaLog::connect(settings(servers)).unwrap())
}

async fn open() -> Option<Fixture> {
    connect().map(|log| Fixture::new(log, ()))
}

mod contract {
    use super::log_contract_tests;

    log_contract_tests!(super::open);
}
