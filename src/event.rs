//! A validated CloudEvent, in the form the log stores it.
//!
//! An event is kept as Kafka's binary content mode has it: attributes as `ce_<name>` headers, the
//! media type as `content-type`, the data as the value, `partitionkey` as the key. So an event
//! that comes in over HTTP is validated once, goes to the log as it is, and is read from there
//! and sent on without being taken apart. One header of ours, `levada-mode`, tells an event that came
//! as JSON, so that it can go out so again; an event that came in binary mode has none.
//!
//! Every way to make an [`Event`] checks it ([`Event::from_http`], [`Event::from_record`],
//! [`Event::with_attributes`]); whoever holds one need not check again.

mod build;
mod error;
mod http;
mod json;
mod media_type;
mod record;
mod rules;
#[cfg(test)]
mod tests;
mod time;

use bytes::Bytes;

pub use self::error::{EventError, EventErrorKind, Place};
pub use self::http::{Decoded, Mode};

use self::build::Builder;
use crate::channel::Format;
use crate::log::{Headers, Record};

/// How a record header of an attribute begins.
const ATTRIBUTE: &str = "ce_";
/// The record header of `datacontenttype`.
const CONTENT_TYPE: &str = "content-type";
/// The record header that tells how an event came: [`STRUCTURED`], or it is not there.
const MODE: &str = "levada-mode";
/// The value of [`MODE`] for an event that came as JSON, alone or in a batch.
const STRUCTURED: &str = "structured";
/// How the broker's own record headers begin.
const OWN: &[u8] = b"levada-";

/// Whether a record header is a note of the broker's on the message, and not part of the event.
/// One found in a record of another producer would be taken for ours.
#[must_use]
pub fn is_note(name: &[u8]) -> bool {
    name.starts_with(OWN) && name != MODE.as_bytes()
}

/// A validated CloudEvent 1.0 with the request headers that travel along with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    record: Record,
}

impl Event {
    /// The record to append. Cheap: the parts are shared.
    #[must_use]
    pub fn to_record(&self) -> Record {
        self.record.clone()
    }

    /// The record to append, of an event that is not needed any longer.
    #[must_use]
    pub fn into_record(self) -> Record {
        self.record
    }

    /// The headers in their stored form.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.record.headers
    }

    /// The data, byte for byte; `None`: no data.
    #[must_use]
    pub fn data(&self) -> Option<&Bytes> {
        self.record.value.as_ref()
    }

    /// `datacontenttype`
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.record.headers.get(CONTENT_TYPE.as_bytes()).map(text)
    }

    /// An attribute by its name (`id`, `specversion`, `myextension`), not `datacontenttype`.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    /// All attributes but `datacontenttype`, in order.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.record
            .headers
            .iter()
            .filter_map(|(name, value)| Some((text(name).strip_prefix(ATTRIBUTE)?, text(value))))
    }

    /// The request headers that travel along (trace context, request id, Knative's), names in
    /// lower case, in order.
    pub fn forwarded_headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.record
            .headers
            .iter()
            .map(|(name, value)| (text(name), value))
            .filter(|(name, _)| rules::is_forwarded(name))
    }

    /// The content mode in which the event was received: HTTP or Kafka, request or reply. JSON
    /// for an event of a batch too.
    #[must_use]
    pub fn received_as(&self) -> Format {
        match self.record.headers.get(MODE.as_bytes()) {
            Some(_) => Format::Json,
            None => Format::Binary,
        }
    }

    /// The same event as one that was received in this mode: for an event that was kept in
    /// another form in between.
    #[must_use]
    pub fn as_received(mut self, mode: Format) -> Self {
        if self.received_as() == mode {
            return self;
        }
        let stored = &self.record.headers;
        let mut headers = Headers::builder(stored.len() + 1, stored.byte_len() + 32);
        for (name, value) in stored.iter().filter(|(name, _)| *name != MODE.as_bytes()) {
            headers.push(name, value);
        }
        if mode == Format::Json {
            headers.push(MODE.as_bytes(), STRUCTURED.as_bytes());
        }
        self.record.headers = headers.finish();
        self
    }

    /// The key that orders events: `partitionkey`, or without one the key that the record of
    /// another producer had.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        self.record.key.as_ref()
    }

    /// Everything together, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.record.byte_len()
    }

    /// The same event with some attributes set anew (`datacontenttype` among them); an empty
    /// value takes the attribute away.
    ///
    /// # Errors
    /// [`EventError`] when the result would not be a valid event.
    pub fn with_attributes(&self, changes: &[(&str, &str)]) -> Result<Self, EventError> {
        let added: usize = changes.iter().map(|(n, v)| n.len() + v.len() + 3).sum();
        let headers = &self.record.headers;
        let mut builder = Builder::new(headers.len() + changes.len(), headers.byte_len() + added);
        for (name, value) in headers.iter() {
            let attribute = stored_attribute(text(name));
            if !changes.iter().any(|(name, _)| attribute == Some(name)) {
                builder.keep(name, value);
            }
        }
        for (at, (name, value)) in changes.iter().enumerate() {
            let superseded = changes[at + 1..].iter().any(|(later, _)| later == name);
            if value.is_empty() || superseded {
                continue;
            }
            match *name {
                "datacontenttype" => builder.content_type(name, value)?,
                name => builder.attribute(name, value)?,
            }
        }
        let key = changes
            .iter()
            .all(|(name, _)| *name != "partitionkey")
            .then(|| self.record.key.clone())
            .flatten();
        builder.finish(self.record.value.clone(), key)
    }
}

/// The attribute that a stored header holds.
fn stored_attribute(header: &str) -> Option<&str> {
    match header {
        CONTENT_TYPE => Some("datacontenttype"),
        header => header.strip_prefix(ATTRIBUTE),
    }
}

/// Stored text; it was checked when the event was made.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
