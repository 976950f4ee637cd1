//! librdkafka's blocking calls, off the runtime's workers and bounded in time.

use std::time::Duration;

use tokio::time::Instant;

use crate::log::LogError;

/// Between two tries of a call.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs `work` on a thread that may block; gives up waiting for it after `limit`.
///
/// The work itself must be bounded too: it is not stopped, only left behind.
pub(super) async fn within<T, F>(
    limit: Duration,
    what: &'static str,
    work: F,
) -> Result<T, LogError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, LogError> + Send + 'static,
{
    match tokio::time::timeout(limit, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => result,
        Ok(Err(join)) => Err(LogError::Unavailable(format!("{what} broke off: {join}"))),
        Err(_) => Err(LogError::TimedOut(format!("{what} took over {limit:?}"))),
    }
}

/// Repeats a blocking call while the log is not available, as while a leader or a coordinator
/// changes; it is told how long it may take. Blocks for at most `limit`, and a pause.
pub(super) fn until_available<T>(
    limit: Duration,
    mut call: impl FnMut(Duration) -> Result<T, LogError>,
) -> Result<T, LogError> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match call(left) {
            Err(LogError::Unavailable(_)) if left > PAUSE => std::thread::sleep(PAUSE),
            answer => return answer,
        }
    }
}

/// Runs `work` on a thread of its own that nobody waits for.
pub(super) fn detached(name: &str, work: impl FnOnce() + Send + 'static) {
    let spawned = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work);
    if let Err(error) = spawned {
        // The closure is dropped, on this thread, which is the next best.
        tracing::warn!(%error, name, "no thread");
    }
}
