//! What every dispatcher of a node works with.

use std::sync::Arc;

use super::Settings;
use crate::clock::Clock;
use crate::journal::Recorder;
use crate::log::EventLog;

/// See the module.
#[derive(Debug)]
pub struct Tools<D> {
    /// Where records are read, kept and committed.
    pub log: Arc<dyn EventLog>,
    /// What makes attempts.
    pub deliver: D,
    /// Wall time.
    pub clock: Clock,
    /// Where it is told what became of messages.
    pub journal: Recorder,
    /// Bounds and intervals.
    pub settings: Settings,
}
