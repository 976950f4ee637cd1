//! What became of messages, told by the API and the commands.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;

use crate::harness::event::Event;
use crate::harness::sink::{Answer, Sink};
use crate::harness::{Broker, PATIENCE, World, eventually, on_both_logs};

on_both_logs!(
    the_story_of_a_message_is_told,
    filters_pick_what_they_say,
    pages_hold_while_messages_arrive,
    a_message_is_sent_again_in_a_round_of_its_own,
    a_waiting_attempt_is_made_at_once,
);

const DELIVERY: &str = "{retry: 3, backoffPolicy: linear, backoffDelay: PT0.05S}";

/// Events whose ids begin with `twice` fail twice, those with `bad` for good.
fn subscriber() -> Sink {
    let calls: Mutex<HashMap<String, u32>> = Mutex::default();
    Sink::new(move |seen| {
        let mut calls = calls.lock().unwrap();
        let call = calls.entry(seen.id().to_owned()).or_default();
        *call += 1;
        let failing = seen.id().starts_with("twice") && *call <= 2;
        let status = match (seen.id().starts_with("bad"), failing) {
            (true, _) => 400,
            (false, true) => 503,
            (false, false) => 200,
        };
        let mut answer = Answer::status(status);
        answer.body = format!("call {call}").into();
        answer
    })
}

fn started(world: &World, sink: &Sink) -> Broker {
    world.write_orders(&sink.url("/hook"), DELIVERY);
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    broker
}

pub(crate) fn page(broker: &Broker, query: &str) -> Value {
    let answer = broker.get(&format!("/v1/messages?{query}"));
    assert_eq!(answer.status(), 200, "{query}: {}", answer.text());
    answer.json()
}

pub(crate) fn items(broker: &Broker, path: &str) -> Vec<Value> {
    let answer = broker.get(path);
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    answer.json()["items"].as_array().unwrap().clone()
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    let id = |item: &Value| item["event"]["id"].as_str().unwrap().to_owned();
    items.iter().map(id).collect()
}

/// Waits until so many messages are as they stay.
pub(crate) fn wait_for_final(broker: &Broker, count: usize) {
    eventually("all messages are final", PATIENCE, || {
        let page = page(broker, "page_size=250");
        let all = page["items"].as_array().unwrap();
        all.len() == count && all.iter().all(|item| item["final"] == true)
    });
}

fn words<'v>(entries: &'v [Value], field: &str) -> Vec<&'v str> {
    entries
        .iter()
        .map(|entry| entry[field].as_str().unwrap())
        .collect()
}

pub(crate) fn the_story_of_a_message_is_told(world: &World) {
    let sink = subscriber();
    let broker = started(world, &sink);
    broker.accept("orders", &Event::new("twice").with_data("the data"));
    wait_for_final(&broker, 1);
    let message = page(&broker, "event_id=twice")["items"][0].clone();
    let what = format!("{message:#}");
    assert_eq!(message["status"], "delivered", "{what}");
    assert_eq!(message["attempts"], 3, "{what}");
    assert_eq!(message["max_attempts"], 4, "{what}");
    assert_eq!(
        message["subscription"],
        format!("{}/billing", world.namespace),
        "{what}"
    );
    let path = format!("/v1/messages/{}", message["id"].as_str().unwrap());
    assert_eq!(broker.get(&path).json(), message);

    let events = items(&broker, &format!("{path}/events"));
    let wanted = [
        "message.queued",
        "message.undelivered",
        "message.queued",
        "message.undelivered",
        "message.queued",
        "message.delivered",
    ];
    assert_eq!(words(&events, "type"), wanted);
    assert_eq!(events[1]["data"]["reason"], "http_503");
    assert_eq!(events[1]["data"]["retryable"], true);

    let logs = items(&broker, &format!("{path}/delivery_logs"));
    assert_eq!(words(&logs, "trigger"), ["first", "retry", "retry"]);
    let codes: Vec<_> = logs.iter().map(|log| &log["response"]["status"]).collect();
    assert_eq!(codes, [503, 503, 200]);
    assert_eq!(logs[1]["response"]["body"], "call 2");
    assert_eq!(logs[0]["request"]["url"], sink.url("/hook"));

    let content = broker.get(&format!("{path}/content"));
    assert_eq!((content.status(), &*content.text()), (200, "the data"));
    let guard = content.header("content-security-policy").unwrap();
    assert_eq!(guard, "default-src 'none'; sandbox");
    assert!(
        content
            .header("content-disposition")
            .unwrap()
            .starts_with("attachment")
    );

    let shown = Command::new(env!("CARGO_BIN_EXE_levada"))
        .args(["messages", "show", message["id"].as_str().unwrap()])
        .env("LEVADA_ADMIN_URL", format!("http://{}", broker.admin))
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    for line in [
        "Status:       delivered",
        "  attempt 2  503",
        "  attempt 3  200",
        "waited",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    assert_eq!(
        broker.get("/v1/messages/0000000000000000-0-0").status(),
        404
    );
}

pub(crate) fn filters_pick_what_they_say(world: &World) {
    let sink = subscriber();
    let broker = started(world, &sink);
    for id in ["ok-1", "bad-1", "twice-1", "ok-2"] {
        broker.accept("orders", &Event::new(id));
    }
    wait_for_final(&broker, 4);
    let sorted = |query: &str| {
        let mut found = ids(&page(&broker, query));
        found.sort();
        found
    };
    let all = ["bad-1", "ok-1", "ok-2", "twice-1"];
    let one = page(&broker, "event_id=ok-1")["items"][0].clone();
    let kind = one["event"]["type"].as_str().unwrap();
    let source = one["event"]["source"].as_str().unwrap();
    let namespace = &world.namespace;
    for (query, wanted) in [
        ("status=delivered".to_owned(), &all[1..]),
        ("status=undelivered".to_owned(), &all[..1]),
        ("status=delivered&status=undelivered".to_owned(), &all[..]),
        ("status=queued".to_owned(), &[][..]),
        ("reason=http_400".to_owned(), &all[..1]),
        (format!("subscription={namespace}/billing"), &all[..]),
        (format!("subscription={namespace}/other"), &[][..]),
        (format!("channel={namespace}/orders"), &all[..]),
        (format!("channel={namespace}/other"), &[][..]),
        ("event_id=ok-2".to_owned(), &all[2..3]),
        (format!("event_type={kind}"), &all[..]),
        ("event_type=none.such".to_owned(), &[][..]),
        (format!("event_source={source}"), &all[..]),
        ("event_source=/none".to_owned(), &[][..]),
        ("inserted_at.gte=2000-01-01T00:00:00Z".to_owned(), &all[..]),
        ("inserted_at.lt=2000-01-01T00:00:00Z".to_owned(), &[][..]),
        (
            format!("status=delivered&event_type={kind}&event_id=ok-1"),
            &all[1..2],
        ),
    ] {
        assert_eq!(sorted(&query), wanted, "{query}");
    }
    let bad = &page(&broker, "event_id=bad-1")["items"][0];
    assert_eq!(bad["failure_reason"], "fatal_error", "{bad:#}");
    let refused = broker.get("/v1/messages?status=done");
    assert_eq!(refused.status(), 400);
    assert!(refused.text().contains("status"), "{}", refused.text());
}

pub(crate) fn pages_hold_while_messages_arrive(world: &World) {
    let sink = subscriber();
    let broker = started(world, &sink);
    for number in 0..60 {
        broker.accept("orders", &Event::new(&format!("old-{number}")));
    }
    wait_for_final(&broker, 60);
    let mut found = Vec::new();
    let mut after = String::new();
    for number in 0.. {
        let page = page(&broker, &format!("page_size=7{after}"));
        found.extend(ids(&page));
        let Some(next) = page["page_info"]["after"].as_str() else {
            break;
        };
        after = format!("&after={next}");
        for one in 0..3 {
            broker.accept("orders", &Event::new(&format!("new-{number}-{one}")));
        }
    }
    assert_eq!(found.len(), 60, "{found:?}");
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 60, "none is there twice");
    assert!(found.iter().all(|id| id.starts_with("old-")), "{found:?}");
}

fn act(broker: &Broker, id: &str, act: &str) -> (u16, String) {
    let answer = broker.ask("POST", &format!("/v1/messages/{id}/{act}"), b"");
    (answer.status(), answer.text())
}

fn only(broker: &Broker) -> Value {
    page(broker, "")["items"][0].clone()
}

pub(crate) fn a_message_is_sent_again_in_a_round_of_its_own(world: &World) {
    let sink = subscriber();
    let broker = started(world, &sink);
    broker.accept("orders", &Event::new("bad"));
    wait_for_final(&broker, 1);
    let id = only(&broker)["id"].as_str().unwrap().to_owned();
    let (status, why) = act(&broker, &id, "retry-now");
    assert_eq!(status, 409, "{why}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
    command.args(["messages", "redeliver", &id, "--admin"]);
    let said = command
        .arg(format!("http://{}", broker.admin))
        .output()
        .unwrap();
    let line = String::from_utf8(said.stdout).unwrap();
    assert_eq!(line, format!("{id} (bad) is sent again\n"));
    eventually("it was sent again", PATIENCE, || {
        let message = only(&broker);
        message["round"] == 2 && message["final"] == true
    });
    let logs = items(&broker, &format!("/v1/messages/{id}/delivery_logs"));
    let rounds: Vec<_> = logs
        .iter()
        .map(|log| log["round"].as_u64().unwrap())
        .collect();
    assert_eq!(rounds, [1, 2]);
    assert_eq!(sink.seen().len(), 2);
    let (status, _) = act(&broker, "0000000000000000-0-0", "redeliver");
    assert_eq!(status, 409, "nothing is known of it");
}

fn a_waiting_attempt_is_made_at_once(world: &World) {
    let sink = subscriber();
    for (order, delay) in [("key", "PT10M"), ("none", "PT10M")] {
        let delivery = format!(
            "{{retry: 3, ordering: {order}, backoffPolicy: linear, backoffDelay: {delay}}}"
        );
        world.write_orders(&sink.url("/hook"), &delivery);
        let broker = world.start();
        broker.wait_for_subscriptions(&["billing"]);
        let name = format!("twice-{order}");
        broker.accept("orders", &Event::new(&name).with("partitionkey", "k"));
        for attempts in 1..=2 {
            let query = format!("event_id={name}");
            let mut id = String::new();
            eventually("it waits", PATIENCE, || {
                let page = page(&broker, &query);
                let Some(message) = page["items"].get(0) else {
                    return false;
                };
                id = message["id"].as_str().unwrap().to_owned();
                message["attempts"] == attempts && !message["next_attempt_at"].is_null()
            });
            let (status, shown) = act(&broker, &id, "retry-now");
            assert_eq!(status, 202, "{shown}");
        }
        eventually("it is delivered", PATIENCE, || {
            page(&broker, &format!("event_id={name}"))["items"][0]["status"] == "delivered"
        });
        broker.terminate();
    }
}
