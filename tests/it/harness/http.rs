//! HTTP/1.1 on plain sockets, for both ends of a test: what is sent is what was written.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A request or a response as it came.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The request or status line.
    pub(crate) start: String,
    /// Names in lower case; every byte of a value as the character with its number.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn status(&self) -> u16 {
        let code = self.start.split(' ').nth(1);
        code.and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}\n{}", self.start, self.text()))
    }
}

/// Which side sent a message: a response without a length runs to the end of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Client,
    Server,
}

/// A connection and what was read ahead from it.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    ahead: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    pub(crate) fn open(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Self::new(stream))
    }

    fn more(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 64 * 1024];
        let count = self.stream.read(&mut chunk)?;
        self.ahead.extend_from_slice(&chunk[..count]);
        Ok(count > 0)
    }

    fn until(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.ahead.windows(end.len()).position(|part| part == end) {
                let mut taken: Vec<u8> = self.ahead.drain(..at + end.len()).collect();
                taken.truncate(at);
                return Ok(Some(taken));
            }
            if !self.more()? {
                return Ok(None);
            }
        }
    }

    fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < count {
            if !self.more()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.ahead.drain(..count).collect())
    }

    fn chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n")?.ok_or(ErrorKind::UnexpectedEof)?;
            let size = String::from_utf8_lossy(&line);
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| ErrorKind::InvalidData)?;
            if size == 0 {
                while !self.until(b"\r\n")?.unwrap_or_default().is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            self.exactly(2)?;
        }
    }

    /// The next message; `None` when the connection ended before one began. Interim responses
    /// are passed over.
    pub(crate) fn receive(&mut self, from: From) -> io::Result<Option<Message>> {
        loop {
            let Some(head) = self.until(b"\r\n\r\n")? else {
                return Ok(None);
            };
            let mut message = parse_head(&head);
            if from == From::Server && (100..200).contains(&message.status()) {
                continue;
            }
            if message.header("expect") == Some("100-continue") {
                self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            message.body = self.body(&message, from)?;
            return Ok(Some(message));
        }
    }

    fn body(&mut self, message: &Message, from: From) -> io::Result<Vec<u8>> {
        if message.header("transfer-encoding") == Some("chunked") {
            return self.chunked();
        }
        if let Some(length) = message.header("content-length") {
            let length = length.parse().map_err(|_| ErrorKind::InvalidData)?;
            return self.exactly(length);
        }
        if from == From::Server && !matches!(message.status(), 204 | 304) {
            while self.more()? {}
            return Ok(std::mem::take(&mut self.ahead));
        }
        Ok(Vec::new())
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> io::Result<Message> {
        self.stream.write_all(request)?;
        let answer = self.receive(From::Server)?;
        answer.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }
}

fn parse_head(head: &[u8]) -> Message {
    let head: String = head.iter().copied().map(char::from).collect();
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let headers = lines
        .map(|line| line.split_once(':').unwrap_or((line, "")))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Message {
        start,
        headers,
        body: Vec::new(),
    }
}

/// The bytes of a request; header values are sent as they are.
pub(crate) fn request(
    method: &str,
    target: &str,
    host: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
