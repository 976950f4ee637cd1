//! An HTTP server that answers by a script and tells what it got.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::super::event::Received;
use super::script::{Attempts, Script};
use crate::shutdown::Tasks;

/// Deliveries that may wait to be told; then answers wait too.
pub(crate) const MAX_WAITING: usize = 64;

/// The largest body that is read.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// A request that came, and how it was answered.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// The event in it; without attributes it was none.
    pub(crate) event: Received,
    /// Which attempt of this event it was at this path, counted from 1.
    pub(crate) attempt: usize,
    /// The answer, a status code.
    pub(crate) answer: u16,
    /// The request's method.
    pub(crate) method: Method,
    /// The request's path.
    pub(crate) path: String,
    /// The request's headers.
    pub(crate) headers: HeaderMap,
}

struct Shared {
    script: Script,
    attempts: Mutex<Attempts>,
    told: mpsc::Sender<Delivery>,
}

/// Answers requests on `listener` until `tasks` are stopped; each one is told before it is
/// answered.
pub(crate) fn serve(
    listener: TcpListener,
    script: Script,
    told: mpsc::Sender<Delivery>,
    tasks: &Tasks,
) {
    let shared = Arc::new(Shared {
        script,
        attempts: Mutex::default(),
        told,
    });
    let inner = tasks.clone();
    tasks.spawn("subscriber", async move {
        let stop = inner.stop_signal();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let work = connection(stream, Arc::clone(&shared), inner.clone());
                    inner.spawn("subscriber connection", work);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, tasks: Tasks) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let stop = tasks.stop_signal();
    tokio::select! {
        // How a connection ends is the sender's business.
        _ = &mut connection => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            let mut answer = Response::default();
            *answer.status_mut() = http::StatusCode::BAD_REQUEST;
            return answer;
        };
        let event = Received::read(&parts.headers, body.to_bytes());
        let path = parts.uri.path().to_owned();
        let key = format!(
            "{path} {} {}",
            event.attribute("source"),
            event.attribute("id")
        );
        let attempt = self
            .attempts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next(&key);
        let status = self.script.answer(event.attribute("type"), attempt);
        tokio::time::sleep(self.script.delay).await;
        let mut answer = match &self.script.reply {
            Some(kind) if status.is_success() => reply(&event, kind),
            _ => Response::default(),
        };
        *answer.status_mut() = status;
        let delivery = Delivery {
            event,
            attempt,
            answer: status.as_u16(),
            method: parts.method,
            path,
            headers: parts.headers,
        };
        // Nobody listens any more when the command ends: the answer is still right.
        let _ = self.told.send(delivery).await;
        answer
    }
}

/// An event of type `kind` with the data of `event`.
fn reply(event: &Received, kind: &str) -> Response<Full<Bytes>> {
    let mut builder = Response::builder()
        .header("ce-specversion", "1.0")
        .header("ce-id", uuid::Uuid::new_v4().to_string())
        .header("ce-source", "/levada/listen")
        .header("ce-type", kind);
    if let Some(media) = &event.content_type {
        builder = builder.header(CONTENT_TYPE, media);
    }
    builder
        .body(Full::new(event.data.clone()))
        .unwrap_or_default()
}
