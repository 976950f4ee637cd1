//! What is counted, and that it is counted once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::event::Event;
use crate::harness::sink::{Answer, Sink};
use crate::harness::{Broker, World, eventually, on_both_logs};

on_both_logs!(events_are_counted_where_they_go, lag_counts_what_waits);

/// Families that are there as soon as an event has gone each way.
const FAMILIES: [&str; 11] = [
    "levada_ingress_requests_total",
    "levada_ingress_request_seconds",
    "levada_log_append_seconds",
    "levada_delivery_attempts_total",
    "levada_delivery_attempt_seconds",
    "levada_delivery_end_to_end_seconds",
    "levada_dispatch_in_flight",
    "levada_dead_letters_total",
    "levada_consumer_lag_records",
    "levada_delivery_retries_total",
    "process_resident_memory_bytes",
];

/// The lag of subscription `billing`; it is looked at every two seconds, so there is none at first.
fn lag(broker: &Broker, namespace: &str) -> Option<f64> {
    let labels = [("namespace", namespace), ("subscription", "billing")];
    let samples = broker.samples("levada_consumer_lag_records", &labels);
    samples.first().copied()
}

fn events_are_counted_where_they_go(world: &World) {
    let sink = Sink::new(|seen| {
        let refused = seen.path != "/dead" && seen.id() == "hopeless";
        let once = seen.id() == "second-time" && seen.attempt == 1;
        // The dead-letter sink's answer can be told from the subscriber's.
        let good = if seen.path == "/dead" { 204 } else { 200 };
        Answer::status(if refused || once { 503 } else { good })
    });
    let dead = sink.url("/dead");
    let delivery = format!(
        "{{retry: 2, backoffPolicy: linear, backoffDelay: PT0.05S, deadLetterSink: {{uri: \"{dead}\"}}}}"
    );
    world.write_orders(&sink.url("/"), &delivery);
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    let ids = ["good-1", "good-2", "good-3", "second-time", "hopeless"];
    for id in ids {
        broker.accept("orders", &Event::new(id));
    }
    let mut bad = Event::new("bad");
    bad.attributes.remove("type");
    assert_eq!(broker.post("orders", &bad).status(), 400);
    for name in ["nosuch", "nosuch-either"] {
        assert_eq!(broker.post(name, &Event::new("e")).status(), 404);
    }
    sink.wait_for_ids(&ids, Duration::from_secs(20));

    let ours = ("namespace", world.namespace.as_str());
    let billing = [ours, ("subscription", "billing")];
    let attempts = |outcome: &str, code: &str| {
        let labels = [billing[0], billing[1], ("outcome", outcome), ("code", code)];
        broker.metric("levada_delivery_attempts_total", &labels)
    };
    let requests = |labels: &[(&str, &str)]| broker.metric("levada_ingress_requests_total", labels);
    let orders = ("channel", "orders");
    let counts = || {
        [
            ("accepted", requests(&[ours, orders, ("code", "202")])),
            ("invalid", requests(&[ours, orders, ("code", "400")])),
            ("unknown", requests(&[("code", "404")])),
            ("delivered to the subscriber", attempts("delivered", "200")),
            ("failed", attempts("retryable", "503")),
            (
                "retried",
                broker.metric("levada_delivery_retries_total", &billing),
            ),
            (
                "dead-lettered",
                broker.metric("levada_dead_letters_total", &billing),
            ),
            ("dropped", broker.metric("levada_dropped_total", &[])),
            ("in flight", broker.metric("levada_dispatch_in_flight", &[])),
            ("lag", lag(&broker, &world.namespace).unwrap_or(f64::NAN)),
        ]
    };
    // Taken: three at once, one at the second time. Failed: that one's first, and three of another.
    let wanted = [5.0, 1.0, 2.0, 4.0, 4.0, 3.0, 1.0, 0.0, 0.0, 0.0];
    let good = || counts().iter().map(|(_, count)| *count).eq(wanted);
    let mut tries = 0;
    eventually("every count is right", Duration::from_secs(15), || {
        tries += 1;
        let done = good();
        if !done && tries % 100 == 0 {
            eprintln!("{:?}, want {wanted:?}", counts());
        }
        done
    });

    let text = broker.get("/metrics").text();
    for family in FAMILIES {
        assert!(
            text.contains(&format!("\n# TYPE {family} ")),
            "{family} is missing\n{text}"
        );
    }
    for secret in ["hopeless", "nosuch", &dead] {
        assert!(!text.contains(secret), "{secret} became a label");
    }
}

fn lag_counts_what_waits(world: &World) {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let sink = Sink::new(move |_| {
        let status = if gate.load(Ordering::Relaxed) {
            200
        } else {
            503
        };
        Answer::status(status)
    });
    let delivery = "{retry: 1000, backoffPolicy: linear, backoffDelay: PT0.1S}";
    world.write_orders(&sink.url("/"), delivery);
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    for number in 0..7 {
        broker.accept("orders", &Event::new(&format!("e{number}")));
    }
    let limit = Duration::from_secs(15);
    let is = |wanted| lag(&broker, &world.namespace) == Some(wanted);
    eventually("all seven wait", limit, || is(7.0));
    open.store(true, Ordering::Relaxed);
    eventually("nothing waits", limit, || is(0.0));
}
