//! Accepts connections, no more at one time than there is room for.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Ingress;
use super::connection;
use crate::shutdown::Tasks;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts until the tasks are told to stop.
pub(super) async fn accept(ingress: Arc<Ingress>, listener: TcpListener, tasks: &Tasks) {
    let stop = tasks.stop_signal();
    let room = Arc::new(Semaphore::new(
        ingress
            .settings
            .max_connections
            .clamp(1, Semaphore::MAX_PERMITS),
    ));
    let mut pause = FIRST_PAUSE;
    loop {
        // The permit comes first: a connection that cannot be served is not accepted.
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = next => accepted,
        };
        match accepted {
            (permit, Ok((stream, peer))) => {
                pause = FIRST_PAUSE;
                set_nodelay(&stream);
                tracing::trace!(%peer, "a connection was accepted");
                let connection = connection::serve(
                    Arc::clone(&ingress),
                    stream,
                    stop.child_token(),
                    tasks.clone(),
                );
                tasks.spawn("ingress connection", async move {
                    connection.await;
                    drop(permit);
                });
            }
            (_, Err(error)) => {
                // Mostly no file descriptors left; there may be some again when others close.
                tracing::warn!(%error, retry_in = ?pause, "a connection could not be accepted");
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn set_nodelay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
}
