//! The client against a server that misbehaves by script.

mod certificates;
mod events;
mod server;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use self::certificates::Authority;
use self::server::{Server, Step};
use super::client::Wanted;
use super::*;
use crate::clock::Clock;
use crate::shutdown::Tasks;

/// Longer than anything here takes on a slow machine.
const SOON: Duration = Duration::from_secs(10);

fn client() -> Client {
    Client::new(Settings::default(), Clock::system())
}

/// Posts to `url` and gives what the attempt came to.
async fn post_to(
    client: &Client,
    url: &str,
    ca_certs: Option<&Arc<str>>,
    timeout: Duration,
) -> (Option<Answer>, Result<Success, Failure>) {
    let body = Bytes::from_static(b"{\"n\":1}");
    let request = request::post(url.parse().unwrap(), HeaderMap::new(), body);
    let wanted = Wanted {
        ca_certs,
        timeout,
        retry_codes: &RetryCodes::Standard,
        take_reply: false,
        tell_request: false,
    };
    client.exchange(request, &wanted).await
}

async fn outcome(url: &str, timeout: Duration) -> Result<Success, Failure> {
    post_to(&client(), url, None, timeout).await.1
}

fn answer(code: u16, head: &str, body: &str) -> Step {
    let length = body.len();
    Step::Answer(
        format!("HTTP/1.1 {code} X\r\n{head}content-length: {length}\r\n\r\n{body}").into(),
    )
}

#[tokio::test]
async fn the_code_decides() {
    for (code, delivered, retryable) in [
        (200, true, false),
        (202, true, false),
        (204, true, false),
        (299, true, false),
        (301, false, false),
        (400, false, false),
        (404, false, true),
        (408, false, true),
        (409, false, true),
        (410, false, false),
        (429, false, true),
        (500, false, true),
        (503, false, true),
    ] {
        let head = "location: http://127.0.0.1:1/\r\n";
        let server = Server::start([answer(code, head, "")]);
        match outcome(&server.url(), SOON).await {
            Ok(success) => assert!(delivered && success.code == code, "{code}"),
            Err(failure) => {
                assert!(!delivered, "{code}");
                assert_eq!(failure.reason, Reason::Http(code));
                assert_eq!(failure.code, Some(code));
                assert_eq!(failure.retryable, retryable, "{code}");
            }
        }
        assert_eq!(server.requests(), 1, "a redirect is not followed");
    }
}

#[tokio::test]
async fn whatever_is_no_answer_is_retried_and_named() {
    use Reason::{ConnectionReset, InvalidResponse};
    let bytes = |text: &str| Step::ThenClose(text.into());
    for (name, step, reason) in [
        ("reset", Step::Reset, ConnectionReset),
        ("closed without an answer", Step::Close, ConnectionReset),
        (
            "half a head",
            bytes("HTTP/1.1 200 OK\r\ncontent-"),
            ConnectionReset,
        ),
        (
            "garbage",
            bytes("SSH-2.0-OpenSSH_9.6\r\n\r\n"),
            InvalidResponse,
        ),
        ("bytes", bytes("\u{1}\u{2}\u{3}\r\n\r\n"), InvalidResponse),
        (
            "two lengths",
            bytes("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
            InvalidResponse,
        ),
        (
            "a truncated 200",
            bytes("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this"),
            ConnectionReset,
        ),
        (
            "a truncated chunked 200",
            bytes("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc"),
            ConnectionReset,
        ),
        (
            "a chunk of no size",
            bytes("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc"),
            InvalidResponse,
        ),
        (
            "another protocol",
            bytes("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
            InvalidResponse,
        ),
    ] {
        let server = Server::start([step]);
        let failure = outcome(&server.url(), SOON).await.unwrap_err();
        assert_eq!(failure.reason, reason, "{name}: {failure:?}");
        assert!(failure.retryable, "{name}");
        assert_eq!(failure.code, None, "{name}");
        assert_eq!(server.requests(), 1, "{name}: sent once");
    }
}

#[tokio::test]
async fn a_head_without_end_is_given_up_at_its_bound() {
    let mut head = String::from("HTTP/1.1 200 OK\r\n");
    for line in 0..90 {
        head.push_str(&format!("x-{line}: {}\r\n", "y".repeat(4000)));
    }
    let server = Server::start([Step::Answer(head.into())]);
    let failure = outcome(&server.url(), SOON).await.unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidResponse, "{failure:?}");
}

#[tokio::test]
async fn an_interim_answer_is_waited_past() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    let last = "HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\nno";
    let server = Server::start([Step::Answer(format!("{interim}{last}").into())]);
    let failure = outcome(&server.url(), SOON).await.unwrap_err();
    assert_eq!(failure.code, Some(500));
    assert_eq!(&failure.body[..], b"no");
}

#[tokio::test]
async fn a_body_that_breaks_off_does_not_take_an_error_code_back() {
    let text = "HTTP/1.1 400 X\r\nkne-why: broken\r\ncontent-length: 100\r\n\r\npart";
    let server = Server::start([Step::ThenClose(text.into())]);
    let (answer, result) = post_to(&client(), &server.url(), None, SOON).await;
    let failure = result.unwrap_err();
    assert_eq!(failure.reason, Reason::Http(400));
    assert!(!failure.retryable);
    assert_eq!(&failure.body[..], b"part");
    assert_eq!(
        failure.attributes,
        [("why".to_owned(), "broken".to_owned())]
    );
    assert!(answer.unwrap().truncated);
}

#[tokio::test]
async fn of_a_huge_body_only_a_little_is_read() {
    // With its length announced, and in chunks without end.
    for (code, head) in [
        (200, "content-length: 1073741824\r\n\r\n"),
        (200, "transfer-encoding: chunked\r\n\r\n"),
        (500, "content-length: 1073741824\r\n\r\n"),
        (500, "transfer-encoding: chunked\r\n\r\n"),
    ] {
        let head = format!("HTTP/1.1 {code} X\r\n{head}");
        let server = Server::start([Step::Endless(head.into())]);
        let (answer, result) = post_to(&client(), &server.url(), None, SOON).await;
        let answer = answer.unwrap();
        assert!(answer.truncated && answer.body.len() == 4096);
        match result {
            Ok(success) => assert_eq!(success.code, code),
            Err(failure) => {
                assert_eq!((failure.code, failure.body.len()), (Some(500), 1024));
            }
        }
        let sent = server.ended_after().await;
        assert!(sent < 16 << 20, "{sent} bytes left the server");
    }
}

#[tokio::test]
async fn an_attempt_ends_at_its_timeout_wherever_it_hangs() {
    let silent = [Step::Hang];
    let trickling_head = [Step::Trickle("".into())];
    let trickling_body = [Step::Trickle(
        "HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n".into(),
    )];
    for script in [silent, trickling_head, trickling_body] {
        let server = Server::start(script);
        let begun = Instant::now();
        let failure = outcome(&server.url(), Duration::from_millis(300))
            .await
            .unwrap_err();
        let took = begun.elapsed();
        assert_eq!(failure.reason, Reason::AttemptTimeout);
        assert!(failure.retryable && failure.code.is_none());
        assert!(
            took >= Duration::from_millis(300) && took < SOON / 2,
            "{took:?}"
        );
        server.ended_after().await;
    }
}

#[tokio::test]
async fn an_error_that_trickles_keeps_its_code() {
    let head = "HTTP/1.1 403 X\r\ncontent-length: 900\r\n\r\n";
    let server = Server::start([Step::Trickle(head.into())]);
    let failure = outcome(&server.url(), Duration::from_millis(300))
        .await
        .unwrap_err();
    assert_eq!(
        (failure.reason, failure.retryable),
        (Reason::Http(403), false)
    );
}

#[tokio::test]
async fn a_dropped_attempt_closes_its_connection() {
    let server = Server::start([Step::Hang]);
    let client = client();
    let url = server.url();
    tokio::select! {
        _ = post_to(&client, &url, None, SOON) => panic!("nothing answers"),
        () = server.requested() => {}
    }
    server.ended_after().await;
}

#[tokio::test]
async fn without_a_connection_the_reason_says_why() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = format!("http://{}/", closed.local_addr().unwrap());
    drop(closed);
    let https = refused.replace("http:", "https:");
    for (url, reason) in [
        (refused.as_str(), Reason::ConnectRefused),
        (https.as_str(), Reason::ConnectRefused),
        ("http://no-such-host.invalid/", Reason::Dns),
        ("https://no-such-host.invalid/", Reason::Dns),
    ] {
        let failure = outcome(url, SOON).await.unwrap_err();
        assert_eq!(failure.reason, reason, "{url}: {failure:?}");
        assert!(failure.retryable);
    }
}

#[tokio::test]
async fn a_handshake_that_hangs_is_a_connect_timeout() {
    let server = Server::start([Step::Hang]);
    let settings = Settings {
        connect_timeout: Duration::from_millis(200),
        ..Settings::default()
    };
    let client = Client::new(settings, Clock::system());
    let url = server.url().replace("http:", "https:");
    let failure = post_to(&client, &url, None, SOON).await.1.unwrap_err();
    assert_eq!(failure.reason, Reason::ConnectTimeout, "{failure:?}");
}

#[tokio::test]
async fn connections_are_used_again() {
    let steps: Vec<_> = (0..50)
        .map(|n| answer(if n % 2 == 0 { 200 } else { 500 }, "", "some text"))
        .collect();
    let server = Server::start(steps);
    let client = client();
    for _ in 0..50 {
        let _ = post_to(&client, &server.url(), None, SOON).await;
    }
    assert_eq!((server.requests(), server.connections()), (50, 1));
}

/// The server closes idle connections without saying so, and the client's reactor cannot see it
/// before the next request: the test blocks the one thread there is until it is done.
#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_attempt() {
    let text = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let server = Server::start((0..40).map(|_| Step::CloseLater(text.into())));
    let client = client();
    for _ in 0..40 {
        let result = post_to(&client, &server.url(), None, SOON).await.1;
        assert_eq!(result.unwrap().code, 200);
        server.close_now();
        // Not waited for: the time after which the client trusts a connection no more.
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!((server.requests(), server.connections()), (40, 40));
}

#[tokio::test]
async fn a_request_that_was_sent_is_never_sent_again_by_itself() {
    let server = Server::start([answer(200, "", ""), Step::Close, answer(200, "", "")]);
    let client = client();
    post_to(&client, &server.url(), None, SOON).await.1.unwrap();
    let failure = post_to(&client, &server.url(), None, SOON)
        .await
        .1
        .unwrap_err();
    assert_eq!(failure.reason, Reason::ConnectionReset);
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn certificates_are_checked_against_those_of_the_sink() {
    let authority = Authority::new();
    let other = Authority::new();
    let good = || Server::start_tls(authority.server("localhost"), [answer(200, "", "")]);
    let own = authority.pem();

    let server = good();
    let client = client();
    let result = post_to(&client, &server.https_url(), Some(&own), SOON)
        .await
        .1;
    assert_eq!(result.unwrap().code, 200);

    let expired = Server::start_tls(authority.expired_server("localhost"), [Step::Close]);
    let misnamed = Server::start_tls(authority.server("elsewhere.example"), [Step::Close]);
    let (unknown, foreign, broken) = (good(), good(), good());
    let text: Arc<str> = "no certificate".into();
    for (name, server, ca_certs) in [
        ("expired", &expired, Some(&own)),
        ("for another name", &misnamed, Some(&own)),
        ("of an unknown authority", &unknown, None),
        ("of a foreign authority", &foreign, Some(&other.pem())),
        ("with unusable CACerts", &broken, Some(&text)),
    ] {
        let failure = post_to(&client, &server.https_url(), ca_certs, SOON)
            .await
            .1
            .unwrap_err();
        assert_eq!(failure.reason, Reason::Tls, "{name}: {failure:?}");
        assert!(failure.retryable, "{name}");
        assert_eq!(server.requests(), 0, "{name}");
    }
}

#[tokio::test]
async fn an_https_sink_that_offers_http_2_gets_it_all_on_one_connection() {
    let authority = Authority::new();
    let mut tls = ServerConfig::clone(&authority.server("localhost"));
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    let tasks = Tasks::new();
    // One connection is accepted, never another.
    tasks.spawn("server", async move {
        let stream = acceptor
            .accept(listener.accept().await.unwrap().0)
            .await
            .unwrap();
        let answer = service_fn(async |request: http::Request<hyper::body::Incoming>| {
            let second = http::Version::HTTP_2;
            let code = if request.version() == second {
                200
            } else {
                505
            };
            let body = request.into_body().collect().await?.to_bytes();
            let body = http_body_util::Full::new(body);
            let answer = http::Response::builder().status(code).body(body);
            Ok::<_, hyper::Error>(answer.unwrap())
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
    });
    let (client, own) = (client(), authority.pem());
    post_to(&client, &url, Some(&own), SOON).await.1.unwrap();
    let many = (0..20).map(|_| post_to(&client, &url, Some(&own), SOON));
    for (answer, result) in futures_util::future::join_all(many).await {
        assert_eq!(result.unwrap().code, 200);
        assert_eq!(answer.unwrap().body, "{\"n\":1}");
    }
    drop(client);
    tasks.drain(SOON).await.unwrap();
}

#[tokio::test]
async fn plain_http_on_an_https_port_is_a_tls_failure() {
    let server = Server::start([answer(400, "", "")]);
    let url = server.url().replace("http:", "https:");
    assert_eq!(outcome(&url, SOON).await.unwrap_err().reason, Reason::Tls);
}
