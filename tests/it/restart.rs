//! What a crash or an orderly end may cost: nothing but a few duplicates, or nothing at all.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::event::Event;
use crate::harness::http::Connection;
use crate::harness::sink::{Answer, Sink};
use crate::harness::{Broker, PATIENCE, SetAtEnd, World, eventually, on_both_logs, post_bytes};

on_both_logs!(
    a_kill_under_load_loses_nothing,
    an_orderly_end_repeats_nothing,
    an_orderly_end_waits_for_the_call_that_runs,
    the_count_of_attempts_survives_a_kill,
);

/// Posts on four connections until told to stop; an answer that never came counts as refused.
struct Producers {
    accepted: Mutex<Vec<String>>,
    next: AtomicUsize,
    stop: AtomicBool,
}

impl Producers {
    fn new() -> Self {
        Self {
            accepted: Mutex::default(),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        }
    }

    fn post(&self, broker: &Broker) {
        let Ok(mut connection) = Connection::open(broker.ingress, PATIENCE) else {
            return;
        };
        while !self.stop.load(Ordering::Relaxed) {
            let id = format!("e{}", self.next.fetch_add(1, Ordering::Relaxed));
            let request = post_bytes(&broker.host("orders"), &Event::new(&id), &[]);
            match connection.exchange(&request) {
                Ok(answer) if answer.status() == 202 => self.accepted.lock().unwrap().push(id),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn accepted(&self) -> Vec<String> {
        self.accepted.lock().unwrap().clone()
    }
}

fn a_kill_under_load_loses_nothing(world: &World) {
    // Some fail at first, so that there is something to remember over the crash.
    let sink = Sink::new(|seen| {
        let hard = seen.id().ends_with('7') && seen.attempt < 3;
        Answer::status(if hard { 503 } else { 200 })
    });
    let delivery = "{retry: 10, backoffPolicy: linear, backoffDelay: PT0.2S}";
    world.write_orders(&sink.url("/"), delivery);
    let mut broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    let producers = Producers::new();
    for round in 1..=3 {
        producers.stop.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            let _stop = SetAtEnd(&producers.stop);
            for _ in 0..4 {
                scope.spawn(|| producers.post(&broker));
            }
            eventually("events are accepted", PATIENCE, || {
                producers.accepted().len() >= round * 400
            });
            let id = broker.process_id().to_string();
            std::process::Command::new("kill")
                .args(["-KILL", &id])
                .status()
                .unwrap();
        });
        broker = world.start();
    }
    broker.accept("orders", &Event::new("last"));
    sink.wait_for_ids(&["last"], PATIENCE);
    sink.wait_for_ids(&producers.accepted(), PATIENCE * 2);
}

fn an_orderly_end_repeats_nothing(world: &World) {
    let sink = Sink::new(|_| Answer::status(200).after(Duration::from_millis(10)));
    world.write_orders(&sink.url("/"), "{ordering: none, maxInFlight: 8}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    let ids: Vec<_> = (0..600).map(|number| format!("e{number}")).collect();
    let mut connection = Connection::open(broker.ingress, PATIENCE).unwrap();
    for id in &ids {
        let request = post_bytes(&broker.host("orders"), &Event::new(id), &[]);
        assert_eq!(connection.exchange(&request).unwrap().status(), 202);
    }
    sink.wait_for(50);
    let status = broker.terminate();
    assert!(status.success(), "{status}");
    let before = sink.seen().len();
    let broker = world.start();
    sink.wait_for_ids(&ids, PATIENCE);
    sink.wait_for_quiet(Duration::from_millis(500));
    drop(broker);
    let mut times: HashMap<String, usize> = HashMap::new();
    for seen in sink.seen() {
        *times.entry(seen.id().to_owned()).or_default() += 1;
    }
    times.retain(|_, count| *count > 1);
    assert!(
        times.is_empty(),
        "repeated after {before} of {}: {times:?}",
        ids.len()
    );
}

fn an_orderly_end_waits_for_the_call_that_runs(world: &World) {
    let sink = Sink::new(|_| Answer::status(200).after(Duration::from_secs(1)));
    world.write_orders(&sink.url("/"), "{}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    broker.accept("orders", &Event::new("e1"));
    sink.wait_for(1);
    let status = broker.terminate();
    assert!(status.success(), "{status}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    broker.accept("orders", &Event::new("e2"));
    sink.wait_for_ids(&["e2"], PATIENCE);
    sink.wait_for_quiet(Duration::from_millis(500));
    assert_eq!(sink.seen().len(), 2, "e1 was finished before the end");
}

fn the_count_of_attempts_survives_a_kill(world: &World) {
    let sink = Sink::new(|seen| Answer::status(if seen.path == "/dead" { 200 } else { 503 }));
    let dead = sink.url("/dead");
    let delivery = format!(
        "{{retry: 3, backoffPolicy: linear, backoffDelay: PT2S, deadLetterSink: {{uri: \"{dead}\"}}}}"
    );
    world.write_orders(&sink.url("/"), &delivery);
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    broker.accept("orders", &Event::new("e1"));
    sink.wait_for(2);
    // Within the two seconds to the third attempt, and well after the commits' rhythm of 100 ms.
    sink.wait_for_quiet(Duration::from_millis(1000));
    broker.kill();
    let _broker = world.start();
    sink.wait("the dead letter", PATIENCE, |seen| {
        seen.iter().any(|seen| seen.path == "/dead")
    });
    let attempts = sink.seen().iter().filter(|seen| seen.path == "/").count();
    assert_eq!(
        attempts, 4,
        "one attempt and three retries, counted over the crash"
    );
}
