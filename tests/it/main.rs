//! Tests of whole things, one binary.

mod kafka_log;
mod log_contract;
