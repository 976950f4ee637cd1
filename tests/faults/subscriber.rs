//! The subscriber: HTTP/1.1 for all three subscriptions, answers by script, notes in the ledger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::ledger::{Ledger, LifeId, Outcome};
use crate::producers::body;
use crate::script::{Answer, Ordering, Script};

/// See the module; it ends with the runtime.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    pub(crate) address: SocketAddr,
    /// Counts the cuts: a connection made before the last one is to end.
    cuts: Arc<AtomicU64>,
}

impl Subscriber {
    pub(crate) async fn start(script: Script, ledger: Arc<Ledger>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let subscriber = Self {
            address: listener.local_addr().unwrap(),
            cuts: Arc::default(),
        };
        let cuts = Arc::clone(&subscriber.cuts);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = Connection {
                    stream,
                    script,
                    ledger: Arc::clone(&ledger),
                    made_at: cuts.load(Atomic::Relaxed),
                    cuts: Arc::clone(&cuts),
                };
                tokio::spawn(connection.serve());
            }
        });
        subscriber
    }

    /// Cuts every connection: each at its next request, which is noted and not answered, so that
    /// the ledger knows of every attempt that failed by it.
    pub(crate) fn cut(&self) {
        self.cuts.fetch_add(1, Atomic::Relaxed);
    }
}

struct Connection {
    stream: TcpStream,
    script: Script,
    ledger: Arc<Ledger>,
    made_at: u64,
    cuts: Arc<AtomicU64>,
}

/// What of a request matters here.
struct Request {
    length: usize,
    ordering: Option<Ordering>,
    number: Option<u32>,
    life: Option<LifeId>,
    body: std::ops::Range<usize>,
}

impl Connection {
    async fn serve(mut self) {
        self.stream.set_nodelay(true).ok();
        let mut buffer = Vec::with_capacity(16 * 1024);
        while let Ok(1..) = self.stream.read_buf(&mut buffer).await {
            while let Some(request) = read(&buffer) {
                let intact = request
                    .number
                    .is_some_and(|number| buffer[request.body.clone()] == *body(number));
                buffer.drain(..request.length);
                if !self.answer(&request, intact).await {
                    return;
                }
            }
        }
    }

    /// Answers; whether the connection goes on.
    async fn answer(&mut self, request: &Request, intact: bool) -> bool {
        let (Some(ordering), Some(number), Some(life), true) =
            (request.ordering, request.number, request.life, intact)
        else {
            self.ledger.is_odd();
            return self.respond(200, None).await;
        };
        let Some((place, nth)) = self.ledger.arrived(ordering, number, life) else {
            self.ledger.is_odd();
            return self.respond(200, None).await;
        };
        let note = |outcome| self.ledger.answered(ordering, place, outcome);
        if self.made_at != self.cuts.load(Atomic::Relaxed) {
            note(Outcome::Failed);
            return self.reset();
        }
        match self.script.answer(ordering, number, nth) {
            Answer::Take(after) => {
                if !after.is_zero() {
                    sleep(after).await;
                }
                note(Outcome::Taken);
                self.respond(200, None).await
            }
            Answer::Refuse(code, retry_after) => {
                note(Outcome::Failed);
                self.respond(code, retry_after).await
            }
            Answer::RefuseForGood => {
                note(Outcome::ForGood);
                self.respond(400, None).await
            }
            Answer::Reset => {
                note(Outcome::Failed);
                self.reset()
            }
            Answer::Close => {
                note(Outcome::Failed);
                false
            }
            Answer::Hang(time) => {
                sleep(time).await;
                note(Outcome::Failed);
                false
            }
        }
    }

    fn reset(&self) -> bool {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).ok();
        false
    }

    async fn respond(&mut self, code: u16, retry_after: Option<u8>) -> bool {
        let more = retry_after.map_or(String::new(), |s| format!("retry-after: {s}\r\n"));
        let head = format!("HTTP/1.1 {code} Scripted\r\n{more}content-length: 0\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await.is_ok()
    }
}

/// The request that begins here, once it is complete.
fn read(bytes: &[u8]) -> Option<Request> {
    let head = bytes.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let mut lines = text.split("\r\n");
    let path = lines.next()?.split(' ').nth(1)?;
    let mut request = Request {
        length: head,
        ordering: Ordering::named(path.trim_start_matches('/')),
        number: None,
        life: None,
        body: head..head,
    };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            request.length = head + value.parse::<usize>().ok()?;
        } else if name.eq_ignore_ascii_case("ce-id") {
            request.number = value.parse().ok();
        } else if name.eq_ignore_ascii_case("x-life") {
            request.life = value.parse().ok();
        }
    }
    request.body = head..request.length;
    (bytes.len() >= request.length).then_some(request)
}
