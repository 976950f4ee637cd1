//! From the producer's POST to the subscriber.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::harness::event::{Event, Mode};
use crate::harness::http::Connection;
use crate::harness::sink::{Answer, Sink};
use crate::harness::{PATIENCE, World, channel, on_both_logs, post_bytes, subscription};

on_both_logs!(
    an_event_arrives_unchanged,
    every_subscription_gets_every_event_once,
    events_with_one_key_keep_their_order,
    a_slow_subscriber_delays_no_other,
    what_cannot_be_taken_is_refused_with_its_reason,
);

fn an_event_arrives_unchanged(world: &World) {
    let sink = Sink::taking();
    world.write_orders(&sink.url("/billing"), "{}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    let mut structured = Event::new("structured").with("subject", "Euro €");
    structured.mode = Mode::Structured;
    let bytes: Vec<u8> = (0..=255).collect();
    let mut bare = Event::new("bare");
    bare.attributes.remove("datacontenttype");
    bare.data = None;
    let events = [
        Event::new("binary")
            .with("subject", "a \"quoted\" 100 % €")
            .with("myext", "v"),
        Event::new("bytes")
            .with("datacontenttype", "image/png")
            .with_data(bytes),
        structured,
        bare,
    ];
    for event in &events {
        let answer = broker.post("orders", event);
        assert_eq!(answer.status(), 202, "{}", answer.text());
        assert!(answer.body.is_empty());
    }
    let seen = sink.wait_for(events.len());
    for event in &events {
        let arrived = seen.iter().find(|seen| seen.id() == event.id()).unwrap();
        let arrived = arrived.event.as_ref().unwrap();
        assert_eq!(event.differences(arrived, &[]), Vec::<String>::new());
    }
}

fn every_subscription_gets_every_event_once(world: &World) {
    let sink = Sink::taking();
    let names = ["a", "b", "c"];
    let mut manifests = channel("orders", 4);
    for name in names {
        let url = sink.url(&format!("/{name}"));
        manifests.push_str(&subscription(name, "orders", &url, "{}"));
    }
    world.write("all.yaml", &manifests);
    let broker = world.start();
    broker.wait_for_subscriptions(&names);
    let mut connection = Connection::open(broker.ingress, PATIENCE).unwrap();
    let count = 200;
    for number in 0..count {
        let event = Event::new(&format!("e{number}"));
        let answer = connection.exchange(&post_bytes(&broker.host("orders"), &event, &[]));
        assert_eq!(answer.unwrap().status(), 202);
    }
    sink.wait_for(count * names.len());
    sink.wait_for_quiet(Duration::from_millis(300));
    let mut times: BTreeMap<(String, String), usize> = BTreeMap::new();
    for seen in sink.seen() {
        *times
            .entry((seen.path.clone(), seen.id().to_owned()))
            .or_default() += 1;
    }
    assert_eq!(times.len(), count * names.len());
    assert!(times.values().all(|count| *count == 1));
}

fn events_with_one_key_keep_their_order(world: &World) {
    // Every seventh event fails once: those of its key wait for it, no others.
    let sink = Sink::new(|seen| {
        let number: usize = seen.id().rsplit('-').next().unwrap().parse().unwrap();
        Answer::status(if number % 7 == 3 && seen.attempt == 1 {
            503
        } else {
            200
        })
    });
    let delivery = "{ordering: key, retry: 3, backoffPolicy: linear, backoffDelay: PT0.05S}";
    world.write_orders(&sink.url("/billing"), delivery);
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    let (keys, each) = (8, 20);
    for number in 0..each {
        for key in 0..keys {
            let event = Event::new(&format!("k{key}-{number}"));
            broker.accept("orders", &event.with("partitionkey", &format!("k{key}")));
        }
    }
    let ids: Vec<_> = (0..keys)
        .flat_map(|key| (0..each).map(move |n| format!("k{key}-{n}")))
        .collect();
    sink.wait_for_ids(&ids, PATIENCE);
    for key in 0..keys {
        let prefix = format!("k{key}-");
        let seen = sink.seen();
        let taken = seen
            .iter()
            .filter(|seen| seen.success && seen.id().starts_with(&prefix));
        let order: Vec<_> = taken.map(|seen| seen.id().to_owned()).collect();
        let wanted: Vec<_> = (0..each).map(|number| format!("k{key}-{number}")).collect();
        assert_eq!(order, wanted);
    }
}

fn a_slow_subscriber_delays_no_other(world: &World) {
    let slow = Sink::new(|_| Answer::status(200).after(Duration::from_secs(2)));
    let quick = Sink::taking();
    let manifests = channel("orders", 2)
        + &subscription("slow", "orders", &slow.url("/"), "{maxInFlight: 1}")
        + &subscription("quick", "orders", &quick.url("/"), "{}");
    world.write("all.yaml", &manifests);
    let broker = world.start();
    broker.wait_for_subscriptions(&["slow", "quick"]);
    let ids: Vec<_> = (0..100).map(|number| format!("e{number}")).collect();
    thread::scope(|scope| {
        for part in ids.chunks(25) {
            let broker = &broker;
            scope.spawn(move || {
                part.iter()
                    .for_each(|id| broker.accept("orders", &Event::new(id)));
            });
        }
    });
    quick.wait_for_ids(&ids, Duration::from_secs(10));
    assert!(slow.seen().len() < ids.len());
}

fn what_cannot_be_taken_is_refused_with_its_reason(world: &World) {
    world.write_orders("http://127.0.0.1:9/", "{}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    let mut nameless = Event::new("x");
    nameless.attributes.remove("source");
    let answer = broker.post("orders", &nameless);
    assert_eq!(answer.status(), 400);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert!(answer.text().contains("source"), "{}", answer.text());
    let answer = broker.post("nosuch", &Event::new("x"));
    assert_eq!(answer.status(), 404);
    // The connection is still good for the next request.
    let mut connection = Connection::open(broker.ingress, PATIENCE).unwrap();
    for (event, status) in [(nameless, 400), (Event::new("good"), 202)] {
        let bytes = post_bytes(&broker.host("orders"), &event, &[]);
        assert_eq!(connection.exchange(&bytes).unwrap().status(), status);
    }
}
