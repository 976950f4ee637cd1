//! A closed loop of producers on one thread: each sends its next event when the last is answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::common;

/// What a run of the producers showed.
pub(crate) struct Load {
    /// How long each answer took, in microseconds, sorted.
    pub(crate) micros: Vec<u32>,
    pub(crate) time: Duration,
}

impl Load {
    /// In milliseconds.
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in the list"
        )]
        let place = (self.micros.len() as f64 * part) as usize;
        self.micros
            .get(place)
            .map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    }
}

/// A request with room for its id.
struct Request {
    bytes: Vec<u8>,
    id: usize,
}

const ID_DIGITS: usize = 16;

impl Request {
    fn new(host: &str, producer: usize) -> Self {
        let body = common::payload();
        let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\nce-specversion: 1.0\r\nce-id: ");
        let rest = format!(
            "-{producer}\r\nce-source: /bench\r\nce-type: levada.bench\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let id = head.len();
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&[b'0'; ID_DIGITS]);
        bytes.extend_from_slice(rest.as_bytes());
        bytes.extend_from_slice(&body);
        Self { bytes, id }
    }

    /// Counts the id's digits up by one.
    fn next(&mut self) -> &[u8] {
        for digit in self.bytes[self.id..self.id + ID_DIGITS].iter_mut().rev() {
            *digit += 1;
            if *digit <= b'9' {
                break;
            }
            *digit = b'0';
        }
        &self.bytes
    }
}

/// `Some` when one event is accepted.
pub(crate) fn probe(address: SocketAddr, host: &str) -> Option<()> {
    let answered = runtime().block_on(async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(Request::new(host, 0).next()).await.ok()?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.ok()?;
        Some(answer)
    });
    answered
        .filter(|answer| answer.ends_with(b"202"))
        .map(|_| ())
}

/// Sends events on so many connections for so long. Every answer must be 202.
pub(crate) fn run(address: SocketAddr, host: &str, connections: usize, time: Duration) -> Load {
    runtime().block_on(async {
        let started = Instant::now();
        let end = started + time;
        let producers = (0..connections).map(|number| produce(address, host, number, end));
        let mut micros = join_all(producers).await.concat();
        let time = started.elapsed();
        micros.sort_unstable();
        Load { micros, time }
    })
}

fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime can be built")
}

async fn produce(address: SocketAddr, host: &str, number: usize, end: Instant) -> Vec<u32> {
    let mut request = Request::new(host, number);
    let mut stream = TcpStream::connect(address)
        .await
        .expect("the program listens");
    stream
        .set_nodelay(true)
        .expect("a socket takes this option");
    let mut micros = Vec::with_capacity(64 * 1024);
    let mut answer = Vec::with_capacity(1024);
    loop {
        let sent = Instant::now();
        if sent >= end {
            return micros;
        }
        stream
            .write_all(request.next())
            .await
            .expect("the program reads");
        answer.clear();
        while !answer.ends_with(b"\r\n\r\n") {
            let count = stream
                .read_buf(&mut answer)
                .await
                .expect("the program answers");
            assert!(count > 0, "the program closed the connection");
        }
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 202"), "{text}");
        micros.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
}
