//! Senders that send too much, too slowly, or nothing.

use std::time::Duration;

use super::harness::{Behaviour, Server, binary};
use crate::ingress::Settings;

fn small() -> Settings {
    Settings {
        max_event_bytes: 1000,
        max_batch_bytes: 4000,
        max_header_bytes: 8192,
        ..Settings::default()
    }
}

fn impatient() -> Settings {
    Settings {
        header_timeout: Duration::from_millis(100),
        body_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_secs(600),
        ..Settings::default()
    }
}

fn batch(elements: &[String]) -> String {
    let body = format!("[{}]", elements.join(","));
    format!(
        "POST / HTTP/1.1\r\nHost: orders.prod\r\nContent-Length: {}\r\n\
         Content-Type: application/cloudevents-batch+json\r\n\r\n{body}",
        body.len()
    )
}

fn element(data: &str) -> String {
    format!(r#"{{"specversion":"1.0","type":"t","source":"/s","id":"1","data":"{data}"}}"#)
}

#[tokio::test]
async fn events_over_the_limit_are_413() {
    let server = Server::start(small()).await;
    let fits = "x".repeat(900);
    assert_eq!(server.ask(&binary("1", "", &fits)).await.status, 202);
    assert_eq!(
        server
            .ask(&batch(&[element(&fits), element(&fits)]))
            .await
            .status,
        202
    );
    assert_eq!(server.log.take().len(), 3);

    let large = "x".repeat(1000);
    assert_eq!(server.ask(&binary("1", "", &large)).await.status, 413);
    assert_eq!(
        server
            .ask(&batch(&[element(""), element(&large)]))
            .await
            .status,
        413
    );
    let five = [&fits; 5].map(|data| element(data));
    assert_eq!(server.ask(&batch(&five)).await.status, 413);
    assert!(server.log.take().is_empty());
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_the_body_comes() {
    let server = Server::start(small()).await;
    let head = binary("1", "Expect: 100-continue\r\n", "").replace("Length: 0", "Length: 1001");
    let reply = server.ask(&head).await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_body_of_unknown_length_is_read_to_the_limit_only() {
    let server = Server::start(small()).await;
    let head =
        binary("1", "Transfer-Encoding: chunked\r\n", "").replace("Content-Length: 0\r\n", "");
    let endless = head + &format!("1f4\r\n{}\r\n", "x".repeat(500)).repeat(3);
    assert_eq!(server.ask(&endless).await.status, 413);
    assert!(server.log.take().is_empty());
}

#[tokio::test]
async fn headers_over_the_limit_are_431() {
    let server = Server::start(small()).await;
    let headers = format!("ce-x: {}\r\n", "x".repeat(9000));
    assert_eq!(server.ask(&binary("1", &headers, "")).await.status, 431);
}

#[tokio::test]
async fn requests_beyond_the_bytes_in_flight_are_told_to_come_again() {
    let server = Server::start(Settings {
        max_bytes_in_flight: 4000,
        ..small()
    })
    .await;
    server.log.set(Behaviour::Hold(Vec::new()));
    let mut first = server.connect().await;
    first.send(binary("1", "", "x").as_bytes()).await;
    server.log.holds_one().await;
    let reply = server.ask(&binary("2", "", "x")).await;
    assert_eq!(reply.status, 500);
    assert_eq!(reply.header("retry-after"), Some("1"));
    server.log.release();
    assert_eq!(first.reply(false).await.unwrap().status, 202);
    assert_eq!(server.ask(&binary("3", "", "x")).await.status, 202);
}

#[tokio::test]
async fn headers_that_trickle_in_end_the_connection() {
    let server = Server::start(impatient()).await;
    for start in ["P", "POST / HTTP/1.1\r\nHost: orders.pr"] {
        let mut client = server.connect().await;
        client.send(start.as_bytes()).await;
        client.closed().await;
    }
    // After a request that was answered, too.
    let mut client = server.connect().await;
    client.send(binary("1", "", "").as_bytes()).await;
    assert_eq!(client.reply(false).await.unwrap().status, 202);
    client.send(b"POST / HTTP/1.1\r\n").await;
    client.closed().await;
}

#[tokio::test]
async fn a_body_that_trickles_in_is_408() {
    let server = Server::start(impatient()).await;
    let mut client = server.connect().await;
    let head = binary("1", "", "").replace("Length: 0", "Length: 10");
    client.send(format!("{head}abc").as_bytes()).await;
    let reply = client.reply(false).await.unwrap();
    assert_eq!(reply.status, 408);
    client.closed().await;
    assert!(server.log.take().is_empty());
}

#[tokio::test]
async fn idle_connections_are_kept_for_a_while_and_then_closed() {
    let server = Server::start(Settings {
        idle_timeout: Duration::from_millis(100),
        ..Settings::default()
    })
    .await;
    let mut silent = server.connect().await;
    silent.closed().await;
    let mut client = server.connect().await;
    client.send(binary("1", "", "").as_bytes()).await;
    assert_eq!(client.reply(false).await.unwrap().status, 202);
    client.closed().await;
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_their_turn() {
    let server = Server::start(Settings {
        max_connections: 1,
        ..Settings::default()
    })
    .await;
    let mut first = server.connect().await;
    first.send(binary("1", "", "").as_bytes()).await;
    assert_eq!(first.reply(false).await.unwrap().status, 202);
    let mut second = server.connect().await;
    second.send(binary("2", "", "").as_bytes()).await;
    let early = tokio::time::timeout(Duration::from_millis(50), second.reply(false)).await;
    assert!(early.is_err(), "{early:?}");
    drop(first);
    assert_eq!(second.reply(false).await.unwrap().status, 202);
}

#[tokio::test]
async fn a_sender_that_writes_everything_first_still_gets_its_413() {
    let server = Server::start(small()).await;
    let mut client = server.connect().await;
    client
        .send(binary("1", "", &"x".repeat(4 << 20)).as_bytes())
        .await;
    assert_eq!(client.reply(false).await.unwrap().status, 413);
}
