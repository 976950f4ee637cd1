//! What goes with a commit: the offsets finished beyond it, and the attempts of what waits.
//!
//! The text is `lv1:` and base64url of these bytes (a varint is LEB128, a signed one zigzag first):
//! ```text
//! checksum    4 bytes, FNV-1a of the committed offset and all that follows
//! waiting     per event: offset (distance from the one before, counted from 1), attempts made,
//!             first attempt (signed distance from the one before), due (signed distance from its
//!             first attempt); varints. Ordered by offset, ended by a 0.
//! form        1 byte, missing when nothing is done: 1 ranges, 2 bitmap
//! ranges      per range: distance from the end of the one before (the commit at first), length;
//!             varints, the distance counted from 1 and the length likewise, except the first
//!             distance, which may be 0
//! bitmap      bit n of byte m is the offset commit + 8 m + n
//! ```
//! A reader that does not know the text, or finds it damaged, has nothing: then what was finished
//! is delivered again, and nothing is lost. A version to come begins with other letters.

#[cfg(test)]
mod tests;

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::UnixMillis;
use crate::log::Offset;

/// So many characters of metadata go with a commit; Kafka refuses 4,096.
pub const METADATA_LIMIT: usize = 4095;

const VERSION: &str = "lv1:";
const RANGES: u8 = 1;
const BITMAP: u8 = 2;

/// What a commit says besides its offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Finished offsets beyond the commit: ordered ranges that do not touch.
    pub done: Vec<Range<Offset>>,
    /// Events that wait in memory for their next attempt, ordered by offset.
    pub waiting: Vec<Waiting>,
}

/// An event that waits for its next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub offset: Offset,
    /// Attempts made, at least 1.
    pub attempts_made: u32,
    /// When the first one began.
    pub first_attempt: UnixMillis,
    /// When the next one is due.
    pub due: UnixMillis,
}

/// Whether everything went into the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Yes.
    All,
    /// No. What waits comes before what is done, and what is near the commit before the rest.
    Truncated {
        /// The waiting events that are not in it.
        waiting: Vec<Offset>,
        /// The first finished offset that is not in it; no later one is either.
        done_from: Option<Offset>,
    },
}

impl Metadata {
    /// The text for a commit of `commit`, at most `limit` characters; empty when there is nothing
    /// to say. What lies before `commit`, and what is out of order, is left out.
    #[must_use]
    pub fn encode(&self, commit: Offset, limit: usize) -> (String, Fit) {
        // Without padding n bytes take the least whole number of characters that is 4/3 n.
        let room = limit.saturating_sub(VERSION.len()).saturating_mul(3) / 4;
        let mut bytes = vec![0; CHECKSUM];
        let left_waiting = self.put_waiting(&mut bytes, commit, room);
        let empty = bytes.len() == CHECKSUM;
        let (form, done_from) = put_done(&self.done, commit, room.saturating_sub(bytes.len() + 1));
        let fit = if left_waiting.is_empty() && done_from.is_none() {
            Fit::All
        } else {
            Fit::Truncated {
                waiting: left_waiting,
                done_from,
            }
        };
        if empty && form.is_empty() {
            return (String::new(), fit);
        }
        bytes.push(0);
        bytes.extend_from_slice(&form);
        let checksum = checksum(commit, &bytes[CHECKSUM..]);
        bytes[..CHECKSUM].copy_from_slice(&checksum);
        let mut text = VERSION.to_owned();
        URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
        (text, fit)
    }

    /// Reads what [`Metadata::encode`] wrote for a commit of `commit`. Any other text, such as
    /// another program's, a damaged one, or one for another offset, says nothing.
    #[must_use]
    pub fn decode(commit: Offset, text: &str) -> Self {
        decode(commit, text).unwrap_or_default()
    }

    /// Appends what waits, without the final 0, as far as there is room; gives what is left out.
    fn put_waiting(&self, bytes: &mut Vec<u8>, commit: Offset, room: usize) -> Vec<Offset> {
        let mut before = (commit.0, 0);
        let mut left = Vec::new();
        let mut full = false;
        for one in &self.waiting {
            let Some(distance) = distance(before.0, one.offset.0) else {
                continue;
            };
            let end = bytes.len();
            if !full {
                put_varint(bytes, distance + 1);
                put_varint(bytes, u64::from(one.attempts_made));
                put_signed(bytes, one.first_attempt.0.wrapping_sub(before.1));
                put_signed(bytes, one.due.0.wrapping_sub(one.first_attempt.0));
                // The 0 at the end must fit too.
                full = bytes.len() >= room;
            }
            if full {
                bytes.truncate(end);
                left.push(one.offset);
            } else {
                before = (one.offset.0.saturating_add(1), one.first_attempt.0);
            }
        }
        left
    }
}

const CHECKSUM: usize = 4;

fn checksum(commit: Offset, bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in commit.0.to_le_bytes().iter().chain(bytes) {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    hash.to_le_bytes()
}

/// How far `to` is after `from`, `None` when it is before (or as far as no two offsets are).
fn distance(from: i64, to: i64) -> Option<u64> {
    let distance = (to >= from).then(|| to.abs_diff(from));
    distance.filter(|distance| *distance < u64::MAX)
}

/// Ranges or bitmap, whichever says it all in fewer bytes or, if neither does, says more; and the
/// first offset that is not said. Nothing at all is no bytes.
fn put_done(done: &[Range<Offset>], commit: Offset, room: usize) -> (Vec<u8>, Option<Offset>) {
    let mut done: Vec<Range<i64>> = done
        .iter()
        .map(|range| range.start.0..range.end.0)
        .collect();
    let mut end = commit.0;
    done.retain(|range| {
        let follows = range.start >= end && !range.is_empty();
        if follows {
            end = range.end;
        }
        follows
    });
    let (ranges, bitmap) = (
        put_ranges(&done, commit.0, room),
        put_bitmap(&done, commit.0, room),
    );
    let rank = |(bytes, missing): &(Vec<u8>, Option<i64>)| {
        (missing.unwrap_or(i64::MAX), usize::MAX - bytes.len())
    };
    let (bytes, missing) = if rank(&bitmap) > rank(&ranges) {
        bitmap
    } else {
        ranges
    };
    (bytes, missing.map(Offset))
}

fn put_ranges(done: &[Range<i64>], commit: i64, room: usize) -> (Vec<u8>, Option<i64>) {
    let mut bytes = vec![RANGES];
    let mut end = commit;
    for (place, range) in done.iter().enumerate() {
        let whole = bytes.len();
        let apart = range.start.abs_diff(end);
        put_varint(
            &mut bytes,
            if place == 0 {
                apart
            } else {
                apart.saturating_sub(1)
            },
        );
        put_varint(&mut bytes, range.end.abs_diff(range.start) - 1);
        if bytes.len() > room {
            bytes.truncate(whole);
            if whole == 1 {
                bytes.clear();
            }
            return (bytes, Some(range.start));
        }
        end = range.end;
    }
    if done.is_empty() {
        bytes.clear();
    }
    (bytes, None)
}

fn put_bitmap(done: &[Range<i64>], commit: i64, room: usize) -> (Vec<u8>, Option<i64>) {
    let bits = room.saturating_sub(1).saturating_mul(8) as u64;
    let mut bytes = vec![BITMAP];
    let mut missing = None;
    for range in done {
        let start = range.start.abs_diff(commit);
        let end = range.end.abs_diff(commit);
        for bit in start..end.min(bits) {
            let place = 1 + usize::try_from(bit / 8).expect("bounded by the room");
            if bytes.len() <= place {
                bytes.resize(place + 1, 0);
            }
            bytes[place] |= 1 << (bit % 8);
        }
        if end > bits {
            missing = Some(range.start.max(commit.saturating_add_unsigned(bits)));
            break;
        }
    }
    if bytes.len() == 1 {
        bytes.clear();
    }
    (bytes, missing)
}

fn decode(commit: Offset, text: &str) -> Option<Metadata> {
    let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(VERSION)?).ok()?;
    let (sum, rest) = bytes.split_at_checked(CHECKSUM)?;
    if sum != checksum(commit, rest) {
        return None;
    }
    let mut input = rest;
    let waiting = take_waiting(&mut input, commit.0)?;
    let done = match input.split_first() {
        None => Vec::new(),
        Some((&RANGES, ranges)) => take_ranges(ranges, commit.0)?,
        Some((&BITMAP, bitmap)) => take_bitmap(bitmap, commit.0)?,
        Some(_) => return None,
    };
    Some(Metadata { done, waiting })
}

fn take_waiting(input: &mut &[u8], commit: i64) -> Option<Vec<Waiting>> {
    let mut waiting = Vec::new();
    let mut before = (commit, 0_i64);
    loop {
        let Some(distance) = take_varint(input)?.checked_sub(1) else {
            return Some(waiting);
        };
        let offset = before.0.checked_add_unsigned(distance)?;
        let attempts_made = u32::try_from(take_varint(input)?).ok()?;
        let first = before.1.wrapping_add(take_signed(input)?);
        let due = first.wrapping_add(take_signed(input)?);
        waiting.push(Waiting {
            offset: Offset(offset),
            attempts_made,
            first_attempt: UnixMillis(first),
            due: UnixMillis(due),
        });
        before = (offset.saturating_add(1), first);
    }
}

fn take_ranges(mut input: &[u8], commit: i64) -> Option<Vec<Range<Offset>>> {
    let mut done: Vec<Range<Offset>> = Vec::new();
    let mut end = commit;
    while !input.is_empty() {
        let apart = take_varint(&mut input)?;
        let apart = if done.is_empty() {
            apart
        } else {
            apart.checked_add(1)?
        };
        let start = end.checked_add_unsigned(apart)?;
        end = start.checked_add_unsigned(take_varint(&mut input)?.checked_add(1)?)?;
        done.push(Offset(start)..Offset(end));
    }
    Some(done)
}

fn take_bitmap(bitmap: &[u8], commit: i64) -> Option<Vec<Range<Offset>>> {
    let mut done: Vec<Range<Offset>> = Vec::new();
    let mut offset = commit;
    for byte in bitmap {
        for bit in 0..8 {
            let next = offset.checked_add(1)?;
            if byte & (1 << bit) != 0 {
                match done.last_mut() {
                    Some(last) if last.end.0 == offset => last.end.0 = next,
                    _ => done.push(Offset(offset)..Offset(next)),
                }
            }
            offset = next;
        }
    }
    Some(done)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(0x80 | low_byte(value));
        value >>= 7;
    }
    bytes.push(low_byte(value));
}

/// The lowest seven bits.
fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_signed(bytes: &mut Vec<u8>, value: i64) {
    put_varint(bytes, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn take_signed(input: &mut &[u8]) -> Option<i64> {
    let value = take_varint(input)?;
    Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}
