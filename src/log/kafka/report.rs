//! What librdkafka has to say, in our traces: its log lines, and its errors at a bounded rate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::Instant;

use super::error;

/// The same error is told once in this time, over all clients.
const QUIET: Duration = Duration::from_secs(10);

/// Lets an error through once in [`QUIET`] and counts the others.
///
/// Without a broker every client repeats itself several times a second, and there is a client a
/// subscription.
#[derive(Debug, Default)]
pub(super) struct FloodGate {
    /// One entry an error code, of which there are about two hundred.
    told: Mutex<Vec<Told>>,
}

#[derive(Debug)]
struct Told {
    code: RDKafkaErrorCode,
    at: Instant,
    kept_back: u64,
}

impl FloodGate {
    /// Whether to tell `code` now, and how many were kept back since it was last told.
    fn admit(&self, code: RDKafkaErrorCode, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match told.iter_mut().find(|told| told.code == code) {
            None => {
                told.push(Told {
                    code,
                    at: now,
                    kept_back: 0,
                });
                Some(0)
            }
            Some(told) if now.duration_since(told.at) < QUIET => {
                told.kept_back += 1;
                None
            }
            Some(told) => {
                told.at = now;
                Some(std::mem::take(&mut told.kept_back))
            }
        }
    }
}

/// Tells what one client says, under its name.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    client: Arc<str>,
    gate: Arc<FloodGate>,
}

impl Reporter {
    /// A reporter for the client of this name.
    pub(super) fn new(client: impl Into<Arc<str>>, gate: &Arc<FloodGate>) -> Self {
        Self {
            client: client.into(),
            gate: Arc::clone(gate),
        }
    }

    /// Tells a log line.
    pub(super) fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        // The user's properties go to every client, also those that mean nothing to it.
        if facility == "CONFWARN" && line.contains("will be ignored by this") {
            return;
        }
        let client = &*self.client;
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", client, facility, "{line}");
            }
            RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", client, facility, "{line}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", client, facility, "{line}");
            }
            RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", client, facility, "{line}");
            }
        }
    }

    /// Tells an error, unless the same was told a moment ago.
    pub(super) fn error(&self, error: &KafkaError, reason: &str) {
        let code = error::code(error);
        if code == RDKafkaErrorCode::PartitionEOF {
            return;
        }
        if let Some(kept_back) = self.gate.admit(code, Instant::now()) {
            let client = &*self.client;
            tracing::warn!(target: "librdkafka", client, kept_back, "{error}: {reason}");
        }
    }
}

/// Implements [`rdkafka::ClientContext`] for a type with a field `report: Reporter`.
macro_rules! report_as_client {
    ($context:ty) => {
        impl rdkafka::ClientContext for $context {
            fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, line: &str) {
                self.report.log(level, facility, line);
            }

            fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
                self.report.error(&error, reason);
            }

            fn stats_raw(&self, _: &[u8]) {}
        }
    };
}
pub(super) use report_as_client;

/// The context of a client that has nothing to do but report.
#[derive(Debug)]
pub(super) struct Reporting {
    /// Where to.
    pub(super) report: Reporter,
}

report_as_client!(Reporting);
impl rdkafka::consumer::ConsumerContext for Reporting {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_once_in_a_while_with_the_number_kept_back() {
        let gate = FloodGate::default();
        let start = Instant::now();
        let down = RDKafkaErrorCode::AllBrokersDown;
        assert_eq!(gate.admit(down, start), Some(0));
        for n in 0..40 {
            assert_eq!(gate.admit(down, start + Duration::from_millis(n)), None);
        }
        assert_eq!(gate.admit(RDKafkaErrorCode::Resolve, start), Some(0));
        assert_eq!(gate.admit(down, start + QUIET), Some(40));
        assert_eq!(gate.admit(down, start + QUIET * 2), Some(0));
    }
}
