//! One segment: a file with the messages of a span of time, and how changes get into it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::codes;
use super::schema;
use super::stats::Stats;
use super::store::is_first;
use crate::journal::mask;
use crate::journal::{Change, DeliveryLog, LogKind, Status, StatusEvent};
use crate::message::MessageId;

/// A file of the journal that is written.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) path: PathBuf,
    connection: Connection,
    names: HashMap<Box<str>, i64>,
    /// Messages in it.
    pub(super) rows: u64,
    /// Bytes of its file, as of the last batch.
    pub(super) bytes: u64,
    /// The newest message in it.
    pub(super) newest: i64,
}

/// A message with everything that is told of it, on its way to a newer segment.
#[derive(Debug)]
pub(super) struct Carried {
    id: MessageId,
    /// The columns from `sub` on; names as texts.
    message: Vec<Value>,
    attempts: Vec<Vec<Value>>,
    changes: Vec<Vec<Value>>,
}

const MESSAGE: &str = "
select s.text, c.text, t.text, m.accepted, m.updated, m.status, m.final, m.failure, r.text, m.attempts,
  m.max_attempts, m.round, m.next_attempt, m.logs, m.changes, m.event_hash, m.event_id, y.text, o.text,
  m.subject, m.event_time, m.id
from message m join name s on s.id = m.sub join name c on c.id = m.channel join name t on t.id = m.topic
  join name y on y.id = m.type join name o on o.id = m.source left join name r on r.id = m.reason
where m.scope = ? and m.part = ? and m.off = ?";
const ATTEMPT_COLUMNS: usize = 23;
const CHANGE_COLUMNS: usize = 8;
/// Texts among the columns of [`MESSAGE`] that are names.
const NAMES: [usize; 6] = [0, 1, 2, 8, 17, 18];

impl Segment {
    /// Opens a segment, or makes it. A file that was only begun is gone on with.
    pub(super) fn open(path: &Path, number: u32) -> rusqlite::Result<Self> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_millis(100))?;
        schema::tune(&connection)?;
        if schema::version(&connection)? == 0 {
            schema::create(&mut connection)?;
        }
        let mut segment = Self {
            number,
            path: path.to_owned(),
            names: names(&connection)?,
            rows: connection.query_row("select count(*) from message", [], unsigned)?,
            newest: connection.query_row(
                "select coalesce(max(accepted), 0) from message",
                [],
                |row| row.get(0),
            )?,
            bytes: 0,
            connection,
        };
        segment.measure();
        Ok(segment)
    }

    /// Writes changes, all or none. `older` gives up a message that an older segment holds.
    pub(super) fn write(
        &mut self,
        changes: &[Change],
        node: &str,
        mut older: impl FnMut(MessageId) -> rusqlite::Result<Option<Carried>>,
    ) -> rusqlite::Result<Vec<MessageId>> {
        let transaction = self.connection.transaction()?;
        // What is remembered of this batch counts only once it is stored.
        let mut batch = Batch {
            transaction: &transaction,
            names: &self.names,
            new_names: HashMap::new(),
            node,
            carried: Vec::new(),
            added: 0,
            newest: self.newest,
        };
        let mut stats = Stats::default();
        for change in changes {
            batch.change(change, &mut stats, &mut older)?;
        }
        stats.write(&transaction)?;
        let Batch {
            new_names,
            carried,
            added,
            newest,
            ..
        } = batch;
        transaction.commit()?;
        self.names.extend(new_names);
        self.rows += added;
        self.newest = newest;
        self.measure();
        Ok(carried)
    }

    /// Notes changes that could not be stored.
    pub(super) fn write_gap(&self, since: i64, until: i64, changes: u64) -> rusqlite::Result<()> {
        let changes = codes::signed(changes);
        self.connection.execute(
            "insert into gap values (?, ?, ?)",
            params![since, until, changes],
        )?;
        Ok(())
    }

    /// The message with all there is of it, for a newer segment.
    pub(super) fn read_whole(&self, id: MessageId) -> rusqlite::Result<Option<Carried>> {
        let (scope, partition, offset) = id.parts();
        let mut statement = self.connection.prepare_cached(MESSAGE)?;
        let found = statement.query_row(params![codes::signed(scope), partition, offset], |row| {
            let columns = (0..21)
                .map(|at| row.get::<_, Value>(at))
                .collect::<Result<Vec<_>, _>>();
            Ok((columns?, row.get::<_, i64>(21)?))
        });
        let Some((message, row)) = found.optional()? else {
            return Ok(None);
        };
        let all = |table: &str, columns: usize| {
            let mut statement = self.connection.prepare_cached(&format!(
                "select * from {table} where message = ? order by n"
            ))?;
            let rows = statement.query_map([row], |row| {
                (1..columns)
                    .map(|at| row.get::<_, Value>(at))
                    .collect::<Result<Vec<_>, _>>()
            })?;
            rows.collect::<Result<Vec<_>, _>>()
        };
        Ok(Some(Carried {
            id,
            message,
            attempts: all("attempt", ATTEMPT_COLUMNS)?,
            changes: all("status_change", CHANGE_COLUMNS)?,
        }))
    }

    /// Lets go of messages that a newer segment holds now.
    pub(super) fn remove(&mut self, ids: &[MessageId]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut removed = 0;
        for id in ids {
            let (scope, partition, offset) = id.parts();
            let key = params![codes::signed(scope), partition, offset];
            let row: Option<i64> = transaction
                .prepare_cached("select id from message where scope = ? and part = ? and off = ?")?
                .query_row(key, |row| row.get(0))
                .optional()?;
            let Some(row) = row else { continue };
            for table in [
                "attempt where message",
                "status_change where message",
                "message where id",
            ] {
                transaction
                    .prepare_cached(&format!("delete from {table} = ?"))?
                    .execute([row])?;
            }
            removed += 1;
        }
        transaction.commit()?;
        self.rows = self.rows.saturating_sub(removed);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) -> rusqlite::Result<()> {
        let set = format!("pragma max_page_count = {pages}");
        self.connection.query_row(&set, [], |_| Ok(()))
    }

    fn measure(&mut self) {
        let size = |suffix: &str| {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            std::fs::metadata(path).map_or(0, |file| file.len())
        };
        self.bytes = size("") + size("-wal");
    }
}

fn unsigned(row: &rusqlite::Row<'_>) -> rusqlite::Result<u64> {
    row.get::<_, i64>(0).map(codes::unsigned)
}

fn names(connection: &Connection) -> rusqlite::Result<HashMap<Box<str>, i64>> {
    let mut statement = connection.prepare("select text, id from name")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?.into(), row.get(1)?)))?;
    rows.collect()
}

/// Changes on their way into a segment.
struct Batch<'a> {
    transaction: &'a Transaction<'a>,
    names: &'a HashMap<Box<str>, i64>,
    new_names: HashMap<Box<str>, i64>,
    node: &'a str,
    carried: Vec<MessageId>,
    added: u64,
    newest: i64,
}

/// Where a message is in the segment.
struct Place {
    row: i64,
    logs: i64,
    changes: i64,
}

impl Batch<'_> {
    fn name(&mut self, text: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.names.get(text).or_else(|| self.new_names.get(text)) {
            return Ok(*id);
        }
        self.transaction
            .prepare_cached("insert into name (text) values (?)")?
            .execute([text])?;
        let id = self.transaction.last_insert_rowid();
        self.new_names.insert(text.into(), id);
        Ok(id)
    }

    fn change(
        &mut self,
        change: &Change,
        stats: &mut Stats,
        older: &mut impl FnMut(MessageId) -> rusqlite::Result<Option<Carried>>,
    ) -> rusqlite::Result<()> {
        let place = match self.find(change.key.id)? {
            Some(place) => place,
            None if is_first(change) => self.insert(change)?,
            None => match older(change.key.id)? {
                Some(carried) => self.carry(carried)?,
                None => self.insert(change)?,
            },
        };
        if let Some(log) = &change.log {
            self.log(&place, log)?;
            let sub = self.name(&change.key.subscription.name.to_string())?;
            let reason = match &log.reason {
                Some(reason) => self.name(reason)?,
                None => 0,
            };
            stats.count(sub, reason, log);
        }
        let mut changes = place.changes;
        for event in &change.events {
            // An attempt that is repeated after a crash begins nothing anew.
            let begun = event.status == Status::Queued
                && event.attempt == 0
                && changes > 0
                && change.state.as_ref().is_some_and(|s| s.round == 1);
            if !begun {
                changes += 1;
                self.event(place.row, changes, event)?;
            }
        }
        self.update(&place, changes, change)
    }

    fn find(&self, id: MessageId) -> rusqlite::Result<Option<Place>> {
        let (scope, partition, offset) = id.parts();
        let mut statement = self.transaction.prepare_cached(
            "select id, logs, changes from message where scope = ? and part = ? and off = ?",
        )?;
        let place = |row: &rusqlite::Row<'_>| {
            Ok(Place {
                row: row.get(0)?,
                logs: row.get(1)?,
                changes: row.get(2)?,
            })
        };
        statement
            .query_row(params![codes::signed(scope), partition, offset], place)
            .optional()
    }

    fn insert(&mut self, change: &Change) -> rusqlite::Result<Place> {
        let key = &change.key;
        let (scope, partition, offset) = key.id.parts();
        let event = change.event.as_deref();
        let attribute = |name: &str| event.and_then(|event| event.attribute(name));
        let event_id = attribute("id").unwrap_or_default();
        let sub = self.name(&key.subscription.name.to_string())?;
        let channel = self.name(&key.subscription.channel.to_string())?;
        let topic = self.name(key.at.topic.as_str())?;
        let kind = self.name(attribute("type").unwrap_or_default())?;
        let source = self.name(attribute("source").unwrap_or_default())?;
        self.subject(sub, channel)?;
        self.transaction
            .prepare_cached(
                "insert into message (scope, part, off, sub, channel, topic, accepted, updated, status, final,
                 attempts, max_attempts, round, logs, changes, event_hash, event_id, type, source, subject, event_time)
                 values (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 1, 0, 0, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                codes::signed(scope), partition, offset, sub, channel, topic, key.accepted.0, change.at.0,
                codes::event_hash(event_id), event_id, kind, source, attribute("subject"), attribute("time"),
            ])?;
        self.added += 1;
        self.newest = self.newest.max(key.accepted.0);
        Ok(Place {
            row: self.transaction.last_insert_rowid(),
            logs: 0,
            changes: 0,
        })
    }

    fn subject(&self, sub: i64, channel: i64) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("insert or ignore into subject values (?, ?)")?
            .execute([sub, channel])?;
        Ok(())
    }

    /// Takes a message over from an older segment.
    fn carry(&mut self, carried: Carried) -> rusqlite::Result<Place> {
        let Carried {
            id,
            mut message,
            attempts,
            changes,
        } = carried;
        for at in NAMES {
            if let Value::Text(text) = &message[at] {
                let name = self.name(text)?;
                message[at] = Value::Integer(name);
            }
        }
        if let [Value::Integer(sub), Value::Integer(channel), ..] = message[..] {
            self.subject(sub, channel)?;
        }
        if let Some(Value::Integer(accepted)) = message.get(3) {
            self.newest = self.newest.max(*accepted);
        }
        let (scope, partition, offset) = id.parts();
        let key = [codes::signed(scope), partition.into(), offset].map(Value::Integer);
        self.transaction
            .prepare_cached(
                "insert into message (scope, part, off, sub, channel, topic, accepted, updated, status, final,
                 failure, reason, attempts, max_attempts, round, next_attempt, logs, changes, event_hash, event_id,
                 type, source, subject, event_time)
                 values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(rusqlite::params_from_iter(key.into_iter().chain(message)))?;
        let row = self.transaction.last_insert_rowid();
        self.added += 1;
        let place = Place {
            row,
            logs: count(&attempts),
            changes: count(&changes),
        };
        for (table, columns, rows) in [
            ("attempt", ATTEMPT_COLUMNS, attempts),
            ("status_change", CHANGE_COLUMNS, changes),
        ] {
            let marks = vec!["?"; columns].join(", ");
            let mut statement = self
                .transaction
                .prepare_cached(&format!("insert into {table} values ({marks})"))?;
            for values in rows {
                let values = std::iter::once(Value::Integer(row)).chain(values);
                statement.execute(rusqlite::params_from_iter(values))?;
            }
        }
        self.carried.push(id);
        Ok(place)
    }

    fn log(&self, place: &Place, log: &DeliveryLog) -> rusqlite::Result<()> {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let micros = i64::try_from(log.duration.as_micros()).unwrap_or(i64::MAX);
        let answer = log.response.as_ref();
        let error = log.error.as_ref();
        let wait = log.wait.as_ref();
        let flags = wait.map_or(0, |wait| {
            i64::from(wait.retry_after) | i64::from(wait.parked) << 1
        });
        self.transaction
            .prepare_cached(
                "insert into attempt values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                place.row,
                place.logs + 1,
                codes::of_kind(log.kind),
                log.phase,
                codes::of_trigger(log.trigger),
                log.round,
                log.attempt,
                log.started.0,
                micros,
                log.reason,
                self.node,
                log.request.method,
                &*log.request.url,
                mask::to_json(&log.request.headers),
                answer.map(|answer| answer.code),
                answer.map(|answer| mask::to_json(&answer.headers)),
                answer.map(|answer| &answer.body[..]),
                answer.is_some_and(|answer| answer.truncated),
                error.map(|error| &error.kind),
                error.map(|error| &error.message),
                wait.map(|wait| millis(wait.delay)),
                wait.map(|wait| millis(wait.planned)),
                flags,
            ])?;
        Ok(())
    }

    fn event(&self, row: i64, number: i64, event: &StatusEvent) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("insert into status_change values (?, ?, ?, ?, ?, ?, ?, ?)")?
            .execute(params![
                row,
                number,
                codes::of_status(event.status),
                event.at.0,
                event.attempt,
                event.max_attempts,
                event.retryable,
                event.reason,
            ])?;
        Ok(())
    }

    fn update(&mut self, place: &Place, changes: i64, change: &Change) -> rusqlite::Result<()> {
        let logs = place.logs + i64::from(change.log.is_some());
        let Some(state) = &change.state else {
            self.transaction
                .prepare_cached(
                    "update message set updated = ?, logs = ?, changes = ? where id = ?",
                )?
                .execute(params![change.at.0, logs, changes, place.row])?;
            return Ok(());
        };
        // A check is no attempt.
        let made = change
            .log
            .as_ref()
            .is_none_or(|log| log.kind == LogKind::Attempt);
        let reason = match &state.last_reason {
            Some(reason) => Some(self.name(reason)?),
            None => None,
        };
        self.transaction
            .prepare_cached(
                "update message set updated = ?, status = ?, final = ?, failure = ?, reason = ?,
                 attempts = coalesce(?, attempts), max_attempts = coalesce(?, max_attempts), round = ?,
                 next_attempt = ?, logs = ?, changes = ? where id = ?",
            )?
            .execute(params![
                change.at.0,
                codes::of_status(state.status),
                state.is_final,
                state.failure.map(codes::of_failure),
                reason,
                made.then_some(state.attempts),
                made.then_some(state.max_attempts),
                state.round,
                state.next_attempt.map(|time| time.0),
                logs,
                changes,
                place.row,
            ])?;
        Ok(())
    }
}

fn count<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}
