//! The API: pages in both directions, figures, what waits for its first attempt, what the log let
//! go, a port that only shows, and errors that say what would be right.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex};

use levada::log::kafka::KafkaLog;
use levada::log::{EventLog, Offset, Partition, TopicName, TopicPartition};
use levada::message::MessageId;
use serde_json::{Value, json};

use crate::harness::event::Event;
use crate::harness::sink::{Answer, Sink};
use crate::harness::{
    Broker, Log, PATIENCE, World, channel, eventually, kafka, on_both_logs, subscription,
};
use crate::log_contract::embedded;

on_both_logs!(
    pages_lead_back_to_the_newest,
    figures_count_attempts_and_their_reasons,
    what_was_not_tried_is_told_from_the_log,
    what_the_log_let_go_is_sent_again_from_its_dead_letter,
);

fn get(broker: &Broker, path: &str) -> Value {
    let answer = broker.get(path);
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    answer.json()
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    let id = |item: &Value| item["event"]["id"].as_str().unwrap().to_owned();
    items.iter().map(id).collect()
}

fn cursor<'p>(page: &'p Value, way: &str) -> Option<&'p str> {
    page["page_info"][way].as_str()
}

fn wait_for_final(broker: &Broker, count: usize) {
    eventually("all messages are final", PATIENCE, || {
        let page = get(broker, "/v1/messages?page_size=250");
        let all = page["items"].as_array().unwrap();
        all.len() == count && all.iter().all(|item| item["final"] == true)
    });
}

/// One partition, one subscription.
fn started(world: &World, sink: &Sink, delivery: &str) -> Broker {
    let billing = subscription("billing", "orders", &sink.url("/"), delivery);
    world.write("orders.yaml", &(channel("orders", 1) + &billing));
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    broker
}

fn pages_lead_back_to_the_newest(world: &World) {
    let broker = started(world, &Sink::taking(), "{retry: 0}");
    for number in 0..20 {
        broker.accept("orders", &Event::new(&format!("e{number}")));
    }
    wait_for_final(&broker, 20);
    let mut pages = Vec::new();
    let mut query = "page_size=7".to_owned();
    let last = loop {
        let page = get(&broker, &format!("/v1/messages?{query}"));
        pages.push(ids(&page));
        match cursor(&page, "after") {
            Some(after) => query = format!("page_size=7&after={after}"),
            None => break page,
        }
    };
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7, 6]);
    // The way back is over the same pages, and beyond them to what came meanwhile.
    for number in 0..3 {
        broker.accept("orders", &Event::new(&format!("new{number}")));
    }
    wait_for_final(&broker, 23);
    let mut page = last;
    for expected in pages.iter().rev().skip(1) {
        let before = cursor(&page, "before").unwrap();
        page = get(
            &broker,
            &format!("/v1/messages?page_size=7&before={before}"),
        );
        assert_eq!(ids(&page), *expected);
        assert!(cursor(&page, "after").is_some());
    }
    let before = cursor(&page, "before").unwrap();
    let newest = get(
        &broker,
        &format!("/v1/messages?page_size=7&before={before}"),
    );
    assert_eq!(ids(&newest), ["new2", "new1", "new0"]);
    assert_eq!(cursor(&newest, "before"), None, "{newest:#}");
}

fn figures_count_attempts_and_their_reasons(world: &World) {
    let sink = Sink::new(|seen| {
        let mut answer = Answer::status(if seen.id().starts_with("bad") {
            503
        } else {
            200
        });
        answer.body = b"not now".to_vec();
        answer
    });
    let broker = started(world, &sink, "{retry: 1, backoffDelay: PT0.01S}");
    for id in ["ok1", "ok2", "bad"] {
        broker.accept("orders", &Event::new(id));
    }
    wait_for_final(&broker, 3);
    let path = format!("/v1/subscriptions/{}/billing/stats", world.namespace);
    let stats = get(&broker, &path);
    let sum = |field: &str| {
        let spans = stats["attempts"].as_array().unwrap().iter();
        spans.map(|span| span[field].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(
        (sum("ok"), sum("retryable"), sum("permanent")),
        (2, 2, 0),
        "{stats:#}"
    );
    let reason = &stats["reasons"][0];
    assert_eq!(reason["reason"], "http_503", "{stats:#}");
    assert_eq!(
        (&reason["attempts"], &reason["sample"]),
        (&json!(2), &json!("not now"))
    );
    assert_eq!(stats["step_minutes"], 1);
    let coarse = get(&broker, &format!("{path}?step_minutes=30"));
    assert!(
        coarse["attempts"].as_array().unwrap().len() <= 3,
        "{coarse:#}"
    );
    let past = "?inserted_at.gte=2020-01-01T00:00:00Z&inserted_at.lt=2020-01-01T01:00:00Z";
    assert_eq!(get(&broker, &format!("{path}{past}"))["reasons"], json!([]));
    eventually("the subscription's health is known", PATIENCE, || {
        let health = get(&broker, "/v1/health");
        let all = health["subscriptions"].as_array().unwrap();
        let one = all
            .iter()
            .find(|one| one["subscription"] == stats["subscription"]);
        one.is_some_and(|one| one["state"] == "failing" && one["lag"] == 0)
            && health["journal"]["state"] == "ok"
            && health["journal"]["messages"] == 3
    });
}

/// A door that is opened once.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(closed, |open| !*open).unwrap());
    }
}

/// The id of the message of the event at this offset of the channel's only partition.
fn message_id(world: &World, broker: &Broker, offset: i64) -> String {
    let path = format!("/v1/subscriptions/{}/billing", world.namespace);
    let resource = get(broker, &path);
    let at = TopicPartition {
        topic: TopicName::try_new(resource["status"]["topic"].as_str().unwrap()).unwrap(),
        partition: Partition(0),
    };
    let uid = resource["metadata"]["uid"].as_str().unwrap();
    MessageId::new(uid, &at, Offset(offset)).to_string()
}

fn what_was_not_tried_is_told_from_the_log(world: &World) {
    let gate = Gate::default();
    let entry = gate.clone();
    let sink = Sink::new(move |_| {
        entry.pass();
        Answer::status(200)
    });
    let broker = started(world, &sink, "{maxInFlight: 1, ordering: none}");
    for number in 0..4 {
        broker.accept("orders", &Event::new(&format!("e{number}")));
    }
    let id = message_id(world, &broker, 2);
    let message = get(&broker, &format!("/v1/messages/{id}"));
    assert_eq!(
        (&message["status"], &message["attempts"]),
        (&json!("queued"), &json!(0))
    );
    assert_eq!(
        (&message["event"]["id"], &message["final"]),
        (&json!("e2"), &json!(false))
    );
    let untried = |query: &str| {
        get(&broker, &format!("/v1/messages?{query}"))["page_info"]["untried"].clone()
    };
    eventually("three wait behind the one that is tried", PATIENCE, || {
        untried("") == 3
    });
    let name = format!("{}/billing", world.namespace);
    for (query, count) in [
        (format!("subscription={name}&status=queued"), json!(3)),
        (format!("channel={}/orders", world.namespace), json!(3)),
        (format!("subscription={name}x"), Value::Null),
        ("status=delivered".into(), Value::Null),
        ("reason=http_503".into(), Value::Null),
    ] {
        assert_eq!(untried(&query), count, "{query}");
    }
    let health = get(&broker, "/v1/health");
    let one = &health["subscriptions"][0];
    assert_eq!(one["untried"], 3, "{health:#}");
    assert!(one["oldest_untried_at"].is_string(), "{health:#}");
    for part in ["events", "delivery_logs"] {
        let none = get(&broker, &format!("/v1/messages/{id}/{part}"));
        assert_eq!(none["items"], json!([]), "{part}");
    }
    let page = broker.get(&format!("/messages/{id}"));
    assert!(
        page.text().contains("waits for its turn"),
        "{}",
        page.text()
    );
    let acted = broker.ask("POST", &format!("/v1/messages/{id}/redeliver"), b"");
    assert_eq!(acted.status(), 409, "{}", acted.text());

    gate.open();
    wait_for_final(&broker, 4);
    assert_eq!(
        get(&broker, &format!("/v1/messages/{id}"))["status"],
        "delivered"
    );
    eventually("none wait any more", PATIENCE, || untried("") == 0);
    let beyond = message_id(world, &broker, 4);
    assert_eq!(broker.get(&format!("/v1/messages/{beyond}")).status(), 404);
}

/// Has the channel's topic let everything go while no broker runs.
fn trim(world: &World) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async {
        let log: Arc<dyn EventLog> = match &world.log {
            Log::Embedded => embedded::open_in(&world.path("data/log")).unwrap(),
            Log::Kafka(servers) => {
                let settings = levada::log::kafka::Settings {
                    bootstrap_servers: servers.clone(),
                    ..Default::default()
                };
                KafkaLog::connect(settings).unwrap()
            }
        };
        let topic = TopicName::try_new(&kafka::topic(&world.namespace, "orders")).unwrap();
        let high = log.watermarks(&topic).await.unwrap()[0].high;
        log.trim(&topic, &[(Partition(0), high)]).await.unwrap();
        log.close(PATIENCE).await.unwrap();
    });
}

fn what_the_log_let_go_is_sent_again_from_its_dead_letter(world: &World) {
    let works = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mended = Arc::clone(&works);
    let sink = Sink::new(move |seen| {
        let good = seen.id() == "ok" || mended.load(std::sync::atomic::Ordering::Relaxed);
        Answer::status(if good { 200 } else { 503 })
    });
    let broker = started(world, &sink, "{retry: 0}");
    broker.accept("orders", &Event::new("ok"));
    broker.accept("orders", &Event::new("bad").with_data("the data"));
    wait_for_final(&broker, 2);
    let [ok, bad] = [0, 1].map(|offset| message_id(world, &broker, offset));
    assert_eq!(
        broker.get(&format!("/v1/messages/{bad}/content")).status(),
        200
    );
    assert!(broker.terminate().success());
    trim(world);

    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    for id in [&ok, &bad] {
        let gone = broker.get(&format!("/v1/messages/{id}/content"));
        assert_eq!(gone.status(), 410, "{}", gone.text());
        assert!(gone.text().contains("retention is over"), "{}", gone.text());
        assert_eq!(get(&broker, &format!("/v1/messages/{id}"))["final"], true);
    }
    let refused = broker.ask("POST", &format!("/v1/messages/{ok}/redeliver"), b"");
    assert_eq!(
        refused.status(),
        410,
        "it has no dead letter: {}",
        refused.text()
    );
    works.store(true, std::sync::atomic::Ordering::Relaxed);
    let taken = broker.ask("POST", &format!("/v1/messages/{bad}/redeliver"), b"");
    assert_eq!(taken.status(), 202, "{}", taken.text());
    eventually("it is delivered in its second round", PATIENCE, || {
        let message = get(&broker, &format!("/v1/messages/{bad}"));
        message["status"] == "delivered" && message["round"] == 2
    });
    let seen = sink.seen();
    let last = seen.last().unwrap();
    assert_eq!(
        (last.id(), &last.message.body[..]),
        ("bad", &b"the data"[..])
    );
    assert_eq!(last.message.header("ce-knativeerrorcode"), None);
}

#[test]
fn errors_say_what_would_be_right() {
    let world = World::new(Log::Embedded);
    let broker = started(&world, &Sink::taking(), "{retry: 0}");
    let named = format!("/v1/subscriptions/{}/billing", world.namespace);
    let letters = format!("{named}/dead-letters");
    for (path, words) in [
        ("/v1/messages?even_id=x", &["even_id", "event_id"][..]),
        ("/v1/messages?pagesize=5", &["pagesize", "page_size"]),
        (
            "/v1/messages?colour=red",
            &["colour", "there are status, channel"],
        ),
        ("/v1/messages?page_size=0", &["page_size", "from 1 to 250"]),
        ("/v1/messages?page_size=251", &["from 1 to 250", "251"]),
        ("/v1/messages?page_size=many", &["page_size", "many"]),
        ("/v1/messages?after=x", &["no cursor", "begin without it"]),
        ("/v1/messages?before=5.x", &["no cursor"]),
        (
            "/v1/messages?inserted_at.gte=yesterday",
            &["inserted_at.gte", "2026-01-31T12:00:00Z"],
        ),
        (
            "/v1/messages?status=done",
            &["done", "queued, sent, delivered"],
        ),
        ("/v1/messages?subscription=billing", &["<namespace>/<name>"]),
        ("/v1/messages?status=%zz", &["two hex digits"]),
        ("/v1/messages?event_id=a&event_id=b", &["event_id", "twice"]),
        ("/v1/channels?x=1", &["x", "nor any other"]),
        (
            &format!("{named}/stats?step_minutes=0"),
            &["from 1 to 1440"],
        ),
        (&format!("{named}/stats?step=1"), &["step_minutes"]),
        (&format!("{letters}?error_code=5"), &["from 100 to 999"]),
        (&format!("{letters}?after=-1"), &["page_info.after"]),
    ] {
        let answer = broker.get(path);
        assert_eq!(answer.status(), 400, "{path}: {}", answer.text());
        let said = answer.json()["detail"].as_str().unwrap().to_owned();
        for word in words {
            assert!(said.contains(word), "{path}: {said}");
        }
    }
    let missing = format!("/v1/subscriptions/{}/none/stats", world.namespace);
    for path in [&missing, "/v1/messages/x", "/v1/redrives/x", "/v1/nothing"] {
        assert_eq!(broker.get(path).status(), 404, "{path}");
    }
    let wrong = broker.ask("POST", "/v1/messages", b"");
    assert_eq!(
        (wrong.status(), wrong.header("allow")),
        (405, Some("GET, HEAD"))
    );
}

#[test]
fn a_port_that_only_shows_refuses_and_hides_what_changes_something() {
    let world = World::new(Log::Embedded);
    let sink = Sink::new(|_| Answer::status(400));
    let billing = subscription("billing", "orders", &sink.url("/"), "{retry: 0}");
    world.write("orders.yaml", &(channel("orders", 1) + &billing));
    let broker = world.launch(&["--admin-read-only"]);
    broker.wait_until_ready();
    broker.wait_for_subscriptions(&["billing"]);
    broker.accept("orders", &Event::new("bad"));
    wait_for_final(&broker, 1);
    let id = get(&broker, "/v1/messages")["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let letters = format!("subscriptions/{}/billing/dead-letters", world.namespace);
    for path in [
        format!("/v1/messages/{id}/redeliver"),
        format!("/v1/{letters}/redrive"),
        format!("/{letters}/plan"),
        format!("/messages/{id}/redeliver"),
    ] {
        let refused = broker.ask("POST", &path, b"");
        assert_eq!(refused.status(), 403, "{path}");
        assert!(
            refused.text().contains("read-only"),
            "{path}: {}",
            refused.text()
        );
    }
    for path in [format!("/messages/{id}"), format!("/{letters}")] {
        let page = broker.get(&path);
        assert_eq!(page.status(), 200, "{path}");
        assert!(!page.text().contains("method=\"post\""), "{path}");
    }
    let seen: HashSet<_> = sink
        .seen()
        .iter()
        .map(|seen| seen.id().to_owned())
        .collect();
    assert_eq!((seen.len(), sink.seen().len()), (1, 1));
}
