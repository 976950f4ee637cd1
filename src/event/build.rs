//! Puts an event together, checking each attribute as it comes.

use bytes::Bytes;

use super::error::EventError;
use super::rules::{Required, check_name, check_string, check_value};
use super::{ATTRIBUTE, CONTENT_TYPE, Event};
use crate::log::{Headers, HeadersBuilder, Record};

/// Collects the parts of an event. That no attribute comes twice is its user's to see to.
#[derive(Debug)]
pub(super) struct Builder {
    headers: HeadersBuilder,
    required: Required,
    has_key: bool,
}

impl Builder {
    /// Room for `count` headers of `bytes` in all.
    pub(super) fn new(count: usize, bytes: usize) -> Self {
        Self {
            headers: Headers::builder(count, bytes),
            required: Required::default(),
            has_key: false,
        }
    }

    /// Adds an attribute other than `datacontenttype`.
    pub(super) fn attribute(&mut self, name: &str, value: &str) -> Result<(), EventError> {
        check_name(name)?;
        check_string(name, value)?;
        self.checked_attribute(name, value)
    }

    /// Adds an attribute whose value is known to be free of control characters.
    pub(super) fn checked_attribute(&mut self, name: &str, value: &str) -> Result<(), EventError> {
        check_value(name, value)?;
        self.saw(name);
        self.headers
            .push_with(&[ATTRIBUTE.as_bytes(), name.as_bytes()], |bytes| {
                bytes.extend_from_slice(value.as_bytes());
            });
        Ok(())
    }

    /// Adds `datacontenttype`, which has the name `place` where it came from.
    pub(super) fn content_type(&mut self, place: &str, value: &str) -> Result<(), EventError> {
        check_string(place, value)?;
        check_value("datacontenttype", value)?;
        self.headers.push(CONTENT_TYPE.as_bytes(), value.as_bytes());
        Ok(())
    }

    /// Adds a header in its stored form as it is: of an event that was checked before, or one
    /// that travels along.
    pub(super) fn keep(&mut self, name: &[u8], value: &[u8]) {
        if let Some(attribute) = name.strip_prefix(ATTRIBUTE.as_bytes()) {
            self.saw(super::text(attribute));
        }
        self.headers.push(name, value);
    }

    fn saw(&mut self, name: &str) {
        self.required.saw(name);
        self.has_key |= name == "partitionkey";
    }

    /// The event. `key` is that of the record it came in, which stands where there is no
    /// `partitionkey`.
    pub(super) fn finish(
        self,
        value: Option<Bytes>,
        key: Option<Bytes>,
    ) -> Result<Event, EventError> {
        self.required.check()?;
        let headers = self.headers.finish();
        let key = if self.has_key {
            headers.get_shared(b"ce_partitionkey")
        } else {
            key
        };
        Ok(Event {
            record: Record {
                key,
                value,
                headers,
            },
        })
    }
}
