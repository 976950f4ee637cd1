//! Connections to sinks: resolve, connect, TLS, each failure with its reason.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::reason::Reason;

type BoxError = Box<dyn Error + Send + Sync>;
type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("no connection: {detail}")]
pub(super) struct ConnectFailure {
    pub(super) reason: Reason,
    pub(super) detail: String,
}

/// Makes connections: HTTP/1.1, and HTTP/2 where the sink chooses it by ALPN.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<Tcp>,
    limit: Duration,
}

impl Connector {
    /// A connector that gives up after `limit`, TLS handshake included.
    pub(super) fn new(tls: ClientConfig, limit: Duration) -> Self {
        let mut http = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(Duration::from_secs(60)));
        // Shared out among the addresses of a host, so that one dead address is not the end.
        http.set_connect_timeout(Some(limit));
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(Tcp(http));
        Self { https, limit }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<Socket>>;
    type Error = ConnectFailure;
    type Future = BoxFuture<Self::Response, ConnectFailure>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        self.https
            .poll_ready(cx)
            .map_err(|error| connect_failure(error.as_ref()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.https.call(uri);
        let limit = self.limit;
        Box::pin(async move {
            match timeout(limit, connecting).await {
                Ok(result) => result.map_err(|error| connect_failure(error.as_ref())),
                Err(_) => Err(ConnectFailure {
                    reason: Reason::ConnectTimeout,
                    detail: format!("not connected within {limit:?}"),
                }),
            }
        })
    }
}

/// What the https connector met: a [`TcpFailure`] below TLS, anything else in TLS.
fn connect_failure(error: &(dyn Error + 'static)) -> ConnectFailure {
    let reason = match error.downcast_ref::<TcpFailure>() {
        Some(TcpFailure(cause)) => tcp_reason(cause.as_ref()),
        None => Reason::Tls,
    };
    ConnectFailure {
        reason,
        detail: describe(error),
    }
}

fn tcp_reason(error: &(dyn Error + 'static)) -> Reason {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<DnsFailure>() {
            return Reason::Dns;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::TimedOut => Reason::ConnectTimeout,
                io::ErrorKind::ConnectionReset => Reason::ConnectionReset,
                _ => Reason::ConnectRefused,
            };
        }
        cause = error.source();
    }
    Reason::ConnectRefused
}

/// An error and its causes in one line, each said once, at most a few hundred characters.
pub(super) fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    if let Some((end, _)) = text.char_indices().nth(400) {
        text.truncate(end);
    }
    text
}

/// A failure below TLS.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct TcpFailure(BoxError);

#[derive(Clone)]
struct Tcp(HttpConnector<Resolver>);

impl Service<Uri> for Tcp {
    type Response = TokioIo<Socket>;
    type Error = TcpFailure;
    type Future = BoxFuture<Self::Response, TcpFailure>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TcpFailure>> {
        self.0
            .poll_ready(cx)
            .map_err(|error| TcpFailure(error.into()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            match connecting.await {
                Ok(stream) => Ok(TokioIo::new(Socket {
                    stream: stream.into_inner(),
                    phase: Phase::Written,
                })),
                Err(error) => Err(TcpFailure(error.into())),
            }
        })
    }
}

/// The system's resolver, its failures marked as such.
#[derive(Clone)]
struct Resolver(GaiResolver);

#[derive(Debug, thiserror::Error)]
#[error("the host name could not be resolved: {0}")]
struct DnsFailure(#[source] io::Error);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = DnsFailure;
    type Future = BoxFuture<Self::Response, DnsFailure>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DnsFailure>> {
        self.0.poll_ready(cx).map_err(DnsFailure)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolving = self.0.call(name);
        Box::pin(async move {
            let found = resolving.await.map_err(DnsFailure)?;
            Ok(found.collect::<Vec<_>>().into_iter())
        })
    }
}

/// A TCP connection that notices at once when the peer has closed it.
///
/// Tokio learns of a close with its next look at the selector. A request that is sent on a kept
/// connection before that look would be lost and cost an attempt, though the sink never had it.
/// Hyper reads before it takes a request for an idle connection; that read asks the kernel itself.
/// Finding the end there, hyper hands the request back unsent, and it goes out on another
/// connection. A connection that was in use a moment ago is trusted: the call to the kernel would
/// cost a busy sink more than the close it may find.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    phase: Phase,
}

/// What happened last on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A write: an answer is waited for.
    Written,
    /// A read that brought something.
    Read,
    /// A read that brought nothing after one that did: it may be idle since then.
    Quiet(Instant),
}

/// So long a connection is trusted after its last answer. Under load the selector is looked at
/// more often than this.
const TRUSTED: Duration = Duration::from_millis(1);

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut result = Pin::new(&mut this.stream).poll_read(cx, buf);
        if result.is_pending()
            && let Phase::Quiet(since) = this.phase
            && since.elapsed() >= TRUSTED
        {
            // The waker is registered: what comes later than this look is announced.
            result = read_now(&this.stream, buf);
        }
        this.phase = match (this.phase, &result) {
            (_, Poll::Ready(_)) => Phase::Read,
            (Phase::Read, Poll::Pending) => Phase::Quiet(Instant::now()),
            (phase, Poll::Pending) => phase,
        };
        result
    }
}

/// Reads what the kernel holds, without waiting for the selector to announce it.
fn read_now(stream: &TcpStream, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    let socket = SockRef::from(stream);
    match (&*socket).read(buf.initialize_unfilled()) {
        Ok(count) => {
            buf.advance(count);
            Poll::Ready(Ok(()))
        }
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Poll::Pending,
            _ => Poll::Ready(Err(error)),
        },
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.phase = Phase::Written;
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.phase = Phase::Written;
        Pin::new(&mut this.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

/// The certificates that the system trusts.
pub(super) fn system_roots() -> RootCertStore {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(%error, "a system certificate could not be loaded");
    }
    let mut roots = RootCertStore::empty();
    let (trusted, ignored) = roots.add_parsable_certificates(loaded.certs);
    tracing::debug!(trusted, ignored, "system certificates loaded");
    if roots.is_empty() {
        tracing::warn!("the system trusts no certificate: https sinks need CACerts");
    }
    roots
}

/// TLS settings that trust what the system trusts; without `roots`, nothing.
pub(crate) fn tls(roots: bool) -> ClientConfig {
    let roots = if roots {
        system_roots()
    } else {
        RootCertStore::empty()
    };
    with_roots(Arc::new(roots))
}

/// TLS settings that trust `roots` and the PEM certificates in `more`.
///
/// # Errors
/// [`ConnectFailure`] when `more` holds no certificate, or one that cannot be read.
pub(super) fn tls_config(
    roots: &Arc<RootCertStore>,
    more: Option<&str>,
) -> Result<ClientConfig, ConnectFailure> {
    let roots = match more {
        None => roots.clone(),
        Some(pem) => {
            let mut roots = RootCertStore::clone(roots);
            add_certificates(&mut roots, pem).map_err(|detail| ConnectFailure {
                reason: Reason::Tls,
                detail: format!("the sink's CACerts cannot be used: {detail}"),
            })?;
            Arc::new(roots)
        }
    };
    Ok(with_roots(roots))
}

fn with_roots(roots: Arc<RootCertStore>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn add_certificates(roots: &mut RootCertStore, pem: &str) -> Result<(), String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        count += 1;
    }
    if count == 0 {
        return Err("there is no PEM certificate in it".to_owned());
    }
    Ok(())
}
