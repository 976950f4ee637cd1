//! What stands in the way of a start, and how that is said.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use crate::harness::event::Event;
use crate::harness::{Log, World, channel, eventually, tail, wait_for_exit};

/// Starts `levada` where it cannot run; returns what it said.
fn refusal(world: &World, more: &[&str]) -> String {
    let (mut child, output) = world.spawn(more);
    let status = wait_for_exit(&mut child, &output);
    let said = tail(&output);
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

/// Where nothing listens.
fn unused_address() -> String {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    unused.local_addr().unwrap().to_string()
}

#[test]
fn a_data_directory_belongs_to_one_process() {
    // On Kafka too: it holds the name by which the group knows the node.
    for log in [Log::Embedded, Log::Kafka(unused_address())] {
        let world = World::new(log);
        let first = world.launch(&[]);
        let said = refusal(&world, &[]);
        let directory = world.path("data");
        assert!(said.contains(directory.to_str().unwrap()), "{said}");
        assert_eq!(first.get("/healthz").status(), 200, "the first one goes on");
        first.kill();
        world.launch(&[]);
    }
}

#[test]
fn a_taken_port_is_named() {
    for option in ["--listen", "--admin-listen"] {
        let world = World::new(Log::Embedded);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let said = refusal(&world, &[option, &address]);
        assert!(said.contains(&address), "{option}: {said}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    // A file where a directory is wanted, and the other way round: nobody may use these, whoever
    // runs the tests.
    for name in ["", "lock", "node-id"] {
        let world = World::new(Log::Embedded);
        let data = world.path("data");
        if name.is_empty() {
            fs::write(&data, "").unwrap();
        } else {
            fs::create_dir_all(data.join(name)).unwrap();
        }
        let said = refusal(&world, &[]);
        let named = data.join(name);
        let named = named.to_str().unwrap().trim_end_matches('/');
        assert!(said.contains(named), "{name}: {said}");
    }
}

#[test]
fn a_data_directory_that_must_not_be_read_is_named() {
    let world = World::new(Log::Embedded);
    let data = world.path("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&data).is_ok() {
        eprintln!("skipped: nothing is forbidden to this user");
        return;
    }
    let said = refusal(&world, &[]);
    fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
    assert!(said.contains(data.to_str().unwrap()), "{said}");
}

#[test]
fn roles_apart_are_refused_without_kafka() {
    let world = World::new(Log::Embedded);
    let (mut child, output) = world.spawn(&["--roles", "receiver"]);
    let status = wait_for_exit(&mut child, &output);
    assert!(!status.success());
    let said = tail(&output);
    assert!(said.contains("bootstrap-servers"), "{said}");
}

#[test]
fn without_its_log_it_starts_and_says_that_it_is_not_ready() {
    let world = World::new(Log::Kafka(unused_address()));
    world.write("orders.yaml", &channel("orders", 1));
    let broker = world.launch(&[]);
    assert_eq!(broker.get("/healthz").status(), 200);
    assert_eq!(broker.get("/readyz").status(), 503);
    eventually("the manifests are read", Duration::from_secs(5), || {
        !broker.channels().is_empty()
    });
    let started = Instant::now();
    let answer = broker.post("orders", &Event::new("e"));
    assert_eq!(answer.status(), 500, "{}", answer.text());
    assert!(
        started.elapsed() < Duration::from_secs(11),
        "{:?}",
        started.elapsed()
    );
    let status = broker.terminate();
    assert!(status.success(), "{status}");
}
