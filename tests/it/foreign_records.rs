//! Records in a channel's topic that other programs wrote.

use std::time::Duration;

use crate::harness::event::{Event, Mode};
use crate::harness::kafka::{self, Record};
use crate::harness::sink::Sink;
use crate::harness::{World, eventually};

fn record(headers: &[(&str, &str)], value: Option<&str>) -> Record {
    let header = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
    Record {
        key: None,
        headers: headers.iter().map(header).collect(),
        value: value.map(|value| value.as_bytes().to_vec()),
    }
}

const BINARY: [(&str, &str); 5] = [
    ("ce_specversion", "1.0"),
    ("ce_id", "binary"),
    ("ce_type", "levada.test"),
    ("ce_source", "/tests"),
    ("content-type", "application/json"),
];

#[test]
fn events_are_delivered_and_the_rest_is_kept_as_dead_letters_of_kafka() {
    let Some(log) = kafka::given() else { return };
    let world = World::new(log);
    let sink = Sink::taking();
    world.write_orders(&sink.url("/"), "{}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);

    let mut structured = Event::new("structured");
    structured.mode = Mode::Structured;
    let json = String::from_utf8(structured.to_http().1).unwrap();
    let media_type = [(
        "content-type",
        "APPLICATION/CloudEvents+JSON; charset=utf-8",
    )];
    let garbage = [
        record(&[], Some("not an event")),
        record(&[], None),
        record(&media_type, Some("{\"specversion\":")),
        record(&BINARY[..3], Some("{}")),
    ];
    let topic = kafka::topic(&world.namespace, "orders");
    kafka::produce(&world.log, &topic, &[record(&BINARY, Some("{\"n\":1}"))]);
    kafka::produce(&world.log, &topic, &garbage);
    kafka::produce(&world.log, &topic, &[record(&media_type, Some(&json))]);

    sink.wait_for_ids(&["binary", "structured"], Duration::from_secs(20));
    for seen in sink.seen() {
        let wanted = Event::new(seen.id());
        let differences = wanted.differences(seen.event.as_ref().unwrap(), &[]);
        assert_eq!(differences, Vec::<String>::new());
    }
    let letters = kafka::topic(&world.namespace, "orders.billing.dead-letter");
    eventually(
        "the garbage is in the dead-letter topic",
        Duration::from_secs(20),
        || kafka::read_all(&world.log, &letters).len() >= garbage.len(),
    );
    let kept = kafka::read_all(&world.log, &letters);
    let values = |records: &[Record]| {
        let mut values: Vec<_> = records.iter().map(|record| record.value.clone()).collect();
        values.sort();
        values
    };
    assert_eq!(values(&kept), values(&garbage), "as they were, each once");
    sink.wait_for_quiet(Duration::from_millis(300));
    assert_eq!(
        sink.seen().len(),
        2,
        "nothing that is no event is delivered"
    );
}
