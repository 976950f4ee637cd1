//! Whatever comes over a socket is answered or ended by closing it, and the broker goes on.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::event::Event;
use crate::harness::sink::Sink;
use crate::harness::{Log, World};

/// Far more than an answer takes; far less than the broker waits for an idle peer.
const LIMIT: Duration = Duration::from_secs(20);

const LINES: [&str; 8] = [
    "POST / HTTP/1.1\r\n",
    "POST /NAMESPACE/orders HTTP/1.1\r\n",
    "POST / HTTP/1.1\r\nHost: orders.NAMESPACE\r\n",
    "GET /v1/subscriptions HTTP/1.1\r\n",
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\n",
    "GET /v1/channels/%ff/../x?status=&a=%zz HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "CONNECT a:1 HTTP/1.1\r\n",
];

const HEADERS: [&str; 16] = [
    "Host: orders.NAMESPACE\r\n",
    "Host: localhost\r\n",
    "Host: \r\n",
    "ce-id: 1\r\nce-source: /s\r\nce-type: t\r\nce-specversion: 1.0\r\n",
    "ce-x: %e2%82\r\n",
    "ce-time: yesterday\r\n",
    "Content-Type: application/cloudevents+json\r\n",
    "Content-Type: application/cloudevents-batch+json\r\n",
    "Content-Type: text/plain\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: h2c\r\nConnection: upgrade\r\n",
    "Origin: http://elsewhere\r\n",
    "Authorization: Bearer \u{e9}\r\n",
];

const BODIES: [&str; 9] = [
    "",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "fffffffffffffffff\r\n",
    "[{\"specversion\":\"1.0\",",
    "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"}",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\0\0\0\u{4}\0\0\0\0\0",
    "\0\0\u{3}\u{1}\u{5}\0\0\0\u{1}",
];

/// Up to three requests, each more or less whole, or something else.
fn requests(namespace: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let of = |pieces: &[&str]| {
        let pieces = pieces
            .iter()
            .map(|piece| piece.replace("NAMESPACE", namespace));
        let pieces: Vec<Vec<u8>> = pieces.map(String::into_bytes).collect();
        prop::sample::select(pieces)
    };
    let noise = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(0x20..0x7fu8, 0..20),
    ];
    let header = prop_oneof![15 => of(&HEADERS), 1 => noise.clone()];
    let request = (
        of(&LINES),
        prop::collection::vec(header, 0..6),
        of(&["\r\n", "\r\n", "\r\n", ""]),
        of(&BODIES),
    );
    let request =
        request.prop_map(|(line, headers, end, body)| [line, headers.concat(), end, body].concat());
    let part = prop_oneof![8 => request, 1 => of(&BODIES), 1 => noise];
    prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
}

/// What is answered to these bytes, until the other side closes.
fn answers(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut answers = Vec::new();
    // It may be closed before everything was sent, and a reset is a way to close.
    let sent = stream.write_all(bytes);
    if sent.and_then(|()| stream.shutdown(Shutdown::Write)).is_ok() {
        match stream.read_to_end(&mut answers) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Ok(answers)
}

#[test]
fn random_bytes_are_answered_or_refused_and_the_broker_goes_on() {
    let world = World::new(Log::Embedded);
    let sink = Sink::taking();
    world.write_orders(&sink.url("/"), "{}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    for address in [broker.ingress, broker.admin] {
        let mut runner = TestRunner::new(Config {
            failure_persistence: None,
            ..Config::with_cases(400)
        });
        let codes = RefCell::new(BTreeSet::new());
        let result = runner.run(&requests(&world.namespace), |bytes| {
            let answers = answers(address, &bytes);
            let answers = answers.map_err(|error| TestCaseError::fail(error.to_string()))?;
            if let Some(rest) = answers.strip_prefix(b"HTTP/1.1 ") {
                codes
                    .borrow_mut()
                    .insert(String::from_utf8_lossy(&rest[..3]).into_owned());
            }
            Ok(())
        });
        result.unwrap_or_else(|failure| panic!("{address}: {failure}"));
        // The bytes get somewhere: several sorts of answers come.
        let codes = codes.into_inner();
        assert!(codes.len() >= 2, "{codes:?}");
    }
    assert_eq!(broker.get("/healthz").status(), 200);
    broker.accept("orders", &Event::new("last"));
    sink.wait_for_ids(&["last"], LIMIT);
}
