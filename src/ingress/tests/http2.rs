//! HTTP/2 with prior knowledge: its streams are requests like others, and floods have bounds.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::harness::{Behaviour, PATIENCE, Server};
use crate::event::Event;
use crate::ingress::Settings;
use crate::shutdown::Tasks;

type AnyBody = BoxBody<Bytes, io::Error>;

/// A connection that speaks HTTP/2.
struct Client {
    sender: SendRequest<AnyBody>,
    tasks: Tasks,
}

impl Client {
    async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        let tasks = Tasks::new();
        tasks.spawn("connection", async { drop(connection.await) });
        Self { sender, tasks }
    }

    /// Sends a request without waiting for its answer.
    fn send(
        &mut self,
        request: Request<AnyBody>,
    ) -> impl Future<Output = Option<StatusCode>> + use<> {
        let answer = self.sender.send_request(request);
        async {
            let answer = timeout(PATIENCE, answer).await.expect("an answer in time");
            answer.ok().map(|answer| answer.status())
        }
    }

    async fn ask(&mut self, request: Request<AnyBody>) -> Option<StatusCode> {
        self.sender.ready().await.ok()?;
        self.send(request).await
    }

    /// Waits until the server closes the connection.
    async fn closed(self) {
        drop(self.sender);
        self.tasks.drain(PATIENCE).await.unwrap();
    }
}

fn event(id: &str, body: AnyBody) -> Request<AnyBody> {
    Request::post("http://orders.prod/")
        .header("ce-specversion", "1.0")
        .header("ce-id", id)
        .header("ce-source", "/s")
        .header("ce-type", "t")
        .body(body)
        .unwrap()
}

fn whole(data: impl Into<Bytes>) -> AnyBody {
    Full::new(data.into())
        .map_err(|never| match never {})
        .boxed()
}

/// A body that is sent as it is pushed; it ends with its sender, or breaks off with an error.
fn pieces() -> (mpsc::Sender<io::Result<Frame<Bytes>>>, AnyBody) {
    let (sender, mut receiver) = mpsc::channel(1);
    let stream = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    (sender, BodyExt::boxed(StreamBody::new(stream)))
}

fn piece(data: &'static [u8]) -> io::Result<Frame<Bytes>> {
    Ok(Frame::data(Bytes::from_static(data)))
}

fn ids(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| event.attribute("id"))
        .collect()
}

const ACCEPTED: Option<StatusCode> = Some(StatusCode::ACCEPTED);
const TOO_LARGE: Option<StatusCode> = Some(StatusCode::PAYLOAD_TOO_LARGE);

#[tokio::test]
async fn events_are_taken_and_channels_found_by_authority() {
    let server = Server::start(Settings::default()).await;
    let mut client = Client::connect(&server).await;
    assert_eq!(client.ask(event("1", whole("data"))).await, ACCEPTED);
    let mut unknown = event("2", whole(""));
    *unknown.uri_mut() = "http://nosuch.prod/".parse().unwrap();
    assert_eq!(client.ask(unknown).await, Some(StatusCode::NOT_FOUND));
    let events = server.log.take();
    assert_eq!(ids(&events), ["1"]);
    assert_eq!(events[0].data().unwrap(), "data");
}

#[tokio::test]
async fn a_stop_finishes_the_streams_in_progress_and_takes_no_more() {
    let server = Server::start(Settings::default()).await;
    let mut client = Client::connect(&server).await;
    server.log.set(Behaviour::Hold(Vec::new()));
    let stored = client.send(event("stored", whole("x")));
    server.log.holds_one().await;
    // The head of this one is on its way once a piece of its body was taken.
    let (pieces, body) = pieces();
    let sent = client.send(event("sent", body));
    pieces.send(piece(b"a")).await.unwrap();
    pieces.send(piece(b"b")).await.unwrap();
    let both = async { tokio::join!(stored, sent) };
    let rest = async {
        server.tasks.stop();
        pieces.send(piece(b"c")).await.unwrap();
        drop(pieces);
        server.log.holds_one().await;
        server.log.release();
    };
    let (answers, ()) = tokio::join!(both, rest);
    assert_eq!(answers, (ACCEPTED, ACCEPTED));
    assert_eq!(client.ask(event("late", whole("x"))).await, None);
    client.closed().await;
    server.tasks.drain(PATIENCE).await.unwrap();
    let events = server.log.take();
    assert_eq!(ids(&events), ["stored", "sent"]);
    assert_eq!(events[1].data().unwrap(), "abc");
}

#[tokio::test]
async fn bodies_have_the_same_limits_and_the_connection_goes_on() {
    let server = Server::start(Settings {
        max_event_bytes: 1000,
        ..Settings::default()
    })
    .await;
    let mut client = Client::connect(&server).await;
    assert_eq!(
        client.ask(event("1", whole(vec![b'x'; 1001]))).await,
        TOO_LARGE
    );

    let (pieces, body) = pieces();
    let answer = client.send(event("2", body));
    let endless = async { while pieces.send(piece(&[b'x'; 300])).await.is_ok() {} };
    let (answer, ()) = tokio::join!(answer, endless);
    assert_eq!(answer, TOO_LARGE);

    assert!(server.log.take().is_empty());
    assert_eq!(client.ask(event("3", whole("x"))).await, ACCEPTED);
    assert_eq!(ids(&server.log.take()), ["3"]);
}

#[tokio::test]
async fn many_streams_share_a_connection_and_each_is_stored_once() {
    let server = Server::start(Settings::default()).await;
    let mut client = Client::connect(&server).await;
    let mut answers = Vec::new();
    for id in 0..1000 {
        answers.push(client.send(event(&id.to_string(), whole("x"))));
    }
    for answer in answers {
        assert_eq!(answer.await, ACCEPTED);
    }
    let events = server.log.take();
    let mut found: Vec<usize> = ids(&events).iter().map(|id| id.parse().unwrap()).collect();
    found.sort_unstable();
    assert!(found.into_iter().eq(0..1000));
}

#[tokio::test]
async fn a_stream_that_is_cut_off_stores_nothing() {
    let server = Server::start(Settings::default()).await;
    let mut client = Client::connect(&server).await;
    let (pieces_of_1, body) = pieces();
    let answer = client.send(event("reset", body));
    pieces_of_1.send(piece(b"half")).await.unwrap();
    let broken = Err(io::Error::other("meant"));
    pieces_of_1.send(broken).await.unwrap();
    assert_eq!(answer.await, None);
    // The connection goes on.
    assert_eq!(client.ask(event("whole", whole("x"))).await, ACCEPTED);

    let declared = |length: &str| {
        let (sender, body) = pieces();
        let mut request = event("short", body);
        let length = length.parse().unwrap();
        request.headers_mut().insert("content-length", length);
        (sender, request)
    };
    let (pieces_of_2, request) = declared("10");
    let answer = client.send(request);
    pieces_of_2.send(piece(b"half")).await.unwrap();
    drop(pieces_of_2);
    assert_ne!(answer.await, ACCEPTED);

    let (pieces_of_3, request) = declared("10");
    let lost = client.send(request);
    pieces_of_3.send(piece(b"half")).await.unwrap();
    drop((lost, client));
    assert_eq!(ids(&server.log.take()), ["whole"]);
    server.tasks.drain(PATIENCE).await.unwrap();
    assert!(server.log.take().is_empty());
}

#[tokio::test]
async fn headers_over_the_limit_are_431() {
    let server = Server::start(Settings {
        max_header_bytes: 8192,
        ..Settings::default()
    })
    .await;
    let mut client = Client::connect(&server).await;
    let mut request = event("1", Empty::new().map_err(|never| match never {}).boxed());
    let large = "x".repeat(9000).parse().unwrap();
    request.headers_mut().insert("ce-x", large);
    let answer = client.ask(request).await;
    assert_eq!(answer, Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    assert_eq!(client.ask(event("2", whole("x"))).await, ACCEPTED);
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Method, scheme and path from HPACK's static table, and the authority.
fn head() -> Vec<u8> {
    [&[0x83, 0x86, 0x84, 0x41, 11][..], b"orders.prod"].concat()
}

/// The beginning of a request whose body does not come.
fn open(n: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, n * 2 + 1, &head())
}

/// What a peer that keeps to no rules sends.
fn bytes(frames: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frames.flatten());
    bytes
}

#[tokio::test]
async fn streams_over_the_limit_are_refused() {
    let server = Server::start(Settings {
        max_streams: 2,
        ..Settings::default()
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&bytes((0..5).map(open))).await.unwrap();
    let mut refused = Vec::new();
    while refused.len() < 3 {
        let mut head = [0; 9];
        let read = timeout(PATIENCE, stream.read_exact(&mut head)).await;
        read.expect("a frame in time").unwrap();
        let [a, b, c, kind, _, stream_id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        if kind == RESET {
            assert_eq!(payload, REFUSED_STREAM.to_be_bytes());
            refused.push(u32::from_be_bytes(stream_id));
        }
    }
    assert_eq!(refused, [5, 7, 9]);
}

/// Sends what the server takes, and waits until it closes the connection.
async fn flood(server: &Server, bytes: &[u8]) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let write = async {
        // It may be closed before everything was sent.
        let _ = writer.write_all(bytes).await;
        std::future::pending::<()>().await;
    };
    let mut answers = Vec::new();
    tokio::select! {
        // A reset is a way to close, too.
        end = timeout(PATIENCE, reader.read_to_end(&mut answers)) => drop(end.expect("in time")),
        () = write => {}
    }
}

/// The n-th part of a flood.
type Frames<'a> = &'a dyn Fn(u32) -> Vec<u8>;

#[tokio::test]
async fn floods_end_their_connection_and_no_other() {
    let server = Server::start(Settings::default()).await;
    let mut other = Client::connect(&server).await;
    let reset = |n: u32| [open(n), frame(RESET, 0, n * 2 + 1, &CANCEL.to_be_bytes())].concat();
    let headers_without_end = |n: u32| match n {
        0 => frame(HEADERS, 0, 1, &head()),
        _ => frame(CONTINUATION, 0, 1, &[0x82; 16_000]),
    };
    let lone_data = |n: u32| frame(DATA, END_STREAM, n * 2 + 1, b"x");
    let floods: [(&str, Frames<'_>, u32); 3] = [
        ("reset", &reset, 20_000),
        ("headers without an end", &headers_without_end, 2000),
        ("lone data", &lone_data, 10),
    ];
    for (name, one, count) in floods {
        flood(&server, &bytes((0..count).map(one))).await;
        assert_eq!(other.ask(event(name, whole("x"))).await, ACCEPTED, "{name}");
        assert_eq!(ids(&server.log.take()), [name]);
    }
}
