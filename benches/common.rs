//! What the benches share: programs under test, what they use, topics, tables.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

/// How often each measurement is repeated, Levada and the bare loop by turns.
pub(crate) const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// Where Kafka is, or how to get one.
pub(crate) fn servers() -> String {
    std::env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap_or_else(|_| {
        eprintln!(
            "the benches need Kafka:\n  \
             export KAFKA_BOOTSTRAP_SERVERS=$(tests/kafka/run start /tmp/levada-bench-kafka)\n  \
             cargo bench --bench ingress\n  \
             tests/kafka/run stop /tmp/levada-bench-kafka"
        );
        std::process::exit(2);
    })
}

/// A whole number from the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| {
        text.parse().expect("the variable is a whole number")
    })
}

/// A name that nothing else has.
pub(crate) fn random_name(prefix: &str) -> String {
    format!(
        "{prefix}-{}",
        &uuid::Uuid::new_v4().simple().to_string()[..8]
    )
}

/// The properties that Levada's clients share.
pub(crate) fn client(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    config.set("allow.auto.create.topics", "false");
    config
}

/// The properties of Levada's producer.
pub(crate) fn producer(servers: &str) -> ClientConfig {
    let mut config = client(servers);
    config.set("acks", "all");
    config.set("enable.idempotence", "true");
    config.set("linger.ms", "0");
    config.set("sticky.partitioning.linger.ms", "5");
    config.set("partitioner", "murmur2_random");
    config
}

fn block_on<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime can be built").block_on(work)
}

/// Topics of a bench's own, deleted at the end.
pub(crate) struct Topics {
    admin: AdminClient<DefaultClientContext>,
    names: Vec<String>,
}

impl Topics {
    pub(crate) fn new(servers: &str) -> Self {
        let admin = client(servers)
            .create()
            .expect("an admin client can be made");
        Self {
            admin,
            names: Vec::new(),
        }
    }

    /// Names a topic that may or may not come to be.
    pub(crate) fn delete_at_the_end(&mut self, name: &str) {
        self.names.push(name.to_owned());
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        block_on(self.admin.delete_topics(&names, &AdminOptions::new())).ok();
    }
}

/// A program under test; killed when dropped.
pub(crate) struct Program {
    pub(crate) child: Child,
}

impl Program {
    /// This binary again, as the bare loop.
    pub(crate) fn bare(arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
        command
            .arg("bare")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let child = command.spawn().expect("the bare loop can be started");
        Self { child }
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default()
    }

    /// CPU seconds so far, user and system.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = self.proc("stat");
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let ticks = after_name.split(' ').skip(11).take(2);
        // USER_HZ is 100 on every Linux that Rust runs on.
        ticks
            .map(|ticks| ticks.parse::<f64>().unwrap_or(0.0) / 100.0)
            .sum()
    }

    /// Resident memory now, in MB.
    pub(crate) fn memory(&self) -> f64 {
        memory(self.child.id())
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(mut self) {
        let id = self.child.id().to_string();
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .expect("there is kill");
        let status = self.child.wait().expect("the program ends");
        assert!(status.success(), "levada ended with {status}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Resident memory of a process now, in MB.
pub(crate) fn memory(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// Starts Levada on Kafka with the manifests in `directory`, without a journal; returns it with
/// its ingress and admin addresses.
pub(crate) fn levada(servers: &str, directory: &Path) -> (Program, SocketAddr, SocketAddr) {
    levada_with(servers, directory, "off")
}

/// The same with a journal of this kind.
pub(crate) fn levada_with(
    servers: &str,
    directory: &Path,
    journal: &str,
) -> (Program, SocketAddr, SocketAddr) {
    let addresses = directory.join("data/addresses.json");
    fs::remove_file(&addresses).ok();
    let output = fs::File::create(directory.join("output")).expect("the directory is there");
    let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
    command
        .arg("serve")
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--bootstrap-servers", servers]);
    command.args(["--journal-store", journal]);
    command.arg("--data-dir").arg(directory.join("data"));
    command.arg("--manifests").arg(directory.join("manifests"));
    let errors = output.try_clone().expect("a file can be opened twice");
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let child = command.spawn().expect("levada can be started");
    let program = Program { child };
    let mut bound = None;
    until("levada listens", || {
        let text = fs::read(&addresses).ok()?;
        let json: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let address = |name: &str| json[name].as_str()?.parse().ok();
        bound = Some((address("ingress")?, address("admin")?));
        bound
    });
    let (ingress, admin) = bound.expect("it was awaited");
    until("levada is ready", || {
        get(admin, "/readyz").filter(|text| text.starts_with("HTTP/1.1 200"))
    });
    (program, ingress, admin)
}

/// Asks until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The whole answer to a GET.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Waits for the only subscription to be Ready.
pub(crate) fn until_ready(admin: SocketAddr) {
    until("the subscription is Ready", || {
        let answer = get(admin, "/v1/subscriptions")?;
        let list: serde_json::Value =
            serde_json::from_str(answer.split("\r\n\r\n").nth(1)?).ok()?;
        let conditions = list["items"][0]["status"]["conditions"].as_array()?;
        let ready = |condition: &&serde_json::Value| {
            condition["type"] == "Ready" && condition["status"] == "True"
        };
        conditions.iter().find(ready).map(|_| ())
    });
}

/// The head of the request that begins here, once it is complete, and how long the request is.
pub(crate) fn request(bytes: &[u8]) -> Option<(&str, usize)> {
    let head = bytes.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let mut lines = text.split("\r\n").filter_map(|line| line.split_once(':'));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, value)| value.trim().parse::<usize>().ok());
    Some((text, head + length.unwrap_or(0)))
}

/// A kilobyte of JSON.
pub(crate) fn payload() -> Vec<u8> {
    let mut body = vec![b'x'; 1024];
    body[..9].copy_from_slice(br#"{"data":""#);
    body[1022..].copy_from_slice(br#""}"#);
    body
}

/// `median (min-max)` of the rounds.
pub(crate) fn spread(values: &[f64], digits: usize) -> String {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    let (low, middle, high) = (values[0], values[last / 2], values[last]);
    format!("{middle:.digits$} ({low:.digits$}-{high:.digits$})")
}

/// A measure of each round for the bare loop and for Levada.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) digits: usize,
    pub(crate) bare: Vec<f64>,
    pub(crate) levada: Vec<f64>,
}

/// Prints rows, each with the ratio of Levada to the bare loop in the same round.
pub(crate) fn print(title: &str, rows: &[Row]) {
    print_pair(title, ["bare loop", "Levada"], rows);
}

/// The same for another pair, which takes the places of bare loop and Levada in the rows.
pub(crate) fn print_pair(title: &str, [bare, levada]: [&str; 2], rows: &[Row]) {
    println!("\n{title}");
    let ratio = format!("{levada} / {bare}");
    println!("{:<24}{bare:>30}{levada:>30}{ratio:>24}", "");
    for row in rows {
        let ratios: Vec<f64> = row
            .levada
            .iter()
            .zip(&row.bare)
            .map(|(levada, bare)| levada / bare)
            .collect();
        println!(
            "{:<24}{:>30}{:>30}{:>24}",
            row.name,
            spread(&row.bare, row.digits),
            spread(&row.levada, row.digits),
            spread(&ratios, 2)
        );
    }
}
