//! The dead-letter topic: where an event ends that nobody took.

use std::time::Duration;

use crate::harness::event::Event;
use crate::harness::kafka::{self, Record};
use crate::harness::sink::{Answer, Sink};
use crate::harness::{World, eventually};

fn dead_letters(world: &World) -> Vec<Record> {
    let topic = kafka::topic(&world.namespace, "orders.billing.dead-letter");
    kafka::read_all(&world.log, &topic)
}

/// Sends one event to a subscriber that always answers 503, and returns its dead letter.
fn dead_letter(world: &World, sink: &Sink, more: &str) -> Record {
    let delivery = format!("{{retry: 1, backoffPolicy: linear, backoffDelay: PT0.05S{more}}}");
    world.write_orders(&sink.url("/"), &delivery);
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    let event = Event::new("e1")
        .with("partitionkey", "k")
        .with("subject", "Euro €");
    broker.accept("orders", &event);
    let mut letters = Vec::new();
    eventually(
        "the dead letter is in the topic",
        Duration::from_secs(20),
        || {
            letters = dead_letters(world);
            !letters.is_empty()
        },
    );
    assert_eq!(letters.len(), 1, "{letters:?}");
    // The channel goes on.
    assert_eq!(broker.metric("levada_dropped_total", &[]), 0.0);
    letters.remove(0)
}

fn check(letter: &Record, dest: &str, phase: &str) {
    assert_eq!(letter.value.as_deref(), Some(&br#"{"n":1}"#[..]));
    assert_eq!(letter.key.as_deref(), Some(&b"k"[..]));
    for (name, value) in [
        ("ce_id", "e1"),
        ("ce_subject", "Euro €"),
        ("content-type", "application/json"),
        ("ce_knativeerrordest", dest),
        ("ce_knativeerrorcode", "503"),
        ("ce_knativeerrordata", "bm8="),
        ("levada-phase", phase),
        ("levada-attempts", "2"),
    ] {
        assert_eq!(letter.header(name), Some(value), "{name} of {letter:?}");
    }
    assert!(
        letter.header("levada-origin-offset").is_some(),
        "{letter:?}"
    );
}

fn refusing() -> Sink {
    Sink::new(|_| {
        let mut answer = Answer::status(503);
        answer.body = b"no".to_vec();
        answer
    })
}

#[test]
fn without_a_sink_it_is_kept_in_the_topic_of_kafka() {
    let Some(log) = kafka::given() else { return };
    let world = World::new(log);
    let sink = refusing();
    let letter = dead_letter(&world, &sink, "");
    check(&letter, &sink.url("/"), "subscriber");
    assert_eq!(sink.seen().len(), 2);
}

#[test]
fn with_a_sink_that_fails_it_is_kept_in_the_topic_of_kafka() {
    let Some(log) = kafka::given() else { return };
    let world = World::new(log);
    let sink = refusing();
    let dead = sink.url("/dead");
    let letter = dead_letter(
        &world,
        &sink,
        &format!(", deadLetterSink: {{uri: \"{dead}\"}}"),
    );
    assert_eq!(letter.header("ce_id"), Some("e1"));
    assert_eq!(letter.header("ce_knativeerrorcode"), Some("503"));
    let calls = |path: &str| sink.seen().iter().filter(|seen| seen.path == path).count();
    assert_eq!((calls("/"), calls("/dead")), (2, 2));
}
