//! The journal in PostgreSQL, for several nodes that show each other's messages.
//!
//! Each node that delivers writes through a [`Store`] of its own; a [`PostgresReader`] answers for
//! all of them. A message is one row wherever it is worked on, found by its id, so a node that
//! takes it over goes on with its numbers. Messages, attempts, statuses and counts are partitioned
//! by time, for retention: a partition that is dropped is gone at once, with its indexes, and its
//! space is free, where deleted rows would cost as much as written ones and leave holes.

mod batch;
mod charts;
mod connect;
mod copy;
mod reader;
mod scan;
mod schema;
mod segments;
mod stats;
mod store;
mod story;
#[cfg(test)]
pub(super) mod tests;

use std::borrow::Cow;

use super::codes;
use crate::delivery::Reason;

pub use connect::{Address, AddressError};
pub use reader::PostgresReader;
pub use segments::Limits;
pub use store::Store;

/// A code in its column.
fn small(code: i64) -> i16 {
    i16::try_from(code).unwrap_or(i16::MAX)
}

/// A reason in its column.
fn reason(reason: Reason) -> i16 {
    small(codes::of_reason(reason))
}

/// A count in its column.
fn int(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Undoes [`int`].
fn count(column: i32) -> u32 {
    u32::try_from(column).unwrap_or_default()
}

/// A text as the database takes it: it has no U+0000.
fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}").into()
    } else {
        text.into()
    }
}
