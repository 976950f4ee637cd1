//! The contract on the embedded log.

use std::path::Path;
use std::sync::Arc;

use levada::clock::Clock;
use levada::log::embedded::{EmbeddedLog, OpenError, Settings};

use super::{Fixture, log_contract_tests};

/// Opens the log in `dir` with the settings as they are unless one sets them.
pub fn open_in(dir: &Path) -> Result<Arc<EmbeddedLog>, OpenError> {
    let settings = Settings {
        dir: dir.to_owned(),
        ..Settings::default()
    };
    EmbeddedLog::open(settings, Clock::system())
}

#[expect(clippy::unused_async, reason = "other logs have to wait")]
async fn open() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    Fixture::new(open_in(dir.path()).unwrap(), dir)
}

log_contract_tests!(open);
