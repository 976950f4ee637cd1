//! An event goes out in the content mode in which it was received, wherever it goes.

use std::time::Duration;

use crate::harness::event::{Event, Mode};
use crate::harness::kafka;
use crate::harness::sink::{Answer, Seen, Sink};
use crate::harness::{Log, World, channel, on_both_logs, subscription};

const TIME: Duration = Duration::from_secs(20);

/// A subscriber that answers `reply` with an event in the other mode, `refused` with 400, and
/// takes everything else.
fn answer(seen: &Seen) -> Answer {
    let Some(event) = seen.event.as_ref().filter(|_| seen.path == "/") else {
        return Answer::status(200);
    };
    if event.id().starts_with("refused") {
        return Answer::status(400);
    }
    let mut answer = Answer::status(200);
    if event.id().starts_with("reply") {
        let mut reply = Event::new(event.id());
        reply.mode = match event.mode {
            Mode::Binary => Mode::Structured,
            Mode::Structured => Mode::Binary,
        };
        (answer.headers, answer.body) = reply.to_http();
    }
    answer
}

/// The mode of each request of these ids, once all have come to the path.
fn modes(sink: &Sink, path: &str, ids: &[&str]) -> Vec<Option<Mode>> {
    let mode = |seen: &[std::sync::Arc<Seen>], id: &str| {
        let mut found = seen.iter().filter(|it| it.path == path && it.id() == id);
        found
            .next()
            .and_then(|it| it.event.as_ref().map(|e| e.mode))
    };
    sink.wait(&format!("{ids:?} at {path}"), TIME, |seen| {
        ids.iter().all(|id| mode(seen, id).is_some())
    });
    ids.iter().map(|id| mode(&sink.seen(), id)).collect()
}

fn without_a_format_it_goes_out_as_it_came_in(world: &World) {
    let sink = Sink::new(answer);
    let (reply, dead) = (sink.url("/reply"), sink.url("/dead"));
    let delivery = format!("{{deadLetterSink: {{uri: \"{dead}\"}}}}");
    let billing = subscription("billing", "orders", &sink.url("/"), &delivery).replace(
        "  delivery:",
        &format!("  reply: {{uri: \"{reply}\"}}\n  delivery:"),
    );
    let forced = |name: &str, format: &str| {
        let path = sink.url(&format!("/{name}"));
        subscription(name, "orders", &path, &format!("{{format: {format}}}"))
    };
    let all = [
        channel("orders", 2),
        billing,
        forced("json", "json"),
        forced("binary", "binary"),
    ];
    world.write("orders.yaml", &all.concat());
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing", "json", "binary"]);
    for id in ["taken", "refused", "reply"] {
        for mode in [Mode::Binary, Mode::Structured] {
            let mut event = Event::new(&format!("{id}-{mode:?}"));
            event.mode = mode;
            // Nobody but the broker decides what its own headers say.
            let lie = [("levada-mode".to_owned(), "structured".to_owned())];
            let answer = broker.post_with("orders", &event, &lie).unwrap();
            assert_eq!(answer.status(), 202);
        }
    }
    let [binary, structured] = [Some(Mode::Binary), Some(Mode::Structured)];
    for (path, id, expected) in [
        ("/", "taken", [binary, structured]),
        ("/dead", "refused", [binary, structured]),
        ("/reply", "reply", [structured, binary]),
        ("/json", "taken", [structured, structured]),
        ("/binary", "taken", [binary, binary]),
    ] {
        let ids = [format!("{id}-Binary"), format!("{id}-Structured")];
        let found = modes(&sink, path, &[&ids[0], &ids[1]]);
        assert_eq!(found, expected, "{id} at {path}");
    }
    for seen in sink.seen() {
        assert_eq!(seen.message.header("levada-mode"), None);
    }
    if let Log::Kafka(_) = &world.log {
        check_records(world);
    }
}
fn a_parked_event_and_reply_keep_their_mode_over_a_restart(world: &World) {
    // The subscriber refuses the first attempt, and the reply sink too.
    let sink = Sink::new(|seen| match (seen.path.as_str(), seen.attempt) {
        (_, 1) => Answer::status(503),
        ("/", _) => answer(seen),
        _ => Answer::status(200),
    });
    let reply = sink.url("/reply");
    let delivery = "{retry: 3, backoffPolicy: linear, backoffDelay: PT1.5S}";
    let billing = subscription("billing", "orders", &sink.url("/"), delivery).replace(
        "  delivery:",
        &format!("  reply: {{uri: \"{reply}\"}}\n  delivery:"),
    );
    world.write("orders.yaml", &(channel("orders", 1) + &billing));
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    for mode in [Mode::Binary, Mode::Structured] {
        let mut event = Event::new(&format!("reply-{mode:?}"));
        event.mode = mode;
        broker.accept("orders", &event);
    }
    let count = |path: &'static str, wanted: usize| {
        sink.wait(&format!("{wanted} requests at {path}"), TIME, |seen| {
            seen.iter().filter(|seen| seen.path == path).count() >= wanted
        });
    };
    count("/", 2);
    assert!(broker.terminate().success());
    let broker = world.start();
    count("/reply", 2);
    assert!(broker.terminate().success());
    let _broker = world.start();
    count("/reply", 4);
    let mut found = Vec::new();
    for seen in sink.seen() {
        let event = seen.event.as_ref().unwrap();
        found.push((seen.path.clone(), event.id().to_owned(), event.mode));
    }
    for (path, id, mode) in found {
        let sent = if id.ends_with("-Binary") {
            Mode::Binary
        } else {
            Mode::Structured
        };
        // The subscriber answers in the other mode.
        assert_eq!(mode == sent, path == "/", "{id} at {path}");
    }
}
on_both_logs!(
    without_a_format_it_goes_out_as_it_came_in,
    a_parked_event_and_reply_keep_their_mode_over_a_restart,
);

/// Only an event that came as JSON says so in the topic.
fn check_records(world: &World) {
    let topic = kafka::topic(&world.namespace, "orders");
    for record in kafka::read_all(&world.log, &topic) {
        let structured = record.header("ce_id").unwrap().ends_with("-Structured");
        let expected = structured.then_some("structured");
        assert_eq!(record.header("levada-mode"), expected, "{record:?}");
    }
}
