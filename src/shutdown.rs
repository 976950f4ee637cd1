//! Tasks with names, one stop signal, and a drain with a deadline.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A group of tasks that are told to stop together and waited for together.
#[derive(Clone, Debug)]
pub struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
    /// Cancelled when a task panicked: the process must not go on without it.
    failed: CancellationToken,
}

/// Not every task ended within the time given.
#[derive(Debug, thiserror::Error)]
#[error("{left} tasks did not end within {limit:?}")]
pub struct DrainTimeout {
    /// Tasks that still run.
    pub left: usize,
    /// The time they were given.
    pub limit: Duration,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            tracker: TaskTracker::new(),
            failed: CancellationToken::new(),
        }
    }

    /// A group inside this one: stopped with it, and stopped and drained alone when asked.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            stop: self.stop.child_token(),
            tracker: TaskTracker::new(),
            failed: self.failed.clone(),
        }
    }

    /// Starts `work` under `name`. A panic in it is logged and stops the process in order.
    pub fn spawn<F>(&self, name: &'static str, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let failed = self.failed.clone();
        let task = async move {
            let _guard = PanicGuard { name, failed };
            work.await;
        };
        self.tracker
            .spawn(task.instrument(tracing::debug_span!("task", name)));
    }

    /// The signal that every task of this group obeys.
    #[must_use]
    pub fn stop_signal(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Tells every task to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether no task of this group runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Resolves when a task of this group, or of a group inside it, panicked.
    pub async fn failure(&self) {
        self.failed.cancelled().await;
    }

    /// Tells every task to stop and waits for them, at most `limit`.
    ///
    /// # Errors
    /// [`DrainTimeout`] when some still run then.
    pub async fn drain(&self, limit: Duration) -> Result<(), DrainTimeout> {
        self.stop();
        self.tracker.close();
        timeout(limit, self.tracker.wait())
            .await
            .map_err(|_| DrainTimeout {
                left: self.tracker.len(),
                limit,
            })
    }
}

struct PanicGuard {
    name: &'static str,
    failed: CancellationToken,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        // Also dropped at an orderly end and when the runtime goes away: neither is a failure.
        if std::thread::panicking() {
            tracing::error!(task = self.name, "a task panicked, the process stops");
            self.failed.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_the_tasks_and_says_what_did_not_end() {
        let tasks = Tasks::new();
        let stop = tasks.stop_signal();
        tasks.spawn("obedient", async move { stop.cancelled().await });
        tasks.drain(Duration::from_secs(1)).await.unwrap();

        let tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        let error = tasks.drain(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.left, 1);
    }

    #[tokio::test]
    async fn a_panic_is_noticed_by_the_outer_group() {
        let tasks = Tasks::new();
        let inner = tasks.child();
        inner.spawn("clumsy", async { panic!("meant") });
        tasks.failure().await;
    }

    #[tokio::test]
    async fn stopping_the_outer_group_stops_the_inner_one() {
        let tasks = Tasks::new();
        let inner = tasks.child();
        tasks.stop();
        inner.stop_signal().cancelled().await;
    }
}
