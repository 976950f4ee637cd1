use bytes::Bytes;
use clap::Parser as _;

use super::super::console::captured;
use super::super::event::Received;
use super::super::{Cli, Command, send};
use super::*;
use crate::clock::UnixMillis;

async fn send_to(address: SocketAddr, more: &[&str]) -> (Result<(), CliError>, String) {
    let url = format!("http://shop.default.localhost:{}/x", address.port());
    let args = ["levada", "send", "--url", &url]
        .into_iter()
        .chain(more.iter().copied());
    let Command::Send(args) = Cli::try_parse_from(args).unwrap().command else {
        panic!("another command");
    };
    let (console, text) = captured();
    let result = send::run(args, &console).await;
    (result, text())
}

async fn subscriber(script: Script) -> (SocketAddr, mpsc::Receiver<Delivery>, Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, deliveries) = mpsc::channel(MAX_WAITING);
    let tasks = Tasks::new();
    serve(listener, script, told, &tasks);
    (address, deliveries, tasks)
}

#[tokio::test]
async fn what_send_sends_is_what_listen_gets() {
    let script = Script::by_type(&[("flaky", "503,200")]).unwrap();
    let (address, mut deliveries, tasks) = subscriber(script).await;
    let event = [
        "--type",
        "flaky",
        "--id",
        "7",
        "--subject",
        "a b",
        "--data",
        "{\"n\": 1}",
    ];
    let (result, said) = send_to(address, &event).await;
    assert!(matches!(result, Err(CliError::Told)), "{result:?}");
    assert_eq!(said, "503 Service Unavailable 7\n");
    let structured: Vec<_> = event.iter().copied().chain(["--structured"]).collect();
    let (result, said) = send_to(address, &structured).await;
    result.unwrap();
    assert_eq!(said, "200 OK 7\n");
    let first = deliveries.recv().await.unwrap();
    let second = deliveries.recv().await.unwrap();
    assert_eq!((first.attempt, first.answer), (1, 503));
    assert_eq!((second.attempt, second.answer), (2, 200));
    assert_eq!(first.event.attribute("subject"), "a b");
    assert_eq!(first.event.data, "{\"n\": 1}");
    let without_time = |mut event: Received| {
        event.attributes.remove("time");
        event
    };
    assert_eq!(without_time(first.event), without_time(second.event));
    tasks.drain(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn many_are_summed_up() {
    let (address, mut deliveries, _tasks) = subscriber(Script::by_type(&[]).unwrap()).await;
    let (result, said) = send_to(address, &["--count", "12", "--rate", "5000", "--id", "x"]).await;
    result.unwrap();
    assert!(said.starts_with("12 accepted, 0 refused in "), "{said}");
    assert_eq!(said.lines().count(), 1);
    for number in 1..=12 {
        let delivery = deliveries.recv().await.unwrap();
        assert_eq!(delivery.event.attribute("id"), format!("x-{number}"));
        assert_eq!(delivery.event.data, Bytes::new());
        assert_eq!(delivery.event.content_type, None);
    }
}

#[tokio::test]
async fn a_reply_is_an_event_with_the_same_data() {
    let (_, answers) = parse_by_type("x=200").unwrap();
    let script = Script::new(answers, Vec::new(), Duration::ZERO, Some("done".into()));
    let (address, _deliveries, _tasks) = subscriber(script).await;
    let request = http::Request::post(format!("http://{address}/"))
        .header("content-type", "text/plain")
        .body(http_body_util::Full::new(Bytes::from("hi")))
        .unwrap();
    let client = super::super::http::HttpClient::new().unwrap();
    let answer = client.send(request, "").await.unwrap();
    assert_eq!(answer.headers["ce-type"], "done");
    assert_eq!(answer.headers["content-type"], "text/plain");
    assert_eq!(answer.body, "hi");
}

#[tokio::test]
async fn a_refused_connection_says_what_to_start() {
    // Bound and dropped, so that nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let (result, _) = send_to(free, &[]).await;
    let said = result.unwrap_err().to_string();
    assert!(
        said.contains("nothing listens at shop.default.localhost"),
        "{said}"
    );
    assert!(said.contains("levada serve"), "{said}");
}

#[test]
fn a_delivery_is_one_line_unless_all_is_asked_for() {
    let attributes = [
        ("type", "a.b"),
        ("id", "7"),
        ("source", "/s"),
        ("knativeerrordest", "http://x"),
        ("knativeerrorcode", "500"),
    ];
    let event = Received {
        attributes: attributes
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
        content_type: Some("application/json".into()),
        data: Bytes::from_static(b"{\n  \"a\": \"\x1b[2J\"\n}"),
    };
    let delivery = Delivery {
        event,
        attempt: 2,
        answer: 503,
        method: http::Method::POST,
        path: "/".into(),
        headers: http::HeaderMap::new(),
    };
    let (console, _) = captured();
    let clock = Clock::fixed(UnixMillis(1_522_900_584_007));
    let line = show(&delivery, &clock, &console, false);
    assert_eq!(
        line,
        "03:56:24.007 503 attempt 2  a.b  id=7  source=/s  dead letter, last answer 500  { \"a\": \"\u{fffd}[2J\" }\n"
    );
    let all = show(&delivery, &clock, &console, true);
    assert!(all.contains("\n    knativeerrordest: http://x\n"), "{all}");
    assert!(!all.contains('\u{1b}'));
}
