//! A validated CloudEvent, in the form the log stores it.
//!
//! An event is kept as Kafka's binary content mode has it: attributes as `ce_<name>` headers, the
//! media type as `content-type`, the data as the value, `partitionkey` as the key. So an event
//! that comes in over HTTP is validated once, goes to the log as it is, and is read from there
//! and sent on without being taken apart.

use bytes::Bytes;

use crate::log::{Headers, Record};

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
        todo!()
    }

    /// An attribute by its name (`id`, `specversion`, `myextension`), not `datacontenttype`.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let _ = name;
        todo!()
    }

    /// All attributes but `datacontenttype`, in order.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        std::iter::empty()
    }

    /// The key that orders events (`partitionkey`).
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        self.record.key.as_ref()
    }

    /// Everything together, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.record.byte_len()
    }
}
