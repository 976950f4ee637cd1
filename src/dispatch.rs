//! Dispatch.

pub mod offsets;
