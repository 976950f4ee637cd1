//! Events in HTTP messages: binary, structured and batch.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::build::Builder;
use super::error::EventError;
use super::rules::{check_name, check_string, is_forwarded};
use super::{ATTRIBUTE, Event, MODE, json, media_type};

/// What an HTTP message holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// One event, of binary or structured mode.
    One(Event),
    /// The events of a batch, in order; there may be none.
    Batch(Vec<Event>),
}

/// How an HTTP message carries events, by its headers alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Attributes in `ce-` headers, data in the body.
    Binary,
    /// One JSON object.
    Structured,
    /// A JSON array of such objects.
    Batch,
    /// `application/cloudevents...` in a format that is not supported.
    Unsupported,
}

impl Mode {
    /// The mode of a message with these headers. A message that is no event at all counts as
    /// [`Mode::Binary`], the mode whose rules it then breaks; see [`Mode::of_event`].
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(CONTENT_TYPE) else {
            return Self::Binary;
        };
        let value = value.to_str().unwrap_or_default();
        if !media_type::starts_with(value, "application/cloudevents") {
            return Self::Binary;
        }
        let essence = media_type::essence(value);
        if essence.eq_ignore_ascii_case("application/cloudevents+json") {
            Self::Structured
        } else if essence.eq_ignore_ascii_case("application/cloudevents-batch+json") {
            Self::Batch
        } else {
            Self::Unsupported
        }
    }

    /// The mode of a message that claims to be an event, valid or not; `None`: it makes no such
    /// claim (neither a `ce-specversion` or `ce-id` header nor an event format's content type).
    #[must_use]
    pub fn of_event(headers: &HeaderMap) -> Option<Self> {
        match Self::of(headers) {
            Self::Binary => (headers.contains_key(&CE_SPECVERSION) || headers.contains_key(&CE_ID))
                .then_some(Self::Binary),
            mode => Some(mode),
        }
    }
}

impl Event {
    /// Reads the event or events of an HTTP message, request or response.
    ///
    /// # Errors
    /// [`EventError`] when the message is not a valid event, or one event of a batch is not.
    pub fn from_http(headers: &HeaderMap, body: Bytes) -> Result<Decoded, EventError> {
        match Mode::of(headers) {
            Mode::Binary => from_binary(headers, body).map(Decoded::One),
            Mode::Structured => json::event(&body, &Forwarded::of(headers)).map(Decoded::One),
            Mode::Batch => json::batch(&body, &Forwarded::of(headers)).map(Decoded::Batch),
            Mode::Unsupported => {
                let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
                Err(EventError::unsupported(
                    CONTENT_TYPE.as_str(),
                    &String::from_utf8_lossy(value.unwrap_or_default()),
                ))
            }
        }
    }

    /// The event as an HTTP message in binary mode: headers (those that travel along too) and
    /// body.
    #[must_use]
    pub fn to_http_binary(&self) -> (HeaderMap, Bytes) {
        let stored = &self.record.headers;
        let mut headers = HeaderMap::with_capacity(stored.len() + 4);
        for (name, value) in stored.iter_shared() {
            let name = super::text(name);
            let header = match name.strip_prefix(ATTRIBUTE) {
                Some(attribute) => attribute_header(attribute)
                    .zip(HeaderValue::from_maybe_shared(encode(value)).ok()),
                None if name == MODE => None,
                None => HeaderName::from_bytes(name.as_bytes())
                    .ok()
                    .zip(HeaderValue::from_maybe_shared(value).ok()),
            };
            if let Some((name, value)) = header {
                headers.append(name, value);
            }
        }
        let body = self.record.value.clone().unwrap_or_default();
        (headers, body)
    }
}

/// The headers of a message that travel along with its events, in their stored form.
#[derive(Debug, Default)]
pub(super) struct Forwarded<'a> {
    headers: Vec<(&'a [u8], &'a [u8])>,
    bytes: usize,
}

impl<'a> Forwarded<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut forwarded = Self::default();
        for (name, value) in headers {
            if is_forwarded(name.as_str()) {
                forwarded.push(name.as_str().as_bytes(), value.as_bytes());
            }
        }
        forwarded
    }

    pub(super) fn push(&mut self, name: &'a [u8], value: &'a [u8]) {
        self.bytes += name.len() + value.len();
        self.headers.push((name, value));
    }

    pub(super) fn len(&self) -> usize {
        self.headers.len()
    }

    pub(super) fn byte_len(&self) -> usize {
        self.bytes
    }

    pub(super) fn add_to(&self, builder: &mut Builder) {
        for (name, value) in &self.headers {
            builder.keep(name, value);
        }
    }
}

fn from_binary(headers: &HeaderMap, body: Bytes) -> Result<Event, EventError> {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let mut builder = Builder::new(headers.len(), bytes);
    // Values under one name come one after the other, so a repeated name is the one before.
    let mut last = "";
    for (header, value) in headers {
        let name = header.as_str();
        if let Some(attribute) = name.strip_prefix("ce-") {
            refuse_repeated(name, last)?;
            check_name(attribute)?;
            let value = decode(attribute, value)?;
            builder.checked_attribute(attribute, &value)?;
        } else if header == CONTENT_TYPE {
            refuse_repeated(name, last)?;
            let value = value.to_str().map_err(|_| {
                EventError::header(name, "a media type is made of visible ASCII characters")
            })?;
            builder.content_type(name, value)?;
        } else if is_forwarded(name) {
            builder.keep(name.as_bytes(), value.as_bytes());
        }
        last = name;
    }
    builder.finish((!body.is_empty()).then_some(body), None)
}

fn refuse_repeated(name: &str, last: &str) -> Result<(), EventError> {
    if name == last {
        return Err(EventError::header(name, "it is there twice; send it once"));
    }
    Ok(())
}

/// The value of a `ce-` header: a quoted string undone, one round of percent-decoding, UTF-8
/// without control characters.
fn decode<'a>(attribute: &str, value: &'a HeaderValue) -> Result<Cow<'a, str>, EventError> {
    let raw = value.as_bytes();
    let plain = |byte: &u8| matches!(byte, 0x20..=0x7e) && *byte != b'%';
    if raw.first() != Some(&b'"') && raw.iter().all(plain) {
        return Ok(Cow::Borrowed(value.to_str().unwrap_or_default()));
    }
    let problem = |problem: &'static str| EventError::header(&format!("ce-{attribute}"), problem);
    let unquoted = unquote(raw).map_or(Cow::Borrowed(raw), Cow::Owned);
    let decoded = percent_decode(&unquoted)
        .ok_or_else(|| problem("a % must be followed by two hex digits; write % itself as %25"))?;
    let text = String::from_utf8(decoded)
        .map_err(|_| problem("the value, percent-decoded, must be UTF-8"))?;
    check_string(attribute, &text)?;
    Ok(Cow::Owned(text))
}

/// What a quoted string (RFC 9110 5.6.4) stands for; `None`: it is not one, as a whole.
fn unquote(raw: &[u8]) -> Option<Vec<u8>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return None,
            b'\\' => plain.push(*bytes.next()?),
            _ => plain.push(*byte),
        }
    }
    Some(plain)
}

fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => decoded.push(hex(*bytes.next()?)? << 4 | hex(*bytes.next()?)?),
            _ => decoded.push(*byte),
        }
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// A value as a `ce-` header has it; the same bytes when there is nothing to encode.
fn encode(value: Bytes) -> Bytes {
    let plain = |byte: &u8| matches!(byte, 0x21..=0x7e) && !matches!(byte, b'"' | b'%');
    if value.iter().all(plain) {
        return value;
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(value.len() + 32);
    for byte in &value {
        if plain(byte) {
            encoded.push(*byte);
        } else {
            let (high, low) = (byte >> 4, byte & 15);
            encoded.extend_from_slice(&[b'%', HEX[usize::from(high)], HEX[usize::from(low)]]);
        }
    }
    encoded.into()
}

static CE_ID: HeaderName = HeaderName::from_static("ce-id");
static CE_SOURCE: HeaderName = HeaderName::from_static("ce-source");
static CE_TYPE: HeaderName = HeaderName::from_static("ce-type");
static CE_SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
static CE_TIME: HeaderName = HeaderName::from_static("ce-time");
static CE_SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
static CE_DATASCHEMA: HeaderName = HeaderName::from_static("ce-dataschema");
static CE_PARTITIONKEY: HeaderName = HeaderName::from_static("ce-partitionkey");

/// The header of an attribute, without an allocation for the common ones.
fn attribute_header(attribute: &str) -> Option<HeaderName> {
    let known = match attribute {
        "id" => &CE_ID,
        "source" => &CE_SOURCE,
        "type" => &CE_TYPE,
        "specversion" => &CE_SPECVERSION,
        "time" => &CE_TIME,
        "subject" => &CE_SUBJECT,
        "dataschema" => &CE_DATASCHEMA,
        "partitionkey" => &CE_PARTITIONKEY,
        other => return HeaderName::from_bytes(format!("ce-{other}").as_bytes()).ok(),
    };
    Some(known.clone())
}
