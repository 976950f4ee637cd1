//! A journal that cannot be written, and what goes on all the same.

use rusqlite::Connection;

use crate::harness::event::Event;
use crate::harness::sink::Sink;
use crate::harness::{Broker, PATIENCE, World, eventually, on_both_logs};

on_both_logs!(guarantee_10_a_locked_journal_stops_nobody);

/// Keeps the journal from being written until it is dropped.
fn locked(world: &World) -> Connection {
    let journal = world.path("data/journal/segment-000001.db");
    let lock = Connection::open(journal).unwrap();
    lock.busy_timeout(PATIENCE).unwrap();
    lock.execute_batch("begin immediate").unwrap();
    lock
}

fn wait_until_journalled(broker: &Broker, count: usize) {
    eventually("everything is journalled", PATIENCE, || {
        let page = broker.get("/v1/messages?status=delivered&page_size=250");
        page.json()["items"].as_array().unwrap().len() == count
    });
}

fn guarantee_10_a_locked_journal_stops_nobody(world: &World) {
    let sink = Sink::taking();
    world.write_orders(&sink.url("/"), "{retry: 1}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    broker.accept("orders", &Event::new("before"));
    wait_until_journalled(&broker, 1);

    let lock = locked(world);
    let ids: Vec<String> = (0..100).map(|number| format!("e{number}")).collect();
    for id in &ids {
        broker.accept("orders", &Event::new(id));
    }
    sink.wait_for_ids(&ids, PATIENCE);
    // Its offsets are committed, too: nobody waits for the journal.
    eventually("nothing is left to deliver", PATIENCE, || {
        let lag = broker.samples(
            "levada_consumer_lag_records",
            &[("subscription", "billing")],
        );
        !lag.is_empty() && lag.iter().all(|records| *records == 0.0)
    });
    drop(lock);
    wait_until_journalled(&broker, 101);

    // Nor does the end wait.
    let lock = locked(world);
    broker.accept("orders", &Event::new("last"));
    sink.wait_for_ids(&["last"], PATIENCE);
    assert!(broker.terminate().success());
    drop(lock);
    let broker = world.start();
    broker.accept("orders", &Event::new("after"));
    sink.wait_for_ids(&["after"], PATIENCE);
    assert_eq!(sink.seen().len(), 103, "nothing was delivered again");
    eventually("what comes later is journalled", PATIENCE, || {
        let page = broker.get("/v1/messages?event_id=after").json();
        page["items"].as_array().unwrap().len() == 1
    });
}
