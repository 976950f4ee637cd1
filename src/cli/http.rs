//! The HTTP client of the commands.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;

use super::CliError;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How much of an answer is read.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// What the body says: the detail of a problem, else its beginning.
    pub(super) fn explanation(&self) -> String {
        let problem = serde_json::from_slice::<serde_json::Value>(&self.body).ok();
        let detail = problem
            .as_ref()
            .and_then(|problem| problem["detail"].as_str());
        match detail {
            Some(detail) => detail.to_owned(),
            None => {
                let text = String::from_utf8_lossy(&self.body);
                text.trim().chars().take(300).collect()
            }
        }
    }
}

/// Sends requests over kept connections.
#[derive(Clone, Debug)]
pub(super) struct HttpClient(Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>);

impl HttpClient {
    pub(super) fn new() -> Result<Self, CliError> {
        let mut http = HttpConnector::new_with_resolver(Resolver);
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(Duration::from_secs(5)));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| CliError::Failed(format!("no TLS certificates to trust: {error}")))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// Sends `request` and reads the answer. `hint` says what to do if nobody listens.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        hint: &str,
    ) -> Result<Answer, CliError> {
        let place = request.uri().authority().map(ToString::to_string);
        self.send_if_there(request).await?.ok_or_else(|| {
            let place = place.unwrap_or_default();
            CliError::Failed(format!("nothing listens at {place}; {hint}"))
        })
    }

    /// The same; `None`: nobody listens there.
    pub(super) async fn send_if_there(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Option<Answer>, CliError> {
        let uri = request.uri().clone();
        let exchange = async {
            let (parts, body) = match self.0.request(request).await {
                Ok(answer) => answer.into_parts(),
                Err(error) if is_refused(&error) => return Ok(None),
                Err(error) => return Err(failure(&uri, &error)),
            };
            let body = Limited::new(body, MAX_BODY)
                .collect()
                .await
                .map_err(|error| CliError::Failed(format!("{uri}: the answer broke off: {error}")))?
                .to_bytes();
            Ok(Some(Answer {
                status: parts.status,
                headers: parts.headers,
                body,
            }))
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| {
                let limit = TIMEOUT.as_secs();
                Err(CliError::Failed(format!(
                    "{uri}: no answer within {limit} s"
                )))
            })
    }
}

/// The causes of an error, itself first.
fn causes<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}

fn failure(uri: &Uri, error: &(dyn std::error::Error + 'static)) -> CliError {
    let last = causes(error).last().map(ToString::to_string);
    CliError::Failed(format!("{uri}: {}", last.unwrap_or_default()))
}

/// Reads an address that a person typed: without a scheme it is http.
pub(super) fn parse_url(text: &str) -> Result<Uri, String> {
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let uri: Uri = whole
        .parse()
        .map_err(|error| format!("{text:?} is not an address: {error}"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some() => Ok(uri),
        _ => Err(format!("{text:?} is not an http or https address")),
    }
}

/// `base` with `path` after its own path.
pub(super) fn join(base: &Uri, path: &str) -> Result<Uri, CliError> {
    let base = base.to_string();
    let whole = format!("{}{path}", base.trim_end_matches('/'));
    whole
        .parse()
        .map_err(|error| CliError::Usage(format!("{whole} is not an address: {error}")))
}

/// The system's resolver, but for `*.localhost`, which is this machine (RFC 6761) though few
/// resolvers know it. Channels are named by such addresses.
#[derive(Clone, Copy, Debug)]
struct Resolver;

type Addresses = std::vec::IntoIter<SocketAddr>;

impl tower_service::Service<Name> for Resolver {
    type Response = Addresses;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Addresses>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let name = name.as_str();
            if name == "localhost" || name.ends_with(".localhost") {
                let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
                return Ok(vec![v4, v6].into_iter());
            }
            let found: Vec<_> = tokio::net::lookup_host((name, 0)).await?.collect();
            Ok(found.into_iter())
        })
    }
}
