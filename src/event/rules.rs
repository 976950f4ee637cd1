//! What CloudEvents 1.0 asks of attribute names and values.

use std::borrow::Cow;

use fluent_uri::{Uri, UriRef};

use super::error::{EventError, shown};
use super::media_type::is_media_type;
use super::time::is_rfc3339;

/// The attributes that every event has, as bits of a set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Required(u8);

const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

impl Required {
    pub(super) fn saw(&mut self, name: &str) {
        if let Some(bit) = REQUIRED.iter().position(|required| *required == name) {
            self.0 |= 1 << bit;
        }
    }

    pub(super) fn check(self) -> Result<(), EventError> {
        match (0..REQUIRED.len()).find(|bit| self.0 & (1 << bit) == 0) {
            None => Ok(()),
            Some(bit) => Err(EventError::attribute(
                REQUIRED[bit],
                "missing; every event needs one",
            )),
        }
    }
}

/// Checks that `name` can be an attribute's name as it is sent (`datacontenttype` cannot: it
/// travels as the content type, or as its own JSON member).
pub(super) fn check_name(name: &str) -> Result<(), EventError> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let problem = match name {
        "" => "an attribute needs a name",
        "data" => "the name is reserved for the event's data",
        "datacontenttype" => "send it as the content type, not as an attribute header",
        _ if !name.bytes().all(legal) => "a name is made of a-z and 0-9 alone",
        _ => return Ok(()),
    };
    Err(EventError::attribute(name, problem))
}

/// Checks a value that is already known to be a legal String ([`check_string`]).
pub(super) fn check_value(name: &str, value: &str) -> Result<(), EventError> {
    match problem_of(name, value) {
        None => Ok(()),
        Some(problem) => Err(EventError::attribute(name, problem)),
    }
}

fn problem_of(name: &str, value: &str) -> Option<Cow<'static, str>> {
    match name {
        "specversion" if value != "1.0" => Some(
            format!(
                "{:?} is not supported; the version must be 1.0",
                shown(value)
            )
            .into(),
        ),
        "id" | "type" | "subject" | "partitionkey" | "source" | "dataschema" | "time"
            if value.is_empty() =>
        {
            Some("it must not be empty".into())
        }
        "source" => UriRef::parse(value).err().map(|error| {
            format!(
                "{:?} is not a URI-reference (RFC 3986): {error}",
                shown(value)
            )
            .into()
        }),
        "dataschema" => Uri::parse(value).err().map(|error| {
            format!(
                "{:?} is not an absolute URI (RFC 3986): {error}",
                shown(value)
            )
            .into()
        }),
        "time" if !is_rfc3339(value) => Some(
            format!(
                "{:?} is not an RFC 3339 date and time with a zone, such as 2026-01-31T12:00:00Z",
                shown(value)
            )
            .into(),
        ),
        "datacontenttype" if !is_media_type(value) => Some(
            format!(
                "{:?} is not a media type, such as application/json",
                shown(value)
            )
            .into(),
        ),
        _ => None,
    }
}

/// Checks that `value` is a CloudEvents String: no control characters, no noncharacters.
pub(super) fn check_string(name: &str, value: &str) -> Result<(), EventError> {
    if value.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return Ok(());
    }
    match value
        .chars()
        .find(|c| c.is_control() || is_noncharacter(*c))
    {
        None => Ok(()),
        Some(c) => Err(EventError::attribute(
            name,
            format!("U+{:04X} is not allowed in an attribute", u32::from(c)),
        )),
    }
}

fn is_noncharacter(c: char) -> bool {
    matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe
}

/// Whether a request header travels along with the event: trace context, request id, and
/// Knative's own. `name` is in lower case.
pub(super) fn is_forwarded(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b't') => matches!(name, "traceparent" | "tracestate"),
        Some(b'x') => name == "x-request-id" || name.starts_with("x-b3-"),
        Some(b'k') => name.starts_with("knative-"),
        _ => false,
    }
}
