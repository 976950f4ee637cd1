//! Events in records: Kafka's binary and structured content modes, of any producer.

use super::build::Builder;
use super::error::EventError;
use super::http::Forwarded;
use super::rules::{check_name, check_string, check_value, is_forwarded};
use super::{ATTRIBUTE, CONTENT_TYPE, Event, MODE, STRUCTURED, json, media_type};
use crate::log::Record;

impl Event {
    /// Reads the event of a record, of whatever producer, in binary or structured mode. Headers
    /// that are neither attributes nor travel along (`levada-` ones too) are left out, but for the
    /// mark of an event that came as JSON.
    ///
    /// # Errors
    /// [`EventError`] when the record is not a valid event.
    pub fn from_record(record: Record) -> Result<Self, EventError> {
        let content_type = record
            .headers
            .iter()
            .find(|(name, _)| is_content_type(name))
            .map(|(_, value)| String::from_utf8_lossy(value));
        match content_type {
            Some(value) if media_type::starts_with(&value, "application/cloudevents") => {
                let essence = media_type::essence(&value);
                if essence.eq_ignore_ascii_case("application/cloudevents+json") {
                    from_structured(&record)
                } else {
                    Err(EventError::unsupported(CONTENT_TYPE, essence))
                }
            }
            _ => from_binary(record),
        }
    }
}

/// What a header of a binary record is to the event.
enum Part<'a> {
    Attribute(&'a str, &'a str),
    ContentType(&'a str),
    Forwarded,
    /// The mark of an event that came as JSON.
    Mode,
    Other,
}

fn from_structured(record: &Record) -> Result<Event, EventError> {
    let mut forwarded = Forwarded::default();
    for (name, value) in record.headers.iter() {
        if matches!(part(name, value)?, Part::Forwarded) {
            forwarded.push(name, value);
        }
    }
    let Some(value) = &record.value else {
        return Err(EventError::body(
            "a record with an event format's content type needs a value",
        ));
    };
    let event = json::event(value, &forwarded)?;
    Ok(with_key_of(event, record))
}

fn with_key_of(mut event: Event, record: &Record) -> Event {
    if event.record.key.is_none() {
        event.record.key.clone_from(&record.key);
    }
    event
}

/// The headers are checked where they are; only when some are to be left out is the list made
/// anew, so a record of our own is taken as it is.
fn from_binary(mut record: Record) -> Result<Event, EventError> {
    if is_clean(&record)? {
        let attribute = record.headers.get(b"ce_partitionkey");
        if attribute.is_some_and(|key| record.key.as_deref() != Some(key)) {
            record.key = record.headers.get_shared(b"ce_partitionkey");
        }
        return Ok(Event { record });
    }
    let headers = &record.headers;
    let mut builder = Builder::new(headers.len(), headers.byte_len());
    for (name, value) in headers.iter() {
        match part(name, value)? {
            Part::Attribute(name, value) if !is_absent(name, value) => {
                builder.attribute(name, value)?;
            }
            Part::ContentType(value) if !value.is_empty() => {
                builder.content_type(CONTENT_TYPE, value)?;
            }
            Part::Forwarded | Part::Mode => builder.keep(name, value),
            Part::Attribute(..) | Part::ContentType(_) | Part::Other => {}
        }
    }
    builder.finish(record.value, record.key)
}

/// Whether every header belongs to the event as it is. Checks them all.
fn is_clean(record: &Record) -> Result<bool, EventError> {
    let mut required = super::rules::Required::default();
    let mut clean = true;
    let mut has_content_type = false;
    for (name, value) in record.headers.iter() {
        match part(name, value)? {
            Part::Attribute(name, value) => {
                if is_absent(name, value) {
                    clean = false;
                    continue;
                }
                check_name(name)?;
                check_string(name, value)?;
                check_value(name, value)?;
                required.saw(name);
            }
            Part::ContentType(_) if std::mem::replace(&mut has_content_type, true) => {
                return Err(EventError::header(CONTENT_TYPE, "it is there twice"));
            }
            Part::ContentType(value) => {
                clean &= name == CONTENT_TYPE.as_bytes() && !value.is_empty();
                if !value.is_empty() {
                    check_string(CONTENT_TYPE, value)?;
                    check_value("datacontenttype", value)?;
                }
            }
            Part::Forwarded | Part::Mode => {}
            Part::Other => clean = false,
        }
    }
    required.check()?;
    refuse_repeated(record)?;
    Ok(clean)
}

/// Refuses an attribute that comes twice.
fn refuse_repeated(record: &Record) -> Result<(), EventError> {
    // Few enough to be compared one by one, without a list.
    const FEW: usize = 32;
    let attributes = || {
        let names = record.headers.iter().map(|(name, _)| name);
        names.filter(|name| name.starts_with(ATTRIBUTE.as_bytes()))
    };
    let repeated = if record.headers.len() <= FEW {
        attributes()
            .enumerate()
            .find(|(at, name)| attributes().take(*at).any(|before| before == *name))
            .map(|(_, name)| name)
    } else {
        let mut names: Vec<&[u8]> = attributes().collect();
        names.sort_unstable();
        names
            .windows(2)
            .find(|pair| pair[0] == pair[1])
            .map(|pair| pair[0])
    };
    repeated.map_or(Ok(()), |name| {
        Err(EventError::header(
            &String::from_utf8_lossy(name),
            "it is there twice",
        ))
    })
}

fn part<'a>(name: &'a [u8], value: &'a [u8]) -> Result<Part<'a>, EventError> {
    let utf8 = |text: &'a [u8]| {
        std::str::from_utf8(text).map_err(|_| {
            EventError::header(&String::from_utf8_lossy(name), "it must be UTF-8 text")
        })
    };
    if let Some(attribute) = name.strip_prefix(ATTRIBUTE.as_bytes()) {
        return Ok(Part::Attribute(utf8(attribute)?, utf8(value)?));
    }
    if is_content_type(name) {
        return Ok(Part::ContentType(utf8(value)?));
    }
    // Whoever wrote it: it decides nothing but the mode in which the event goes out.
    if name == MODE.as_bytes() && value == STRUCTURED.as_bytes() {
        return Ok(Part::Mode);
    }
    let travels = std::str::from_utf8(name).is_ok_and(is_forwarded)
        && http::HeaderName::from_bytes(name).is_ok()
        && http::HeaderValue::from_bytes(value).is_ok();
    Ok(if travels {
        Part::Forwarded
    } else {
        Part::Other
    })
}

fn is_content_type(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(CONTENT_TYPE.as_bytes())
}

/// A header with a null value reads as an empty one; for an optional attribute that cannot be
/// empty it means that there is none.
fn is_absent(name: &str, value: &str) -> bool {
    value.is_empty() && matches!(name, "subject" | "time" | "dataschema" | "partitionkey")
}
