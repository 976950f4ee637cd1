//! The delivery of a backlog beside the least that could work: 200,000 events of 1 KiB in four
//! partitions, order `none`, 64 in flight. `cargo bench --bench drain`; `EVENTS` sets their number.

#![expect(clippy::print_stdout, reason = "the table is the bench's result")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

mod bare;
#[path = "../common.rs"]
mod common;
mod sink;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use common::{Program, ROUNDS, Row, Topics, levada, levada_with, number, random_name, servers};
use sink::Sink;

const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// What one run showed.
struct Measure {
    rate: f64,
    first: f64,
    cpu: f64,
    memory: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, servers, topic, url, offsets] = &arguments[..]
        && command == "bare"
    {
        return bare::run(servers, topic, url, offsets);
    }
    let servers = servers();
    let events = number("EVENTS", 200_000);
    let mut topics = Topics::new(&servers);
    let namespace = random_name("bench");
    let topic = format!("knative-messaging-kafka.{namespace}.orders");
    for suffix in ["", ".billing.retry", ".billing.dead-letter"] {
        topics.delete_at_the_end(&format!("{topic}{suffix}"));
    }
    let sink = Sink::start();
    let directory = tempfile::tempdir().expect("a directory can be made");
    prepare(&servers, directory.path(), &namespace, &sink.url());

    let mut measures = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let offsets = ends(&servers, &topic);
        eprintln!("round {}: filling", round + 1);
        fill(&servers, &topic, events);
        let mut drained_once = false;
        for which in (0..3).map(|place| (place + round) % 3) {
            // The bare loop commits nothing, so a backlog serves it and one of the others.
            if which > 0 && std::mem::replace(&mut drained_once, true) {
                fill(&servers, &topic, events);
            }
            let drained = sink.expect(events);
            let started = Instant::now();
            let program = if which == 0 {
                Program::bare(&[&servers, &topic, &sink.url(), &offsets])
            } else {
                levada_with(&servers, directory.path(), ["", "off", "sqlite"][which]).0
            };
            let (first, last) = drained.recv().expect("the sink lives");
            let seconds = (last - first).as_secs_f64();
            let measure = Measure {
                rate: events as f64 / seconds,
                first: (first - started).as_secs_f64(),
                cpu: program.cpu() / events as f64 * 100_000.0,
                memory: program.memory(),
            };
            let name = ["bare loop", "Levada", "Levada with a journal"][which];
            eprintln!("round {}: {name} {:.0}/s", round + 1, measure.rate);
            measures[which].push(measure);
            if which > 0 {
                program.terminate();
            }
        }
    }
    report(events, &measures);
}

/// Makes channel and subscription, so that a backlog can be put behind the group's commits.
fn prepare(servers: &str, directory: &Path, namespace: &str, url: &str) {
    let manifest = format!(
        "apiVersion: messaging.knative.dev/v1beta1\nkind: KafkaChannel\n\
         metadata: {{name: orders, namespace: {namespace}}}\n\
         spec: {{numPartitions: {PARTITIONS}}}\n---\n\
         apiVersion: levada.dev/v1\nkind: Subscription\n\
         metadata: {{name: billing, namespace: {namespace}}}\n\
         spec:\n  \
         channel: {{apiVersion: messaging.knative.dev/v1beta1, kind: KafkaChannel, name: orders}}\n  \
         subscriber: {{uri: \"{url}\"}}\n  \
         delivery: {{ordering: none, maxInFlight: 64}}\n"
    );
    fs::create_dir(directory.join("manifests")).expect("it is new");
    fs::write(directory.join("manifests/orders.yaml"), manifest).expect("it is ours");
    let (program, _, admin) = levada(servers, directory);
    common::until_ready(admin);
    program.terminate();
}

/// The end of each partition, as the bare loop takes it: `offset,offset,...`.
fn ends(servers: &str, topic: &str) -> String {
    let consumer: BaseConsumer = common::client(servers)
        .create()
        .expect("a consumer can be made");
    let end = |partition| {
        let (_, high) = consumer
            .fetch_watermarks(topic, partition, PATIENCE)
            .expect("Kafka answers");
        high.to_string()
    };
    (0..PARTITIONS).map(end).collect::<Vec<_>>().join(",")
}

fn fill(servers: &str, topic: &str, events: u64) {
    let mut config = common::producer(servers);
    config.set("linger.ms", "20");
    let producer: ThreadedProducer<DefaultProducerContext> =
        config.create().expect("a producer can be made");
    let body = common::payload();
    let attributes = [
        ("ce_specversion", "1.0"),
        ("ce_source", "/bench"),
        ("ce_type", "levada.bench"),
        ("content-type", "application/json"),
    ];
    let fixed = attributes
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(*value),
            })
        });
    for number in 0..events {
        let id = number.to_string();
        let headers = fixed.clone().insert(Header {
            key: "ce_id",
            value: Some(&id),
        });
        let partition = i32::try_from(number % 4).expect("it is below 4") % PARTITIONS;
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic)
            .partition(partition)
            .payload(&body[..])
            .headers(headers);
        while let Err((error, back)) = producer.send(record) {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            assert_eq!(error, full, "the backlog cannot be written");
            std::thread::sleep(Duration::from_millis(5));
            record = back;
        }
    }
    producer.flush(PATIENCE).expect("the backlog is stored");
}

fn report(events: u64, measures: &[Vec<Measure>; 3]) {
    let title = format!("drain of {events} events of 1 KiB, median (min-max) of {ROUNDS} rounds");
    common::print(&title, &rows(&measures[0], &measures[1]));
    let journal = "the same with every attempt journalled";
    common::print_pair(
        journal,
        ["journal off", "journal on"],
        &rows(&measures[1], &measures[2]),
    );
}

fn rows(bare: &[Measure], levada: &[Measure]) -> [Row; 4] {
    let row = |name, digits, value: fn(&Measure) -> f64| Row {
        name,
        digits,
        bare: bare.iter().map(value).collect(),
        levada: levada.iter().map(value).collect(),
    };
    [
        row("events/s", 0, |measure| measure.rate),
        row("start to first, s", 2, |measure| measure.first),
        row("CPU s per 100k events", 2, |measure| measure.cpu),
        row("memory, MB", 1, |measure| measure.memory),
    ]
}
