//! Records as the log holds them: key, value and headers.

use bytes::Bytes;

use crate::clock::UnixMillis;
use crate::log::Offset;

/// Record headers in order, names and values in one buffer.
///
/// One buffer and one list, however many headers: an event crosses from HTTP to the log and back
/// without an allocation per header, and a value can be handed on as a slice of the buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    bytes: Bytes,
    spans: Vec<Span>,
}

/// Ends of a name and its value in the buffer; the name begins where the header before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    name_end: u32,
    value_end: u32,
}

impl Headers {
    /// A builder with room for `count` headers of `bytes` in all.
    #[must_use]
    pub fn builder(count: usize, bytes: usize) -> HeadersBuilder {
        HeadersBuilder {
            bytes: Vec::with_capacity(bytes),
            spans: Vec::with_capacity(count),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Names and values together, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        pairs(&self.bytes, &self.spans)
    }

    /// Names and values in order, the values as slices that share the buffer.
    pub fn iter_shared(&self) -> impl Iterator<Item = (&[u8], Bytes)> {
        let mut start = 0;
        self.spans.iter().map(move |span| {
            let (name_end, value_end) = (span.name_end as usize, span.value_end as usize);
            let header = (
                &self.bytes[start..name_end],
                self.bytes.slice(name_end..value_end),
            );
            start = value_end;
            header
        })
    }

    /// The first value under `name`, matched exactly.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    /// The first value under `name`, matched exactly, as a slice that shares the buffer.
    #[must_use]
    pub fn get_shared(&self, name: &[u8]) -> Option<Bytes> {
        self.get(name).map(|value| self.bytes.slice_ref(value))
    }
}

/// Collects headers.
#[derive(Debug, Default)]
pub struct HeadersBuilder {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl HeadersBuilder {
    /// Adds a header at the end.
    ///
    /// # Panics
    /// When all headers together pass 4 GiB, which the limits on events rule out.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_with(&[name], |bytes| bytes.extend_from_slice(value));
    }

    /// Adds a header whose name is given in pieces and whose value `write` appends.
    ///
    /// # Panics
    /// As [`HeadersBuilder::push`].
    pub fn push_with(&mut self, name: &[&[u8]], write: impl FnOnce(&mut Vec<u8>)) {
        for piece in name {
            self.bytes.extend_from_slice(piece);
        }
        let name_end = end(&self.bytes);
        write(&mut self.bytes);
        let value_end = end(&self.bytes);
        self.spans.push(Span {
            name_end,
            value_end,
        });
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Names and values together, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Names and values collected so far, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        pairs(&self.bytes, &self.spans)
    }

    /// The headers.
    #[must_use]
    pub fn finish(self) -> Headers {
        Headers {
            bytes: self.bytes.into(),
            spans: self.spans,
        }
    }
}

fn pairs<'h>(bytes: &'h [u8], spans: &'h [Span]) -> impl Iterator<Item = (&'h [u8], &'h [u8])> {
    let mut start = 0;
    spans.iter().map(move |span| {
        let (name_end, value_end) = (span.name_end as usize, span.value_end as usize);
        let header = (&bytes[start..name_end], &bytes[name_end..value_end]);
        start = value_end;
        header
    })
}

fn end(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("headers are bounded far below 4 GiB")
}

/// A record to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Decides the partition; `None`: any.
    pub key: Option<Bytes>,
    /// `None` is Kafka's null, an event without data.
    pub value: Option<Bytes>,
    /// The headers in order.
    pub headers: Headers,
}

impl Record {
    /// Key, value and headers together, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        let len = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        len(&self.key) + len(&self.value) + self.headers.byte_len()
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its place in the partition.
    pub offset: Offset,
    /// When the log took it.
    pub time: UnixMillis,
    /// What it holds.
    pub record: Record,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_in_order_with_duplicates_and_empty_values() {
        let mut builder = Headers::builder(3, 16);
        builder.push(b"a", b"1");
        builder.push_with(&[b"ce_", b"id"], |bytes| bytes.extend_from_slice(b"x"));
        builder.push(b"a", b"");
        assert_eq!(builder.len(), 3);
        let headers = builder.finish();
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(all, [(&b"a"[..], &b"1"[..]), (b"ce_id", b"x"), (b"a", b"")]);
        assert_eq!(headers.get(b"a"), Some(&b"1"[..]));
        assert_eq!(headers.get(b"b"), None);
        assert_eq!(headers.get_shared(b"ce_id"), Some(Bytes::from("x")));
        assert_eq!(headers.get_shared(b"b"), None);
        let shared: Vec<_> = headers.iter_shared().map(|(_, value)| value).collect();
        assert_eq!(shared, ["1", "x", ""]);
    }
}
