//! Requests and their answers: failures of the log, connections that go on, the end.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::harness::{Behaviour, PATIENCE, Server, binary, routes_to};
use crate::event::Event;
use crate::ingress::Settings;
use crate::log::{LogError, TopicName};

fn ids(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| event.attribute("id"))
        .collect()
}

#[tokio::test]
async fn an_event_is_answered_with_an_empty_202_and_stored_in_the_topic_of_its_channel() {
    let server = Server::start(Settings::default()).await;
    let reply = server
        .ask(&binary("1", "X-Request-Id: r\r\nCookie: a=b\r\n", "x"))
        .await;
    assert_eq!(reply.status, 202);
    assert_eq!(reply.header("content-length"), Some("0"));
    assert!(
        !reply
            .headers
            .iter()
            .any(|(name, _)| name.starts_with("ce-"))
    );
    assert_eq!(server.log.topics(), ["topic.prod.orders"]);
    let events = server.log.take();
    let forwarded: Vec<_> = events[0].forwarded_headers().collect();
    assert_eq!(forwarded, [("x-request-id", &b"r"[..])]);
}

#[tokio::test]
async fn guarantee_1_no_answer_comes_before_the_log_has_stored() {
    let server = Server::start(Settings::default()).await;
    server.log.set(Behaviour::Hold(Vec::new()));
    let mut client = server.connect().await;
    client.send(binary("1", "", "").as_bytes()).await;
    server.log.holds_one().await;
    let early = timeout(Duration::from_millis(50), client.reply(false)).await;
    assert!(early.is_err(), "{early:?}");
    server.log.release();
    assert_eq!(client.reply(false).await.unwrap().status, 202);
}

#[tokio::test]
async fn guarantee_1_what_the_log_cannot_store_is_never_accepted() {
    let topic = TopicName::try_new("t").unwrap();
    let detail = String::new();
    let cases = [
        (
            LogError::TooLarge {
                topic: topic.clone(),
                detail,
            },
            413,
            None,
        ),
        (LogError::Overloaded, 500, Some("1")),
        (
            LogError::Unavailable("NOT_ENOUGH_REPLICAS".into()),
            500,
            Some("5"),
        ),
        (LogError::TimedOut("30 s".into()), 500, Some("5")),
        (LogError::UnknownTopic(topic), 500, Some("5")),
        (LogError::Refused("not authorized".into()), 500, None),
    ];
    let server = Server::start(Settings::default()).await;
    let batch = r#"[{"specversion":"1.0","type":"t","source":"/s","id":"1"}]"#;
    let batch = format!(
        "POST /prod/orders HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\
         Content-Type: application/cloudevents-batch+json\r\n\r\n{batch}",
        batch.len()
    );
    for (error, status, retry_after) in cases {
        server.log.set(Behaviour::Fail(error.clone()));
        for request in [&binary("1", "", ""), &batch] {
            let reply = server.ask(request).await;
            assert_eq!(reply.status, status, "{error}");
            assert_eq!(reply.header("retry-after"), retry_after, "{error}");
            assert_eq!(reply.problem()["status"], status);
        }
    }
    assert!(server.log.take().is_empty());
}

#[tokio::test]
async fn a_log_that_does_not_answer_is_not_waited_for_longer_than_set() {
    let server = Server::start(Settings {
        append_timeout: Duration::from_millis(50),
        ..Settings::default()
    })
    .await;
    server.log.set(Behaviour::Hold(Vec::new()));
    let reply = server.ask(&binary("1", "", "")).await;
    assert_eq!(reply.status, 500);
    assert_eq!(reply.header("retry-after"), Some("5"));
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong() {
    let server = Server::start(Settings::default()).await;
    let problem = server
        .ask(&binary("1", "ce-time: yesterday\r\n", ""))
        .await
        .problem();
    assert_eq!(problem["title"], "Bad Request");
    assert_eq!(problem["attribute"], "time");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("\"yesterday\"")
    );

    let problem = server
        .ask(&binary("1", "Content-Encoding: gzip\r\n", "x"))
        .await
        .problem();
    assert_eq!(
        (&problem["status"], &problem["header"]),
        (&415.into(), &"content-encoding".into())
    );

    let problem = server
        .ask(&binary("1", "ce-x: 100%\r\n", ""))
        .await
        .problem();
    assert_eq!(problem["header"], "ce-x");
    assert!(server.log.take().is_empty());
}

#[tokio::test]
async fn a_connection_goes_on_after_a_refusal() {
    let server = Server::start(Settings::default()).await;
    let mut client = server.connect().await;
    let unknown = "POST /prod/nosuch HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    let requests = [
        (binary("", "", "data"), 400),
        (unknown.into(), 404),
        (binary("2", "", "data"), 202),
    ];
    for (request, status) in requests {
        client.send(request.as_bytes()).await;
        assert_eq!(client.reply(false).await.unwrap().status, status);
    }
    assert_eq!(ids(&server.log.take()), ["2"]);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(Settings::default()).await;
    let mut client = server.connect().await;
    let all: String = (0..20)
        .map(|n| {
            binary(
                &if n % 3 == 0 {
                    String::new()
                } else {
                    n.to_string()
                },
                "",
                "x",
            )
        })
        .collect();
    client.send(all.as_bytes()).await;
    for n in 0..20 {
        let expected = if n % 3 == 0 { 400 } else { 202 };
        assert_eq!(client.reply(false).await.unwrap().status, expected, "{n}");
    }
}

#[tokio::test]
async fn guarantee_1_a_request_that_is_cut_off_stores_nothing() {
    let server = Server::start(Settings::default()).await;
    let whole = binary("1", "Content-Type: text/plain\r\n", "0123456789");
    for cut in [whole.len() - 1, whole.len() - 9, whole.len() - 12] {
        let mut client = server.connect().await;
        let reply = client.exchange(&whole.as_bytes()[..cut], true, false).await;
        assert!(reply.is_none_or(|reply| reply.status == 400));
    }
    assert!(server.log.take().is_empty());
}

/// Which of two lengths ends the body, proxies see differently: what comes after it is not taken
/// for a request, whoever was right (RFC 9112 6.3).
#[tokio::test]
async fn nothing_is_taken_after_a_body_with_two_lengths() {
    let server = Server::start(Settings::default()).await;
    for (lengths, body) in [
        (
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "1\r\nx\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 3",
            "1\r\nx\r\n0\r\n\r\n",
        ),
    ] {
        let first = binary("1", "", "").replace("Content-Length: 0", lengths);
        let mut client = server.connect().await;
        let smuggled = binary("smuggled", "", "");
        client
            .send(format!("{first}{body}{smuggled}").as_bytes())
            .await;
        assert_eq!(client.reply(false).await.unwrap().status, 202, "{lengths}");
        client.closed().await;
        assert_eq!(ids(&server.log.take()), ["1"], "{lengths}");
    }
}

#[tokio::test]
async fn channels_come_and_go_at_run_time() {
    let server = Server::start(Settings::default()).await;
    let ask = |path: &str| binary("1", "", "").replace("POST /", &format!("POST {path}"));
    assert_eq!(server.ask(&ask("/prod/invoices")).await.status, 404);
    server.routes.store(routes_to("invoices").into());
    assert_eq!(server.ask(&ask("/prod/invoices")).await.status, 202);
    assert_eq!(server.ask(&ask("/prod/orders")).await.status, 404);
    assert_eq!(server.log.topics(), ["topic.prod.invoices"]);
}

#[tokio::test]
async fn answers_are_counted_by_channel_and_unknown_names_are_not_repeated() {
    let server = Server::start(Settings::default()).await;
    server.ask(&binary("1", "", "")).await;
    server.ask(&binary("", "", "")).await;
    server
        .ask("POST /evil/name HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        .await;
    let count = |namespace: &str, channel: &str, code: u16| {
        server.count(&format!(
            "levada_ingress_requests_total{{channel=\"{channel}\",code=\"{code}\",\
             namespace=\"{namespace}\"}}"
        ))
    };
    assert_eq!(count("prod", "orders", 202), 1);
    assert_eq!(count("prod", "orders", 400), 1);
    assert_eq!(count("", "", 404), 1);
    assert_eq!(server.count("levada_ingress_request_seconds_count"), 3);
    assert_eq!(server.count("levada_log_append_seconds_count"), 1);
    let all = prometheus::TextEncoder::new()
        .encode_to_string(&server.registry.gather())
        .unwrap();
    assert!(!all.contains("evil"));
}

#[tokio::test]
async fn a_stop_finishes_the_requests_in_progress_and_takes_no_more() {
    let server = Server::start(Settings::default()).await;
    let mut idle = server.connect().await;
    idle.send(binary("1", "", "").as_bytes()).await;
    assert_eq!(idle.reply(false).await.unwrap().status, 202);
    server.log.set(Behaviour::Hold(Vec::new()));
    let mut busy = server.connect().await;
    busy.send(binary("2", "", "").as_bytes()).await;
    server.log.holds_one().await;

    server.tasks.stop();
    idle.closed().await;
    drop(idle);
    server.log.release();
    let reply = busy.reply(false).await.unwrap();
    assert_eq!(reply.status, 202);
    assert_eq!(reply.header("connection"), Some("close"));
    drop(busy);
    server.tasks.drain(PATIENCE).await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
    assert_eq!(ids(&server.log.take()), ["1", "2"]);
}
