//! A Kafka node of the run's own, behind a proxy whose connections can be cut.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::sleep;

use crate::ledger::{Kind, Ledger};
use crate::log;
use crate::nodes::{free_port, signal};

/// See the module; killed when dropped.
#[derive(Debug)]
pub(crate) struct Kafka {
    directory: PathBuf,
    port: u16,
    proxy: Mutex<Option<Proxy>>,
    proxy_port: u16,
    ledger: Arc<Ledger>,
}

impl Kafka {
    /// Starts a node with its data in `directory`.
    pub(crate) async fn start(directory: &Path, ledger: Arc<Ledger>) -> Arc<Self> {
        let kafka = Arc::new(Self {
            // The name by which `tests/run` finds what an interrupted test left behind.
            directory: directory.join("node"),
            port: free_port(),
            proxy: Mutex::default(),
            proxy_port: free_port(),
            ledger,
        });
        kafka.run("start").await;
        kafka.open().await;
        kafka
    }

    /// Where its clients find it.
    pub(crate) fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.proxy_port)
    }

    async fn open(&self) {
        let (from, to) = ([127, 0, 0, 1], self.port);
        let proxy = Proxy::open((from, self.proxy_port).into(), (from, to).into()).await;
        *self.proxy() = Some(proxy);
    }

    fn proxy(&self) -> std::sync::MutexGuard<'_, Option<Proxy>> {
        self.proxy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `kill -9`, and a start on the same data.
    pub(crate) async fn kill_and_start(self: &Arc<Self>, pause: Duration) {
        let from = self.ledger.now();
        self.run("kill").await;
        // Who connects now is refused, as by a port without a process.
        drop(self.proxy().take());
        sleep(pause).await;
        self.run("start").await;
        self.open().await;
        log::wait_for_commits(&self.servers()).await;
        self.ledger.fault(Kind::Log, "kill -9 kafka", from);
    }

    /// SIGSTOP for so long.
    pub(crate) async fn freeze(&self, time: Duration) {
        let process = fs::read_to_string(self.directory.join("pid")).unwrap();
        let process = process.trim().parse().unwrap();
        let from = self.ledger.now();
        signal("-STOP", process);
        sleep(time).await;
        signal("-CONT", process);
        self.ledger.fault(Kind::Log, "SIGSTOP kafka", from);
    }

    /// Ends every connection to it.
    pub(crate) fn cut(&self) {
        let from = self.ledger.now();
        if let Some(proxy) = &*self.proxy() {
            proxy.cut();
        }
        self.ledger
            .fault(Kind::Log, "connections to kafka cut", from);
    }

    async fn run(self: &Arc<Self>, command: &'static str) {
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || this.run_blocking(command));
        done.await.unwrap();
    }

    fn run_blocking(&self, command: &str) {
        let mut run = script();
        run.arg(command).arg(&self.directory);
        if command == "start" {
            run.arg(self.port.to_string());
        }
        run.env("KAFKA_ADVERTISED", self.servers());
        // It lives for seconds: what pays off after minutes is left out.
        run.env("KAFKA_JVM", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC");
        let output = run.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{run:?}: {said}");
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        script().arg("kill").arg(&self.directory).output().ok();
    }
}

fn script() -> Command {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/run"))
}

/// Passes bytes on, both ways; gone when dropped.
#[derive(Debug)]
struct Proxy {
    accepting: JoinHandle<()>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Proxy {
    async fn open(from: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(from).await.unwrap();
        let connections: Arc<Mutex<Vec<AbortHandle>>> = Arc::default();
        let all = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let task = tokio::spawn(pass(client, to)).abort_handle();
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.retain(|task| !task.is_finished());
                all.push(task);
            }
        });
        Self {
            accepting,
            connections,
        }
    }

    fn cut(&self) {
        let mut all = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.drain(..).for_each(|task| task.abort());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn pass(mut client: TcpStream, to: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(to).await else {
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    copy_bidirectional(&mut client, &mut server).await.ok();
}
