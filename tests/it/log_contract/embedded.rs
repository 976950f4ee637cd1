//! The contract on the embedded log.

use levada::clock::Clock;
use levada::log::embedded::{EmbeddedLog, Settings};

use super::{Fixture, log_contract_tests};

async fn open() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        dir: dir.path().to_owned(),
        ..Settings::default()
    };
    let log = EmbeddedLog::open(settings, Clock::system()).unwrap();
    Fixture::new(log, dir)
}

log_contract_tests!(open);
