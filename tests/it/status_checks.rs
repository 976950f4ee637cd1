//! Providers that take a message first and tell later what became of it, as mail and SMS services
//! do: by a receipt in a header, in the body, or by `Location`.

use serde_json::Value;

use crate::harness::event::Event;
use crate::harness::sink::{Answer, Fault, Seen, Sink};
use crate::harness::{Broker, PATIENCE, World, eventually, on_both_logs};

on_both_logs!(
    a_message_is_sent_then_what_the_provider_says,
    checks_survive_a_kill,
    a_sandbox_sends_nothing_and_accepted_may_mean_sent,
);

/// Takes messages at `/send`, tells of them at `/status/<id>`. What the event is called decides.
fn provider() -> Sink {
    Sink::new(|seen: &Seen| match seen.path.strip_prefix("/status/") {
        None => taken(seen),
        Some(id) => told(id, seen.attempt),
    })
}

fn taken(seen: &Seen) -> Answer {
    let mut answer = Answer::status(202);
    let id = seen.id();
    let (header, value) = match seen.path.as_str() {
        "/header" => ("X-Receipt", id.to_owned()),
        _ => ("Location", format!("/status/{id}")),
    };
    answer.headers.push((header.into(), value));
    if !id.starts_with("mute") {
        answer.body = format!("{{\"message\":{{\"id\":\"{id}\"}}}}").into();
    }
    answer
}

fn told(id: &str, check: usize) -> Answer {
    let mut answer = Answer::status(200);
    let status = match (id.split('-').next(), check) {
        (Some("lost"), _) => return Answer::status(404),
        (Some("busy"), 1) => {
            let mut busy = Answer::status(429);
            busy.headers.push(("Retry-After".into(), "1".into()));
            return busy;
        }
        (Some("reset"), 1) => {
            answer.fault = Some(Fault::Reset);
            return answer;
        }
        (Some("slow"), 1) => "sending",
        (Some("bounced"), _) => "hard_bounce",
        _ => "delivered",
    };
    answer.body = format!("{{\"state\":\"{status}\"}}").into();
    answer
}

fn message(broker: &Broker, id: &str) -> Value {
    let answer = broker.get(&format!("/v1/messages?event_id={id}"));
    answer.json()["items"][0].clone()
}

fn part(broker: &Broker, message: &Value, part: &str) -> Vec<Value> {
    let id = message["id"].as_str().unwrap();
    let answer = broker.get(&format!("/v1/messages/{id}/{part}"));
    answer.json()["items"].as_array().unwrap().clone()
}

/// Waits until a message is at its end, and tells its statuses.
fn statuses(broker: &Broker, id: &str) -> (Value, Vec<String>) {
    let mut last = Value::Null;
    eventually(&format!("{id} is at its end"), PATIENCE, || {
        last = message(broker, id);
        last["final"] == true
    });
    let word = |event: &Value| event["type"].as_str().unwrap().replace("message.", "");
    let events = part(broker, &last, "events");
    (last, events.iter().map(word).collect())
}

fn started(world: &World, url: &str, delivery: &str) -> Broker {
    world.write_orders(url, delivery);
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    broker
}

const STATUS: &str =
    "status: /state, delivered: [delivered], bounced: [hard_bounce], undelivered: [expired]";

fn a_message_is_sent_then_what_the_provider_says(world: &World) {
    let sink = provider();
    let url = sink.url("/status/{receipt}");
    let delivery = format!(
        "{{preset: notification, statusCheck: {{url: \"{url}\", receipt: {{pointer: /message/id}}, {STATUS}, \
         headers: {{authorization: secret}}}}}}"
    );
    let broker = started(world, &sink.url("/send"), &delivery);
    for id in [
        "slow-1",
        "busy-1",
        "reset-1",
        "bounced-1",
        "lost-1",
        "mute-1",
    ] {
        broker.accept("orders", &Event::new(id));
    }
    for (id, wanted, reason) in [
        ("slow-1", &["queued", "sent", "delivered"][..], None),
        ("busy-1", &["queued", "sent", "delivered"], None),
        ("reset-1", &["queued", "sent", "delivered"], None),
        ("bounced-1", &["queued", "sent", "bounced"], None),
        ("lost-1", &["queued", "sent"], Some("http_404")),
        ("mute-1", &["queued", "sent"], None),
    ] {
        let (message, statuses) = statuses(&broker, id);
        assert_eq!(statuses, wanted, "{id}: {message:#}");
        assert_eq!(message["last_reason"].as_str(), reason, "{id}");
        assert_eq!(message["attempts"], 1, "{id}: a check is no attempt");
        let sent = sink.seen().iter().filter(|seen| seen.id() == id).count();
        assert_eq!(sent, 1, "{id} was sent once");
    }
    let logs = part(&broker, &message(&broker, "busy-1"), "delivery_logs");
    let told: Vec<_> = logs
        .iter()
        .map(|log| {
            (
                log["kind"].as_str().unwrap(),
                log["response"]["status"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("attempt", 202),
            ("status_check", 429),
            ("status_check", 200)
        ]
    );
    assert_eq!(logs[1]["request"]["method"], "GET");
    assert_eq!(logs[1]["request"]["url"], sink.url("/status/busy-1"));
    let masked = logs[1]["request"]["headers"].to_string();
    assert!(
        masked.contains("***") && !masked.contains("secret"),
        "{masked}"
    );
    let mute = part(&broker, &message(&broker, "mute-1"), "delivery_logs");
    assert!(
        mute[0]["error"]["message"]
            .as_str()
            .unwrap()
            .contains("JSON"),
        "{mute:?}"
    );
}

fn checks_survive_a_kill(world: &World) {
    let sink = provider();
    let delivery = format!("{{statusCheck: {{{STATUS}}}}}");
    let broker = started(world, &sink.url("/send"), &delivery);
    broker.accept("orders", &Event::new("slow-1"));
    eventually("the check is parked", PATIENCE, || {
        message(&broker, "slow-1")["status"] == "sent"
            && broker.metric("levada_dispatch_parked", &[]) > 0.0
    });
    broker.kill();
    let broker = world.start();
    let (_, statuses) = statuses(&broker, "slow-1");
    assert_eq!(statuses.last().map(String::as_str), Some("delivered"));
    let sent = sink
        .seen()
        .iter()
        .filter(|seen| seen.path == "/send")
        .count();
    assert!(
        sent <= 2,
        "what was not committed may be sent again, once: {sent}"
    );
}

fn a_sandbox_sends_nothing_and_accepted_may_mean_sent(world: &World) {
    let sink = provider();
    let broker = started(world, &sink.url("/send"), "{accepted: sent}");
    broker.accept("orders", &Event::new("push-1"));
    assert_eq!(statuses(&broker, "push-1").1, ["queued", "sent"]);
    assert!(broker.terminate().success());
    let broker = started(world, &sink.url("/send"), "{sandbox: true}");
    broker.accept("orders", &Event::new("dry-1"));
    assert_eq!(statuses(&broker, "dry-1").1, ["queued", "not_sent"]);
    assert!(sink.seen().iter().all(|seen| seen.id() != "dry-1"));
}
