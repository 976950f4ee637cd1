//! Several processes on one Kafka: roles apart, work shared, one of them gone.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::event::Event;
use crate::harness::http::Connection;
use crate::harness::sink::{Answer, Sink};
use crate::harness::{
    Broker, NOWHERE, PATIENCE, SetAtEnd, World, channel, eventually, kafka, post_bytes,
    subscription,
};

fn delivered(broker: &Broker) -> f64 {
    let labels = [("subscription", "billing"), ("outcome", "delivered")];
    broker.metric("levada_delivery_attempts_total", &labels)
}

/// Posts one event after the other until told to stop; returns the ids of those that were taken.
fn post_until(broker: &Broker, next: &AtomicUsize, stop: &AtomicBool) -> Vec<String> {
    let mut connection = Connection::open(broker.ingress, PATIENCE).unwrap();
    let mut taken = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let id = format!("e{}", next.fetch_add(1, Ordering::Relaxed));
        let event = Event::new(&id).with("partitionkey", &id);
        let answer = connection.exchange(&post_bytes(&broker.host("orders"), &event, &[]));
        assert_eq!(answer.unwrap().status(), 202);
        taken.push(id);
    }
    taken
}

#[test]
fn receiver_and_dispatcher_are_two_processes_on_kafka() {
    let Some(log) = kafka::given() else { return };
    let world = World::new(log);
    let sink = Sink::taking();
    world.write_orders(&sink.url("/"), "{}");
    let receiver = world.launch_in("receiver", &["--roles", "receiver"]);
    let dispatcher = world.launch_in("dispatcher", &["--roles", "dispatcher"]);
    assert_eq!(dispatcher.ingress, NOWHERE, "it does not receive");
    receiver.wait_until_ready();
    dispatcher.wait_until_ready();
    dispatcher.wait_for_subscriptions(&["billing"]);

    let ids: Vec<_> = (0..60).map(|number| format!("e{number}")).collect();
    let (first, rest) = ids.split_at(20);
    let (away, back) = rest.split_at(20);
    let accept = |ids: &[String]| {
        ids.iter()
            .for_each(|id| receiver.accept("orders", &Event::new(id)));
    };
    accept(first);
    sink.wait_for_ids(first, PATIENCE);
    assert_eq!(delivered(&receiver), 0.0, "it does not deliver");
    let status = dispatcher.terminate();
    assert!(status.success(), "{status}");
    accept(away);
    let dispatcher = world.launch_in("dispatcher", &["--roles", "dispatcher"]);
    sink.wait_for_ids(away, PATIENCE);
    accept(back);
    sink.wait_for_ids(back, PATIENCE);
    assert_eq!(sink.seen().len(), ids.len(), "each event once");
    for broker in [receiver, dispatcher] {
        let status = broker.terminate();
        assert!(status.success(), "{status}");
    }
}

/// Two nodes that deliver events of `orders`, the second come later, and producers on the first
/// until `then` is over; afterwards nothing that was accepted is lost.
fn with_two_dispatchers(then: impl FnOnce(&Broker, Broker, &AtomicUsize)) {
    let Some(log) = kafka::given() else { return };
    let world = World::new(log);
    let sink = Sink::taking();
    let billing = subscription("billing", "orders", &sink.url("/"), "{}");
    world.write("orders.yaml", &(channel("orders", 4) + &billing));
    let first = world.launch_in("first", &[]);
    first.wait_until_ready();
    first.wait_for_subscriptions(&["billing"]);
    let second = world.launch_in("second", &["--roles", "dispatcher"]);

    let accepted = Mutex::new(Vec::new());
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let _stop = SetAtEnd(&stop);
        for _ in 0..2 {
            scope.spawn(|| {
                let taken = post_until(&first, &next, &stop);
                accepted.lock().unwrap().extend(taken);
            });
        }
        then(&first, second, &next);
    });
    let accepted = accepted.into_inner().unwrap();
    sink.wait_for_ids(&accepted, PATIENCE * 2);
}

#[test]
fn a_dispatcher_that_is_killed_loses_nothing_on_kafka() {
    with_two_dispatchers(|_, second, next| {
        eventually("the second delivers", PATIENCE, || {
            delivered(&second) >= 50.0
        });
        second.kill();
        // Its partitions go to the first once its session is over.
        let posted = next.load(Ordering::Relaxed);
        eventually("more comes in meanwhile", PATIENCE, || {
            next.load(Ordering::Relaxed) >= posted + 200
        });
    });
}

#[test]
fn two_dispatchers_share_the_work_on_kafka() {
    with_two_dispatchers(|first, second, _| {
        eventually("the second delivers", PATIENCE, || {
            delivered(&second) >= 50.0
        });
        let before = delivered(first);
        eventually("the first still delivers", PATIENCE, || {
            delivered(first) >= before + 50.0
        });
    });
}

#[test]
fn a_subscription_that_is_new_on_two_nodes_misses_nothing_on_kafka() {
    let Some(log) = kafka::given() else { return };
    let world = World::new(log);
    let sink = Sink::taking();
    world.write("orders.yaml", &channel("orders", 4));
    let nodes = [world.launch_in("a", &[]), world.launch_in("b", &[])];
    nodes.iter().for_each(Broker::wait_until_ready);
    eventually("the channel takes events", PATIENCE, || {
        nodes[0].post("orders", &Event::new("early")).status() == 202
    });
    for round in 0..4 {
        let name = format!("s{round}");
        let path = format!("/{name}");
        let manifest = subscription(&name, "orders", &sink.url(&path), "{}");
        world.write(&format!("{name}.yaml"), &manifest);
        // As soon as one of them says so, whichever it is.
        nodes[round % 2].wait_for_subscriptions(&[&name]);
        let ids: Vec<_> = (0..8).map(|number| format!("r{round}-{number}")).collect();
        for id in &ids {
            nodes[0].accept("orders", &Event::new(id).with("partitionkey", id));
        }
        sink.wait(&format!("all of {ids:?} at {name}"), PATIENCE, |seen| {
            let came = |id: &String| seen.iter().any(|seen| seen.path == path && seen.id() == id);
            ids.iter().all(came)
        });
    }
}

#[test]
fn a_killed_broker_is_back_at_once_on_kafka() {
    let Some(log) = kafka::given() else { return };
    let world = World::new(log);
    // A dynamic member would wait until the session of its predecessor is over.
    let config = world.path("levada.toml");
    fs::write(
        &config,
        "[kafka.properties]\n'session.timeout.ms' = '60000'\n",
    )
    .unwrap();
    let start = || {
        let broker = world.launch(&["--config", config.to_str().unwrap()]);
        broker.wait_until_ready();
        broker
    };
    let sink = Sink::taking();
    world.write_orders(&sink.url("/"), "{}");
    let mut broker = start();
    broker.wait_for_subscriptions(&["billing"]);
    for round in 0..2 {
        let [before, after] = ["before", "after"].map(|name| format!("{name}-{round}"));
        broker.accept("orders", &Event::new(&before));
        sink.wait_for_ids(&[&before], PATIENCE);
        broker.kill();
        broker = start();
        broker.accept("orders", &Event::new(&after));
        sink.wait_for_ids(&[&after], PATIENCE);
    }
}

/// Who gives partitions up is killed before it said so, and is back before it is missed: the
/// group's coordinator then hands it what it had left, and the rest to nobody.
#[test]
fn partitions_that_a_killed_owner_gave_up_find_another_on_kafka() {
    let Some(log) = kafka::given() else { return };
    let world = World::new(log);
    let sink = Sink::new(|seen| {
        let slow = seen.id().starts_with("slow");
        Answer::status(200).after(if slow { PATIENCE } else { Duration::ZERO })
    });
    let billing = subscription("billing", "orders", &sink.url("/"), "{}");
    world.write("orders.yaml", &(channel("orders", 4) + &billing));
    let first = world.launch_in("first", &[]);
    first.wait_until_ready();
    first.wait_for_subscriptions(&["billing"]);
    // What is in flight holds up its giving up.
    for number in 0..16 {
        let id = format!("slow-{number}");
        first.accept("orders", &Event::new(&id).with("partitionkey", &id));
    }
    sink.wait_for(16);
    let rebalances = first.metric("levada_rebalances_total", &[]);
    let _second = world.launch_in("second", &["--roles", "dispatcher"]);
    eventually("the first is to give partitions up", PATIENCE, || {
        first.metric("levada_rebalances_total", &[]) > rebalances
    });
    first.kill();

    let first = world.launch_in("first", &[]);
    first.wait_until_ready();
    let ids: Vec<_> = (0..32).map(|number| format!("e{number}")).collect();
    for id in &ids {
        first.accept("orders", &Event::new(id).with("partitionkey", id));
    }
    sink.wait_for_ids(&ids, PATIENCE * 2);
}
