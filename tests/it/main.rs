//! Tests of whole things, one binary.

mod log_contract;
