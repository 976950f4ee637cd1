//! The engine below: keys, what lies under them, and how they are written.
//!
//! Two keyspaces: `records` has one entry a record; `meta` has, by the first byte of its keys,
//! the format (`v`), the last topic id (`n`), topics by name (`t`), deleted topics whose records
//! are still there (`d`), partitions' low watermarks (`p`) and groups' commits (`c`).
//! High watermarks are not stored: the last record tells.

mod heal;
mod keys;
mod load;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fjall::config::{BlockSizePolicy, FilterPolicy};
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode,
};

pub(super) use keys::{Key, MAX_GROUP_BYTES};
pub(super) use load::{Found, encode_bounds};

use super::catalog::TopicId;
use super::codec;
use crate::clock::UnixMillis;
use crate::log::{Commit, LogError, Offset, Partition, StoredRecord};

/// The format of everything in the store. A program refuses one that it does not know.
const FORMAT: &[u8] = b"1";
/// What is in memory and not yet in tables; some more while those are being written.
const RECORDS_MEMTABLE: u64 = 16 << 20;
const META_MEMTABLE: u64 = 4 << 20;
/// Journals are kept until everything in them is in tables: the bound on replay at the start.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Open table files.
const MAX_FILES: usize = 256;
/// Flushes and merges of tables.
const WORKERS: usize = 1;
/// Memtables in line to be flushed at which writing waits.
const FLUSH_BACKLOG: usize = 2;
/// Unmerged tables at which writing waits.
const MERGE_BACKLOG: usize = 20;

/// The open store.
pub(super) struct Store {
    db: Database,
    records: Keyspace,
    meta: Keyspace,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// A change, part of what is written together.
pub(super) enum Change {
    Put(Key, Vec<u8>),
    Remove(Key),
}

/// Why nothing was written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// Opening the store anew makes it whole.
    Failed(LogError),
    /// The disk did not confirm what it was given. What it holds is unknown until a restart.
    Unconfirmed(LogError),
}

/// How much to read at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) records: usize,
    /// The record that passes this is the last.
    pub(super) bytes: usize,
}

/// Why reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// At the end of the span, or with the number of records asked for.
    Done,
    /// At the bound on bytes; there may be more.
    Bytes,
}

impl Store {
    /// Opens the store under `dir`, or makes one.
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, LogError> {
        let path = dir.join("store");
        if !path.try_exists().map_err(io_error)? {
            Self::create(dir, &path, cache_bytes)?;
        }
        let store = Self::open_or_heal(&path, cache_bytes)?;
        match store
            .meta
            .get(Key::format().bytes())
            .map_err(engine_error)?
        {
            Some(format) if *format == *FORMAT => Ok(store),
            _ => Err(LogError::Damaged(
                "its format is not known to this version of the program".into(),
            )),
        }
    }

    /// Makes an empty store. It gets its name when it is complete: a process that dies meanwhile
    /// leaves nothing that is taken for a store.
    fn create(dir: &Path, path: &Path, cache_bytes: u64) -> Result<(), LogError> {
        let draft = dir.join("store.new");
        match std::fs::remove_dir_all(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
            _ => {}
        }
        let store = Self::open_at(&draft, cache_bytes).map_err(engine_error)?;
        let format = vec![Change::Put(Key::format(), FORMAT.to_vec())];
        store.write(format).map_err(WriteError::into_inner)?;
        drop(store);
        std::fs::rename(&draft, path).map_err(io_error)?;
        let directory = File::open(dir).map_err(io_error)?;
        directory.sync_all().map_err(io_error)
    }

    /// Opens a store, without a last round that power loss left in pieces.
    fn open_or_heal(path: &Path, cache_bytes: u64) -> Result<Self, LogError> {
        let error = match Self::open_at(path, cache_bytes) {
            Err(error @ fjall::Error::JournalRecovery(_)) => error,
            opened => return opened.map_err(engine_error),
        };
        let Some(cut) = heal::cut_last_batch(path).map_err(io_error)? else {
            return Err(engine_error(error));
        };
        let bytes = cut.bytes();
        match Self::open_at(path, cache_bytes) {
            Ok(store) => {
                let path = path.display().to_string();
                tracing::warn!(path, bytes, "dropped a last write that never was completed");
                Ok(store)
            }
            Err(_) => {
                cut.undo().map_err(io_error)?;
                Err(engine_error(error))
            }
        }
    }

    fn open_at(path: &Path, cache_bytes: u64) -> fjall::Result<Self> {
        let db = Database::builder(path)
            .cache_size(cache_bytes)
            .max_cached_files(Some(MAX_FILES))
            .max_journaling_size(JOURNAL_BYTES)
            // Compressed entries would be compressed again to check them when they are replayed.
            .journal_compression(CompressionType::None)
            .manual_journal_persist(true)
            .worker_threads(WORKERS)
            .open()?;
        // Records are read in ranges; a filter for single keys would only cost memory.
        let records = db.keyspace("records", || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(RECORDS_MEMTABLE)
                .data_block_size_policy(BlockSizePolicy::all(16 << 10))
                .filter_policy(FilterPolicy::disabled())
                .manual_journal_persist(true)
        })?;
        let meta = db.keyspace("meta", || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(META_MEMTABLE)
                .manual_journal_persist(true)
        })?;
        Ok(Self { db, records, meta })
    }

    /// Writes all of `changes` or nothing, and returns when they are on disk.
    ///
    /// Everything is synced before anything else is written, so that after power loss only the
    /// last thing in the journal can be incomplete; [`heal`] rests on that.
    pub(super) fn write(&self, changes: Vec<Change>) -> Result<(), WriteError> {
        self.make_room()?;
        let batch = OwnedWriteBatch::with_capacity(self.db.clone(), changes.len());
        let mut batch = batch.durability(Some(PersistMode::Buffer));
        for change in changes {
            match change {
                Change::Put(key, value) => batch.insert(self.keyspace(&key), key.bytes(), value),
                Change::Remove(key) => batch.remove(self.keyspace(&key), key.bytes()),
            }
        }
        batch
            .commit()
            .map_err(|error| WriteError::Failed(engine_error(error)))?;
        self.db
            .persist(PersistMode::SyncAll)
            .map_err(|error| WriteError::Unconfirmed(engine_error(error)))
    }

    /// Waits while the engine's own work is behind.
    ///
    /// The engine would wait too, but for ever if its threads died of a full disk meanwhile. So
    /// this waits earlier, and asks for a sign of life.
    fn make_room(&self) -> Result<(), WriteError> {
        while self.records.sealed_memtable_count() > FLUSH_BACKLOG
            || self.meta.sealed_memtable_count() > FLUSH_BACKLOG
            || self.records.l0_table_count() > MERGE_BACKLOG
            || self.meta.l0_table_count() > MERGE_BACKLOG
        {
            self.check_alive().map_err(WriteError::Failed)?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether the engine still takes writes: it stops for good after a failed one.
    pub(super) fn check_alive(&self) -> Result<(), LogError> {
        self.db.persist(PersistMode::Buffer).map_err(engine_error)
    }

    fn keyspace(&self, key: &Key) -> &Keyspace {
        match key {
            Key::Record(_) => &self.records,
            Key::Meta(_) => &self.meta,
        }
    }

    /// Moves the records of `span` to the end of `out`, up to `limit`.
    pub(super) fn read(
        &self,
        topic: TopicId,
        partition: Partition,
        span: Range<i64>,
        limit: Limit,
        out: &mut Vec<StoredRecord>,
    ) -> Result<Stop, LogError> {
        let mut bytes = 0;
        let range = Key::record_range(topic, partition, span);
        for entry in self.records.range(range).take(limit.records) {
            let (key, value) = entry.into_inner().map_err(engine_error)?;
            let offset = Key::offset_of(&key).ok_or_else(|| damaged("a record's key"))?;
            let record = codec::decode(&value, offset);
            out.push(record.map_err(damaged)?);
            bytes += value.len();
            if bytes >= limit.bytes {
                return Ok(Stop::Bytes);
            }
        }
        Ok(Stop::Done)
    }

    /// The first offset of `span` whose record is not older than `time`, else the span's end.
    /// Where the clock was set back between records, one of the places where it passed `time`.
    pub(super) fn first_since(
        &self,
        topic: TopicId,
        partition: Partition,
        span: Range<i64>,
        time: UnixMillis,
    ) -> Result<i64, LogError> {
        let is_older = |offset: i64| {
            let key = Key::record(topic, partition, Offset(offset));
            match self.records.get(key.bytes()).map_err(engine_error)? {
                Some(value) => codec::time(&value)
                    .map(|taken| taken < time)
                    .map_err(damaged),
                // Removed while we look: it was older than what is left.
                None => Ok(true),
            }
        };
        let Range {
            start: mut from,
            end: mut to,
        } = span;
        // Most often nothing, or next to nothing, is that old: look at the first one first.
        if from < to && !is_older(from)? {
            return Ok(from);
        }
        while from < to {
            let middle = from + (to - from) / 2;
            if is_older(middle)? {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        Ok(from)
    }

    /// A group's commit.
    pub(super) fn commit_at(&self, key: &Key) -> Result<Option<Commit>, LogError> {
        let found = self.meta.get(key.bytes()).map_err(engine_error)?;
        found.map(|bytes| decode_commit(&bytes)).transpose()
    }

    /// The keys under which `prefix` begins.
    pub(super) fn meta_keys(&self, prefix: &Key) -> Result<Vec<Key>, LogError> {
        let entries = self.meta.prefix(prefix.bytes());
        let key = |entry: fjall::Guard| entry.key().map(|key| Key::Meta(key.to_vec()));
        entries
            .map(|entry| key(entry).map_err(engine_error))
            .collect()
    }
}

impl WriteError {
    pub(super) fn into_inner(self) -> LogError {
        match self {
            Self::Failed(error) | Self::Unconfirmed(error) => error,
        }
    }
}

/// A commit as it is stored: the offset as 8 bytes, little-endian, and the metadata.
pub(super) fn encode_commit(commit: &Commit) -> Vec<u8> {
    let offset = commit.offset.0.to_le_bytes();
    [&offset, commit.metadata.as_bytes()].concat()
}

fn decode_commit(bytes: &[u8]) -> Result<Commit, LogError> {
    let split = bytes.split_first_chunk::<8>();
    let (offset, metadata) = split.ok_or_else(|| damaged("a commit"))?;
    let metadata = std::str::from_utf8(metadata).map_err(|_| damaged("a commit"))?;
    Ok(Commit {
        offset: Offset(i64::from_le_bytes(*offset)),
        metadata: metadata.to_owned(),
    })
}

fn damaged(what: impl std::fmt::Display) -> LogError {
    LogError::Damaged(format!("{what} cannot be read"))
}

fn io_error(error: io::Error) -> LogError {
    LogError::Unavailable(error.to_string())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what `map_err` hands over"
)]
fn engine_error(error: fjall::Error) -> LogError {
    match &error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            LogError::Unavailable(error.to_string())
        }
        fjall::Error::Poisoned => {
            LogError::Unavailable("an earlier write to disk failed".to_owned())
        }
        fjall::Error::Locked => LogError::Unavailable("it is still in use".to_owned()),
        other => LogError::Damaged(other.to_string()),
    }
}
