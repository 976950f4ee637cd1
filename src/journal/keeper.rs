//! What a store does for the thread that writes.

use std::error::Error;

use super::model::Change;
use crate::clock::UnixMillis;

/// A store of the journal, as the thread that writes has it. Its calls may block.
pub trait Keeper: Send {
    /// Gets ready before the first changes come.
    ///
    /// # Errors
    /// [`KeepError`] when the store is not there; it is asked again.
    fn prepare(&mut self) -> Result<(), KeepError> {
        Ok(())
    }

    /// Writes changes, all or none. After an error it is called with the same changes again, so a
    /// store that cannot know whether it took them has to find out.
    ///
    /// # Errors
    /// [`KeepError`] when nothing was written.
    fn write(&mut self, changes: &[Change]) -> Result<(), KeepError>;

    /// Notes that so many changes were not stored.
    ///
    /// # Errors
    /// As [`Keeper::write`].
    fn write_gap(
        &mut self,
        since: UnixMillis,
        until: UnixMillis,
        changes: u64,
    ) -> Result<(), KeepError>;

    /// Lets go of what is too old or too much.
    fn retain(&mut self, now: UnixMillis);
}

/// A store did not take something.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct KeepError {
    cause: Box<dyn Error + Send + Sync>,
    refused: bool,
}

impl KeepError {
    /// The store is locked, full, broken or gone: it may come back.
    pub(super) fn away(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            cause: cause.into(),
            refused: false,
        }
    }

    /// The store refuses what is in the batch, which will not get better.
    pub(super) fn refused(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            cause: cause.into(),
            refused: true,
        }
    }

    /// Whether the store refuses what is in the batch.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refused
    }
}
