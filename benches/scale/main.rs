//! What a million parked events cost: whether a short retry is still on time, also right after the
//! dispatcher was killed, how long the index takes to rebuild, and memory.
//!
//! `cargo bench --bench scale`; `PARKED` sets how many are parked (1,000,000). The subscriber asks
//! for each delay by `Retry-After`: ten minutes for 99 %, 1 to 60 seconds for the rest.

#![expect(clippy::print_stdout, reason = "the table is the bench's result")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

#[path = "../common.rs"]
#[expect(dead_code, reason = "each bench uses some of it")]
mod common;
mod sink;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use common::{Program, Topics, levada, number, random_name, servers};
use sink::{Late, Sink};

const PARTITIONS: i32 = 4;
const LONG: u64 = 600;
const SHORT: [u64; 7] = [1, 2, 5, 10, 20, 30, 60];
/// Probes a second, each of which asks for a retry after a second.
const PROBES: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let servers = servers();
    let parked = number("PARKED", 1_000_000);
    let mut topics = Topics::new(&servers);
    let namespace = random_name("bench");
    let topic = format!("knative-messaging-kafka.{namespace}.orders");
    for suffix in ["", ".billing.retry", ".billing.dead-letter"] {
        topics.delete_at_the_end(&format!("{topic}{suffix}"));
    }
    let sink = Sink::start();
    let directory = tempfile::tempdir().expect("a directory can be made");
    prepare(&servers, directory.path(), &namespace, &sink.url());
    let events = Events::new(&servers, &topic);

    eprintln!("filling {parked}");
    for number in 0..parked {
        let short = SHORT[usize::try_from(number / 100).expect("it fits") % SHORT.len()];
        events.send(
            &format!("p{number}"),
            if number % 100 == 0 { short } else { LONG },
        );
    }
    events.flush();

    let (program, _, admin) = levada(&servers, directory.path());
    let watch = Watch::start(&program);
    let began = Instant::now();
    until_parked(admin, parked, parked / 100);
    println!("parked {parked} in {:.1} s", began.elapsed().as_secs_f64());
    report("retries of 1 to 60 s, while all were parked", &sink.take());
    probe(&events, "before", 10);
    report("retries of 1 s, all parked", &sink.take());
    let memory = watch.end();
    println!("memory {memory:.0} MB at most");
    drop(program);

    let began = Instant::now();
    let (program, _, admin) = levada(&servers, directory.path());
    let watch = Watch::start(&program);
    let probes = thread::spawn(move || probe(&events, "after", 40));
    until_parked(admin, parked, parked / 50);
    println!(
        "index rebuilt {:.1} s after the start",
        began.elapsed().as_secs_f64()
    );
    probes.join().expect("the probes end");
    let late = sink.take();
    let (probed, before): (Vec<_>, Vec<_>) = late.into_iter().partition(|late| late.probe);
    report("retries of 1 s, right after kill -9 and start", &probed);
    report("retries parked before the kill", &before);
    println!(
        "memory {:.0} MB at most, CPU {:.1} s",
        watch.end(),
        program.cpu()
    );
}

/// How late retries were, against max(100 ms, 2 %).
fn report(what: &str, late: &[Late]) {
    let mut millis: Vec<f64> = late.iter().map(|late| late.millis).collect();
    millis.sort_by(f64::total_cmp);
    let Some(worst) = millis.last() else {
        println!("{what}: none");
        return;
    };
    let at = |part: usize| millis[millis.len() * part / 1000];
    let over = late
        .iter()
        .filter(|late| late.millis > late.allowed)
        .count();
    println!(
        "{what}: {} made, late by p50 {:.0} ms, p99 {:.0} ms, at most {worst:.0} ms; {over} beyond max(100 ms, 2 %)",
        millis.len(),
        at(500),
        at(990)
    );
}

fn until_parked(admin: SocketAddr, parked: u64, less: u64) {
    let mut told = Instant::now();
    let deadline = Instant::now() + Duration::from_secs(600);
    loop {
        let text = common::get(admin, "/metrics").unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.starts_with("levada_dispatch_parked"));
        let now = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        let now = now.unwrap_or(0.0);
        if now >= (parked - less) as f64 {
            return;
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            eprintln!("  {now} parked");
        }
        assert!(Instant::now() < deadline, "not parked in time");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends events that ask for a retry after a second, and waits for the last.
fn probe(events: &Events, name: &str, seconds: u64) {
    for number in 0..seconds * PROBES {
        events.send(&format!("{name}-{number}"), 1);
        thread::sleep(Duration::from_millis(1000 / PROBES));
    }
    events.flush();
    thread::sleep(Duration::from_secs(3));
}

/// The most memory a program had.
struct Watch {
    stop: Arc<AtomicBool>,
    watching: thread::JoinHandle<f64>,
}

impl Watch {
    fn start(program: &Program) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, id) = (stop.clone(), program.child.id());
        let watching = thread::spawn(move || {
            let mut most = 0.0f64;
            while !stopped.load(Ordering::Relaxed) {
                most = most.max(common::memory(id));
                thread::sleep(Duration::from_millis(50));
            }
            most
        });
        Self { stop, watching }
    }

    fn end(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.watching.join().expect("it does not panic")
    }
}

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
         delivery: {{ordering: none, maxInFlight: 64, retry: 3, backoffPolicy: linear, backoffDelay: PT1S, retryAfterMax: PT20M}}\n"
    );
    fs::create_dir(directory.join("manifests")).expect("it is new");
    fs::write(directory.join("manifests/orders.yaml"), manifest).expect("it is ours");
    let (program, _, admin) = levada(servers, directory);
    common::until_ready(admin);
    program.terminate();
}

/// Writes events into the channel topic.
struct Events {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: Box<str>,
    body: Box<[u8]>,
}

impl Events {
    fn new(servers: &str, topic: &str) -> Self {
        let mut config = common::producer(servers);
        config.set("linger.ms", "5");
        Self {
            producer: config.create().expect("a producer can be made"),
            topic: topic.into(),
            body: common::payload().into(),
        }
    }

    /// An event whose subscriber asks for a retry after `wait` seconds.
    fn send(&self, id: &str, wait: u64) {
        let wait = wait.to_string();
        let attributes = [
            ("ce_specversion", "1.0"),
            ("ce_source", "/bench"),
            ("ce_type", "levada.bench"),
            ("content-type", "application/json"),
            ("ce_wait", &wait),
            ("ce_id", id),
        ];
        let headers = attributes
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(*value),
                })
            });
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic)
            .payload(&self.body[..])
            .headers(headers);
        while let Err((_, back)) = self.producer.send(record) {
            thread::sleep(Duration::from_millis(5));
            record = back;
        }
    }

    fn flush(&self) {
        self.producer
            .flush(PATIENCE)
            .expect("the events are stored");
    }
}
