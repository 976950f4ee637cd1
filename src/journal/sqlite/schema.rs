//! The tables of one segment.

use rusqlite::{Connection, OptionalExtension as _};

/// The version of the tables that this program writes. 0 is a file that was only begun.
pub(super) const VERSION: i64 = 2;

/// Rows of one block of event ids, as a power of two. An index of hashes over all rows would take
/// each insert to another page; in blocks the pages that are written stay few, and finding an id
/// takes one probe a block.
pub(super) const BLOCK_BITS: u32 = 14;

/// `message` orders by time of acceptance, then by its key, so that pages are stable whatever
/// segment a message stands in. Names that repeat are numbers. `entry` is what happened to a
/// message, in order: a request with the statuses that it led to, packed, or such statuses alone;
/// its address and headers are numbers of names, or texts where they hardly repeat.
/// No index beyond these: each costs every insert.
const TABLES: &str = "
create table name (id integer primary key, text text not null unique);
create table subject (sub integer not null, channel integer not null, primary key (sub, channel)) without rowid;
create table message (
  id integer primary key,
  scope integer not null, part integer not null, off integer not null,
  sub integer not null, channel integer not null, topic integer not null,
  accepted integer not null, updated integer not null,
  status integer not null, final integer not null, failure integer, reason integer,
  attempts integer not null, max_attempts integer not null, round integer not null,
  next_attempt integer,
  entries integer not null, changes integer not null,
  block integer not null, event_hash integer not null, event_id text not null,
  type integer not null, source integer not null, subject text, event_time text
);
create unique index message_key on message (scope, part, off);
create index message_accepted on message (accepted, scope, part, off);
create index message_sub on message (sub, accepted, scope, part, off);
create index message_status on message (status, accepted, scope, part, off) where status <> 2;
create index message_sub_status on message (sub, status, accepted, scope, part, off) where status <> 2;
create index message_reason on message (sub, reason, accepted, scope, part, off) where reason is not null;
create index message_event on message (block, event_hash);
create table entry (
  message integer not null, n integer not null,
  change integer not null, statuses blob,
  kind integer, phase integer, cause integer, round integer, attempt integer,
  started integer, duration_us integer, reason integer,
  node integer, method integer, url,
  request, code integer, response, body blob, truncated integer,
  error_kind integer, error_text text,
  wait_ms integer, planned_ms integer, wait_flags integer,
  primary key (message, n)
) without rowid;
create table stat (
  sub integer not null, minute integer not null, outcome integer not null,
  reason integer not null, bucket integer not null, n integer not null,
  primary key (sub, minute, outcome, reason, bucket)
) without rowid;
create table sample (
  sub integer not null, reason integer not null, at integer not null, text text not null,
  primary key (sub, reason)
) without rowid;
create table gap (since integer not null, until integer not null, changes integer not null);
";

/// How a file is set up.
pub(super) fn tune(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "pragma page_size = 8192; pragma journal_mode = wal; pragma synchronous = normal; pragma cache_size = -16384;
         pragma temp_store = memory; pragma wal_autocheckpoint = 6000; pragma journal_size_limit = 67108864;",
    )
}

/// The version of a file's tables; 0: it has none.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    let version = connection.query_row("pragma user_version", [], |row| row.get(0));
    Ok(version.optional()?.unwrap_or(0))
}

/// Makes the tables of a new file, all or none.
pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Why a file of another version is not used.
pub(super) fn other_version(found: i64) -> rusqlite::Error {
    let text = format!("its tables have version {found}, and this program knows {VERSION}");
    rusqlite::Error::ToSqlConversionFailure(text.into())
}
