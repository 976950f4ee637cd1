//! The journal in PostgreSQL: what one node tells, what several nodes share, and what goes on while
//! the database is gone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use serde_json::Value;

use crate::harness::event::Event;
use crate::harness::postgres::{Schema, Server};
use crate::harness::sink::{Answer, Sink};
use crate::harness::{Broker, Log, PATIENCE, World, channel, eventually, kafka, subscription};
use crate::messages::{self, items, page, wait_for_final};

/// Makes of a test of messages one with its journal in PostgreSQL.
macro_rules! on_postgres {
    ($($name:ident),+ $(,)?) => { $(
        #[test]
        fn $name() {
            if let Some(schema) = Schema::make() {
                let world = World::new(Log::Embedded).journalling_to(&schema.url());
                messages::$name(&world);
            }
        }
    )+ };
}

on_postgres!(
    the_story_of_a_message_is_told,
    filters_pick_what_they_say,
    pages_hold_while_messages_arrive,
    a_message_is_sent_again_in_a_round_of_its_own,
);

/// A subscriber that refuses each event once.
fn once_refusing() -> Sink {
    let known: Mutex<BTreeSet<String>> = Mutex::default();
    Sink::new(move |seen| {
        let first = known.lock().unwrap().insert(seen.id().to_owned());
        Answer::status(if first { 503 } else { 200 })
    })
}

/// By event id the nodes that made its attempts, whose numbers have to go on without a gap.
fn nodes_of_attempts(broker: &Broker) -> HashMap<String, Vec<String>> {
    let all = page(broker, "page_size=250");
    let all = all["items"].as_array().unwrap();
    let of = |message: &Value| {
        let id = message["id"].as_str().unwrap();
        let logs = items(broker, &format!("/v1/messages/{id}/delivery_logs"));
        let attempts: Vec<_> = logs.iter().map(|log| log["attempt"].as_u64()).collect();
        let expected: Vec<_> = (1..=logs.len() as u64).map(Some).collect();
        assert_eq!(attempts, expected, "{message:#}");
        let node = |log: &Value| log["node"].as_str().unwrap().to_owned();
        let event = message["event"]["id"].as_str().unwrap().to_owned();
        (event, logs.iter().map(node).collect())
    };
    all.iter().map(of).collect()
}

#[test]
fn nodes_show_each_others_messages_on_kafka() {
    let Some(log) = kafka::given() else { return };
    let Some(schema) = Schema::make() else { return };
    let world = World::new(log).journalling_to(&schema.url());
    let sink = once_refusing();
    let delivery = "{retry: 3, backoffPolicy: linear, backoffDelay: PT5S}";
    let billing = subscription("billing", "orders", &sink.url("/"), delivery);
    world.write("orders.yaml", &(channel("orders", 8) + &billing));
    let stays = world.launch_in("stays", &[]);
    stays.wait_until_ready();
    stays.wait_for_subscriptions(&["billing"]);
    let leaves = world.launch_in("leaves", &["--roles", "dispatcher", "--leave"]);
    let watches = world.launch_in("watches", &["--roles", "admin"]);
    leaves.wait_for_subscriptions(&["billing"]);
    let labels = [("subscription", "billing"), ("outcome", "retryable")];
    let mut posted = 0;
    eventually("both nodes deliver", PATIENCE * 2, || {
        let id = format!("e{posted}");
        stays.accept("orders", &Event::new(&id).with("partitionkey", &id));
        posted += 1;
        [&stays, &leaves]
            .iter()
            .all(|node| node.metric("levada_delivery_attempts_total", &labels) >= 5.0)
    });
    for node in [&stays, &leaves, &watches] {
        eventually("each shows all messages", PATIENCE, || {
            page(node, "page_size=250")["items"]
                .as_array()
                .unwrap()
                .len()
                == posted
        });
    }
    // What waits for its retry goes on elsewhere.
    assert!(leaves.terminate().success());
    wait_for_final(&stays, posted);
    let nodes = nodes_of_attempts(&watches);
    assert_eq!(nodes.len(), posted, "each event is one message");
    let moved = |nodes: &&Vec<String>| nodes.iter().collect::<BTreeSet<_>>().len() == 2;
    assert!(nodes.values().any(|nodes| moved(&nodes)), "{nodes:?}");
    assert!(nodes.values().all(|nodes| nodes.len() >= 2), "{nodes:?}");
}

fn journal_state(broker: &Broker) -> Value {
    broker.get("/v1/health").json()["journal"]["state"].clone()
}

fn lag_is_gone(broker: &Broker) -> bool {
    let labels = [("subscription", "billing")];
    let lag = broker.samples("levada_consumer_lag_records", &labels);
    !lag.is_empty() && lag.iter().all(|records| *records == 0.0)
}

/// Posts events and waits until they are delivered and their offsets are committed.
fn deliver(broker: &Broker, sink: &Sink, name: &str, count: usize) {
    let ids: Vec<_> = (0..count)
        .map(|number| format!("{name}-{number}"))
        .collect();
    for id in &ids {
        broker.accept("orders", &Event::new(id));
    }
    sink.wait_for_ids(&ids, PATIENCE);
    eventually("nothing is left to deliver", PATIENCE, || {
        lag_is_gone(broker)
    });
}

#[test]
fn guarantee_10_a_database_that_is_killed_stops_nobody() {
    let Some(server) = Server::prepare() else {
        return;
    };
    server.start();
    let world = World::new(Log::Embedded).journalling_to(&server.url());
    let sink = Sink::taking();
    world.write_orders(&sink.url("/"), "{}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    deliver(&broker, &sink, "before", 50);
    for round in 0..2 {
        server.kill();
        deliver(&broker, &sink, &format!("while-{round}"), 50);
        assert_eq!(journal_state(&broker), "unavailable");
        let refused = broker.get("/v1/messages");
        assert_eq!(refused.status(), 503);
        assert!(refused.text().contains("127.0.0.1"), "{}", refused.text());
        server.start();
        deliver(&broker, &sink, &format!("after-{round}"), 10);
        wait_for_final(&broker, 50 + 60 * (round + 1));
        assert_eq!(journal_state(&broker), "ok");
    }
    assert_eq!(broker.metric("levada_journal_dropped_total", &[]), 0.0);

    // Nor does the end wait, and what was not stored is said to be lost.
    server.kill();
    deliver(&broker, &sink, "last", 10);
    let status = broker.terminate();
    assert!(status.success(), "{status}");
    assert_eq!(sink.seen().len(), 50 + 2 * 60 + 10, "each event once");
}

#[test]
fn guarantee_10_a_database_that_comes_later_is_found() {
    let Some(server) = Server::prepare() else {
        return;
    };
    let world = World::new(Log::Embedded).journalling_to(&server.url());
    let sink = Sink::taking();
    world.write_orders(&sink.url("/"), "{}");
    let broker = world.launch(&[]);
    broker.wait_until_ready();
    broker.wait_for_subscriptions(&["billing"]);
    deliver(&broker, &sink, "early", 20);
    assert_eq!(journal_state(&broker), "unavailable");
    server.start();
    eventually("the journal is there", PATIENCE, || {
        journal_state(&broker) == "ok"
    });
    wait_for_final(&broker, 20);
}

#[test]
fn a_database_without_tables_gets_them_before_the_first_message() {
    let Some(schema) = Schema::make() else { return };
    let world = World::new(Log::Embedded).journalling_to(&schema.url());
    let broker = world.start();
    assert_eq!(page(&broker, "")["items"], Value::Array(Vec::new()));
}

#[test]
fn a_database_that_speaks_tls_has_to_be_trusted() {
    let Some(server) = Server::prepare() else {
        return;
    };
    let url = format!("{}?sslmode=require", server.url());
    let authority = server.speak_tls();
    server.start();
    let world = World::new(Log::Embedded).journalling_to(&url);
    let stranger = world.launch(&[]);
    let health = || stranger.get("/v1/health").json();
    let reason = || health()["journal"]["reason"].to_string();
    eventually("it is refused", PATIENCE, || {
        reason().contains("certificate")
    });
    drop(stranger);
    let world = world.with_variable("SSL_CERT_FILE", authority);
    assert_eq!(journal_state(&world.start()), "ok");
}
