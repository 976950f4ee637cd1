//! A page of messages out of one segment: which index is walked, how far, and what fits.

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator as _;
use rusqlite::{Connection, OptionalExtension as _, Row, Rows};

use super::codes;
use crate::clock::UnixMillis;
use crate::journal::walk::{Budget, Found, Key, Way, id_of, nearer};
use crate::journal::{EventFacts, Filter, Message};
use crate::message::MessageId;

/// Parts of indexes that are walked side by side.
const STREAMS: usize = 256;

/// A filter in the numbers of one segment.
struct Numbers {
    status: Vec<i64>,
    subs: Vec<i64>,
    reasons: Vec<i64>,
    kind: Option<i64>,
    source: Option<i64>,
    /// Blocks of event ids, where one is asked for.
    blocks: i64,
    event_hash: i64,
}

/// A part of an index with equal first columns.
pub(super) struct Stream {
    index: &'static str,
    prefix: Vec<(&'static str, i64)>,
    /// What the index leaves out.
    partial: &'static str,
}

impl Stream {
    /// Asks for `columns` of the messages in it that are of the filter's times.
    pub(super) fn select(&self, columns: &str, filter: &Filter) -> (String, Vec<i64>) {
        let mut sql = format!(
            "select {columns} from message indexed by {} where 1 ",
            self.index
        );
        let mut values = Vec::new();
        for (column, value) in &self.prefix {
            sql.push_str(&format!("and {column} = ? "));
            values.push(*value);
        }
        sql.push_str(self.partial);
        for (bound, sign) in [(filter.from, ">="), (filter.to, "<")] {
            if let Some(bound) = bound {
                sql.push_str(&format!(" and accepted {sign} ?"));
                values.push(bound.0);
            }
        }
        (sql, values)
    }
}

/// The parts of indexes that hold what fits and nothing else, where the filter asks for no more
/// than they tell; `None`: they are so many that a wider one takes their place.
pub(super) fn covering(
    connection: &Connection,
    filter: &Filter,
) -> rusqlite::Result<Option<Vec<Stream>>> {
    let Some(numbers) = numbers(connection, filter)? else {
        return Ok(Some(Vec::new()));
    };
    let exact = if !numbers.reasons.is_empty() {
        "message_reason"
    } else if numbers.subs.is_empty() {
        ""
    } else if numbers.status.is_empty() {
        "message_sub"
    } else {
        "message_sub_status"
    };
    let all = streams(connection, filter, &numbers)?;
    let is_exact = all
        .iter()
        .all(|stream| exact.is_empty() || stream.index == exact);
    Ok(is_exact.then_some(all))
}

/// Messages of a segment that fit, at most `limit`, in the order of the walk.
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
    let mut statements = Vec::new();
    for stream in streams(connection, filter, &numbers)? {
        let (sql, values) = query(&stream, filter, way);
        statements.push((connection.prepare_cached(&sql)?, values));
    }
    // The streams are merged, so that no more is read of each than the page takes.
    let mut heads = Vec::new();
    for (statement, values) in &mut statements {
        let mut rows = statement.query(rusqlite::params_from_iter(&*values))?;
        if let Some(key) = following(&mut rows)? {
            heads.push((key, rows));
        }
    }
    let mut found = Found::default();
    loop {
        let nearest = heads.iter_mut().enumerate().reduce(|a, b| {
            if nearer(way, a.1.0, b.1.0) == a.1.0 {
                a
            } else {
                b
            }
        });
        let Some((at, (key, rows))) = nearest else {
            break;
        };
        if let Some(row) = rows.get()
            && fits(row, filter, &numbers)?
        {
            found.messages.push((*key, message(connection, row, *key)?));
            if found.messages.len() >= limit {
                break;
            }
        }
        if !budget.take() {
            found.stopped = Some(*key);
            break;
        }
        match following(rows)? {
            Some(next) => *key = next,
            None => drop(heads.swap_remove(at)),
        }
    }
    Ok(found)
}

/// Goes on to the next row, and says where it is.
fn following(rows: &mut Rows<'_>) -> rusqlite::Result<Option<Key>> {
    let row = Rows::next(rows)?;
    row.map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .transpose()
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
    let (mut blocks, mut event_hash) = (0, 0);
    if let Some(id) = &filter.event_id {
        let last = "select coalesce(max(block), 0) from message";
        blocks = 1 + connection.query_row(last, [], |row| row.get::<_, i64>(0))?;
        event_hash = codes::event_hash(id);
    }
    Ok((!lacks).then_some(Numbers {
        status,
        subs,
        reasons,
        kind,
        source,
        blocks,
        event_hash,
    }))
}

/// The parts of indexes that hold all that fits. Of many a single wider one takes the place, of
/// which less fits.
fn streams(
    connection: &Connection,
    filter: &Filter,
    numbers: &Numbers,
) -> rusqlite::Result<Vec<Stream>> {
    let stream = |index, prefix, partial| Stream {
        index,
        prefix,
        partial,
    };
    if filter.event_id.is_some() {
        let probe = |block| vec![("block", block), ("event_hash", numbers.event_hash)];
        return Ok((0..numbers.blocks)
            .map(|block| stream("message_event", probe(block), ""))
            .collect());
    }
    let subs = &numbers.subs;
    let is_few = |streams: usize| streams <= STREAMS;
    if !numbers.reasons.is_empty() {
        let all = if subs.is_empty() {
            all_subs(connection)?
        } else {
            subs.clone()
        };
        if is_few(all.len() * numbers.reasons.len()) {
            let pair = |sub, reason| {
                let prefix = vec![("sub", sub), ("reason", reason)];
                stream("message_reason", prefix, "and reason is not null")
            };
            let of_sub = |sub| numbers.reasons.iter().map(move |reason| pair(sub, *reason));
            return Ok(all.into_iter().flat_map(of_sub).collect());
        }
    }
    if !numbers.status.is_empty() && !numbers.status.contains(&2) {
        let open = "and status <> 2";
        let statuses = numbers.status.iter().copied();
        if subs.is_empty() || !is_few(subs.len() * numbers.status.len()) {
            return Ok(statuses
                .map(|status| stream("message_status", vec![("status", status)], open))
                .collect());
        }
        return Ok(statuses
            .flat_map(|status| subs.iter().map(move |sub| (*sub, status)))
            .map(|(sub, status)| {
                let prefix = vec![("sub", sub), ("status", status)];
                stream("message_sub_status", prefix, open)
            })
            .collect());
    }
    if subs.is_empty() || !is_few(subs.len()) {
        return Ok(vec![stream("message_accepted", Vec::new(), "")]);
    }
    Ok(subs
        .iter()
        .map(|sub| stream("message_sub", vec![("sub", *sub)], ""))
        .collect())
}

fn all_subs(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare_cached("select distinct sub from subject")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.collect()
}

/// The columns of a row: those that filters look at first.
const COLUMNS: &str = "accepted, scope, part, off, status, final, reason, sub, type, source, attempts, \
    event_id, channel, topic, updated, failure, max_attempts, round, next_attempt, subject, event_time";

/// Walks a stream.
fn query(stream: &Stream, filter: &Filter, way: Way) -> (String, Vec<i64>) {
    let (order, beyond) = if way.down {
        ("desc", "<")
    } else {
        ("asc", ">")
    };
    let (mut sql, mut values) = stream.select(COLUMNS, filter);
    if let Some((accepted, scope, part, off)) = way.from {
        sql.push_str(&format!(
            " and (accepted, scope, part, off) {beyond} (?, ?, ?, ?)"
        ));
        values.extend([accepted, scope, part, off]);
    }
    sql.push_str(&format!(
        " order by accepted {order}, scope {order}, part {order}, off {order}"
    ));
    (sql, values)
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
