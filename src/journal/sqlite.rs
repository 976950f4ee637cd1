//! The journal in SQLite: segments of about a million messages, one file each, so that retention
//! drops a file and no index grows without end.
//!
//! One [`Store`] writes; a [`SqliteReader`] answers beside it, on connections of its own.

mod batch;
mod charts;
mod names;
mod reader;
mod scan;
mod schema;
mod segment;
mod stats;
mod store;
mod story;
#[cfg(test)]
pub(super) mod tests;

use super::codes;

pub use reader::SqliteReader;
pub use store::{Limits, Store, StoreError};
