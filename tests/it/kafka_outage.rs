//! Kafka comes late, goes away, and comes back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::event::Event;
use crate::harness::kafka::Node;
use crate::harness::sink::Sink;
use crate::harness::{PATIENCE, SetAtEnd, World, eventually};

#[test]
fn a_kafka_that_comes_later_is_found() {
    let Some(node) = Node::prepare() else { return };
    let world = World::new(node.log());
    let sink = Sink::taking();
    world.write_orders(&sink.url("/"), "{}");
    let broker = world.launch(&[]);
    assert_eq!(broker.get("/readyz").status(), 503);
    node.start();
    broker.wait_until_ready();
    broker.wait_for_subscriptions(&["billing"]);
    broker.accept("orders", &Event::new("e1"));
    sink.wait_for(1);
}

#[test]
fn a_kafka_that_goes_and_comes_back_loses_nothing() {
    let Some(node) = Node::prepare() else { return };
    node.start();
    let world = World::new(node.log());
    let sink = Sink::taking();
    world.write_orders(&sink.url("/"), "{}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);

    let accepted = Mutex::new(Vec::new());
    let refused = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = SetAtEnd(&stop);
        let producer = |name: usize| {
            let (broker, accepted, refused, stop) = (&broker, &accepted, &refused, &stop);
            move || {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = format!("p{name}-{number}");
                    match broker.post("orders", &Event::new(&id)).status() {
                        202 => accepted.lock().unwrap().push(id),
                        status => refused.lock().unwrap().push(status),
                    }
                }
            }
        };
        for name in 0..4 {
            scope.spawn(producer(name));
        }
        let count = || accepted.lock().unwrap().len();
        let outages: [fn(&Node); 2] = [Node::stop, Node::kill];
        for end in outages {
            let before = count();
            eventually("events are accepted", PATIENCE * 2, || {
                count() >= before + 200
            });
            end(&node);
            let limit = Duration::from_secs(7);
            eventually("/readyz answers 503", limit, || {
                broker.get("/readyz").status() == 503
            });
            let already = refused.lock().unwrap().len();
            let limit = Duration::from_secs(15);
            eventually("events are refused", limit, || {
                refused.lock().unwrap().len() > already
            });
            node.start();
            broker.wait_until_ready();
        }
        let before = count();
        eventually("events are accepted again", PATIENCE * 2, || {
            count() >= before + 200
        });
    });
    let refused = refused.into_inner().unwrap();
    assert!(refused.iter().all(|status| *status == 500), "{refused:?}");
    sink.wait_for_ids(&accepted.into_inner().unwrap(), PATIENCE * 2);

    // What waits for Kafka does not keep the process from ending.
    node.stop();
    let status = broker.terminate();
    assert!(status.success(), "{status}");
}
