//! A subscriber that answers the first attempt with 503 and the wait that the event asks for, the
//! second with 200, and notes how late the second was.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::common::request;

/// How late a retry was.
pub(crate) struct Late {
    pub(crate) millis: f64,
    /// max(100 ms, 2 % of the wait).
    pub(crate) allowed: f64,
    /// Whether it is of the events that were sent beside those that are parked.
    pub(crate) probe: bool,
}

#[derive(Default)]
struct State {
    /// When the first attempt was answered, of events that come again soon.
    first: HashMap<String, Instant>,
    late: Vec<Late>,
}

/// The subscriber, on a thread of its own.
pub(crate) struct Sink {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Sink {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let (bound, address) = channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .expect("a runtime can be built")
                .block_on(async move {
                    let listener = TcpListener::bind("127.0.0.1:0")
                        .await
                        .expect("a port is free");
                    bound
                        .send(listener.local_addr().expect("it is bound"))
                        .expect("the bench waits");
                    loop {
                        let (stream, _) = listener.accept().await.expect("connections come");
                        tokio::spawn(serve(stream, shared.clone()));
                    }
                });
        });
        let address = address.recv().expect("the sink starts");
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// How late the retries since the last call were.
    pub(crate) fn take(&self) -> Vec<Late> {
        std::mem::take(&mut self.state.lock().expect("no one panics with it").late)
    }
}

/// The answer to an attempt.
fn answer(state: &Mutex<State>, head: &str) -> String {
    let header = |name: &str| {
        let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
        let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim()).unwrap_or_default()
    };
    let (id, wait) = (header("ce-id"), header("ce-wait"));
    let seconds: f64 = wait.parse().unwrap_or(0.0);
    let now = Instant::now();
    let mut state = state.lock().expect("no one panics with it");
    if let Some(first) = state.first.remove(id) {
        let millis = (now - first).as_secs_f64() * 1000.0 - seconds * 1000.0;
        state.late.push(Late {
            millis,
            allowed: (seconds * 20.0).max(100.0),
            probe: !id.starts_with('p'),
        });
        return "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned();
    }
    if seconds < 600.0 {
        state.first.insert(id.to_owned(), now);
    }
    format!("HTTP/1.1 503 Service Unavailable\r\nretry-after: {wait}\r\ncontent-length: 0\r\n\r\n")
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    stream
        .set_nodelay(true)
        .expect("a socket takes this option");
    let mut buffer = Vec::with_capacity(64 * 1024);
    // An error or an end is the program under test going away.
    while stream
        .read_buf(&mut buffer)
        .await
        .is_ok_and(|count| count > 0)
    {
        while let Some((head, length)) = request(&buffer) {
            if buffer.len() < length {
                break;
            }
            let answer = answer(&state, head);
            buffer.drain(..length);
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
