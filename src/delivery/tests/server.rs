//! A server on a real socket and threads of its own that answers each request by script.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tokio::sync::Notify;

/// What is done with one request.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Send this and read on.
    Answer(Box<str>),
    /// Send this and close at once.
    ThenClose(Box<str>),
    /// Send this, then a body without end, until the peer goes away.
    Endless(Box<str>),
    /// Send this, then a byte every 100 ms, until the peer goes away.
    Trickle(Box<str>),
    /// Close in order.
    Close,
    /// RST.
    Reset,
    /// Say nothing until the peer goes away.
    Hang,
}

pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    closed: Mutex<mpsc::Receiver<usize>>,
}

struct Shared {
    script: Mutex<VecDeque<Step>>,
    tls: Option<Arc<ServerConfig>>,
    connections: AtomicUsize,
    requests: AtomicUsize,
    requested: Notify,
    /// Told how many bytes were sent when a connection is closed.
    closed: mpsc::Sender<usize>,
}

impl Server {
    pub(super) fn start(script: impl IntoIterator<Item = Step>) -> Self {
        Self::listen(None, script)
    }

    pub(super) fn start_tls(
        tls: Arc<ServerConfig>,
        script: impl IntoIterator<Item = Step>,
    ) -> Self {
        Self::listen(Some(tls), script)
    }

    fn listen(tls: Option<Arc<ServerConfig>>, script: impl IntoIterator<Item = Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, closed) = mpsc::channel();
        let shared = Arc::new(Shared {
            script: Mutex::new(script.into_iter().collect()),
            tls,
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            requested: Notify::new(),
            closed: sender,
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = accepting.clone();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || shared.serve(&stream));
            }
        });
        Self {
            address,
            shared,
            closed: Mutex::new(closed),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/path?query", self.address)
    }

    pub(super) fn https_url(&self) -> String {
        format!("https://localhost:{}/", self.address.port())
    }

    pub(super) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    pub(super) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Resolves when a request has come.
    pub(super) async fn requested(&self) {
        self.shared.requested.notified().await;
    }

    /// Waits, blocking the thread, until a connection is closed; gives the bytes that were sent.
    pub(super) fn block_until_closed(&self) -> usize {
        let closed = self.closed.lock().unwrap();
        closed
            .recv_timeout(Duration::from_secs(20))
            .expect("the connection stays open")
    }

    /// The same, letting the client's runtime work.
    pub(super) async fn ended_after(&self) -> usize {
        for _ in 0..2000 {
            if let Ok(sent) = self.closed.lock().unwrap().try_recv() {
                return sent;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the connection stays open");
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) {
        let mut sent = 0;
        match &self.tls {
            None => self.converse(&mut &*stream, stream, &mut sent),
            Some(config) => {
                let connection = ServerConnection::new(config.clone()).unwrap();
                let mut secure = StreamOwned::new(connection, stream);
                self.converse(&mut secure, stream, &mut sent);
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Both);
        let _ = self.closed.send(sent);
    }

    fn converse(&self, stream: &mut (impl Read + Write), socket: &TcpStream, sent: &mut usize) {
        while read_request(stream).is_ok() {
            self.requests.fetch_add(1, Ordering::SeqCst);
            self.requested.notify_one();
            let step = self.script.lock().unwrap().pop_front();
            if !play(step.unwrap_or(Step::Close), stream, socket, sent) {
                return;
            }
        }
    }
}

/// Does one step; false when the connection is to be closed.
fn play(
    step: Step,
    stream: &mut (impl Read + Write),
    socket: &TcpStream,
    sent: &mut usize,
) -> bool {
    let mut send = |bytes: &[u8]| match stream.write_all(bytes) {
        Ok(()) => {
            *sent += bytes.len();
            true
        }
        Err(_) => false,
    };
    match step {
        Step::Answer(text) => send(text.as_bytes()),
        Step::ThenClose(text) => {
            send(text.as_bytes());
            false
        }
        Step::Endless(head) => {
            let mut chunk = format!("{:x}\r\n", 64 * 1024).into_bytes();
            chunk.resize(chunk.len() + 64 * 1024, b'x');
            chunk.extend_from_slice(b"\r\n");
            send(head.as_bytes());
            while send(&chunk) {}
            false
        }
        Step::Trickle(head) => {
            send(head.as_bytes());
            while send(b"H") {
                thread::sleep(Duration::from_millis(100));
            }
            false
        }
        Step::Close => false,
        Step::Reset => {
            let linger = Some(Duration::ZERO);
            socket2::SockRef::from(socket).set_linger(linger).unwrap();
            false
        }
        Step::Hang => {
            while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
            false
        }
    }
}

/// Reads one request with a `content-length` body, or fails at the end of the connection.
fn read_request(stream: &mut impl Read) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        // A TLS hello on a plain port: whatever the script says is the answer to it.
        if head == [0x16] {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    stream.read_exact(&mut vec![0; length])
}
