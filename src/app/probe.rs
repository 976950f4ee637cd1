//! Whether the log answers: what readiness rests on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::admin::ReadinessCheck;
use crate::log::{EventLog, LogError};

const INTERVAL: Duration = Duration::from_secs(1);
/// An answer is good for so long; with the interval and a probe's own second below 5 s.
const FRESH: Duration = Duration::from_millis(4500);

/// Asks the log once a second.
#[derive(Clone, Debug)]
pub(super) struct LogProbe {
    log: Arc<dyn EventLog>,
    last: Arc<Mutex<Last>>,
}

#[derive(Debug, Default)]
struct Last {
    answered: Option<Instant>,
    error: Option<LogError>,
}

impl LogProbe {
    pub(super) fn new(log: Arc<dyn EventLog>) -> Self {
        Self {
            log,
            last: Arc::default(),
        }
    }

    pub(super) async fn run(self, stop: CancellationToken) {
        loop {
            let answer = self.log.probe().await;
            self.note(answer, Instant::now());
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(INTERVAL) => {}
            }
        }
    }

    fn note(&self, answer: Result<(), LogError>, now: Instant) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let was_down = last.error.is_some();
        match answer {
            Ok(()) => {
                last.answered = Some(now);
                last.error = None;
                if was_down {
                    tracing::info!("the log answers again");
                }
            }
            Err(error) => {
                if !was_down {
                    tracing::warn!(%error, "the log does not answer");
                }
                last.error = Some(error);
            }
        }
    }

    /// How it stands now.
    pub(super) fn check(&self) -> ReadinessCheck {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let ok = last.answered.is_some_and(|at| at.elapsed() < FRESH);
        let message = match (&last.answered, &last.error) {
            (_, Some(error)) => error.to_string(),
            (Some(at), None) => format!("answered {} ms ago", at.elapsed().as_millis()),
            (None, None) => "not asked yet".into(),
        };
        ReadinessCheck {
            name: "log".into(),
            ok,
            message,
        }
    }
}
