//! The journal in SQLite: segments of about a million messages, one file each, so that retention
//! drops a file and no index grows without end.
//!
//! One [`Store`] writes; a [`SqliteReader`] answers beside it, on connections of its own.

mod batch;
mod charts;
mod count;
mod names;
mod reader;
mod scan;
mod schema;
mod segment;
mod stats;
mod store;
mod story;
#[cfg(test)]
mod tests;

use super::{Change, KeepError, Keeper, Queued, codes};
use crate::clock::UnixMillis;

pub use reader::SqliteReader;
pub use store::{Limits, Store, StoreError};

impl Store {
    /// What answers out of this store; `queued` tells how many changes wait to be written.
    #[must_use]
    pub fn reader(&self, queued: Queued) -> SqliteReader {
        SqliteReader::new(self.directory(), queued)
    }
}

impl Keeper for Store {
    fn write(&mut self, changes: &[Change]) -> Result<(), KeepError> {
        Ok(Store::write(self, changes)?)
    }

    fn write_gap(
        &mut self,
        since: UnixMillis,
        until: UnixMillis,
        changes: u64,
    ) -> Result<(), KeepError> {
        Ok(Store::write_gap(self, since, until, changes)?)
    }

    fn retain(&mut self, now: UnixMillis) {
        Store::retain(self, now);
    }
}

impl From<StoreError> for KeepError {
    fn from(error: StoreError) -> Self {
        if is_the_batch(&error) {
            Self::refused(error)
        } else {
            Self::away(error)
        }
    }
}

/// Whether the store refuses what is in the batch, which will not get better.
fn is_the_batch(error: &StoreError) -> bool {
    use rusqlite::ErrorCode;
    let StoreError::Sqlite(error) = error else {
        return false;
    };
    !matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
        )
    )
}
