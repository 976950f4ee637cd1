//! One segment: a file with the messages of a span of time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::batch::{Batch, Done};
use super::codes;
use super::names::Names;
use super::schema;
use super::stats::Stats;
use crate::journal::Change;
use crate::message::MessageId;

/// A file of the journal that is written.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) path: PathBuf,
    connection: Connection,
    names: Names,
    /// Messages in it.
    pub(super) rows: u64,
    /// Bytes of its file, as of the last batch.
    pub(super) bytes: u64,
    /// The newest message in it.
    pub(super) newest: i64,
}

/// A message with everything that is told of it, on its way to a newer segment. Names are texts.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) id: MessageId,
    /// The columns of [`MESSAGE`].
    pub(super) message: Vec<Value>,
    /// The columns of [`ENTRY`].
    pub(super) entries: Vec<Vec<Value>>,
}

/// Columns of `message` from `sub` to `changes`, then from `event_hash` on, then the row.
const MESSAGE: &str = "
select s.text, c.text, t.text, m.accepted, m.updated, m.status, m.final, m.failure, m.reason, m.attempts,
  m.max_attempts, m.round, m.next_attempt, m.entries, m.changes, m.event_hash, m.event_id, y.text, o.text,
  m.subject, m.event_time, m.id
from message m join name s on s.id = m.sub join name c on c.id = m.channel join name t on t.id = m.topic
  join name y on y.id = m.type join name o on o.id = m.source
where m.scope = ? and m.part = ? and m.off = ?";
const MESSAGE_COLUMNS: usize = 21;

/// Columns of `entry` from `n` on.
const ENTRY: &str = "
select e.n, e.change, e.statuses, e.kind, e.phase, e.cause, e.round, e.attempt, e.started, e.duration_us,
  e.reason, n.text, m.text, coalesce(u.text, e.url), coalesce(q.text, e.request), e.code,
  coalesce(a.text, e.response), e.body, e.truncated, e.error_kind, e.error_text, e.wait_ms, e.planned_ms, e.wait_flags
from entry e left join name n on n.id = e.node left join name m on m.id = e.method
  left join name u on u.id = e.url left join name q on q.id = e.request left join name a on a.id = e.response
where e.message = ? order by e.n";
const ENTRY_COLUMNS: usize = 24;

impl Segment {
    /// Opens a segment, or makes it. A file that was only begun is gone on with.
    pub(super) fn open(path: &Path, number: u32) -> rusqlite::Result<Self> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_millis(100))?;
        schema::tune(&connection)?;
        match schema::version(&connection)? {
            0 => schema::create(&mut connection)?,
            schema::VERSION => {}
            other => return Err(schema::other_version(other)),
        }
        let last = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let mut segment = Self {
            number,
            path: path.to_owned(),
            names: Names::default(),
            rows: codes::unsigned(last("select count(*) from message")?),
            newest: last("select coalesce(max(accepted), 0) from message")?,
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
        older: impl FnMut(MessageId) -> rusqlite::Result<Option<Carried>>,
    ) -> rusqlite::Result<Vec<MessageId>> {
        let done = self.store(changes, node, older).inspect_err(|_| {
            // What is remembered of it has no row.
            self.names.clear();
        })?;
        self.rows = done.rows;
        self.newest = self.newest.max(done.newest);
        self.measure();
        Ok(done.carried)
    }

    fn store(
        &mut self,
        changes: &[Change],
        node: &str,
        mut older: impl FnMut(MessageId) -> rusqlite::Result<Option<Carried>>,
    ) -> rusqlite::Result<Done> {
        let transaction = self.connection.transaction()?;
        let mut stats = Stats::default();
        let mut batch = Batch::new(&transaction, &mut self.names, node, self.rows)?;
        for change in changes {
            batch.change(change, &mut stats, &mut older)?;
        }
        let done = batch.finish();
        stats.write(&transaction)?;
        transaction.commit()?;
        Ok(done)
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
        let values = |row: &rusqlite::Row<'_>, count: usize| {
            (0..count)
                .map(|at| row.get::<_, Value>(at))
                .collect::<Result<Vec<_>, _>>()
        };
        let mut statement = self.connection.prepare_cached(MESSAGE)?;
        let found = statement.query_row(params![codes::signed(scope), partition, offset], |row| {
            let message = values(row, MESSAGE_COLUMNS)?;
            Ok((message, row.get::<_, i64>(MESSAGE_COLUMNS)?))
        });
        let Some((message, row)) = found.optional()? else {
            return Ok(None);
        };
        let mut statement = self.connection.prepare_cached(ENTRY)?;
        let entries = statement.query_map([row], |row| values(row, ENTRY_COLUMNS))?;
        Ok(Some(Carried {
            id,
            message,
            entries: entries.collect::<Result<Vec<_>, _>>()?,
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
            for table in ["entry where message", "message where id"] {
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
