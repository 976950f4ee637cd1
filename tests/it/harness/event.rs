//! CloudEvents as a test sends and reads them, written independently of the broker's own code.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::http::Message;

/// Which of HTTP's content modes an event came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Binary,
    Structured,
}

/// A CloudEvent: `datacontenttype` is among the attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) mode: Mode,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) data: Option<Vec<u8>>,
}

impl Event {
    /// The four attributes every event has, and a little JSON.
    pub(crate) fn new(id: &str) -> Self {
        let attributes = [
            ("specversion", "1.0"),
            ("id", id),
            ("type", "levada.test"),
            ("source", "/tests"),
            ("datacontenttype", "application/json"),
        ];
        Self {
            mode: Mode::Binary,
            attributes: attributes.map(|(n, v)| (n.into(), v.into())).into(),
            data: Some(br#"{"n":1}"#.to_vec()),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    pub(crate) fn with_data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.data = Some(data.into());
        self
    }

    pub(crate) fn id(&self) -> &str {
        self.attributes.get("id").map_or("", String::as_str)
    }

    /// What a request or an answer that carries this event has besides its own headers.
    pub(crate) fn to_http(&self) -> (Vec<(String, String)>, Vec<u8>) {
        match self.mode {
            Mode::Binary => {
                let header = |(name, value): (&String, &String)| match name.as_str() {
                    "datacontenttype" => ("content-type".to_owned(), value.clone()),
                    _ => (format!("ce-{name}"), percent_encode(value)),
                };
                let headers = self.attributes.iter().map(header).collect();
                (headers, self.data.clone().unwrap_or_default())
            }
            Mode::Structured => {
                let content_type = ("content-type".into(), "application/cloudevents+json".into());
                (vec![content_type], self.to_json().to_string().into_bytes())
            }
        }
    }

    fn to_json(&self) -> Value {
        let pair = |(name, value): (&String, &String)| (name.clone(), Value::from(value.as_str()));
        let mut object: Map<String, Value> = self.attributes.iter().map(pair).collect();
        if let Some(data) = &self.data {
            match serde_json::from_slice(data) {
                Ok(json) => object.insert("data".into(), json),
                Err(_) => object.insert("data_base64".into(), STANDARD.encode(data).into()),
            };
        }
        object.into()
    }

    /// The event in a request, if there is one.
    pub(crate) fn read(message: &Message) -> Option<Self> {
        let content_type = message.header("content-type").unwrap_or_default();
        if content_type.starts_with("application/cloudevents+json") {
            return Self::from_json(&message.body);
        }
        message.header("ce-id")?;
        let mut attributes = BTreeMap::new();
        for (name, value) in &message.headers {
            if let Some(name) = name.strip_prefix("ce-") {
                attributes.insert(name.to_owned(), percent_decode(value)?);
            } else if name == "content-type" {
                attributes.insert("datacontenttype".to_owned(), value.clone());
            }
        }
        Some(Self {
            mode: Mode::Binary,
            attributes,
            data: (!message.body.is_empty()).then(|| message.body.clone()),
        })
    }

    fn from_json(body: &[u8]) -> Option<Self> {
        let Value::Object(object) = serde_json::from_slice(body).ok()? else {
            return None;
        };
        let mut event = Self {
            mode: Mode::Structured,
            attributes: BTreeMap::new(),
            data: None,
        };
        for (name, value) in object {
            match (name.as_str(), value) {
                ("data", value) => event.data = Some(value.to_string().into_bytes()),
                ("data_base64", Value::String(text)) => {
                    event.data = Some(STANDARD.decode(text).ok()?);
                }
                (_, Value::String(text)) => {
                    event.attributes.insert(name, text);
                }
                (_, value) => {
                    event.attributes.insert(name, value.to_string());
                }
            }
        }
        Some(event)
    }

    /// What differs in `other`, which may carry `extra` attributes; nothing when it is the same.
    pub(crate) fn differences(&self, other: &Self, extra: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        for (name, value) in &self.attributes {
            let there = other.attributes.get(name);
            if there != Some(value) && !extra.contains(&name.as_str()) {
                found.push(format!("attribute {name}: {there:?}, want {value:?}"));
            }
        }
        for name in other.attributes.keys() {
            if !self.attributes.contains_key(name) && !extra.contains(&name.as_str()) {
                found.push(format!("unexpected attribute {name}"));
            }
        }
        let json = |event: &Self| -> Option<Value> {
            serde_json::from_slice(event.data.as_deref().unwrap_or_default()).ok()
        };
        let structured = other.mode == Mode::Structured || self.mode == Mode::Structured;
        let same_json = structured && json(self).is_some() && json(self) == json(other);
        if self.data != other.data && !same_json {
            found.push(format!("data: {:?}, want {:?}", other.data, self.data));
        }
        found
    }
}

/// As the HTTP binding says: blank, `"`, `%` and all but printable ASCII become `%XX`.
pub(crate) fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b' ' | b'"' | b'%' => format!("%{byte:02X}"),
        0x21..=0x7e => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let code = rest
            .get(1..3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let taken = match (first, code) {
            ('%', Some(byte)) => {
                bytes.push(byte);
                3
            }
            _ => {
                bytes.push(u8::try_from(u32::from(first)).ok()?);
                first.len_utf8()
            }
        };
        rest = rest.get(taken..)?;
    }
    String::from_utf8(bytes).ok()
}
