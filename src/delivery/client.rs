//! The HTTP client: pooled connections, one attempt at a time under one deadline.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use tokio::time::{Instant, timeout_at};

use super::answer::{self, Bounds, End};
use super::connect::{self, ConnectFailure, Connector};
use super::{
    Answer, Attempt, AttemptReport, Deliver, ERROR_BODY_BYTES, Failure, Reason, Success, check,
    request,
};
use crate::channel::{HttpSink, RetryCodes};
use crate::clock::{Clock, UnixMillis};

type Pool = legacy::Client<Connector, Full<Bytes>>;

/// So many different `CACerts` have a pool at one time; one more takes another's place.
const CUSTOM_POOLS: usize = 256;

/// The client's bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The time for a connection: name, TCP, TLS.
    pub connect_timeout: Duration,
    /// A kept connection is closed after so long without a request.
    pub idle_timeout: Duration,
    /// Connections kept for one host and port.
    pub max_idle_per_host: usize,
    /// The largest answer head (HTTP/1.1), in bytes; at least 8 KiB.
    pub max_head_bytes: usize,
    /// The largest event that is taken from an answer, in bytes of its body.
    pub max_reply_bytes: usize,
    /// So much of a body is read to use the connection again, in bytes.
    pub drain_bytes: usize,
    /// So much of a body is reported for the journal, in bytes.
    pub kept_body_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            max_idle_per_host: 1024,
            max_head_bytes: 64 * 1024,
            max_reply_bytes: 1024 * 1024 + 64 * 1024,
            drain_bytes: 64 * 1024,
            kept_body_bytes: 4096,
        }
    }
}

/// Delivers over HTTP. Cheap to clone; connections are shared between clones.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    clock: Clock,
    roots: Arc<RootCertStore>,
    /// For sinks that trust what the system trusts.
    pool: Pool,
    /// For sinks with certificates of their own, by their PEM text.
    custom: Mutex<HashMap<Arc<str>, Pool>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client without connections. Reads the system's certificates, which takes milliseconds.
    #[must_use]
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let roots = Arc::new(connect::system_roots());
        let tls = connect::tls_config(&roots, None)
            .expect("only certificates of a sink can be refused, and there are none");
        let pool = pool(&settings, tls);
        Self {
            shared: Arc::new(Shared {
                settings,
                clock,
                roots,
                pool,
                custom: Mutex::default(),
            }),
        }
    }

    /// The pool for a sink: one for all, and one for each `CACerts`.
    fn pool(&self, ca_certs: Option<&Arc<str>>) -> Result<Pool, ConnectFailure> {
        let shared = &self.shared;
        let Some(pem) = ca_certs else {
            return Ok(shared.pool.clone());
        };
        let mut custom = shared.custom.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = custom.get(pem) {
            return Ok(pool.clone());
        }
        let pool = pool(
            &shared.settings,
            connect::tls_config(&shared.roots, Some(pem))?,
        );
        if custom.len() >= CUSTOM_POOLS
            && let Some(other) = custom.keys().next().cloned()
        {
            custom.remove(&other);
        }
        custom.insert(pem.clone(), pool.clone());
        Ok(pool)
    }

    async fn reported(&self, request: Request<Full<Bytes>>, wanted: &Wanted<'_>) -> AttemptReport {
        let told = wanted.tell_request.then(|| request.headers().clone());
        let started: UnixMillis = self.shared.clock.now();
        let begun = Instant::now();
        let (answer, result) = self.exchange(request, wanted).await;
        AttemptReport {
            started,
            duration: begun.elapsed(),
            request: told,
            answer,
            result,
        }
    }

    /// Sends a request and reads its answer, all before `deadline`.
    pub(super) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        wanted: &Wanted<'_>,
    ) -> (Option<Answer>, Result<Success, Failure>) {
        let deadline = deadline(wanted.timeout);
        let pool = match self.pool(wanted.ca_certs) {
            Ok(pool) => pool,
            Err(error) => return (None, Err(unsent(&error))),
        };
        let response = match timeout_at(deadline, pool.request(request)).await {
            Err(_) => return (None, Err(too_late(wanted.timeout))),
            Ok(Err(error)) => return (None, Err(transport_failure(&error))),
            Ok(Ok(response)) => response,
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let detail = "the sink switched protocols, which was not asked for";
            let failure = Failure::without_answer(Reason::InvalidResponse, detail);
            return (None, Err(failure));
        }
        let takes_reply = wanted.take_reply
            && response.status() == StatusCode::OK
            && answer::holds_event(response.headers());
        let (response, body, end) = self.read(response, deadline, takes_reply).await;
        self.conclude(response, body, end, takes_reply, wanted)
    }

    async fn read(
        &self,
        response: Response<Incoming>,
        deadline: Instant,
        takes_reply: bool,
    ) -> (http::response::Parts, Bytes, Option<End>) {
        let settings = &self.shared.settings;
        let bounds = if takes_reply {
            Bounds {
                keep: settings.max_reply_bytes + 1,
                read: settings.max_reply_bytes + 1,
            }
        } else {
            let keep = settings.kept_body_bytes.max(ERROR_BODY_BYTES);
            Bounds {
                keep,
                read: settings.drain_bytes.max(keep),
            }
        };
        let (parts, mut body) = response.into_parts();
        let mut kept = BytesMut::new();
        let end = timeout_at(deadline, answer::read_body(&mut body, bounds, &mut kept)).await;
        (parts, kept.freeze(), end.ok())
    }

    /// The outcome of an answer; `end` is `None` when the time ran out while its body came.
    fn conclude(
        &self,
        parts: http::response::Parts,
        body: Bytes,
        end: Option<End>,
        takes_reply: bool,
        wanted: &Wanted<'_>,
    ) -> (Option<Answer>, Result<Success, Failure>) {
        let settings = &self.shared.settings;
        let code = parts.status.as_u16();
        let keep = settings.kept_body_bytes.max(ERROR_BODY_BYTES);
        let whole = matches!(end, Some(End::Complete));
        let answer = answer::report(code, parts.headers, &body, keep, whole);
        let result = if !parts.status.is_success() {
            // The code has been said: a body that breaks off does not take it back.
            Err(answer::refused(
                &answer,
                wanted.retry_codes,
                self.shared.clock.now(),
            ))
        } else {
            match end {
                None => Err(too_late(wanted.timeout)),
                Some(End::Broken(error)) => {
                    let reason = reason_of(&error).unwrap_or(Reason::ConnectionReset);
                    Err(Failure::without_answer(reason, connect::describe(&error)))
                }
                Some(_) if takes_reply && body.len() > settings.max_reply_bytes => {
                    Err(too_large(settings.max_reply_bytes))
                }
                Some(End::Bound | End::Complete) => {
                    let reply = takes_reply.then(|| answer::reply(&answer.headers, body));
                    Ok(Success {
                        code,
                        reply: reply.flatten(),
                    })
                }
            }
        };
        (Some(answer), result)
    }
}

/// What an exchange needs to know besides the request.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) ca_certs: Option<&'a Arc<str>>,
    pub(super) timeout: Duration,
    pub(super) retry_codes: &'a RetryCodes,
    pub(super) take_reply: bool,
    pub(super) tell_request: bool,
}

impl Deliver for Client {
    async fn attempt(&self, attempt: Attempt) -> AttemptReport {
        let wanted = Wanted {
            ca_certs: attempt.sink.ca_certs.as_ref(),
            timeout: attempt.timeout,
            retry_codes: &attempt.retry_codes,
            take_reply: attempt.take_reply,
            tell_request: attempt.tell_request,
        };
        self.reported(request::build(&attempt), &wanted).await
    }

    async fn ask(&self, sink: HttpSink, timeout: Duration) -> AttemptReport {
        let wanted = Wanted {
            ca_certs: sink.ca_certs.as_ref(),
            timeout,
            retry_codes: &RetryCodes::Standard,
            take_reply: false,
            tell_request: true,
        };
        self.reported(check::request(&sink), &wanted).await
    }
}

fn pool(settings: &Settings, tls: rustls::ClientConfig) -> Pool {
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(settings.idle_timeout)
        .pool_max_idle_per_host(settings.max_idle_per_host)
        .http1_max_buf_size(settings.max_head_bytes.max(8192))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .build(Connector::new(tls, settings.connect_timeout))
}

/// The end of a time that begins now; one too long to add ends in a year.
fn deadline(limit: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(limit).unwrap_or(now + YEAR)
}

fn too_late(limit: Duration) -> Failure {
    let detail = format!("no complete answer within {limit:?}");
    Failure::without_answer(Reason::AttemptTimeout, detail)
}

fn too_large(limit: usize) -> Failure {
    let detail = format!("the event in the answer is larger than {limit} bytes");
    Failure {
        // The sink had the event and would answer the same again.
        retryable: false,
        ..Failure::without_answer(Reason::BodyTooLarge, detail)
    }
}

fn unsent(error: &ConnectFailure) -> Failure {
    Failure::without_answer(error.reason, error.detail.clone())
}

fn transport_failure(error: &legacy::Error) -> Failure {
    let reason = reason_of(error).unwrap_or(if error.is_connect() {
        Reason::ConnectRefused
    } else {
        Reason::ConnectionReset
    });
    Failure::without_answer(reason, connect::describe(error))
}

/// The reason that an error, or what caused it, stands for.
fn reason_of(error: &(dyn Error + 'static)) -> Option<Reason> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref::<ConnectFailure>() {
            return Some(failure.reason);
        }
        if error.is::<rustls::Error>() {
            return Some(Reason::Tls);
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && error.is_parse()
        {
            return Some(Reason::InvalidResponse);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // The error inside is not among an I/O error's causes.
            if let Some(reason) = error.get_ref().and_then(|inner| reason_of(inner)) {
                return Some(reason);
            }
            return Some(match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Reason::InvalidResponse,
                _ => Reason::ConnectionReset,
            });
        }
        cause = error.source();
    }
    None
}
