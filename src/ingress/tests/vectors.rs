//! The conformance cases of `tests/vectors/ingress.json`, byte for byte.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::harness::{Reply, Server};
use crate::channel::Format;
use crate::event::Event;
use crate::ingress::Settings;

/// Cases where one of several allowed answers is preferred and ours is another of them.
const DECIDED: [(&str, u16); 5] = [
    // Only version 1.0 is taken.
    ("bin-specversion-0.3", 400),
    ("json-specversion-0.3", 400),
    // An event format that is not supported is told so, whatever headers there are.
    ("json-unsupported-format-with-ce-headers", 415),
    // RFC 9112 6.3: Transfer-Encoding wins, and the connection is closed.
    ("frame-cl-and-te", 202),
    ("frame-bad-version", 400),
];

struct Case<'a> {
    case: &'a Value,
    id: String,
}

impl Case<'_> {
    fn name(&self) -> &str {
        self.case["name"].as_str().unwrap()
    }

    fn fill(&self, text: &str) -> String {
        [
            ("{{id}}", self.id.as_str()),
            ("{{channel}}", "orders"),
            ("{{namespace}}", "prod"),
            ("{{host}}", "orders.prod.svc.cluster.local"),
            ("{{CHANNEL}}", "ORDERS"),
            ("{{NAMESPACE}}", "PROD"),
        ]
        .iter()
        .fold(text.to_owned(), |text, (placeholder, value)| {
            text.replace(placeholder, value)
        })
    }

    fn expand(&self, value: &Value) -> Vec<u8> {
        if let Some(parts) = value.get("repeat").and_then(Value::as_array) {
            let text = |at: usize| parts[at].as_str().unwrap();
            let count = usize::try_from(parts[2].as_u64().unwrap()).unwrap();
            return self
                .fill(&(text(0).to_owned() + &text(1).repeat(count) + text(3)))
                .into_bytes();
        }
        if let Some(parts) = value.get("repeat2").and_then(Value::as_array) {
            let text = |at: usize| parts[at].as_str().unwrap();
            let count = usize::try_from(parts[3].as_u64().unwrap()).unwrap();
            let middle = text(1).repeat(count) + &text(2).repeat(count);
            return self
                .fill(&(text(0).to_owned() + &middle + text(4)))
                .into_bytes();
        }
        if let Some(bytes) = value.get("b64").and_then(Value::as_str) {
            let bytes = STANDARD.decode(bytes).unwrap();
            // Placeholders are ASCII, so they survive a detour over one char a byte.
            let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
            return self.fill(&text).chars().map(|c| c as u8).collect();
        }
        let text = value.get("text").unwrap_or(value);
        self.fill(text.as_str().unwrap_or_default()).into_bytes()
    }

    fn request(&self) -> Vec<u8> {
        let case = self.case;
        if let Some(raw) = case.get("raw") {
            return self.expand(raw);
        }
        let method = case["method"].as_str().unwrap();
        let mut request = format!("{method} ").into_bytes();
        request.extend(self.expand(&case["path"]));
        let host = self.fill(case["host"].as_str().unwrap());
        request.extend(format!(" HTTP/1.1\r\nHost: {host}\r\n").into_bytes());
        let mut has_connection = false;
        for header in case["headers"].as_array().unwrap() {
            let name = header[0].as_str().unwrap();
            has_connection |= name.eq_ignore_ascii_case("connection");
            request.extend(name.bytes().chain(*b": "));
            request.extend(self.expand(&header[1]));
            request.extend(b"\r\n");
        }
        let body = self.expand(&case["body"]);
        if !has_connection {
            request.extend(b"Connection: close\r\n");
        }
        if case.get("framing").and_then(Value::as_str) == Some("chunked") {
            request.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            request.extend(chunked(&body, case.get("chunks")));
        } else {
            if !body.is_empty() || ["POST", "PUT", "PATCH"].contains(&method) {
                request.extend(format!("Content-Length: {}\r\n", body.len()).into_bytes());
            }
            request.extend(b"\r\n");
            request.extend(body);
        }
        request
    }

    fn expected_status(&self) -> u64 {
        DECIDED
            .iter()
            .find(|(name, _)| *name == self.name())
            .map_or_else(
                || self.case["expect_status"].as_u64().unwrap(),
                |(_, status)| u64::from(*status),
            )
    }

    fn check_decided(&self) {
        if DECIDED.iter().any(|(name, _)| *name == self.name()) {
            let allowed = self.case["allowed_status"].as_array().unwrap();
            assert!(allowed.contains(&self.expected_status().into()));
        }
    }

    /// What is wrong with the answers.
    fn check_replies(&self, replies: &[Reply]) -> Vec<String> {
        let mut wrong = Vec::new();
        let statuses: Vec<u64> = replies.iter().map(|reply| reply.status.into()).collect();
        let expected = match self.case.get("expect_statuses") {
            Some(all) => all
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_u64)
                .collect(),
            None => vec![self.expected_status()],
        };
        let expected: Vec<u64> = expected.into_iter().filter(|status| *status != 0).collect();
        if statuses != expected {
            wrong.push(format!("answered {statuses:?}, not {expected:?}"));
        }
        let rules = self.case.get("expect_headers").and_then(Value::as_object);
        for (name, rule) in rules.into_iter().flatten() {
            let Some(value) = replies.first().and_then(|reply| reply.header(name)) else {
                wrong.push(format!("no header {name}"));
                continue;
            };
            let token = rule.get("contains_token").and_then(Value::as_str);
            let one_of = rule.get("one_of").and_then(Value::as_array);
            let is_good = token
                .is_none_or(|token| value.split(',').any(|part| part.trim() == token))
                && one_of.is_none_or(|all| all.contains(&value.into()));
            if !is_good {
                wrong.push(format!("header {name} is {value:?}"));
            }
        }
        wrong
    }

    /// What is wrong with the events that were stored.
    fn check_events(&self, stored: &[Event], is_accepted: bool) -> Vec<String> {
        let case = self.case;
        if !is_accepted {
            return match stored {
                [] => Vec::new(),
                some => vec![format!("refused, but stored: {some:?}")],
            };
        }
        let expected: Vec<&Value> = match (case.get("expect_event"), case.get("expect_events")) {
            (Some(one), _) => vec![one],
            (None, Some(all)) => all.as_array().unwrap().iter().collect(),
            (None, None) => return Vec::new(),
        };
        // A batch's cases name some of its events, by id.
        if case.get("expect_event").is_some() && stored.len() != 1 {
            return vec![format!("{} events stored, not 1", stored.len())];
        }
        let check = |expected: &&Value| {
            let id = self.expand(&expected["attributes"]["id"]);
            let has_id =
                |event: &&Event| event.attribute("id").is_some_and(|it| it.as_bytes() == id);
            match stored.iter().find(has_id) {
                Some(event) => self.check_event(expected, event),
                None => vec![format!("not stored: {:?}", String::from_utf8_lossy(&id))],
            }
        };
        expected.iter().flat_map(check).collect()
    }

    fn check_event(&self, expected: &Value, event: &Event) -> Vec<String> {
        let mut wrong = Vec::new();
        let attributes = expected["attributes"].as_object().unwrap();
        for (name, value) in attributes {
            let value = String::from_utf8(self.expand(value)).unwrap();
            let is_same = match name.as_str() {
                "datacontenttype" => event
                    .content_type()
                    .is_some_and(|found| found.eq_ignore_ascii_case(&value)),
                name => event.attribute(name) == Some(&value),
            };
            if !is_same {
                wrong.push(format!("attribute {name} is not {value:.80?}"));
            }
        }
        let content_type = event.content_type().map(|value| ("datacontenttype", value));
        for (name, value) in event.attributes().chain(content_type) {
            if !attributes.contains_key(name) {
                wrong.push(format!("attribute {name} = {value:.80?} is too much"));
            }
        }
        if let Some(problem) =
            self.check_data(&expected["data"], event.data().map(|data| &data[..]))
        {
            wrong.push(problem);
        }
        wrong
    }

    fn check_data(&self, expected: &Value, data: Option<&[u8]>) -> Option<String> {
        let data = data.unwrap_or_default();
        let is_same = if expected.get("none").is_some() {
            data.is_empty()
        } else if let Some(text) = expected.get("json_text").and_then(Value::as_str) {
            data == self.fill(text).as_bytes()
        } else if let Some(json) = expected.get("json") {
            serde_json::from_slice::<Value>(data).is_ok_and(|found| found == *json)
        } else if expected.is_null() || expected.get("any").is_some() {
            true
        } else {
            data == self.expand(expected)
        };
        (!is_same).then(|| format!("data is {:.80?}", String::from_utf8_lossy(data)))
    }
}

fn chunked(body: &[u8], sizes: Option<&Value>) -> Vec<u8> {
    let sizes: Vec<usize> = match sizes.and_then(Value::as_array) {
        Some(sizes) => sizes
            .iter()
            .map(|size| usize::try_from(size.as_u64().unwrap()).unwrap())
            .collect(),
        None => vec![body.len().max(1)],
    };
    let (mut out, mut rest, mut at) = (Vec::new(), body, 0);
    while !rest.is_empty() {
        let size = sizes[at.min(sizes.len() - 1)].min(rest.len());
        let (chunk, after) = rest.split_at(size);
        out.extend(format!("{size:x}\r\n").into_bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
        (rest, at) = (after, at + 1);
    }
    out.extend(b"0\r\n\r\n");
    out
}

async fn run(server: &Server, case: &Case<'_>) -> Vec<String> {
    let request = case.request();
    let half_close = case.case["half_close"].as_bool().unwrap_or(false);
    let head = case.case["method"] == "HEAD";
    let count = case.case["expect_statuses"].as_array().map_or(1, Vec::len);
    let mut client = server.connect().await;
    let mut replies = Vec::new();
    replies.extend(client.exchange(&request, half_close, head).await);
    for _ in 1..count {
        replies.extend(client.reply(head).await);
    }
    let stored = server.log.take();
    let is_accepted = replies.first().is_some_and(|reply| reply.status < 300);
    let mut wrong = case.check_replies(&replies);
    wrong.extend(case.check_events(&stored, is_accepted));
    for event in &stored {
        wrong.extend(check_round_trip(event));
        wrong.extend(check_mode(event, &request));
    }
    wrong
}

/// An event that was taken can be sent on in both modes and is the same there.
fn check_round_trip(event: &Event) -> Option<String> {
    let mut headers = http::HeaderMap::new();
    headers.insert(
        "content-type",
        "application/cloudevents+json".parse().unwrap(),
    );
    let structured = Event::from_http(&headers, event.to_structured_json());
    let (headers, body) = event.to_http_binary();
    let binary = Event::from_http(&headers, body);
    let same = |decoded| {
        let Ok(crate::event::Decoded::One(decoded)) = decoded else {
            return false;
        };
        decoded.attributes().eq(event.attributes())
            && decoded.content_type() == event.content_type()
    };
    (!same(structured) || !same(binary)).then(|| format!("changed on its way: {event:?}"))
}

/// An event says how it came.
fn check_mode(event: &Event, request: &[u8]) -> Option<String> {
    let request = String::from_utf8_lossy(request).to_ascii_lowercase();
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let is_json = head.lines().any(|line| {
        let value = line.strip_prefix("content-type:").map(str::trim);
        value.is_some_and(|value| value.starts_with("application/cloudevents"))
    });
    let expected = if is_json {
        Format::Json
    } else {
        Format::Binary
    };
    let found = event.received_as();
    (found != expected).then(|| format!("received as {found:?}, not {expected:?}"))
}

#[tokio::test]
async fn the_cases_are_answered_and_stored_as_they_say() {
    let file: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/ingress.json")).unwrap();
    let server = Server::start(Settings::default()).await;
    let mut failures = Vec::new();
    for (number, case) in file["cases"].as_array().unwrap().iter().enumerate() {
        let case = Case {
            case,
            id: format!("case-{number}"),
        };
        case.check_decided();
        for wrong in run(&server, &case).await {
            failures.push(format!("{}: {wrong}", case.name()));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
