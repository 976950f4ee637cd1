//! The producers: they post numbered events at a pace, each until it gets its 202.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering as Atomic};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::script::Script;

/// Connections.
const PRODUCERS: usize = 48;
/// After an outage what is due is posted so many times faster than the pace.
const CATCH_UP: f64 = 2.5;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The wait after a refusal.
const PAUSE: Duration = Duration::from_millis(50);

/// The data of an event.
pub(crate) fn body(number: u32) -> Vec<u8> {
    format!("{{\"n\":{number},\"pad\":\"{number:0>200}\"}}").into_bytes()
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Producers {
    receiver: SocketAddr,
    script: Script,
    pub(crate) events: u32,
    rate: f64,
    next: AtomicU32,
    /// When the event before was due to be posted.
    pace: Mutex<Instant>,
    accepted: Vec<AtomicBool>,
    count: AtomicU32,
    /// Answers other than 202, and connections that failed.
    pub(crate) refused: AtomicU32,
    stop: AtomicBool,
}

impl Producers {
    pub(crate) fn new(receiver: SocketAddr, script: Script, events: u32, rate: u32) -> Arc<Self> {
        Arc::new(Self {
            receiver,
            script,
            events,
            rate: f64::from(rate),
            next: AtomicU32::new(0),
            pace: Mutex::new(Instant::now()),
            accepted: (0..events).map(|_| AtomicBool::new(false)).collect(),
            count: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            stop: AtomicBool::new(false),
        })
    }

    /// Posts everything.
    pub(crate) async fn run(self: Arc<Self>) {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..PRODUCERS {
            let this = Arc::clone(&self);
            tasks.spawn(async move { this.produce(began).await });
        }
        tasks.join_all().await;
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Atomic::Relaxed);
    }

    /// How many events got a 202.
    pub(crate) fn accepted(&self) -> u32 {
        self.count.load(Atomic::Relaxed)
    }

    pub(crate) fn is_accepted(&self, number: u32) -> bool {
        self.accepted[number as usize].load(Atomic::Relaxed)
    }

    async fn produce(&self, began: Instant) {
        let mut connection = None;
        loop {
            let number = self.next.fetch_add(1, Atomic::Relaxed);
            if number >= self.events {
                return;
            }
            sleep_until(self.due(began, number)).await;
            let request = request(self.script, number, &number.to_string());
            loop {
                if self.stop.load(Atomic::Relaxed) {
                    return;
                }
                match timeout(PATIENCE, self.post(&mut connection, &request)).await {
                    Ok(Ok(202)) => break,
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => connection = None,
                }
                self.refused.fetch_add(1, Atomic::Relaxed);
                sleep(PAUSE).await;
            }
            self.accepted[number as usize].store(true, Atomic::Relaxed);
            self.count.fetch_add(1, Atomic::Relaxed);
        }
    }

    /// When an event is to be posted: at the pace, or a little faster behind an outage.
    fn due(&self, began: Instant, number: u32) -> Instant {
        let planned = began + Duration::from_secs_f64(f64::from(number) / self.rate);
        let gap = Duration::from_secs_f64(1.0 / (self.rate * CATCH_UP));
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let soon = Instant::now() - Duration::from_millis(10);
        *pace = planned.max((*pace + gap).max(soon));
        *pace
    }

    async fn post(&self, kept: &mut Option<TcpStream>, request: &[u8]) -> io::Result<u16> {
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let connection = TcpStream::connect(self.receiver).await?;
                connection.set_nodelay(true)?;
                kept.insert(connection)
            }
        };
        connection.write_all(request).await?;
        let mut answer = Vec::with_capacity(1024);
        loop {
            if connection.read_buf(&mut answer).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if let Some((code, length)) = head(&answer)
                && answer.len() >= length
            {
                return Ok(code);
            }
        }
    }

    /// Requests that are cut off amid their body: nothing of them may be stored.
    pub(crate) async fn cut_off(&self) {
        for number in 0..20 {
            let bytes = request(self.script, number, "cut");
            if let Ok(mut connection) = TcpStream::connect(self.receiver).await {
                connection.write_all(&bytes[..bytes.len() - 60]).await.ok();
            }
        }
    }
}

/// Code and length of the answer that begins here, once its head is complete.
fn head(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let code = text.split(' ').nth(1)?.parse().ok()?;
    let mut lines = text.split("\r\n").filter_map(|line| line.split_once(':'));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(Some(0), |(_, value)| value.trim().parse().ok())?;
    Some((code, end + length))
}

fn request(script: Script, number: u32, id: &str) -> Vec<u8> {
    let body = body(number);
    let key = script
        .key(number)
        .map_or(String::new(), |key| format!("ce-partitionkey: k{key}\r\n"));
    let mut bytes = format!(
        "POST /{}/{} HTTP/1.1\r\nhost: localhost\r\nce-specversion: 1.0\r\nce-id: {id}\r\n\
         ce-type: faults\r\nce-source: /faults\r\n{key}content-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        super::nodes::NAMESPACE,
        super::nodes::CHANNEL,
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}
