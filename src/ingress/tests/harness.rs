//! A server to send to, a log to look into, and a client that sends bytes as they are.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::channel::ResourceName;
use crate::clock::UnixMillis;
use crate::event::Event;
use crate::ingress::{Ingress, Metrics, RouteTable, Settings};
use crate::log::{
    Appending, Commit, Commits, Creation, EventLog, GroupId, GroupSpec, LogError, LogFuture,
    Membership, Offset, Partition, Position, Record, StoredRecord, Target, TopicDescription,
    TopicName, TopicPartition, TopicSpec, Watermarks,
};
use crate::shutdown::Tasks;

/// No test waits longer for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

type Answer = oneshot::Sender<Result<Position, LogError>>;

/// What [`MemoryLog`] does with an append.
#[derive(Debug, Default)]
pub(super) enum Behaviour {
    #[default]
    Store,
    Fail(LogError),
    /// Keeps the answer until [`MemoryLog::release`].
    Hold(Vec<(TopicName, Record, Answer)>),
}

/// A log that only appends.
#[derive(Debug, Default)]
pub(super) struct MemoryLog {
    stored: Mutex<Vec<(TopicName, Record)>>,
    behaviour: Mutex<Behaviour>,
    held: Notify,
}

const POSITION: Position = Position {
    partition: Partition(0),
    offset: Offset(0),
};

impl MemoryLog {
    pub(super) fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    /// Waits until an append is held.
    pub(super) async fn holds_one(&self) {
        timeout(PATIENCE, self.held.notified()).await.unwrap();
    }

    /// Stores what is held, and what comes from now on.
    pub(super) fn release(&self) {
        let before = std::mem::take(&mut *self.behaviour.lock().unwrap());
        if let Behaviour::Hold(held) = before {
            for (topic, record, answer) in held {
                self.stored.lock().unwrap().push((topic, record));
                answer.send(Ok(POSITION)).unwrap();
            }
        }
    }

    pub(super) fn topics(&self) -> Vec<String> {
        let stored = self.stored.lock().unwrap();
        stored.iter().map(|(topic, _)| topic.to_string()).collect()
    }

    /// The events stored so far, read back from their records; they are forgotten.
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.stored.lock().unwrap())
            .into_iter()
            .map(|(_, record)| Event::from_record(record).unwrap())
            .collect()
    }
}

fn only_appends<T>() -> LogFuture<'static, T> {
    Box::pin(async { Err(LogError::Refused("this log only appends".into())) })
}

impl EventLog for MemoryLog {
    fn append(&self, topic: &TopicName, target: Target, record: Record) -> Appending {
        assert_eq!(target, Target::ByKey);
        match &mut *self.behaviour.lock().unwrap() {
            Behaviour::Fail(error) => Appending::failed(error.clone()),
            Behaviour::Store => {
                let (answer, receiver) = oneshot::channel();
                self.stored.lock().unwrap().push((topic.clone(), record));
                answer.send(Ok(POSITION)).unwrap();
                Appending::waiting(receiver)
            }
            Behaviour::Hold(held) => {
                let (answer, receiver) = oneshot::channel();
                held.push((topic.clone(), record, answer));
                self.held.notify_one();
                Appending::waiting(receiver)
            }
        }
    }

    fn create_topic<'a>(&'a self, _: &'a TopicSpec) -> LogFuture<'a, Creation> {
        only_appends()
    }

    fn delete_topic<'a>(&'a self, _: &'a TopicName) -> LogFuture<'a, ()> {
        only_appends()
    }

    fn describe_topic<'a>(&'a self, _: &'a TopicName) -> LogFuture<'a, Option<TopicDescription>> {
        only_appends()
    }

    fn watermarks<'a>(&'a self, _: &'a TopicName) -> LogFuture<'a, Vec<Watermarks>> {
        only_appends()
    }

    fn offsets_at<'a>(&'a self, _: &'a TopicName, _: UnixMillis) -> LogFuture<'a, Vec<Offset>> {
        only_appends()
    }

    fn read<'a>(
        &'a self,
        _: &'a TopicPartition,
        _: Offset,
        _: usize,
    ) -> LogFuture<'a, Vec<StoredRecord>> {
        only_appends()
    }

    fn trim<'a>(&'a self, _: &'a TopicName, _: &'a [(Partition, Offset)]) -> LogFuture<'a, ()> {
        only_appends()
    }

    fn committed<'a>(
        &'a self,
        _: &'a GroupId,
        _: &'a [TopicPartition],
    ) -> LogFuture<'a, Vec<Option<Commit>>> {
        only_appends()
    }

    fn commit_idle<'a>(&'a self, _: &'a GroupId, _: Commits) -> LogFuture<'a, ()> {
        only_appends()
    }

    fn delete_group<'a>(&'a self, _: &'a GroupId) -> LogFuture<'a, ()> {
        only_appends()
    }

    fn join(&self, _: &GroupSpec) -> Result<Box<dyn Membership>, LogError> {
        Err(LogError::Refused("this log only appends".into()))
    }

    fn probe(&self) -> LogFuture<'_, ()> {
        only_appends()
    }

    fn close(&self, _: Duration) -> LogFuture<'_, ()> {
        only_appends()
    }
}

/// An ingress on a free port with the channel `prod/orders`.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) log: Arc<MemoryLog>,
    pub(super) routes: Arc<ArcSwap<RouteTable>>,
    pub(super) registry: Registry,
    pub(super) tasks: Tasks,
}

/// A table with one channel of namespace `prod`.
pub(super) fn routes_to(channel: &str) -> RouteTable {
    let name = ResourceName::try_new("prod", channel).unwrap();
    let topic = TopicName::try_new(&format!("topic.prod.{channel}")).unwrap();
    [(name, topic)].into_iter().collect()
}

impl Server {
    pub(super) async fn start(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            log: Arc::default(),
            routes: Arc::new(ArcSwap::from_pointee(routes_to("orders"))),
            registry: Registry::new(),
            tasks: Tasks::new(),
        };
        let metrics = Metrics::register(&server.registry).unwrap();
        let log: Arc<dyn EventLog> = server.log.clone();
        let ingress = Ingress::new(log, Arc::clone(&server.routes), settings, metrics);
        Arc::new(ingress).serve(listener, &server.tasks);
        server
    }

    pub(super) async fn connect(&self) -> Client {
        Client {
            stream: TcpStream::connect(self.address).await.unwrap(),
            unread: Vec::new(),
        }
    }

    /// Sends one request on a connection of its own and returns its answer.
    pub(super) async fn ask(&self, request: &str) -> Reply {
        let mut client = self.connect().await;
        client.send(request.as_bytes()).await;
        client.reply(false).await.expect("an answer")
    }

    /// The value of a counter in the exposition format, 0 when it is not there.
    pub(super) fn count(&self, sample: &str) -> u64 {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
            .unwrap_or(0)
    }
}

/// An answer as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn problem(&self) -> serde_json::Value {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A connection to the server.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends what the server takes of `bytes` while an answer is read.
    pub(super) async fn exchange(
        &mut self,
        bytes: &[u8],
        half_close: bool,
        head: bool,
    ) -> Option<Reply> {
        let Self { stream, unread } = self;
        let (mut reader, mut writer) = stream.split();
        let write = async {
            // The server may close before it has read everything.
            if writer.write_all(bytes).await.is_ok() && half_close {
                writer.shutdown().await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let read = timeout(PATIENCE, read_reply(&mut reader, unread, head));
        tokio::select! {
            reply = read => reply.expect("an answer in time"),
            () = write => None,
        }
    }

    /// The next answer; `None`: the connection was closed before it.
    pub(super) async fn reply(&mut self, head: bool) -> Option<Reply> {
        self.exchange(b"", false, head).await
    }

    /// Waits until the server closes the connection.
    pub(super) async fn closed(&mut self) {
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        // A reset is a way to close, too.
        let _ = end.expect("the server closes in time");
    }
}

async fn read_reply(
    reader: &mut (impl AsyncReadExt + Unpin),
    unread: &mut Vec<u8>,
    head: bool,
) -> Option<Reply> {
    loop {
        let end = loop {
            if let Some(at) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if reader.read_buf(unread).await.unwrap_or(0) == 0 {
                return None;
            }
        };
        let text = String::from_utf8(unread.drain(..end).collect()).unwrap();
        let mut lines = text.trim_end().split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        if status == 100 {
            continue;
        }
        let mut reply = Reply {
            status,
            headers,
            body: Vec::new(),
        };
        let len: usize = reply
            .header("content-length")
            .map_or(0, |len| len.parse().unwrap());
        if !head {
            while unread.len() < len {
                if reader.read_buf(unread).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
            reply.body = unread.drain(..len).collect();
        }
        return Some(reply);
    }
}

/// A request in binary mode for `prod/orders` with `id`, more headers (each with CRLF), a body.
pub(super) fn binary(id: &str, headers: &str, body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: orders.prod\r\nce-specversion: 1.0\r\nce-type: t\r\n\
         ce-source: /s\r\nce-id: {id}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
