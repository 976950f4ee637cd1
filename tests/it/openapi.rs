//! The document of the API: served as it is kept, and its check has teeth.

use crate::harness::api;
use crate::harness::event::Event;
use crate::harness::http::Message;
use crate::harness::sink::{Answer, Sink};
use crate::harness::{Log, PATIENCE, World, eventually};

#[test]
fn it_is_served_as_it_is_kept() {
    let world = World::new(Log::Embedded);
    let broker = world.start();
    let served = broker.get("/v1/openapi.json");
    assert_eq!(served.status(), 200);
    assert_eq!(served.header("content-type"), Some("application/json"));
    assert_eq!(served.text(), include_str!("../../docs/openapi.json"));
}

/// Every address that tells something of a message, of its subscription and of the node; each
/// answer is held against the document by [`crate::harness::Broker::ask`].
#[test]
fn every_answer_is_of_its_shape() {
    let world = World::new(Log::Embedded);
    let sink = Sink::new(|_| Answer::status(503));
    world.write_orders(&sink.url("/"), "{retry: 1, backoffDelay: PT0.01S}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    broker.accept("orders", &Event::new("e1"));
    let named = format!("/v1/subscriptions/{}/billing", world.namespace);
    let letters = format!("{named}/dead-letters");
    let mut message = String::new();
    eventually("it is a dead letter", PATIENCE, || {
        let page = broker.get("/v1/messages").json();
        message = page["items"][0]["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let kept = broker.get(&letters).json();
        page["items"][0]["final"] == true && kept["items"].as_array().unwrap().len() == 1
    });
    let mut paths: Vec<String> = [
        "channels",
        "subscriptions",
        "problems",
        "health",
        "openapi.json",
    ]
    .map(|part| format!("/v1/{part}"))
    .to_vec();
    paths.push(format!("/v1/channels/{}/orders", world.namespace));
    paths.extend(["", "/stats", "/dead-letters"].map(|part| format!("{named}{part}")));
    paths.push(format!("{named}/dead-letters/{message}"));
    let parts = ["", "/events", "/delivery_logs", "/content"];
    paths.extend(parts.map(|part| format!("/v1/messages/{message}{part}")));
    for path in &paths {
        assert_eq!(broker.get(path).status(), 200, "{path}");
    }
    let redrive = format!("{named}/dead-letters/redrive");
    let planned = broker.ask("POST", &redrive, br#"{"dry_run": true}"#);
    assert_eq!(
        (planned.status(), &planned.json()["count"]),
        (200, &1.into())
    );
    let begun = broker.ask("POST", &redrive, br#"{"all": true}"#);
    assert_eq!(begun.status(), 202);
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(broker.get(&format!("/v1/redrives/{id}")).status(), 200);
}

fn answer(status: u16, media: &str, body: &str) -> Message {
    Message {
        start: format!("HTTP/1.1 {status} X"),
        headers: vec![("content-type".into(), media.into())],
        body: body.into(),
    }
}

#[test]
fn what_is_not_in_the_document_fails() {
    let json = |status, body| answer(status, "application/json", body);
    api::check("GET", "/metrics", &json(200, "[]"));
    let page = r#"{"items": [], "page_info": {"page_size": 1, "after": null, "before": null}}"#;
    api::check("GET", "/v1/messages?page_size=1", &json(200, page));
    let problem = r#"{"title": "x", "status": 400, "detail": "x"}"#;
    api::check(
        "GET",
        "/v1/messages",
        &answer(400, "application/problem+json", problem),
    );
    for (path, wrong) in [
        ("/v1/nothing", json(200, page)),
        ("/v1/messages", json(202, page)),
        (
            "/v1/messages",
            json(200, &page.replace("page_size", "size")),
        ),
        ("/v1/messages", json(200, &page.replace("null", "7"))),
        (
            "/v1/messages",
            json(200, &page.replace("[]", "[], \"more\": 1")),
        ),
        ("/v1/messages", answer(200, "text/plain", page)),
        ("/v1/messages", json(400, problem)),
    ] {
        let checked = std::panic::catch_unwind(|| api::check("GET", path, &wrong));
        assert!(checked.is_err(), "{path} {}", wrong.text());
    }
}
