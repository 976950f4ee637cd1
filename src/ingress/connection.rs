//! One connection: which HTTP it speaks, and when it is to end.
//!
//! A watchdog beside the connection ends it when the headers of a request trickle in, or when
//! nothing is asked for too long. It looks now and then at what the connection did, so that a
//! request costs no timer.

mod watched;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::watched::Watched;
use super::answer::Answer;
use super::{Ingress, Settings};
use crate::shutdown::Tasks;

/// How an HTTP/2 connection with prior knowledge begins.
const HTTP2_START: &[u8] = b"PRI";
/// How long to wait for the rest of a beginning that could be either.
const SNIFF_AGAIN: Duration = Duration::from_millis(5);
/// Pings on an HTTP/2 connection find out that the peer is gone.
const HTTP2_PING: Duration = Duration::from_secs(30);

/// What a connection did, for the watchdog.
#[derive(Debug, Default)]
struct Activity {
    /// Requests whose headers were read.
    requests: AtomicU64,
    /// Requests that are not answered yet.
    running: AtomicU32,
    /// Bytes came since the last request began or ended: the headers of the next, in part.
    partial: AtomicBool,
}

/// What the requests of a connection share: one reference count of their own.
#[derive(Debug)]
struct Context {
    ingress: Arc<Ingress>,
    activity: Arc<Activity>,
}

/// Serves a connection to its end, or, once `stop` is signalled, to the end of the requests in
/// progress.
pub(super) async fn serve(
    ingress: Arc<Ingress>,
    stream: TcpStream,
    stop: CancellationToken,
    tasks: Tasks,
) {
    let is_http2 = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        found = sniff(&stream, &ingress.settings) => match found {
            Some(is_http2) => is_http2,
            None => return,
        },
    };
    let activity = Arc::new(Activity::default());
    let io = Watched::new(stream, Arc::clone(&activity));
    let settings = ingress.settings.clone();
    let context = Arc::new(Context {
        ingress,
        activity: Arc::clone(&activity),
    });
    let service = service_fn(move |request| {
        let context = Arc::clone(&context);
        async move {
            let _running = Running::begin(&context.activity);
            Ok::<Answer, Infallible>(context.ingress.handle(request).await)
        }
    });
    let watchdog = Watchdog::new(&settings, activity);
    if is_http2 {
        let connection = http2(&settings, tasks).serve_connection(io, service);
        drive(connection, watchdog.of_http2(), stop).await;
    } else {
        let connection = http1(&settings).serve_connection(io, service);
        drive(connection, watchdog, stop).await;
    }
}

/// Whether the peer speaks HTTP/2; `None`: it went away or sent nothing in time. Takes no byte
/// from the stream, and no buffer while it waits for the first.
async fn sniff(stream: &TcpStream, settings: &Settings) -> Option<bool> {
    let mut start = [0; HTTP2_START.len()];
    let first = timeout(settings.idle_timeout, stream.peek(&mut start));
    let mut len = first.await.ok()?.ok()?;
    let deadline = Instant::now() + settings.header_timeout;
    loop {
        match &start[..len] {
            [] => return None,
            HTTP2_START => return Some(true),
            start if !HTTP2_START.starts_with(start) => return Some(false),
            _ if Instant::now() >= deadline => return None,
            _ => sleep(SNIFF_AGAIN).await,
        }
        len = stream.peek(&mut start).await.ok()?;
    }
}

fn http1(settings: &Settings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    let max_header_bytes = settings.max_header_bytes.max(8192);
    builder
        // A sender may end its side after the request and still wait for the answer.
        .half_close(true)
        .max_headers(settings.max_headers)
        .max_header_size(max_header_bytes)
        .max_buf_size(max_header_bytes)
        .header_read_timeout(None);
    builder
}

fn http2(settings: &Settings, tasks: Tasks) -> http2::Builder<StreamTasks> {
    let mut builder = http2::Builder::new(StreamTasks(tasks));
    let max_header_bytes = u32::try_from(settings.max_header_bytes.max(8192)).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(max_header_bytes)
        .max_concurrent_streams(settings.max_streams)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(settings.header_timeout);
    builder
}

/// Runs the streams of an HTTP/2 connection as tasks of the group.
#[derive(Clone, Debug)]
struct StreamTasks(Tasks);

impl<F> Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn("ingress stream", stream);
    }
}

async fn drive<C>(connection: C, mut watchdog: Watchdog, stop: CancellationToken)
where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
{
    let mut connection = pin!(connection);
    let mut stopped = pin!(stop.cancelled());
    let mut is_stopping = false;
    let mut tick = pin!(sleep(watchdog.tick));
    loop {
        tokio::select! {
            biased;
            end = connection.as_mut() => {
                if let Err(error) = end {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = stopped.as_mut(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tick.as_mut() => {
                let now = Instant::now();
                if let Some(reason) = watchdog.look(now) {
                    tracing::debug!(reason, "a connection was closed");
                    return;
                }
                tick.as_mut().reset(now + watchdog.tick);
            }
        }
    }
}

/// A request that is being answered, or was given up.
struct Running<'a>(&'a Activity);

impl<'a> Running<'a> {
    fn begin(activity: &'a Activity) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.running.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.partial.store(false, Ordering::Relaxed);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Decides when a connection has to end.
#[derive(Debug)]
struct Watchdog {
    activity: Arc<Activity>,
    tick: Duration,
    header_timeout: Duration,
    idle_timeout: Duration,
    requests: u64,
    quiet_since: Instant,
    partial_since: Option<Instant>,
}

impl Watchdog {
    fn new(settings: &Settings, activity: Arc<Activity>) -> Self {
        let shortest = settings.header_timeout.min(settings.idle_timeout);
        Self {
            activity,
            tick: (shortest / 4).max(Duration::from_millis(10)),
            header_timeout: settings.header_timeout,
            idle_timeout: settings.idle_timeout,
            requests: 0,
            quiet_since: Instant::now(),
            partial_since: None,
        }
    }

    /// The same for a connection where bytes alone mean nothing: frames of all sorts come and
    /// go, and h2 bounds the headers itself.
    fn of_http2(self) -> Self {
        Self {
            header_timeout: self.idle_timeout,
            ..self
        }
    }

    /// Why the connection has to end now, if it has to.
    fn look(&mut self, now: Instant) -> Option<&'static str> {
        let requests = self.activity.requests.load(Ordering::Relaxed);
        let is_running = self.activity.running.load(Ordering::Relaxed) > 0;
        if is_running || requests != self.requests {
            self.requests = requests;
            self.quiet_since = now;
            self.partial_since = None;
            return None;
        }
        if self.activity.partial.load(Ordering::Relaxed) {
            let since = *self.partial_since.get_or_insert(now);
            if now - since >= self.header_timeout {
                return Some("the headers of a request did not arrive in time");
            }
        }
        (now - self.quiet_since >= self.idle_timeout).then_some("no request came in time")
    }
}
