//! Starts the real program in a world of its own (directories, a namespace) and talks to it.

pub(crate) mod api;
pub(crate) mod event;
pub(crate) mod http;
pub(crate) mod kafka;
pub(crate) mod postgres;
pub(crate) mod sink;

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use event::Event;
use http::{Connection, Message};

/// How long anything but a delay under test may take on a slow, busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The log a broker is started on.
#[derive(Clone, Debug)]
pub(crate) enum Log {
    Embedded,
    /// Kafka at these bootstrap servers.
    Kafka(String),
}

/// Makes of `fn name(world: &World)` one test a log: `name::embedded` and `name::kafka`.
macro_rules! on_both_logs {
    ($($name:ident),+ $(,)?) => { $(
        mod $name {
            #[test]
            fn embedded() {
                let log = crate::harness::Log::Embedded;
                super::$name(&crate::harness::World::new(log));
            }

            #[test]
            fn kafka() {
                if let Some(log) = crate::harness::kafka::given() {
                    super::$name(&crate::harness::World::new(log));
                }
            }
        }
    )+ };
}
pub(crate) use on_both_logs;

/// Tests that measure time run alone, all others side by side.
static TURN: RwLock<()> = RwLock::new(());

/// What a test has for itself: directories, a namespace, a log. On Kafka its topics are deleted
/// at the end.
pub(crate) struct World {
    pub(crate) log: Log,
    pub(crate) namespace: String,
    /// The URL of the journal's database; `None`: SQLite.
    journal: Option<String>,
    /// Set for every broker.
    variables: Vec<(&'static str, PathBuf)>,
    directory: tempfile::TempDir,
    starts: AtomicUsize,
    _shared: Option<RwLockReadGuard<'static, ()>>,
    _alone: Option<RwLockWriteGuard<'static, ()>>,
}

impl World {
    pub(crate) fn new(log: Log) -> Self {
        let turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
        Self::with_turn(log, Some(turn), None)
    }

    /// A world for a test that measures time: no other test runs meanwhile.
    pub(crate) fn alone(log: Log) -> Self {
        let turn = TURN.write().unwrap_or_else(PoisonError::into_inner);
        Self::with_turn(log, None, Some(turn))
    }

    fn with_turn(
        log: Log,
        shared: Option<RwLockReadGuard<'static, ()>>,
        alone: Option<RwLockWriteGuard<'static, ()>>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("manifests")).unwrap();
        let random = uuid::Uuid::new_v4().simple().to_string();
        Self {
            log,
            namespace: format!("t-{}", &random[..10]),
            journal: None,
            variables: Vec::new(),
            directory,
            starts: AtomicUsize::new(0),
            _shared: shared,
            _alone: alone,
        }
    }

    /// The same with a journal in PostgreSQL.
    pub(crate) fn journalling_to(mut self, url: &str) -> Self {
        self.journal = Some(url.to_owned());
        self
    }

    /// The same with a variable for every broker.
    pub(crate) fn with_variable(mut self, name: &'static str, value: PathBuf) -> Self {
        self.variables.push((name, value));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a manifest file in place at once, as a careful person's tools do.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let text = text.replace("NAMESPACE", &self.namespace);
        let draft = self.path("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.path("manifests").join(file)).unwrap();
    }

    pub(crate) fn remove(&self, file: &str) {
        fs::remove_file(self.path("manifests").join(file)).unwrap();
    }

    /// Channel `orders` with one subscription `billing` to `url`; `delivery` is the YAML of
    /// `spec.delivery`, in braces.
    pub(crate) fn write_orders(&self, url: &str, delivery: &str) {
        let subscription = subscription("billing", "orders", url, delivery);
        self.write("orders.yaml", &(channel("orders", 2) + &subscription));
    }

    /// Starts a broker and waits until it is ready.
    pub(crate) fn start(&self) -> Broker {
        let broker = self.launch(&[]);
        broker.wait_until_ready();
        if self.journal.is_some() {
            // Readiness does not wait for its tables.
            eventually("the journal is there", PATIENCE, || {
                broker.get("/v1/health").json()["journal"]["state"] == "ok"
            });
        }
        broker
    }

    /// Starts a broker and waits until it listens.
    pub(crate) fn launch(&self, more: &[&str]) -> Broker {
        self.launch_in("data", more)
    }

    /// Starts one of several brokers, each with a data directory of its own, and waits until it
    /// listens.
    pub(crate) fn launch_in(&self, directory: &str, more: &[&str]) -> Broker {
        let addresses = self.path(directory).join("addresses.json");
        // One from an earlier start would be believed.
        fs::remove_file(&addresses).ok();
        let (mut child, output) = self.spawn_in(directory, more);
        let deadline = Instant::now() + PATIENCE;
        let addresses = loop {
            if let Ok(text) = fs::read(&addresses) {
                break serde_json::from_slice::<Value>(&text).unwrap();
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("levada ended with {status}:\n{}", tail(&output));
            }
            if Instant::now() > deadline {
                child.kill().ok();
                panic!("levada does not listen:\n{}", tail(&output));
            }
            thread::sleep(Duration::from_millis(5));
        };
        let address = |name: &str| Some(addresses[name].as_str()?.parse().unwrap());
        Broker {
            ingress: address("ingress").unwrap_or(NOWHERE),
            admin: address("admin").unwrap(),
            namespace: self.namespace.clone(),
            child,
            output,
        }
    }

    /// Runs `levada serve` in this world's directories; returns the process and where its output
    /// goes.
    pub(crate) fn spawn(&self, more: &[&str]) -> (Child, PathBuf) {
        self.spawn_in("data", more)
    }

    fn spawn_in(&self, directory: &str, more: &[&str]) -> (Child, PathBuf) {
        let number = self.starts.fetch_add(1, Ordering::Relaxed);
        let output = self.path(&format!("output-{number}"));
        let file = File::create(&output).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
        command.arg("serve");
        for (option, path) in [("--data-dir", directory), ("--manifests", "manifests")] {
            command.arg(option).arg(self.path(path));
        }
        for option in ["--listen", "--admin-listen"] {
            if !more.contains(&option) {
                command.args([option, "127.0.0.1:0"]);
            }
        }
        if let Log::Kafka(servers) = &self.log {
            command.args(["--bootstrap-servers", servers]);
        }
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        if let Some(url) = &self.journal {
            command.args(["--journal-store", "postgres"]);
            command.env("LEVADA_JOURNAL_URL", url);
        }
        command.args(more).stdin(Stdio::null());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        (command.spawn().unwrap(), output)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Log::Kafka(servers) = &self.log {
            kafka::delete_topics(servers, &kafka::topic(&self.namespace, ""));
        }
    }
}

/// The end of what a process wrote.
pub(crate) fn tail(output: &Path) -> String {
    let text = fs::read_to_string(output).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The ingress of a broker that has none.
pub(crate) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A running `levada serve`; killed when dropped.
pub(crate) struct Broker {
    /// [`NOWHERE`] without the receiver's role.
    pub(crate) ingress: SocketAddr,
    pub(crate) admin: SocketAddr,
    namespace: String,
    child: Child,
    output: PathBuf,
}

impl Broker {
    /// Waits for `/readyz` to answer 200.
    pub(crate) fn wait_until_ready(&self) {
        eventually("/readyz answers 200", PATIENCE, || {
            self.get("/readyz").status() == 200
        });
    }

    /// A GET on the admin port.
    pub(crate) fn get(&self, path: &str) -> Message {
        self.ask("GET", path, b"")
    }

    /// A request on the admin port. What is answered has to be what the API's document says.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &[u8]) -> Message {
        let mut connection = Connection::open(self.admin, PATIENCE).unwrap();
        let host = self.admin.to_string();
        let request = http::request(method, path, &host, &[], body);
        let answer = connection.exchange(&request).unwrap();
        api::check(method, path, &answer);
        answer
    }

    /// Where a channel is found at the ingress: the `Host` header.
    pub(crate) fn host(&self, channel: &str) -> String {
        format!("{channel}.{}.localhost", self.namespace)
    }

    /// Posts an event to a channel, with further headers, on a connection of its own.
    pub(crate) fn post_with(
        &self,
        channel: &str,
        event: &Event,
        headers: &[(String, String)],
    ) -> std::io::Result<Message> {
        let mut connection = Connection::open(self.ingress, PATIENCE)?;
        connection.exchange(&post_bytes(&self.host(channel), event, headers))
    }

    /// Posts an event to a channel and returns the answer.
    pub(crate) fn post(&self, channel: &str, event: &Event) -> Message {
        self.post_with(channel, event, &[]).unwrap()
    }

    /// Posts an event that must be accepted.
    pub(crate) fn accept(&self, channel: &str, event: &Event) {
        let answer = self.post(channel, event);
        assert_eq!(answer.status(), 202, "{}: {}", event.id(), answer.text());
    }

    /// Each `(name, Ready's condition)` among this world's subscriptions.
    pub(crate) fn subscriptions(&self) -> Vec<(String, Value)> {
        self.resources("/v1/subscriptions")
    }

    /// Each `(name, Ready's condition)` among this world's channels.
    pub(crate) fn channels(&self) -> Vec<(String, Value)> {
        self.resources("/v1/channels")
    }

    fn resources(&self, path: &str) -> Vec<(String, Value)> {
        let answer = self.get(path);
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        let list = answer.json();
        let items = list["items"].as_array().unwrap();
        let ours = items
            .iter()
            .filter(|item| item["metadata"]["namespace"] == *self.namespace);
        ours.map(|item| {
            let conditions = item["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten();
            let ready = conditions
                .into_iter()
                .find(|condition| condition["type"] == "Ready");
            let name = item["metadata"]["name"].as_str().unwrap().to_owned();
            (name, ready.cloned().unwrap_or_default())
        })
        .collect()
    }

    /// Waits until each of these subscriptions is Ready.
    pub(crate) fn wait_for_subscriptions<S: AsRef<str>>(&self, names: &[S]) {
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            let all = self.subscriptions();
            let ready = |name: &str| {
                let mut found = all.iter().filter(|(known, _)| known == name);
                found.any(|(_, condition)| condition["status"] == "True")
            };
            let left: Vec<_> = names
                .iter()
                .map(AsRef::as_ref)
                .filter(|name| !ready(name))
                .collect();
            if left.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "never Ready: {left:?}; there are {all:#?}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The value of a metric: the sum of the samples whose labels include `labels`, 0 without any.
    pub(crate) fn metric(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(family, labels).iter().sum()
    }

    /// The values of a family's samples whose labels include `labels`.
    pub(crate) fn samples(&self, family: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let text = self.get("/metrics").text();
        let matches = |line: &&str| {
            let rest = line.strip_prefix(family);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels
                    .iter()
                    .all(|(name, value)| line.contains(&format!("{name}=\"{value}\"")))
        };
        let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        text.lines().filter(matches).map(value).collect()
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        wait_for_exit(&mut self.child, &self.output)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if thread::panicking() {
            eprintln!("--- levada wrote, at the end:\n{}", tail(&self.output));
        }
    }
}

/// The bytes of a POST of `event`.
pub(crate) fn post_bytes(host: &str, event: &Event, more: &[(String, String)]) -> Vec<u8> {
    let (mut headers, body) = event.to_http();
    headers.extend_from_slice(more);
    http::request("POST", "/", host, &headers, &body)
}

/// Waits for a process to end by itself.
pub(crate) fn wait_for_exit(child: &mut Child, output: &Path) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().ok();
            panic!("levada does not end:\n{}", tail(output));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks again and again, for what can only be asked and tells nobody when it changes.
pub(crate) fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sets a flag when dropped: threads that obey it end also when the test fails.
pub(crate) struct SetAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The manifest of a channel in this world's namespace.
pub(crate) fn channel(name: &str, partitions: u32) -> String {
    format!(
        "apiVersion: messaging.knative.dev/v1beta1\nkind: KafkaChannel\n\
         metadata: {{name: {name}, namespace: NAMESPACE}}\n\
         spec: {{numPartitions: {partitions}, replicationFactor: 1}}\n---\n"
    )
}

/// The manifest of a subscription; `delivery` is the YAML of `spec.delivery`, in braces.
pub(crate) fn subscription(name: &str, channel: &str, url: &str, delivery: &str) -> String {
    format!(
        "apiVersion: levada.dev/v1\nkind: Subscription\n\
         metadata: {{name: {name}, namespace: NAMESPACE}}\n\
         spec:\n  \
         channel: {{apiVersion: messaging.knative.dev/v1beta1, kind: KafkaChannel, name: {channel}}}\n  \
         subscriber: {{uri: \"{url}\"}}\n  \
         delivery: {delivery}\n---\n"
    )
}
