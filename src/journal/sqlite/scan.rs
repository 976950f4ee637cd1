//! A page of messages out of one segment: which index is walked, how far, and what fits.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row};
use tokio::time::Instant;

use super::codes;
use super::schema::BLOCK_BITS;
use crate::clock::UnixMillis;
use crate::journal::{EventFacts, Filter, Message};
use crate::message::MessageId;

/// Entries that one search walks.
const WALK: usize = 20_000;
/// How long it walks.
const WALK_TIME: Duration = Duration::from_millis(50);
/// So often the time is looked at.
const LOOK: usize = 256;

/// The place of a message in every list: time of acceptance, then its id's parts.
pub(super) type Key = (i64, i64, i64, i64);

/// The key of a cursor.
pub(super) fn key_of(accepted: UnixMillis, id: MessageId) -> Key {
    let (scope, partition, offset) = id.parts();
    (accepted.0, codes::signed(scope), partition.into(), offset)
}

/// The text of the id in a key.
pub(super) fn id_of(key: Key) -> String {
    let partition = i32::try_from(key.2).unwrap_or_default();
    MessageId::from_parts((codes::unsigned(key.1), partition, key.3)).to_string()
}

/// What is left of a search's bounds.
#[derive(Debug)]
pub(super) struct Budget {
    entries: usize,
    until: Instant,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            entries: WALK,
            until: Instant::now() + WALK_TIME,
        }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.entries == 0 || Instant::now() >= self.until
    }

    fn take(&mut self) -> bool {
        self.entries = self.entries.saturating_sub(1);
        self.entries > 0 && (!self.entries.is_multiple_of(LOOK) || Instant::now() < self.until)
    }
}

/// Which way a list is walked, and from where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Newest first, or oldest first.
    pub(super) down: bool,
    /// Beyond this.
    pub(super) from: Option<Key>,
}

/// What was found, in the order of the walk.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) messages: Vec<(Key, Message)>,
    /// The bounds ended the walk here.
    pub(super) stopped: Option<Key>,
}

/// A filter in the numbers of one segment.
struct Numbers {
    status: Vec<i64>,
    subs: Vec<i64>,
    reasons: Vec<i64>,
    kind: Option<i64>,
    source: Option<i64>,
    /// Blocks of event ids, where one is asked for.
    blocks: i64,
}

/// A part of an index with equal first columns.
struct Stream {
    index: &'static str,
    prefix: Vec<(&'static str, i64)>,
    /// What the index leaves out.
    partial: &'static str,
}

/// Messages of a segment that fit, at most `limit`.
pub(super) fn scan(
    connection: &Connection,
    filter: &Filter,
    way: Way,
    limit: usize,
    budget: &mut Budget,
) -> rusqlite::Result<Found> {
    let Some(numbers) = numbers(connection, filter)? else {
        return Ok(Found::default());
    };
    let mut all = Found::default();
    for stream in streams(filter, &numbers) {
        let found = walk(connection, &stream, filter, &numbers, way, limit, budget)?;
        all.messages.extend(found.messages);
        all.stopped = match (all.stopped, found.stopped) {
            (Some(a), Some(b)) => Some(nearer(way, a, b)),
            (a, b) => a.or(b),
        };
    }
    Ok(all)
}

/// Of two places the one that the walk comes to first.
pub(super) fn nearer(way: Way, a: Key, b: Key) -> Key {
    if way.down { a.max(b) } else { a.min(b) }
}

/// `None`: the segment lacks a name that the filter asks for, so nothing fits.
fn numbers(connection: &Connection, filter: &Filter) -> rusqlite::Result<Option<Numbers>> {
    let mut statement = connection.prepare_cached("select id from name where text = ?")?;
    let mut name = |text: &str| {
        statement
            .query_row([text], |row| row.get::<_, i64>(0))
            .optional()
    };
    let mut subs = Vec::new();
    for subscription in &filter.subscription {
        subs.extend(name(&subscription.to_string())?);
    }
    let mut of_channels = Vec::new();
    for channel in &filter.channel {
        let Some(channel) = name(&channel.to_string())? else {
            continue;
        };
        let mut members = connection.prepare_cached("select sub from subject where channel = ?")?;
        let rows = members.query_map([channel], |row| row.get::<_, i64>(0))?;
        of_channels.extend(rows.collect::<Result<Vec<_>, _>>()?);
    }
    if !filter.channel.is_empty() {
        if filter.subscription.is_empty() {
            subs = of_channels;
        } else {
            subs.retain(|sub| of_channels.contains(sub));
        }
    }
    let reasons: Vec<i64> = filter
        .reason
        .iter()
        .filter_map(|reason| reason.parse().ok().map(codes::of_reason))
        .collect();
    let kind = match &filter.event_type {
        Some(text) => name(text)?,
        None => None,
    };
    let source = match &filter.event_source {
        Some(text) => name(text)?,
        None => None,
    };
    let asks_subs = !filter.subscription.is_empty() || !filter.channel.is_empty();
    let lacks = (asks_subs && subs.is_empty())
        || (!filter.reason.is_empty() && reasons.is_empty())
        || (filter.event_type.is_some() && kind.is_none())
        || (filter.event_source.is_some() && source.is_none());
    let mut status: Vec<i64> = filter
        .status
        .iter()
        .copied()
        .map(codes::of_status)
        .collect();
    if filter.retrying && status.is_empty() {
        status.push(0);
    }
    subs.sort_unstable();
    subs.dedup();
    let blocks = if filter.event_id.is_some() {
        let last = "select coalesce(max(id), 0) from message";
        connection.query_row(last, [], |row| row.get::<_, i64>(0))? >> BLOCK_BITS
    } else {
        0
    };
    Ok((!lacks).then_some(Numbers {
        status,
        subs,
        reasons,
        kind,
        source,
        blocks: blocks + 1,
    }))
}

fn streams(filter: &Filter, numbers: &Numbers) -> Vec<Stream> {
    let stream = |index, prefix, partial| Stream {
        index,
        prefix,
        partial,
    };
    if let Some(id) = &filter.event_id {
        let hash = codes::event_hash(id);
        return (0..numbers.blocks)
            .map(|block| {
                let prefix = vec![("block", block), ("event_hash", hash)];
                stream("message_event", prefix, "")
            })
            .collect();
    }
    let subs = &numbers.subs;
    if !numbers.reasons.is_empty() && !subs.is_empty() {
        let pairs = subs
            .iter()
            .flat_map(|sub| numbers.reasons.iter().map(move |reason| (*sub, *reason)));
        return pairs
            .map(|(sub, reason)| {
                let prefix = vec![("sub", sub), ("reason", reason)];
                stream("message_reason", prefix, "and reason is not null")
            })
            .collect();
    }
    if !numbers.status.is_empty() && !numbers.status.contains(&2) {
        let open = "and status <> 2";
        let statuses = numbers.status.iter().copied();
        return if subs.is_empty() {
            statuses
                .map(|status| stream("message_status", vec![("status", status)], open))
                .collect()
        } else {
            statuses
                .flat_map(|status| subs.iter().map(move |sub| (*sub, status)))
                .map(|(sub, status)| {
                    stream(
                        "message_sub_status",
                        vec![("sub", sub), ("status", status)],
                        open,
                    )
                })
                .collect()
        };
    }
    if subs.is_empty() {
        return vec![stream("message_accepted", Vec::new(), "")];
    }
    subs.iter()
        .map(|sub| stream("message_sub", vec![("sub", *sub)], ""))
        .collect()
}

/// The columns of a row: those that filters look at first.
const COLUMNS: &str = "accepted, scope, part, off, status, final, reason, sub, type, source, attempts, \
    event_id, channel, topic, updated, failure, max_attempts, round, next_attempt, subject, event_time";

fn walk(
    connection: &Connection,
    stream: &Stream,
    filter: &Filter,
    numbers: &Numbers,
    way: Way,
    limit: usize,
    budget: &mut Budget,
) -> rusqlite::Result<Found> {
    let (order, beyond) = if way.down {
        ("desc", "<")
    } else {
        ("asc", ">")
    };
    let mut sql = format!(
        "select {COLUMNS} from message indexed by {} where 1 ",
        stream.index
    );
    let mut values = Vec::new();
    for (column, value) in &stream.prefix {
        sql.push_str(&format!("and {column} = ? "));
        values.push(*value);
    }
    sql.push_str(stream.partial);
    if let Some((accepted, scope, part, off)) = way.from {
        sql.push_str(&format!(
            " and (accepted, scope, part, off) {beyond} (?, ?, ?, ?)"
        ));
        values.extend([accepted, scope, part, off]);
    }
    for (bound, sign) in [(filter.from, ">="), (filter.to, "<")] {
        if let Some(bound) = bound {
            sql.push_str(&format!(" and accepted {sign} ?"));
            values.push(bound.0);
        }
    }
    sql.push_str(&format!(
        " order by accepted {order}, scope {order}, part {order}, off {order}"
    ));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut found = Found::default();
    while let Some(row) = rows.next()? {
        let key: Key = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        if fits(row, filter, numbers)? {
            found.messages.push((key, message(connection, row, key)?));
            if found.messages.len() >= limit {
                break;
            }
        }
        if !budget.take() {
            found.stopped = Some(key);
            break;
        }
    }
    Ok(found)
}

fn fits(row: &Row<'_>, filter: &Filter, numbers: &Numbers) -> rusqlite::Result<bool> {
    let status: i64 = row.get(4)?;
    let is_final: bool = row.get(5)?;
    let reason: Option<i64> = row.get(6)?;
    let attempts: i64 = row.get(10)?;
    let any = |wanted: &[i64], value: i64| wanted.is_empty() || wanted.contains(&value);
    let one = |wanted: Option<i64>, value: i64| wanted.is_none_or(|wanted| wanted == value);
    let id_fits = match &filter.event_id {
        Some(id) => row.get_ref(11)?.as_str()? == id,
        None => true,
    };
    Ok(id_fits
        && any(&numbers.status, status)
        && any(&numbers.subs, row.get(7)?)
        && one(numbers.kind, row.get(8)?)
        && one(numbers.source, row.get(9)?)
        && (numbers.reasons.is_empty()
            || reason.is_some_and(|reason| numbers.reasons.contains(&reason)))
        && filter.is_final.is_none_or(|wanted| wanted == is_final)
        && (!filter.retrying || (status == 0 && attempts > 0)))
}

fn message(connection: &Connection, row: &Row<'_>, key: Key) -> rusqlite::Result<Message> {
    let mut statement = connection.prepare_cached("select text from name where id = ?")?;
    let mut name = |id: i64| -> rusqlite::Result<String> {
        let text = statement
            .query_row([id], |row| row.get::<_, String>(0))
            .optional()?;
        Ok(text.unwrap_or_default())
    };
    let reason: Option<i64> = row.get(6)?;
    let failure: Option<i64> = row.get(15)?;
    let next: Option<i64> = row.get(18)?;
    let resource = |text: String| {
        text.parse()
            .map_err(|_| rusqlite::Error::InvalidColumnName(text))
    };
    Ok(Message {
        id: id_of(key),
        channel: resource(name(row.get(12)?)?)?,
        subscription: resource(name(row.get(7)?)?)?,
        status: codes::status(row.get(4)?),
        is_final: row.get(5)?,
        failure: failure.and_then(codes::failure),
        last_reason: codes::reason_name(reason),
        attempts: row.get(10)?,
        max_attempts: row.get(16)?,
        next_attempt: next.map(UnixMillis),
        round: row.get(17)?,
        accepted: UnixMillis(key.0),
        updated: UnixMillis(row.get(14)?),
        event: EventFacts {
            id: row.get(11)?,
            source: name(row.get(9)?)?,
            r#type: name(row.get(8)?)?,
            subject: row.get(19)?,
            time: row.get(20)?,
        },
        topic: name(row.get(13)?)?,
        partition: i32::try_from(key.2).unwrap_or_default(),
        offset: key.3,
    })
}

/// The message with this id, with its row.
pub(super) fn find(
    connection: &Connection,
    id: MessageId,
) -> rusqlite::Result<Option<(i64, Message)>> {
    let (scope, partition, offset) = id.parts();
    let sql = format!("select {COLUMNS}, id from message where scope = ? and part = ? and off = ?");
    let mut statement = connection.prepare_cached(&sql)?;
    let key = rusqlite::params![codes::signed(scope), partition, offset];
    statement
        .query_row(key, |row| {
            let key = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok((row.get(21)?, message(connection, row, key)?))
        })
        .optional()
}
