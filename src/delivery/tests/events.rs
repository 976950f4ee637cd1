//! What goes out for an event, and which event comes back.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::server::{Server, Step};
use super::{SOON, answer, client};
use crate::channel::{Format, HttpSink, RetryCodes};
use crate::clock::Clock;
use crate::delivery::{Attempt, Client, Deliver as _, Reason, Settings, Success};
use crate::event::{Decoded, Event};

type Header = (&'static str, &'static str);

fn pairs(headers: &[Header]) -> Vec<(HeaderName, HeaderValue)> {
    let pair = |(name, value): &Header| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    headers.iter().map(pair).collect()
}

fn event(more: &[Header], data: &'static str) -> Arc<Event> {
    let required = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
    ];
    let headers: HeaderMap = pairs(&required).into_iter().chain(pairs(more)).collect();
    match Event::from_http(&headers, Bytes::from_static(data.as_bytes())).unwrap() {
        Decoded::One(event) => Arc::new(event),
        Decoded::Batch(_) => panic!("a batch"),
    }
}

fn attempt(server: &Server, event: Arc<Event>) -> Attempt {
    Attempt {
        sink: HttpSink {
            url: server.url().into(),
            uri: server.url().parse().unwrap(),
            headers: [].into(),
            ca_certs: None,
        },
        event,
        format: Format::Binary,
        timeout: SOON,
        retry_codes: RetryCodes::Standard,
        take_reply: false,
        pass_through: Vec::new(),
        tell_request: true,
    }
}

fn host(server: &Server) -> String {
    format!("host: {}", server.url().split('/').nth(2).unwrap())
}

fn version() -> String {
    format!("user-agent: levada/{}", env!("CARGO_PKG_VERSION"))
}

#[tokio::test]
async fn a_binary_request_is_the_event_its_travelling_headers_and_nothing_else() {
    let server = Server::start([answer(200, "", "")]);
    let more = [
        ("ce-subject", "Euro%20%E2%82%AC"),
        ("content-type", "application/json"),
        ("x-request-id", "id123"),
        ("cookie", "a=b"),
        ("authorization", "Basic x"),
    ];
    let attempt = attempt(&server, event(&more, "{\"n\":1}"));
    let report = client().attempt(attempt).await;
    assert!(report.result.is_ok() && report.duration < SOON);
    let (lines, body) = server.last_request();
    let (host, version) = (host(&server), version());
    let expected = [
        "POST /path?query HTTP/1.1",
        "ce-id: 1",
        "ce-source: /s",
        "ce-specversion: 1.0",
        "ce-subject: Euro%20%E2%82%AC",
        "ce-type: t",
        "content-length: 7",
        "content-type: application/json",
        &host,
        "prefer: reply",
        &version,
        "x-request-id: id123",
    ];
    assert_eq!(lines, expected);
    assert_eq!(body, b"{\"n\":1}");
    // Request line, Host and Content-Length are added as it is sent.
    let known = report.request.map(|headers| headers.len());
    assert_eq!(known, Some(expected.len() - 3));
}

#[tokio::test]
async fn a_structured_request_has_the_event_in_its_body() {
    let server = Server::start([answer(200, "", "")]);
    let more = [
        ("content-type", "application/json"),
        ("traceparent", "00-1"),
    ];
    let mut attempt = attempt(&server, event(&more, "{\"n\":1}"));
    attempt.format = Format::Json;
    client().attempt(attempt).await.result.unwrap();
    let (lines, body) = server.last_request();
    let length = format!("content-length: {}", body.len());
    let (host, version) = (host(&server), version());
    let expected = [
        "POST /path?query HTTP/1.1",
        &length,
        "content-type: application/cloudevents+json",
        &host,
        "prefer: reply",
        "traceparent: 00-1",
        &version,
    ];
    assert_eq!(lines, expected);
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&json["id"], &json["data"]["n"]), (&"1".into(), &1.into()));
}

#[tokio::test]
async fn an_event_without_data_has_an_empty_body() {
    let server = Server::start([answer(200, "", "")]);
    client()
        .attempt(attempt(&server, event(&[], "")))
        .await
        .result
        .unwrap();
    let (lines, body) = server.last_request();
    assert!(lines.contains(&"content-length: 0".to_owned()), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("content-type")));
    assert_eq!(body, b"");
}

#[tokio::test]
async fn the_sinks_headers_win_over_travelling_ones_and_never_over_the_event() {
    let server = Server::start([answer(200, "", "")]);
    let event = event(
        &[("x-request-id", "from-event"), ("content-type", "a/b")],
        "x",
    );
    let mut attempt = attempt(&server, event);
    attempt.pass_through = pairs(&[("x-request-id", "passed"), ("traceparent", "00-2")]);
    attempt.sink.headers = pairs(&[
        ("traceparent", "00-3"),
        ("x-api-key", "one"),
        ("x-api-key", "two"),
        ("user-agent", "mine"),
        ("ce-id", "stolen"),
        ("content-type", "c/d"),
        ("content-length", "99"),
        ("transfer-encoding", "chunked"),
        ("prefer", "nothing"),
    ])
    .into();
    client().attempt(attempt).await.result.unwrap();
    let (lines, _) = server.last_request();
    let host = host(&server);
    let expected = [
        "POST /path?query HTTP/1.1",
        "ce-id: 1",
        "ce-source: /s",
        "ce-specversion: 1.0",
        "ce-type: t",
        "content-length: 1",
        "content-type: a/b",
        &host,
        "prefer: reply",
        "traceparent: 00-3",
        "user-agent: mine",
        "x-api-key: one",
        "x-api-key: two",
        "x-request-id: passed",
    ];
    assert_eq!(lines, expected);
}

const BINARY: &str = "ce-specversion: 1.0\r\nce-id: r\r\nce-source: /r\r\nce-type: r\r\n";

async fn reply_to(client: &Client, step: Step, take_reply: bool) -> Success {
    let server = Server::start([step]);
    let mut attempt = attempt(&server, event(&[], "x"));
    attempt.take_reply = take_reply;
    client.attempt(attempt).await.result.unwrap()
}

#[tokio::test]
async fn an_event_in_a_200_is_the_reply_when_it_is_asked_for() {
    let client = client();
    let head = format!("{BINARY}content-type: text/plain\r\nx-request-id: b\r\n");
    let success = reply_to(&client, answer(200, &head, "hello"), true).await;
    let reply = success.reply.unwrap();
    assert_eq!(reply.attribute("id"), Some("r"));
    assert_eq!(reply.data().unwrap(), "hello");
    let travelling: Vec<_> = reply.forwarded_headers().collect();
    assert_eq!(travelling, [("x-request-id", &b"b"[..])]);

    let json = r#"{"specversion":"1.0","id":"s","source":"/s","type":"s","data":{"a":1}}"#;
    let head = "content-type: application/cloudevents+json\r\n";
    let success = reply_to(&client, answer(200, head, json), true).await;
    assert_eq!(success.reply.unwrap().attribute("id"), Some("s"));
}

#[tokio::test]
async fn whatever_else_comes_with_a_success_is_no_reply() {
    let client = client();
    let structured = "content-type: application/cloudevents+json\r\n";
    let missing = "ce-specversion: 1.0\r\nce-id: r\r\n";
    for (name, code, head, body, take_reply) in [
        ("not asked for", 200, BINARY, "x", false),
        ("on a 202", 202, BINARY, "x", true),
        (
            "no event",
            200,
            "content-type: text/plain\r\n",
            "thanks",
            true,
        ),
        ("empty", 200, "", "", true),
        ("incomplete", 200, missing, "x", true),
        ("no JSON", 200, structured, "{\"specversion\":", true),
    ] {
        let success = reply_to(&client, answer(code, head, body), take_reply).await;
        assert_eq!((success.code, success.reply), (code, None), "{name}");
    }
}

#[tokio::test]
async fn a_reply_over_the_limit_is_a_permanent_failure_and_one_at_the_limit_is_none() {
    let settings = Settings {
        max_reply_bytes: 10_000,
        ..Settings::default()
    };
    let client = Client::new(settings, Clock::system());
    let fits = reply_to(&client, answer(200, BINARY, &"x".repeat(10_000)), true).await;
    assert_eq!(fits.reply.unwrap().data().unwrap().len(), 10_000);

    let endless = format!("HTTP/1.1 200 X\r\n{BINARY}transfer-encoding: chunked\r\n\r\n");
    for step in [
        answer(200, BINARY, &"x".repeat(10_001)),
        Step::Endless(endless.into()),
    ] {
        let server = Server::start([step]);
        let mut attempt = attempt(&server, event(&[], "x"));
        attempt.take_reply = true;
        let report = client.attempt(attempt).await;
        let failure = report.result.unwrap_err();
        assert_eq!(failure.reason, Reason::BodyTooLarge);
        assert!(!failure.retryable);
        assert_eq!(report.answer.unwrap().code, 200);
    }
}
