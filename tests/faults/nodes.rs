//! Processes of `levada serve`: started, killed, drained, frozen.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::ledger::{Kind, Ledger, LifeId};
use crate::script::ORDERINGS;

pub(crate) const NAMESPACE: &str = "faults";
pub(crate) const CHANNEL: &str = "orders";
/// The variable that tells a process which one it is; it is sent with every attempt.
pub(crate) const LIFE: &str = "FAULTS_LIFE";
/// How long anything but a delay under test may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the nodes of a run have in common.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) directory: PathBuf,
    /// None: the embedded log.
    pub(crate) servers: Option<String>,
    pub(crate) ledger: Arc<Ledger>,
}

impl World {
    /// Writes the manifests.
    pub(crate) fn declare(&self, subscriber: SocketAddr, partitions: u32) {
        let mut text = format!(
            "apiVersion: messaging.knative.dev/v1beta1\nkind: KafkaChannel\n\
             metadata: {{name: {CHANNEL}, namespace: {NAMESPACE}}}\n\
             spec: {{numPartitions: {partitions}, replicationFactor: 1}}\n"
        );
        for ordering in ORDERINGS {
            let (name, delivery) = (ordering.name(), ordering.delivery());
            text.push_str(&format!(
                "---\napiVersion: levada.dev/v1\nkind: Subscription\n\
                 metadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec:\n  \
                 channel: {{apiVersion: messaging.knative.dev/v1beta1, kind: KafkaChannel, name: {CHANNEL}}}\n  \
                 subscriber: {{uri: \"http://{subscriber}/{name}\"}}\n  delivery: {delivery}\n"
            ));
        }
        fs::create_dir(self.directory.join("manifests")).unwrap();
        fs::write(self.directory.join("manifests/all.yaml"), text).unwrap();
    }

    /// A node that does not run yet.
    pub(crate) fn node(self: &Arc<Self>, name: &'static str, arguments: &[&str]) -> Node {
        Node {
            world: Arc::clone(self),
            name,
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            running: None,
        }
    }
}

/// A free port out of the range of outgoing connections, so that it stays free.
pub(crate) fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = std::iter::repeat_with(|| rand::random_range(20_000..32_000));
    ports.find(free).unwrap()
}

/// One of the nodes; killed when dropped.
#[derive(Debug)]
pub(crate) struct Node {
    world: Arc<World>,
    pub(crate) name: &'static str,
    arguments: Vec<String>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    life: LifeId,
    admin: SocketAddr,
}

impl Node {
    fn directory(&self) -> PathBuf {
        self.world.directory.join(self.name)
    }

    fn output(&self) -> PathBuf {
        self.world.directory.join(format!("{}.log", self.name))
    }

    fn spawn(&self, life: LifeId) -> Child {
        let output = File::options()
            .create(true)
            .append(true)
            .open(self.output());
        let output = output.unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
        command.arg("serve").args(&self.arguments);
        command.args(["--admin-listen", "127.0.0.1:0", "--append-timeout", "PT3S"]);
        command.arg("--data-dir").arg(self.directory());
        command
            .arg("--manifests")
            .arg(self.world.directory.join("manifests"));
        if let Some(servers) = &self.world.servers {
            command.args(["--bootstrap-servers", servers]);
            command.args(["--kafka-properties", "session.timeout.ms=6000"]);
            command.args(["--kafka-properties", "heartbeat.interval.ms=500"]);
        }
        command.env(LIFE, life.to_string()).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        command.spawn().unwrap()
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start(&mut self) {
        assert!(self.running.is_none(), "{} runs", self.name);
        let addresses = self.directory().join("addresses.json");
        fs::remove_file(&addresses).ok();
        let life = self.world.ledger.life(self.name);
        let mut child = self.spawn(life);
        let deadline = Instant::now() + PATIENCE;
        let admin = loop {
            if let Ok(text) = fs::read(&addresses) {
                let json: Value = serde_json::from_slice(&text).unwrap();
                break json["admin"].as_str().unwrap().parse().unwrap();
            }
            let ended = child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                child.kill().ok();
                panic!("{} does not start:\n{}", self.name, tail(&self.output()));
            }
            sleep(Duration::from_millis(5)).await;
        };
        self.running = Some(Running { child, life, admin });
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        running.child.kill().unwrap();
        // From now on it can do nothing more.
        let at = self.world.ledger.now();
        running.child.wait().unwrap();
        let what = format!("kill -9 {}", self.name);
        self.world.ledger.fault(Kind::Kill(running.life), what, at);
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn drain(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        let from = self.world.ledger.now();
        signal("-TERM", running.child.id());
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = running.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                running.child.kill().ok();
                panic!("{} does not end:\n{}", self.name, tail(&self.output()));
            }
            sleep(Duration::from_millis(5)).await;
        };
        let said = tail(&self.output());
        assert!(
            status.success(),
            "{} ended with {status}:\n{said}",
            self.name
        );
        let what = format!("SIGTERM {}", self.name);
        self.world
            .ledger
            .fault(Kind::Drain(running.life), what, from);
    }

    /// SIGSTOP for so long.
    pub(crate) async fn freeze(&self, time: Duration) {
        let Some(running) = &self.running else { return };
        let from = self.world.ledger.now();
        signal("-STOP", running.child.id());
        sleep(time).await;
        signal("-CONT", running.child.id());
        let what = format!("SIGSTOP {}", self.name);
        self.world
            .ledger
            .fault(Kind::Freeze(running.life), what, from);
    }

    /// Waits until it is ready and, where it dispatches, so is every subscription.
    pub(crate) async fn ready(&self, subscriptions: bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready(subscriptions).await {
            let said = || tail(&self.output());
            assert!(
                Instant::now() < deadline,
                "{} is never ready:\n{}",
                self.name,
                said()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn is_ready(&self, subscriptions: bool) -> bool {
        let answer = self.get("/readyz").await;
        if !matches!(answer.as_deref().map(split), Some(("200", _))) {
            return false;
        }
        if !subscriptions {
            return true;
        }
        let answer = self.get("/v1/subscriptions").await;
        let Some(("200", body)) = answer.as_deref().map(split) else {
            return false;
        };
        let list: Value = serde_json::from_str(body).unwrap_or_default();
        let ready = |item: &&Value| {
            let conditions = item["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            conditions.any(|it| it["type"] == "Ready" && it["status"] == "True")
        };
        let items = list["items"].as_array();
        items.is_some_and(|items| items.iter().filter(ready).count() == ORDERINGS.len())
    }

    /// The sum of a metric's samples.
    pub(crate) async fn metric(&self, family: &str) -> f64 {
        let text = self.get("/metrics").await.unwrap_or_default();
        let samples = text.lines().filter(|line| {
            let rest = line.strip_prefix(family);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        samples.filter_map(value).sum()
    }

    /// The whole answer to a GET on the admin port.
    async fn get(&self, path: &str) -> Option<String> {
        let admin = self.running.as_ref()?.admin;
        let ask = async {
            let mut stream = TcpStream::connect(admin).await.ok()?;
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            Some(answer)
        };
        timeout(Duration::from_secs(5), ask).await.ok()?
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            running.child.kill().ok();
            running.child.wait().ok();
        }
    }
}

/// Code and body of an answer.
fn split(answer: &str) -> (&str, &str) {
    let code = answer.split(' ').nth(1).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (code, body)
}

pub(crate) fn signal(signal: &str, process: u32) {
    let status = Command::new("kill")
        .args([signal, &process.to_string()])
        .status();
    assert!(status.unwrap().success(), "kill {signal} {process}");
}

/// The end of what a process wrote.
fn tail(output: &Path) -> String {
    let text = fs::read_to_string(output).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
