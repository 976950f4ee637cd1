//! Dead letters are looked at and sent round again, by the API and by the commands.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::event::Event;
use crate::harness::http::{self, Connection, Message};
use crate::harness::sink::{Answer, Sink};
use crate::harness::{Broker, PATIENCE, World, eventually, on_both_logs};

on_both_logs!(
    dead_letters_are_sent_round_again_with_fresh_attempts,
    a_redrive_can_be_paused_and_goes_on_after_kills,
    only_what_is_meant_is_sent,
);

/// A subscriber that fails until it is mended.
struct Subscriber {
    sink: Sink,
    works: Arc<AtomicBool>,
}

impl Subscriber {
    fn broken() -> Self {
        let works = Arc::new(AtomicBool::new(false));
        let answers = Arc::clone(&works);
        let sink = Sink::new(move |seen| {
            // One is beyond help.
            let good = answers.load(Ordering::Relaxed) && seen.id() != "bad";
            let mut answer = Answer::status(if good { 200 } else { 503 });
            answer.body = b"no".to_vec();
            answer
        });
        Self { sink, works }
    }

    fn mend(&self) {
        self.works.store(true, Ordering::Relaxed);
    }

    fn calls(&self, id: &str) -> usize {
        self.sink
            .seen()
            .iter()
            .filter(|seen| seen.id() == id)
            .count()
    }
}

fn path(world: &World) -> String {
    format!("/v1/subscriptions/{}/billing/dead-letters", world.namespace)
}

fn post(broker: &Broker, path: &str, body: &Value) -> Message {
    broker.ask("POST", path, body.to_string().as_bytes())
}

fn letters(world: &World, broker: &Broker, query: &str) -> Vec<Value> {
    let answer = broker.get(&format!("{}{query}", path(world)));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["items"].as_array().unwrap().clone()
}

fn wait_for_letters(world: &World, broker: &Broker, count: usize) -> Vec<Value> {
    eventually("the dead letters are listed", PATIENCE, || {
        letters(world, broker, "?page_size=250").len() == count
    });
    letters(world, broker, "?page_size=250")
}

fn command(broker: &Broker, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_levada"))
        .arg("dead-letters")
        .args(args)
        .env("LEVADA_ADMIN_URL", format!("http://{}", broker.admin))
        .output()
        .unwrap()
}

fn written(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    text
}

fn dead_letters_are_sent_round_again_with_fresh_attempts(world: &World) {
    let subscriber = Subscriber::broken();
    let delivery = "{retry: 1, backoffPolicy: linear, backoffDelay: PT0.05S}";
    world.write_orders(&subscriber.sink.url("/"), delivery);
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    let name = format!("{}/billing", world.namespace);
    let ids: Vec<_> = (0..7).map(|number| format!("e{number}")).collect();
    for id in &ids {
        let event = Event::new(id).with("knativekept", "yes");
        broker.accept("orders", &event);
    }
    broker.accept("orders", &Event::new("bad"));
    let all = wait_for_letters(world, &broker, 8);
    for letter in &all {
        let what = format!("{letter:#}");
        assert_eq!(letter["reason"], "http_503", "{what}");
        assert_eq!(letter["error"]["code"], 503, "{what}");
        assert_eq!(letter["error"]["data"], "bm8=", "{what}");
        assert_eq!(letter["attempts"], 2, "{what}");
        assert_eq!(
            (&letter["redriven"], &letter["sent_again"]),
            (&json!(0), &json!(false)),
            "{what}"
        );
    }
    let one = format!("{}/{}", path(world), all[0]["id"].as_str().unwrap());
    let content = &broker.get(&one).json()["content"];
    assert_eq!(content["id"], all[0]["event"]["id"]);
    assert_eq!(content["knativeerrorcode"], Value::Null, "{content}");

    subscriber.mend();
    let told = written(&command(&broker, &["redrive", &name, "--dry-run"]));
    assert_eq!(
        told,
        format!("8 dead letters of {name} would be sent round again\n")
    );
    let told = written(&command(&broker, &["redrive", &name, "--yes"]));
    assert_eq!(told, "done: 8 of 8 dead letters sent round again\n");

    let before = 2;
    for id in &ids {
        eventually("it arrives", PATIENCE, || {
            subscriber.calls(id) == before + 1
        });
    }
    let seen = subscriber.sink.seen();
    let again = seen.iter().rfind(|seen| seen.id() == "e3").unwrap();
    assert_eq!(again.message.header("ce-knativeerrordest"), None);
    assert_eq!(again.message.header("ce-knativekept"), Some("yes"));
    // Whoever fails again has had all its attempts, and tells of its past.
    let all = wait_for_letters(world, &broker, 9);
    assert_eq!(subscriber.calls("bad"), before + 2);
    let mut waiting = all.iter().filter(|letter| letter["sent_again"] == false);
    let last = waiting.next().unwrap();
    assert_eq!(
        (&last["event"]["id"], &last["redriven"]),
        (&json!("bad"), &json!(1))
    );
    assert_eq!(last["attempts"], 2);
    assert!(waiting.next().is_none());
    // What was sent is not sent again, unless somebody says so.
    let told = written(&command(&broker, &["redrive", &name, "--dry-run"]));
    assert_eq!(
        told,
        format!("1 dead letter of {name} would be sent round again\n")
    );
    let told = written(&command(
        &broker,
        &["redrive", &name, "--again", "--event-id", "e1", "--yes"],
    ));
    assert_eq!(told, "done: 1 of 1 dead letter sent round again\n");
    eventually("it arrives once more", PATIENCE, || {
        subscriber.calls("e1") == before + 2
    });
    let table = written(&command(&broker, &["list", &name]));
    assert_eq!(table.lines().count(), 1 + 9, "{table}");
}

fn a_redrive_can_be_paused_and_goes_on_after_kills(world: &World) {
    let subscriber = Subscriber::broken();
    world.write_orders(&subscriber.sink.url("/"), "{retry: 0}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    let ids: Vec<_> = (0..30).map(|number| format!("e{number}")).collect();
    for id in &ids {
        broker.accept("orders", &Event::new(id));
    }
    wait_for_letters(world, &broker, 30);
    subscriber.mend();
    let redrive = format!("{}/redrive", path(world));
    let begun = post(&broker, &redrive, &json!({ "all": true, "rate": 8 }));
    assert_eq!(begun.status(), 202, "{}", begun.text());
    let begun = begun.json();
    assert_eq!(begun["count"], 30);
    let id = begun["id"].as_str().unwrap();
    let state = format!("/v1/redrives/{id}");
    let refused = post(&broker, &redrive, &json!({ "all": true }));
    assert_eq!(refused.status(), 409, "{}", refused.text());
    eventually("some are sent", PATIENCE, || {
        broker.get(&state).json()["sent"].as_u64() >= Some(4)
    });
    let paused = post(&broker, &format!("{state}/pause"), &Value::Null);
    assert_eq!(paused.json()["state"], "paused", "{}", paused.text());
    // A batch may have been on its way.
    eventually("it stands still", PATIENCE, || {
        let sent = || broker.get(&state).json()["sent"].clone();
        let first = sent();
        std::thread::sleep(std::time::Duration::from_millis(600));
        first == sent()
    });
    broker.kill();

    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    let after = broker.get(&state).json();
    assert_eq!(after["state"], "paused", "{after:#}");
    assert!(after["sent"].as_u64() < Some(30), "{after:#}");
    let resumed = post(&broker, &format!("{state}/resume"), &Value::Null);
    assert_eq!(resumed.status(), 202, "{}", resumed.text());
    eventually("more are sent", PATIENCE, || {
        broker.get(&state).json()["sent"].as_u64() > after["sent"].as_u64()
    });
    broker.kill();

    // It goes on by itself now.
    let broker = world.start();
    eventually("it is done", PATIENCE, || {
        let answer = broker.get(&state);
        answer.status() == 200 && answer.json()["state"] == "done"
    });
    subscriber.sink.wait("all arrive", PATIENCE, |seen| {
        ids.iter()
            .all(|id| seen.iter().any(|seen| seen.id() == id && seen.success))
    });
    // A kill repeats what was on its way then: a batch, which at this rate is two.
    let delivered = subscriber
        .sink
        .seen()
        .iter()
        .filter(|seen| seen.success)
        .count();
    assert!(delivered < 30 + 8, "{delivered} deliveries of 30");
    let planned = post(&broker, &redrive, &json!({ "dry_run": true })).json();
    assert_eq!(planned["count"], 0, "{planned}");
    let ended = post(&broker, &format!("{state}/cancel"), &Value::Null);
    assert_eq!(ended.status(), 409, "{}", ended.text());
}

fn only_what_is_meant_is_sent(world: &World) {
    let subscriber = Subscriber::broken();
    world.write_orders(&subscriber.sink.url("/"), "{retry: 0}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    for number in 0..5 {
        broker.accept("orders", &Event::new(&format!("e{number}")));
    }
    wait_for_letters(world, &broker, 5);
    // Pages fit together.
    let mut found = Vec::new();
    let mut query = "?page_size=2".to_owned();
    loop {
        let page = broker.get(&format!("{}{query}", path(world))).json();
        found.extend(page["items"].as_array().unwrap().clone());
        let Some(after) = page["page_info"]["after"].as_str() else {
            break;
        };
        query = format!("?page_size=2&after={after}");
    }
    let times: Vec<_> = found
        .iter()
        .map(|letter| letter["inserted_at"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    let mut ids: Vec<_> = found
        .iter()
        .map(|letter| letter["event"]["id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ["e0", "e1", "e2", "e3", "e4"]);
    assert_eq!(letters(world, &broker, "?event_id=e2").len(), 1);
    assert_eq!(letters(world, &broker, "?error_code=404").len(), 0);

    let redrive = format!("{}/redrive", path(world));
    for (body, status) in [
        (json!({}), 400),
        (json!({ "plan": "none" }), 404),
        (json!({ "plan": "none", "event_id": "e1" }), 400),
        (json!({ "what": 1 }), 400),
    ] {
        let answer = post(&broker, &redrive, &body);
        assert_eq!(answer.status(), status, "{body}: {}", answer.text());
    }
    assert_eq!(broker.get(&redrive).status(), 405);
    assert_eq!(broker.get(&format!("{}/0-0-0", path(world))).status(), 404);
    let foreign = [("origin".to_owned(), "http://evil.example".to_owned())];
    let host = broker.admin.to_string();
    let request = http::request("POST", &redrive, &host, &foreign, b"{\"all\":true}");
    let mut connection = Connection::open(broker.admin, PATIENCE).unwrap();
    assert_eq!(connection.exchange(&request).unwrap().status(), 403);

    subscriber.mend();
    let planned = post(
        &broker,
        &redrive,
        &json!({ "event_id": "e2", "dry_run": true }),
    )
    .json();
    assert_eq!(planned["count"], 1);
    let begun = post(&broker, &redrive, &json!({ "plan": planned["plan"] }));
    assert_eq!(begun.status(), 202, "{}", begun.text());
    eventually("it arrives", PATIENCE, || subscriber.calls("e2") == 2);
    let all = letters(world, &broker, "");
    let sent: Vec<_> = all
        .iter()
        .filter(|letter| letter["sent_again"] == true)
        .collect();
    assert_eq!(sent.len(), 1, "{all:#?}");
    assert_eq!(subscriber.calls("e1"), 1);
}
