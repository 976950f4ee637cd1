//! A subscriber that costs little: answers 200 to everything and counts.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::common::request;

/// When the first and the last of the events that were expected came.
type Drained = (Instant, Instant);

struct Expected {
    left: u64,
    first: Option<Instant>,
    done: Sender<Drained>,
}

/// The subscriber, on a thread of its own.
pub(crate) struct Sink {
    address: SocketAddr,
    expected: Arc<Mutex<Option<Expected>>>,
}

impl Sink {
    pub(crate) fn start() -> Self {
        let expected = Arc::new(Mutex::new(None));
        let shared = expected.clone();
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
                    let address = listener.local_addr().expect("it is bound");
                    bound.send(address).expect("the bench waits");
                    loop {
                        let (stream, _) = listener.accept().await.expect("connections come");
                        tokio::spawn(serve(stream, shared.clone()));
                    }
                });
        });
        let address = address.recv().expect("the sink starts");
        Self { address, expected }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Counts anew; the receiver hears of the last of so many events.
    pub(crate) fn expect(&self, events: u64) -> Receiver<Drained> {
        let (done, drained) = channel();
        let expected = Expected {
            left: events,
            first: None,
            done,
        };
        *self.expected.lock().expect("no one panics with it") = Some(expected);
        drained
    }
}

fn count(expected: &Mutex<Option<Expected>>) {
    let mut expected = expected.lock().expect("no one panics with it");
    let Some(waiting) = expected.as_mut() else {
        return;
    };
    let first = *waiting.first.get_or_insert_with(Instant::now);
    waiting.left -= 1;
    if waiting.left == 0 {
        waiting.done.send((first, Instant::now())).ok();
        *expected = None;
    }
}

async fn serve(mut stream: TcpStream, expected: Arc<Mutex<Option<Expected>>>) {
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
        while let Some((_, length)) = request(&buffer) {
            if buffer.len() < length {
                break;
            }
            buffer.drain(..length);
            count(&expected);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }
}
