//! Serves the admin port's connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{AdminState, Exposed, routes};
use crate::shutdown::Tasks;

/// Connections at one time: people, scrapers and probes, not producers.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept, which is mostly the lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The admin port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It would be open to anyone.
    #[error(transparent)]
    Exposed(#[from] Exposed),
    /// The listener does not know its address.
    #[error("the admin listener has no address: {0}")]
    Listener(#[from] std::io::Error),
}

/// Serves the admin port on `listener` until `tasks` are stopped, and returns its address.
///
/// # Errors
/// [`ServeError::Exposed`] beyond loopback with neither a token nor `open`.
pub fn serve(
    listener: TcpListener,
    state: AdminState,
    tasks: &Tasks,
) -> Result<SocketAddr, ServeError> {
    let address = listener.local_addr()?;
    state.settings.check(address)?;
    let worker = tasks.clone();
    tasks.spawn("admin accept", accept(listener, Arc::new(state), worker));
    Ok(address)
}

async fn accept(listener: TcpListener, state: Arc<AdminState>, tasks: Tasks) {
    let stop = tasks.stop_signal();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            next = next => next,
        };
        match (permit, accepted) {
            (Ok(permit), Ok((stream, _))) => {
                let work = connection(stream, Arc::clone(&state), tasks.clone(), permit);
                tasks.spawn("admin connection", work);
            }
            (Err(_), _) => return,
            (_, Err(error)) => {
                tracing::warn!(%error, "the admin port could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    state: Arc<AdminState>,
    tasks: Tasks,
    _permit: OwnedSemaphorePermit,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(routes::handle(&state, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let stop = tasks.stop_signal();
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            ended = &mut connection => break ended,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}
