//! How a record lies in the store, and how large Kafka would find it.
//!
//! ```text
//! version u8 | flags u8 | time i64 | key length u32 | headers u32
//! | name length u32, value length u32 of each header | names and values | key | value
//! ```
//! Numbers are little-endian. A reader refuses a version it does not know.

use bytes::Bytes;

use crate::clock::UnixMillis;
use crate::log::{Headers, Offset, Record, StoredRecord};

const VERSION: u8 = 1;
const HAS_KEY: u8 = 1;
const HAS_VALUE: u8 = 2;
const TIME_AT: std::ops::Range<usize> = 2..10;
const FIXED: usize = 18;

/// Bytes that are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored record is {0}")]
pub(super) struct Malformed(&'static str);

/// The record as it is stored, its time still to be set by [`stamp`].
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let key = record.key.as_deref();
    let value = record.value.as_deref();
    let headers = &record.headers;
    let mut out = Vec::with_capacity(FIXED + 8 * headers.len() + record.byte_len());
    let flag = |present: bool, flag: u8| if present { flag } else { 0 };
    out.push(VERSION);
    out.push(flag(key.is_some(), HAS_KEY) | flag(value.is_some(), HAS_VALUE));
    out.extend_from_slice(&[0; TIME_AT.end - TIME_AT.start]);
    push_len(&mut out, key.map_or(0, <[u8]>::len));
    push_len(&mut out, headers.len());
    for (name, value) in headers.iter() {
        push_len(&mut out, name.len());
        push_len(&mut out, value.len());
    }
    for (name, value) in headers.iter() {
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
    out.extend_from_slice(key.unwrap_or_default());
    out.extend_from_slice(value.unwrap_or_default());
    out
}

fn push_len(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("a record is bounded far below 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
}

/// Sets when the log took the record.
pub(super) fn stamp(encoded: &mut [u8], time: UnixMillis) {
    encoded[TIME_AT].copy_from_slice(&time.0.to_le_bytes());
}

/// When the log took the record.
pub(super) fn time(encoded: &[u8]) -> Result<UnixMillis, Malformed> {
    let bytes = encoded.get(TIME_AT).ok_or(Malformed("cut off"))?;
    let bytes = bytes.try_into().expect("the range has 8 bytes");
    Ok(UnixMillis(i64::from_le_bytes(bytes)))
}

/// Reads a record back.
pub(super) fn decode(encoded: &[u8], offset: Offset) -> Result<StoredRecord, Malformed> {
    let mut rest = Reader(encoded);
    if rest.take(1)? != [VERSION] {
        return Err(Malformed("of a version that this program does not know"));
    }
    let flags = rest.take(1)?[0];
    rest.take(TIME_AT.len())?;
    let key_len = rest.len()?;
    let count = rest.len()?;
    let mut lengths = Reader(rest.take(count.saturating_mul(8))?);
    let mut headers = Headers::builder(count, 0);
    for _ in 0..count {
        let (name, value) = (lengths.len()?, lengths.len()?);
        headers.push(rest.take(name)?, rest.take(value)?);
    }
    // Key and value share one copy: a slice of the store's would keep a whole block in memory.
    let payload = Bytes::copy_from_slice(rest.0);
    if key_len > payload.len() {
        return Err(Malformed("cut off"));
    }
    let part = |flag: u8, part: Bytes| (flags & flag != 0).then_some(part);
    Ok(StoredRecord {
        offset,
        time: time(encoded)?,
        record: Record {
            key: part(HAS_KEY, payload.slice(..key_len)),
            value: part(HAS_VALUE, payload.slice(key_len..)),
            headers: headers.finish(),
        },
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed("cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn len(&mut self) -> Result<usize, Malformed> {
        let bytes = self.take(4)?.try_into().expect("4 were taken");
        usize::try_from(u32::from_le_bytes(bytes)).map_err(|_| Malformed("too long"))
    }
}

/// The size of a record batch (version 2) of this record alone, uncompressed: what Kafka holds
/// against `max.message.bytes`.
pub(super) fn kafka_size(record: &Record) -> usize {
    const BATCH_HEADER: usize = 61;
    let part = |part: &Option<Bytes>| match part {
        Some(bytes) => sized(bytes.len()),
        None => 1,
    };
    let headers: usize = record
        .headers
        .iter()
        .map(|(name, value)| sized(name.len()) + sized(value.len()))
        .sum();
    // Attributes, time delta and offset delta are one byte each in a batch of one.
    let count = varint_len(record.headers.len());
    let body = 3 + part(&record.key) + part(&record.value) + count + headers;
    BATCH_HEADER + varint_len(body) + body
}

fn sized(len: usize) -> usize {
    varint_len(len) + len
}

/// Bytes of a zigzag varint of a number that is not negative.
fn varint_len(number: usize) -> usize {
    let bits = usize::BITS - number.leading_zeros() + 1;
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    fn records() -> impl Strategy<Value = Record> {
        let part = || proptest::option::of(bytes(40));
        let headers = proptest::collection::vec((bytes(10), bytes(10)), 0..5);
        (part(), part(), headers).prop_map(|(key, value, pairs)| {
            let mut headers = Headers::builder(pairs.len(), 0);
            for (name, value) in pairs {
                headers.push(&name, &value);
            }
            let headers = headers.finish();
            Record {
                key,
                value,
                headers,
            }
        })
    }

    proptest! {
        #[test]
        fn records_come_back(record in records(), millis in any::<i64>(), offset in 0..i64::MAX) {
            let mut encoded = encode(&record);
            stamp(&mut encoded, UnixMillis(millis));
            prop_assert_eq!(time(&encoded), Ok(UnixMillis(millis)));
            let stored = StoredRecord { offset: Offset(offset), time: UnixMillis(millis), record };
            prop_assert_eq!(decode(&encoded, Offset(offset)), Ok(stored));
        }

        #[test]
        fn no_bytes_make_it_panic(mut encoded in bytes(80).prop_map(Vec::from), one in any::<bool>()) {
            if let (Some(first), true) = (encoded.first_mut(), one) {
                *first = VERSION;
            }
            drop(decode(&encoded, Offset(0)));
        }
    }

    /// A reader of today must read what was stored by version 1 for ever.
    #[test]
    fn version_1_lies_in_the_store_like_this() {
        let mut headers = Headers::builder(1, 2);
        headers.push(b"h", b"x");
        let record = Record {
            key: Some("k".into()),
            value: Some("v".into()),
            headers: headers.finish(),
        };
        let mut encoded = encode(&record);
        stamp(&mut encoded, UnixMillis(0x0102));
        let expected = b"\x01\x03\x02\x01\0\0\0\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0hxkv";
        assert_eq!(encoded, expected);
    }

    #[test]
    fn sizes_are_those_of_a_kafka_record_batch() {
        // 61 of the batch; length, attributes, two deltas, null key, null value, no headers.
        assert_eq!(kafka_size(&Record::default()), 61 + 1 + 3 + 1 + 1 + 1);
        let value = |len: usize| Record {
            value: Some(vec![0; len].into()),
            ..Record::default()
        };
        assert_eq!(kafka_size(&value(57)), 61 + 1 + 3 + 1 + 1 + 57 + 1);
        assert_eq!(kafka_size(&value(64)), 61 + 2 + 3 + 1 + 2 + 64 + 1);
        assert_eq!([0, 63, 64, 8191, 8192].map(varint_len), [1, 1, 2, 2, 3]);
    }
}
