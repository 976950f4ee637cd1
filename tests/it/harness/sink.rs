//! A subscriber with a script: what it answers is decided request by request.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::event::Event;
use super::http::{Connection, From, Message};

/// What a request is answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Time between the request's end and the answer.
    pub(crate) delay: Duration,
    /// Whether 103 Early Hints comes first.
    pub(crate) early_hints: bool,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// What happens in place of an orderly answer.
    pub(crate) fault: Option<Fault>,
}

/// How an answer goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// RST.
    Reset,
    /// FIN without an answer.
    Close,
    /// Bytes that are not HTTP.
    Garbage,
    /// Fewer bytes than `content-length` says, then FIN.
    Partial,
    /// Nothing for so long, then FIN.
    Hang(Duration),
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            delay: Duration::ZERO,
            early_hints: false,
            status,
            headers: Vec::new(),
            body: Vec::new(),
            fault: None,
        }
    }

    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub(crate) fn is_success(&self) -> bool {
        self.fault.is_none() && (200..300).contains(&self.status)
    }
}

/// A request that came, and what was decided.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) path: String,
    pub(crate) message: Message,
    pub(crate) event: Option<Event>,
    /// 1 for the first request with this path and event id.
    pub(crate) attempt: usize,
    /// Whether it was answered with 2xx.
    pub(crate) success: bool,
}

impl Seen {
    pub(crate) fn id(&self) -> &str {
        self.event.as_ref().map_or("", Event::id)
    }
}

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

struct Shared {
    script: Box<Script>,
    seen: Mutex<Vec<Arc<Seen>>>,
    counts: Mutex<HashMap<(String, String), usize>>,
    changed: Condvar,
    stopped: AtomicBool,
}

/// The subscriber; one thread a connection, gone when dropped.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    /// A sink that asks `script` for every answer.
    pub(crate) fn new(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: Mutex::default(),
            counts: Mutex::default(),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let shared = accepting.clone();
                // An error here is the broker's end of the connection going away.
                thread::spawn(move || serve(stream, &shared).ok());
            }
        });
        Self { address, shared }
    }

    /// A sink that takes everything.
    pub(crate) fn taking() -> Self {
        Self::new(|_| Answer::status(200))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Every request so far, in order of arrival.
    pub(crate) fn seen(&self) -> Vec<Arc<Seen>> {
        lock(&self.shared.seen).clone()
    }

    /// Waits until `done` holds of the requests so far.
    pub(crate) fn wait(&self, what: &str, limit: Duration, done: impl Fn(&[Arc<Seen>]) -> bool) {
        assert!(
            self.holds_within(limit, done),
            "not within {limit:?}: {what}\nseen:\n{}",
            self.summary()
        );
    }

    /// Whether `done` holds of the requests so far, or comes to hold within `limit`.
    pub(crate) fn holds_within(
        &self,
        limit: Duration,
        done: impl Fn(&[Arc<Seen>]) -> bool,
    ) -> bool {
        let seen = lock(&self.shared.seen);
        let waiting = self
            .shared
            .changed
            .wait_timeout_while(seen, limit, |seen| !done(seen));
        let (seen, outcome) = waiting.unwrap_or_else(PoisonError::into_inner);
        drop(seen);
        !outcome.timed_out()
    }

    /// Waits for so many requests.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Arc<Seen>> {
        let what = format!("{count} requests");
        self.wait(&what, Duration::from_secs(20), |seen| seen.len() >= count);
        self.seen()
    }

    /// Waits until every one of `ids` was taken.
    pub(crate) fn wait_for_ids<S: AsRef<str>>(&self, ids: &[S], limit: Duration) {
        // The count first: it is cheap, and every request that comes asks.
        let done = |seen: &[Arc<Seen>]| seen.len() >= ids.len() && missing(ids, seen).is_empty();
        if !self.holds_within(limit, done) {
            let missing = missing(ids, &self.seen());
            let first = &missing[..missing.len().min(10)];
            panic!("{} of {} never came: {first:?}", missing.len(), ids.len());
        }
    }

    /// Waits until nothing has come for `time`: the way to see that nothing more comes.
    pub(crate) fn wait_for_quiet(&self, time: Duration) {
        loop {
            let before = lock(&self.shared.seen).len();
            if !self.holds_within(time, |seen| seen.len() > before) {
                return;
            }
        }
    }

    fn summary(&self) -> String {
        let line = |seen: &Arc<Seen>| {
            let taken = if seen.success { "taken" } else { "refused" };
            format!(
                "  {} {:?} attempt {} {taken}\n",
                seen.path,
                seen.id(),
                seen.attempt
            )
        };
        let seen = self.seen();
        let last = &seen[seen.len().saturating_sub(40)..];
        format!("  {} requests, the last:\n", seen.len())
            + &last.iter().map(line).collect::<String>()
    }
}

fn missing<'a, S: AsRef<str>>(ids: &'a [S], seen: &[Arc<Seen>]) -> Vec<&'a str> {
    let taken: std::collections::HashSet<&str> = seen
        .iter()
        .filter(|seen| seen.success)
        .map(|seen| seen.id())
        .collect();
    let all = ids.iter().map(AsRef::as_ref);
    all.filter(|id| !taken.contains(id)).collect()
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then closes the listener.
        TcpStream::connect(self.address).ok();
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut connection = Connection::new(stream);
    while let Some(message) = connection.receive(From::Client)? {
        let close = message.header("connection") == Some("close");
        let answer = record(message, shared);
        thread::sleep(answer.delay);
        let stream = &mut connection.stream;
        match answer.fault {
            None => stream.write_all(&bytes(&answer, 0))?,
            Some(Fault::Partial) => return stream.write_all(&bytes(&answer, 100)),
            Some(Fault::Garbage) => return stream.write_all(b"\x16\x03\x01 not HTTP\r\n\r\n"),
            Some(Fault::Close) => return Ok(()),
            Some(Fault::Hang(time)) => {
                thread::sleep(time);
                return Ok(());
            }
            Some(Fault::Reset) => {
                let socket = tokio::net::TcpSocket::from_std_stream(connection.stream);
                return socket.set_zero_linger();
            }
        }
        if close {
            break;
        }
    }
    Ok(())
}

fn record(message: Message, shared: &Shared) -> Answer {
    let target = message.start.split(' ').nth(1).unwrap_or_default();
    let mut seen = Seen {
        at: Instant::now(),
        path: target.split('?').next().unwrap_or_default().to_owned(),
        event: Event::read(&message),
        message,
        attempt: 0,
        success: false,
    };
    seen.attempt = {
        let mut counts = lock(&shared.counts);
        let count = counts
            .entry((seen.path.clone(), seen.id().to_owned()))
            .or_default();
        *count += 1;
        *count
    };
    let answer = (shared.script)(&seen);
    seen.success = answer.is_success();
    lock(&shared.seen).push(Arc::new(seen));
    shared.changed.notify_all();
    answer
}

fn bytes(answer: &Answer, missing: usize) -> Vec<u8> {
    let mut head = String::new();
    if answer.early_hints {
        head.push_str("HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n");
    }
    head.push_str(&format!("HTTP/1.1 {} Scripted\r\n", answer.status));
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let bodiless = matches!(answer.status, 204 | 304);
    if !bodiless {
        head.push_str(&format!(
            "content-length: {}\r\n",
            answer.body.len() + missing
        ));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if !bodiless {
        bytes.extend_from_slice(&answer.body);
    }
    bytes
}
