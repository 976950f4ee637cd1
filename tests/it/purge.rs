//! `levada purge`: refused while anything uses the resource, then thorough.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::harness::event::Event;
use crate::harness::sink::{Answer, Sink};
use crate::harness::{Log, World, on_both_logs};

/// An address where nobody listens.
const NOBODY: &str = "127.0.0.1:1";

fn purge(world: &World, what: &[&str], admin: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
    command.arg("purge").args(what).args(["--admin", admin]);
    command.arg("--data-dir").arg(world.path("data"));
    if let Log::Kafka(servers) = &world.log {
        command.args(["--bootstrap-servers", servers]);
    }
    command.args(more).stdin(Stdio::null()).output().unwrap()
}

fn refused(output: &Output, reason: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(reason), "{said}");
}

fn done(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn what_is_gone_can_be_purged(world: &World) {
    let sink = Sink::new(|_| Answer::status(400));
    world.write_orders(&sink.url("/"), "{}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    for id in ["e1", "e2", "e3"] {
        broker.accept("orders", &Event::new(id));
    }
    sink.wait_for(3);
    let channel = format!("{}/orders", world.namespace);
    let billing = format!("{}/billing", world.namespace);
    let subscription = ["subscription", &billing, "--channel", "orders"];
    let admin = broker.admin.to_string();

    // Served by a broker, or declared, or in use by one that is not known.
    refused(
        &purge(world, &["channel", &channel], &admin, &["--yes"]),
        "is served by",
    );
    refused(
        &purge(world, &subscription, &admin, &["--yes"]),
        "is served by",
    );
    let manifests = world.path("manifests");
    let declared = ["--yes", "--manifests", manifests.to_str().unwrap()];
    refused(
        &purge(world, &subscription, NOBODY, &declared),
        "is declared in",
    );
    let in_use = match &world.log {
        Log::Embedded => "in use by another process",
        Log::Kafka(_) => "Nothing was deleted",
    };
    refused(&purge(world, &subscription, NOBODY, &["--yes"]), in_use);

    assert!(broker.terminate().success());
    world.remove("orders.yaml");
    // Nobody said yes.
    refused(&purge(world, &subscription, NOBODY, &[]), "--yes");
    let said = done(&purge(world, &subscription, NOBODY, &["--yes"]));
    let letters = format!(
        "knative-messaging-kafka.{}.orders.billing.dead-letter",
        world.namespace
    );
    let row = said.lines().find(|line| line.contains(&letters)).unwrap();
    assert!(row.ends_with(" 3"), "{said}");
    refused(
        &purge(world, &subscription, NOBODY, &["--yes"]),
        "has nothing of",
    );
    done(&purge(world, &["channel", &channel], NOBODY, &declared));
    refused(
        &purge(world, &["channel", &channel], NOBODY, &["--yes"]),
        "has nothing of",
    );

    // A resource of the same names begins anew.
    let taking = Sink::taking();
    world.write_orders(&taking.url("/"), "{}");
    let broker = world.start();
    broker.wait_for_subscriptions(&["billing"]);
    broker.accept("orders", &Event::new("new"));
    taking.wait_for_ids(&["new"], Duration::from_secs(20));
    assert_eq!(taking.seen().len(), 1);
}
on_both_logs!(what_is_gone_can_be_purged);

#[test]
fn a_log_that_is_not_there_is_not_made() {
    let world = World::new(Log::Embedded);
    let output = purge(&world, &["channel", "orders"], NOBODY, &["--yes"]);
    refused(&output, "there is no log in");
    assert!(!world.path("data").exists());
}
