//! Channels and subscriptions come, change and go while the broker runs.

use std::time::Duration;

use crate::harness::event::Event;
use crate::harness::sink::Sink;
use crate::harness::{World, channel, eventually, on_both_logs, subscription};

on_both_logs!(
    a_channel_comes_and_goes,
    a_subscription_may_be_written_before_its_channel,
    a_new_subscription_gets_what_comes_after_it_is_ready,
    a_broken_file_keeps_its_last_good_state,
    mistakes_stay_where_they_are,
    a_subscription_that_comes_back_goes_on_where_it_was,
);

/// A change is in force within a second; the rest is for a slow machine.
const RELOAD: Duration = Duration::from_secs(5);

fn a_channel_comes_and_goes(world: &World) {
    let broker = world.start();
    let status = || broker.post("orders", &Event::new("e")).status();
    assert_eq!(status(), 404);
    world.write("orders.yaml", &channel("orders", 1));
    eventually("the channel takes events", RELOAD, || status() == 202);
    world.remove("orders.yaml");
    eventually("the channel is gone", RELOAD, || status() == 404);
}

fn a_subscription_may_be_written_before_its_channel(world: &World) {
    let sink = Sink::taking();
    world.write(
        "billing.yaml",
        &subscription("billing", "orders", &sink.url("/"), "{}"),
    );
    let broker = world.start();
    eventually("the subscription is listed as not Ready", RELOAD, || {
        let all = broker.subscriptions();
        let found = all.iter().find(|(name, _)| name == "billing");
        found.is_some_and(|(_, ready)| {
            let message = ready["message"].as_str().unwrap_or_default();
            ready["status"] == "False" && message.contains("orders")
        })
    });
    world.write("orders.yaml", &channel("orders", 1));
    broker.wait_for_subscriptions(&["billing"]);
    let channels = broker.channels();
    assert!(
        channels
            .iter()
            .any(|(name, ready)| name == "orders" && ready["status"] == "True")
    );
    broker.accept("orders", &Event::new("e1"));
    sink.wait_for(1);
}

fn a_new_subscription_gets_what_comes_after_it_is_ready(world: &World) {
    let sink = Sink::taking();
    world.write("orders.yaml", &channel("orders", 4));
    let broker = world.start();
    eventually("the channel takes events", RELOAD, || {
        broker.post("orders", &Event::new("early-0")).status() == 202
    });
    for number in 1..10 {
        broker.accept("orders", &Event::new(&format!("early-{number}")));
    }
    for round in 0..3 {
        let name = format!("s{round}");
        let url = sink.url(&format!("/{name}"));
        world.write(
            &format!("{name}.yaml"),
            &subscription(&name, "orders", &url, "{}"),
        );
        broker.wait_for_subscriptions(&[&name]);
        // In the very moment that it is Ready: one for each partition.
        let ids: Vec<_> = (0..8)
            .map(|number| format!("late-{round}-{number}"))
            .collect();
        for id in &ids {
            broker.accept("orders", &Event::new(id).with("partitionkey", id));
        }
        sink.wait(
            &format!("all of {ids:?} at {name}"),
            Duration::from_secs(20),
            |seen| {
                let path = format!("/{name}");
                ids.iter()
                    .all(|id| seen.iter().any(|seen| seen.path == path && seen.id() == id))
            },
        );
    }
    sink.wait_for_quiet(Duration::from_millis(500));
    let early = sink
        .seen()
        .iter()
        .filter(|seen| seen.id().starts_with("early"))
        .count();
    assert_eq!(early, 0, "events from before a subscription was there");
}

fn a_broken_file_keeps_its_last_good_state(world: &World) {
    world.write("orders.yaml", &channel("orders", 1));
    let broker = world.start();
    let status = |name: &str| broker.post(name, &Event::new("e")).status();
    eventually("the channel takes events", RELOAD, || {
        status("orders") == 202
    });
    world.write("orders.yaml", "kind: KafkaChannel\nmetadata: {name: [");
    world.write("parcels.yaml", &channel("parcels", 1));
    eventually("the file beside it is read", RELOAD, || {
        status("parcels") == 202
    });
    assert_eq!(status("orders"), 202);
    world.write("orders.yaml", "# nothing is left\n");
    eventually("the mended file is read", RELOAD, || {
        status("orders") == 404
    });
}

/// Files that are half written, not text, that refer to nothing, or in a circle; each with a word
/// of what is said about it.
const MISTAKES: [(&str, &str, &str); 7] = [
    (
        "half.yaml",
        "apiVersion: messaging.knative.dev/v1beta1\nkind: KafkaChannel\nmetadata: {name: ha",
        "half.yaml",
    ),
    ("binary.yaml", "\0\u{1}\u{fffd}", "binary.yaml"),
    (
        "field.yaml",
        "apiVersion: messaging.knative.dev/v1beta1\nkind: KafkaChannel\n\
         metadata: {name: field, namespace: NAMESPACE}\nspec: {numPartition: 1}\n",
        "numPartitions",
    ),
    (
        "nothing.yaml",
        "apiVersion: messaging.knative.dev/v1\nkind: Subscription\n\
         metadata: {name: nothing, namespace: NAMESPACE}\nspec:\n  \
         channel: {apiVersion: messaging.knative.dev/v1, kind: Channel, name: orders}\n  \
         subscriber: {ref: {apiVersion: levada.dev/v1, kind: Sink, name: nosuch}}\n",
        "nosuch",
    ),
    (
        "circle-of-one.yaml",
        "apiVersion: messaging.knative.dev/v1\nkind: Subscription\n\
         metadata: {name: one, namespace: NAMESPACE}\nspec:\n  \
         channel: {apiVersion: messaging.knative.dev/v1, kind: Channel, name: orders}\n  \
         subscriber: {uri: \"http://127.0.0.1:9/\"}\n  \
         delivery: {deadLetterSink: {ref: {apiVersion: messaging.knative.dev/v1, kind: Channel, name: orders}}}\n",
        "round for ever",
    ),
    (
        "circle-of-two.yaml",
        "apiVersion: messaging.knative.dev/v1\nkind: Channel\n\
         metadata: {name: two, namespace: NAMESPACE}\n---\n\
         apiVersion: messaging.knative.dev/v1\nkind: Subscription\n\
         metadata: {name: there, namespace: NAMESPACE}\nspec:\n  \
         channel: {apiVersion: messaging.knative.dev/v1, kind: Channel, name: orders}\n  \
         subscriber: {ref: {apiVersion: messaging.knative.dev/v1, kind: Channel, name: two}}\n---\n\
         apiVersion: messaging.knative.dev/v1\nkind: Subscription\n\
         metadata: {name: back, namespace: NAMESPACE}\nspec:\n  \
         channel: {apiVersion: messaging.knative.dev/v1, kind: Channel, name: two}\n  \
         subscriber: {ref: {apiVersion: messaging.knative.dev/v1, kind: Channel, name: orders}}\n",
        "round for ever",
    ),
    (
        "taken.yaml",
        "apiVersion: messaging.knative.dev/v1\nkind: Channel\n\
         metadata: {name: orders, namespace: NAMESPACE}\n",
        "orders",
    ),
];

fn mistakes_stay_where_they_are(world: &World) {
    let sink = Sink::taking();
    world.write_orders(&sink.url("/"), "{}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    for (number, (file, text, said)) in MISTAKES.into_iter().enumerate() {
        world.write(file, text);
        eventually(&format!("{file} is complained of"), RELOAD, || {
            let problems = broker.get("/v1/problems").text();
            let unresolved = broker.subscriptions().into_iter().any(|(_, ready)| {
                ready["status"] == "False" && ready["message"].to_string().contains(said)
            });
            problems.contains(said) && problems.contains(file) || unresolved
        });
        let id = format!("e{number}");
        broker.accept("orders", &Event::new(&id));
        sink.wait_for_ids(&[&id], Duration::from_secs(20));
    }
    for (file, ..) in MISTAKES {
        world.remove(file);
    }
    eventually("nothing is complained of", RELOAD, || {
        broker.get("/v1/problems").json()["items"] == serde_json::json!([])
    });
    broker.wait_for_subscriptions(&["billing"]);
    sink.wait_for_quiet(Duration::from_millis(300));
    assert_eq!(sink.seen().len(), MISTAKES.len(), "each event once");
}

fn a_subscription_that_comes_back_goes_on_where_it_was(world: &World) {
    let sink = Sink::taking();
    world.write("orders.yaml", &channel("orders", 1));
    let manifest = subscription("billing", "orders", &sink.url("/"), "{}");
    world.write("billing.yaml", &manifest);
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    broker.accept("orders", &Event::new("before"));
    sink.wait_for(1);
    world.remove("billing.yaml");
    eventually("the subscription is gone", RELOAD, || {
        broker.subscriptions().is_empty()
    });
    broker.accept("orders", &Event::new("meanwhile"));
    world.write("billing.yaml", &manifest);
    broker.wait_for_subscriptions(&["billing"]);
    broker.accept("orders", &Event::new("after"));
    sink.wait_for_ids(&["meanwhile", "after"], Duration::from_secs(20));
    sink.wait_for_quiet(Duration::from_millis(300));
    assert_eq!(sink.seen().len(), 3, "each event once");
}
