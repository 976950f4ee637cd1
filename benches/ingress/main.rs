//! Ingress beside the least that could work: events a second, latency, CPU and memory at 1, 64
//! and 256 connections. `cargo bench --bench ingress`; `SECONDS` (5) is the length of a run.

#![expect(clippy::print_stdout, reason = "the table is the bench's result")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

mod bare;
#[path = "../common.rs"]
#[expect(dead_code, reason = "each bench uses some of it")]
mod common;
mod load;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::time::Duration;

use common::{Program, ROUNDS, Row, Topics, levada, number, random_name, servers};

/// What one run showed.
struct Measure {
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
    memory: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, servers, topic] = &arguments[..]
        && command == "bare"
    {
        return bare::run(servers, topic);
    }
    let servers = servers();
    let seconds = Duration::from_secs(number("SECONDS", 5));
    let mut topics = Topics::new(&servers);
    let namespace = random_name("bench");
    let topic = format!("knative-messaging-kafka.{namespace}.orders");
    topics.delete_at_the_end(&topic);

    let directory = tempfile::tempdir().expect("a directory can be made");
    fs::create_dir(directory.path().join("manifests")).expect("it is new");
    let manifest = format!(
        "apiVersion: messaging.knative.dev/v1beta1\nkind: KafkaChannel\n\
         metadata: {{name: orders, namespace: {namespace}}}\nspec: {{numPartitions: 4}}\n"
    );
    fs::write(directory.path().join("manifests/orders.yaml"), manifest).expect("it is ours");
    let (levada, address, _) = levada(&servers, directory.path());
    let host = format!("orders.{namespace}.localhost");
    common::until("the channel takes events", || load::probe(address, &host));
    let mut bare = Program::bare(&[&servers, &topic]);
    let bare_address = first_line(&mut bare);

    let targets = [
        ("bare loop", &bare, bare_address),
        ("Levada", &levada, address),
    ];
    for (name, _, address) in &targets {
        eprintln!("warming {name}");
        load::run(*address, &host, 64, Duration::from_secs(3));
    }
    for connections in [1, 64, 256] {
        let mut measures = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            for which in [round % 2, 1 - round % 2] {
                let (name, program, address) = &targets[which];
                let measure = measure(program, *address, &host, connections, seconds);
                eprintln!(
                    "{connections} connections, round {}: {name} {:.0}/s",
                    round + 1,
                    measure.rate
                );
                measures[which].push(measure);
            }
        }
        report(connections, &measures);
    }
    levada.terminate();
}

/// The address that the bare loop prints.
fn first_line(program: &mut Program) -> SocketAddr {
    let output = program.child.stdout.take().expect("its output is a pipe");
    let mut line = String::new();
    BufReader::new(output)
        .read_line(&mut line)
        .expect("the bare loop prints its address");
    line.trim()
        .parse()
        .expect("the bare loop prints its address")
}

fn measure(
    program: &Program,
    address: SocketAddr,
    host: &str,
    connections: usize,
    time: Duration,
) -> Measure {
    let before = program.cpu();
    let load = load::run(address, host, connections, time);
    let events = load.micros.len();
    let cpu = (program.cpu() - before) / events as f64 * 100_000.0;
    Measure {
        rate: events as f64 / load.time.as_secs_f64(),
        p50: load.percentile(0.50),
        p99: load.percentile(0.99),
        cpu,
        memory: program.memory(),
    }
}

fn report(connections: usize, measures: &[Vec<Measure>; 2]) {
    let row = |name, digits, value: fn(&Measure) -> f64| Row {
        name,
        digits,
        bare: measures[0].iter().map(value).collect(),
        levada: measures[1].iter().map(value).collect(),
    };
    let rows = [
        row("events/s", 0, |measure| measure.rate),
        row("p50, ms", 3, |measure| measure.p50),
        row("p99, ms", 3, |measure| measure.p99),
        row("CPU s per 100k events", 2, |measure| measure.cpu),
        row("memory, MB", 1, |measure| measure.memory),
    ];
    common::print(
        &format!("ingress, {connections} connections, 1 KiB, median (min-max) of {ROUNDS} rounds"),
        &rows,
    );
}
