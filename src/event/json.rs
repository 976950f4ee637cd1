//! The JSON event format: reading one object or a batch, and writing one.
//!
//! The data is never taken apart: it is passed on as the bytes it came in, so numbers keep their
//! digits and objects the order of their members.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::build::Builder;
use super::error::{EventError, shown};
use super::http::Forwarded;
use super::media_type::{is_json, is_utf8_text};
use super::{ATTRIBUTE, Event, MODE, STRUCTURED};

/// An object with more members than this is refused: no sink would take so many headers, and
/// members are compared with each other.
const MAX_MEMBERS: usize = 1024;
/// JSON data that is nested deeper is refused: it would break the parsers of subscribers.
const MAX_DEPTH: usize = 1000;

/// Reads one event.
pub(super) fn event(body: &Bytes, forwarded: &Forwarded<'_>) -> Result<Event, EventError> {
    let members: Members<'_> = serde_json::from_str(utf8(body)?).map_err(|e| syntax(&e))?;
    members.into_event(body, forwarded)
}

/// Reads the events of a batch; one bad event refuses them all.
pub(super) fn batch(body: &Bytes, forwarded: &Forwarded<'_>) -> Result<Vec<Event>, EventError> {
    let mut refused = None;
    let reader = BatchReader {
        body,
        forwarded,
        refused: &mut refused,
    };
    let mut input = serde_json::Deserializer::from_str(utf8(body)?);
    let events = input
        .deserialize_seq(reader)
        .and_then(|events| input.end().map(|()| events));
    match (refused, events) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(syntax(&error)),
        (None, Ok(events)) => Ok(events),
    }
}

fn utf8(body: &Bytes) -> Result<&str, EventError> {
    std::str::from_utf8(body)
        .map_err(|error| EventError::body(format!("not UTF-8 from byte {}", error.valid_up_to())))
}

fn syntax(error: &serde_json::Error) -> EventError {
    EventError::body(format!("not what the JSON event format asks for: {error}"))
}

/// The members of an object, each value as its text.
#[derive(Debug)]
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A JSON string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::with_capacity(12);
        while let Some(Text(name)) = map.next_key()? {
            if members.len() == MAX_MEMBERS {
                let problem = format_args!("more than {MAX_MEMBERS} members");
                return Err(serde::de::Error::custom(problem));
            }
            members.push((name, map.next_value()?));
        }
        Ok(Members(members))
    }
}

struct BatchReader<'a> {
    body: &'a Bytes,
    forwarded: &'a Forwarded<'a>,
    /// Why an element was refused: more than serde's error can carry.
    refused: &'a mut Option<EventError>,
}

impl<'de> Visitor<'de> for BatchReader<'_> {
    type Value = Vec<Event>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Event>, A::Error> {
        let mut events = Vec::new();
        while let Some(element) = seq.next_element::<&RawValue>()? {
            let event = serde_json::from_str(element.get())
                .map_err(|error| syntax(&error))
                .and_then(|members: Members<'_>| members.into_event(self.body, self.forwarded));
            match event {
                Ok(event) => events.push(event),
                Err(error) => {
                    *self.refused = Some(error.in_element(events.len()));
                    return Err(serde::de::Error::custom("refused"));
                }
            }
        }
        Ok(events)
    }
}

impl<'a> Members<'a> {
    fn into_event(self, body: &Bytes, forwarded: &Forwarded<'_>) -> Result<Event, EventError> {
        self.refuse_repeated()?;
        let bytes: usize = self
            .0
            .iter()
            .filter(|(name, _)| !matches!(&**name, "data" | "data_base64"))
            .map(|(name, value)| name.len() + value.get().len() + ATTRIBUTE.len())
            .sum::<usize>()
            + MODE.len()
            + STRUCTURED.len();
        let mut builder = Builder::new(
            self.0.len() + forwarded.len() + 1,
            bytes + forwarded.byte_len(),
        );
        let (mut data, mut base64, mut content_type) = (None, None, None);
        for (name, value) in &self.0 {
            let value = value.get();
            match &**name {
                "data" => data = Some(value),
                "data_base64" => base64 = Some(value),
                "datacontenttype" => content_type = string(name, value)?,
                name => {
                    if let Some(text) = attribute(name, value)? {
                        builder.attribute(name, &text)?;
                    }
                }
            }
        }
        if let (None, Some(_)) = (&content_type, data) {
            content_type = Some(Cow::Borrowed("application/json"));
        }
        if let Some(value) = &content_type {
            builder.content_type("datacontenttype", value)?;
        }
        let value = data_of(data, base64, content_type.as_deref(), body)?;
        forwarded.add_to(&mut builder);
        builder.keep(MODE.as_bytes(), STRUCTURED.as_bytes());
        builder.finish(value, None)
    }

    fn refuse_repeated(&self) -> Result<(), EventError> {
        let repeated = self
            .0
            .iter()
            .enumerate()
            .find(|(at, (name, _))| self.0[..*at].iter().any(|(before, _)| before == name));
        match repeated {
            None => Ok(()),
            Some((_, (name, _))) => Err(EventError::attribute(
                name,
                "the JSON member is there twice; send it once",
            )),
        }
    }
}

/// The canonical text of an attribute's JSON value; `None`: null, which is no attribute.
fn attribute<'a>(name: &str, json: &'a str) -> Result<Option<Cow<'a, str>>, EventError> {
    let is_core = matches!(
        name,
        "id" | "source" | "type" | "specversion" | "subject" | "time" | "dataschema"
    );
    let wrong = |problem: &'static str| Err(EventError::attribute(name, problem));
    match json.as_bytes().first() {
        Some(b'"' | b'n') => string(name, json),
        _ if is_core => wrong("it must be a JSON string"),
        Some(b't' | b'f') => Ok(Some(Cow::Borrowed(json))),
        Some(b'-' | b'0'..=b'9') => match json.parse::<i32>() {
            Ok(number) => Ok(Some(number.to_string().into())),
            Err(_) => wrong(
                "a number must be an integer from -2147483648 to 2147483647 without fraction or \
                 exponent; send others as a string",
            ),
        },
        _ => wrong("it must be a string, a boolean or an integer, not an object or array"),
    }
}

fn string<'a>(name: &str, json: &'a str) -> Result<Option<Cow<'a, str>>, EventError> {
    if json == "null" {
        return Ok(None);
    }
    match serde_json::from_str(json) {
        Ok(Text(text)) => Ok(Some(text)),
        Err(error) if json.starts_with('"') => Err(EventError::attribute(
            name,
            format!("not a valid JSON string: {error}"),
        )),
        Err(_) => Err(EventError::attribute(name, "it must be a JSON string")),
    }
}

/// The data from `data` or `data_base64` (their JSON text).
fn data_of(
    data: Option<&str>,
    base64: Option<&str>,
    content_type: Option<&str>,
    body: &Bytes,
) -> Result<Option<Bytes>, EventError> {
    match (data, base64) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(EventError::attribute(
            "data_base64",
            "there is data too; send one of them",
        )),
        (None, Some(json)) => string("data_base64", json)?
            .map(|text| STANDARD.decode(text.as_bytes()))
            .transpose()
            .map(|bytes| bytes.map(Bytes::from))
            .map_err(|error| {
                EventError::attribute("data_base64", format!("it is not base64: {error}"))
            }),
        (Some(json), None) if content_type.is_none_or(is_json) => {
            check_data(json).map_err(|problem| EventError::attribute("data", problem))?;
            Ok(Some(body.slice_ref(json.as_bytes())))
        }
        (Some("null"), None) => Ok(None),
        (Some(json), None) if json.starts_with('"') => {
            Ok(string("data", json)?.map(|text| Bytes::from(text.into_owned())))
        }
        (Some(_), None) => Err(EventError::attribute(
            "data",
            format!(
                "under datacontenttype {:?} it must be a JSON string; use data_base64 for bytes",
                shown(content_type.unwrap_or_default())
            ),
        )),
    }
}

/// Checks JSON that is syntactically right for what its readers could stumble over.
fn check_data(json: &str) -> Result<(), &'static str> {
    if has_lone_surrogate(json.as_bytes()) {
        Err("a \\u escape is half of a surrogate pair")
    } else if is_too_deep(json.as_bytes()) {
        Err("it is nested more than 1000 levels deep")
    } else {
        Ok(())
    }
}

fn is_too_deep(json: &[u8]) -> bool {
    let opens = |byte: &&u8| matches!(byte, b'[' | b'{');
    if json.iter().filter(opens).count() <= MAX_DEPTH {
        return false;
    }
    let (mut depth, mut in_string) = (0usize, false);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => drop(bytes.next()),
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

fn has_lone_surrogate(json: &[u8]) -> bool {
    let unit = |at: usize| -> Option<u16> {
        let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = 0;
    let next_escape = |at: usize| json.get(at..)?.iter().position(|byte| *byte == b'\\');
    while let Some(next) = next_escape(at) {
        at += next;
        at += match unit(at) {
            None => 2,
            Some(0xd800..=0xdbff) => match unit(at + 6) {
                Some(0xdc00..=0xdfff) => 12,
                _ => return true,
            },
            Some(0xdc00..=0xdfff) => return true,
            Some(_) => 6,
        };
    }
    false
}

impl Event {
    /// The event as one JSON object. Data under a JSON content type is embedded as it is when it
    /// is valid JSON, text as a string, everything else as base64.
    #[must_use]
    pub fn to_structured_json(&self) -> Bytes {
        let mut json = Vec::with_capacity(self.byte_len() * 4 / 3 + 128);
        json.push(b'{');
        for (name, value) in self.attributes() {
            member(&mut json, name, value);
        }
        let content_type = self.content_type();
        if let Some(value) = content_type {
            member(&mut json, "datacontenttype", value);
        }
        match self.data().map(|data| Shape::of(data, content_type)) {
            None => {}
            Some(Shape::Json(text)) => {
                member_name(&mut json, "data");
                json.extend_from_slice(text.as_bytes());
            }
            Some(Shape::Text(text)) => member(&mut json, "data", text),
            Some(Shape::Bytes(bytes)) => member(&mut json, "data_base64", &STANDARD.encode(bytes)),
        }
        json.push(b'}');
        json.into()
    }
}

/// How data is written into a JSON object so that it comes out again as it was.
enum Shape<'a> {
    Json(&'a str),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl<'a> Shape<'a> {
    fn of(data: &'a [u8], content_type: Option<&str>) -> Self {
        let Ok(text) = std::str::from_utf8(data) else {
            return Self::Bytes(data);
        };
        match content_type {
            Some(content_type) if is_json(content_type) => {
                let is_valid = serde_json::from_str::<IgnoredAny>(text).is_ok();
                if is_valid && check_data(text).is_ok() {
                    Self::Json(text)
                } else {
                    Self::Bytes(data)
                }
            }
            Some(content_type) if is_utf8_text(content_type) => Self::Text(text),
            Some(_) | None => Self::Bytes(data),
        }
    }
}

fn member(json: &mut Vec<u8>, name: &str, value: &str) {
    member_name(json, name);
    serde_json::to_writer(json, value).expect("a string always goes into a Vec");
}

fn member_name(json: &mut Vec<u8>, name: &str) {
    if json.len() > 1 {
        json.push(b',');
    }
    json.push(b'"');
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":");
}
