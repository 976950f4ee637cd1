//! The segments of a journal: which one is written, when a new one begins, which ones go.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::segment::Segment;
use crate::clock::UnixMillis;
use crate::journal::{Change, LogKind, MessageState};

/// What is kept, and in what portions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long messages are kept at least, as long as there is room.
    pub age: Duration,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Messages of one segment.
    pub rows: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(7 * 86_400),
            bytes: 20 << 30,
            rows: 1_000_000,
        }
    }
}

/// Where a reader finds a segment.
#[derive(Clone, Debug)]
pub(in crate::journal) struct Known {
    pub(super) number: u32,
    pub(super) path: PathBuf,
    pub(super) newest: i64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// All segments, oldest first, as the writer left them.
pub(in crate::journal) type Directory = Arc<ArcSwap<Vec<Known>>>;

/// The journal cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its directory cannot be used.
    #[error("the journal's directory {} cannot be used: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// SQLite refuses.
    #[error("the journal cannot be written: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// The segments, as their only writer has them.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    node: String,
    limits: Limits,
    /// Oldest first; the last is written.
    segments: Vec<Segment>,
    directory: Directory,
}

impl Store {
    /// Opens the journal in a directory, or makes it. A segment that is broken is put aside, so
    /// that it keeps nothing from starting.
    ///
    /// # Errors
    /// [`StoreError`] when the directory or a new segment cannot be made.
    pub fn open(path: &Path, node: &str, limits: Limits) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Directory {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(failed)?;
        let mut numbers: Vec<u32> = fs::read_dir(path)
            .map_err(failed)?
            .filter_map(|entry| number_of(&entry.ok()?.file_name().to_string_lossy()))
            .collect();
        numbers.sort_unstable();
        let mut segments = Vec::new();
        for number in numbers {
            let file = path.join(name_of(number));
            match Segment::open(&file, number) {
                Ok(segment) => segments.push(segment),
                Err(error) => set_aside(&file, &error),
            }
        }
        let mut store = Self {
            path: path.to_owned(),
            node: node.to_owned(),
            limits,
            segments,
            directory: Directory::default(),
        };
        if store.segments.is_empty() {
            store.begin_segment()?;
        }
        store.publish();
        Ok(store)
    }

    /// What readers find the segments by.
    pub(in crate::journal) fn directory(&self) -> Directory {
        Arc::clone(&self.directory)
    }

    /// Writes changes, all or none.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`] when it is locked, full or broken.
    pub fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if self.is_full() {
            self.begin_segment()?;
        }
        let Some((current, older)) = self.segments.split_last_mut() else {
            return Ok(());
        };
        let carried = current.write(changes, &self.node, |id| {
            for segment in older.iter().rev() {
                if let Some(carried) = segment.read_whole(id)? {
                    return Ok(Some(carried));
                }
            }
            Ok(None)
        })?;
        if !carried.is_empty() {
            // A crash before this leaves a message twice; lists show the newer one.
            for segment in older {
                segment.remove(&carried)?;
            }
        }
        self.publish();
        Ok(())
    }

    /// Notes changes that were not stored.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn write_gap(
        &mut self,
        since: UnixMillis,
        until: UnixMillis,
        changes: u64,
    ) -> Result<(), StoreError> {
        if let Some(current) = self.segments.last() {
            current.write_gap(since.0, until.0, changes)?;
        }
        Ok(())
    }

    /// Drops segments that are too old, or too many.
    pub fn retain(&mut self, now: UnixMillis) {
        let age = i64::try_from(self.limits.age.as_millis()).unwrap_or(i64::MAX);
        let oldest = now.0.saturating_sub(age);
        while let [first, _, ..] = &self.segments[..] {
            let bytes: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
            if first.newest >= oldest && bytes <= self.limits.bytes {
                break;
            }
            let first = self.segments.remove(0);
            tracing::info!(segment = %first.path.display(), "a segment of the journal is over its time or size");
            self.publish();
            for suffix in ["", "-wal", "-shm"] {
                let mut file = first.path.clone().into_os_string();
                file.push(suffix);
                // One that stays is found and dropped at the next start.
                fs::remove_file(file).ok();
            }
        }
    }

    /// Has the disk look full from so many pages on.
    #[cfg(test)]
    pub(in crate::journal) fn limit_pages(&self, pages: u32) -> Result<(), StoreError> {
        let current = self.segments.last().expect("one is written");
        Ok(current.limit_pages(pages)?)
    }

    fn is_full(&self) -> bool {
        self.segments.last().is_none_or(|current| {
            current.rows >= self.limits.rows || current.bytes > self.limits.bytes / 4
        })
    }

    fn begin_segment(&mut self) -> Result<(), StoreError> {
        let number = self.segments.last().map_or(1, |last| last.number + 1);
        let segment = Segment::open(&self.path.join(name_of(number)), number)?;
        self.segments.push(segment);
        Ok(())
    }

    fn publish(&self) {
        let known = |segment: &Segment| Known {
            number: segment.number,
            path: segment.path.clone(),
            newest: segment.newest,
            rows: segment.rows,
            bytes: segment.bytes,
        };
        self.directory
            .store(Arc::new(self.segments.iter().map(known).collect()));
    }
}

/// Whether a change can be of a message that the journal does not know yet.
pub(super) fn is_first(change: &Change) -> bool {
    let check = change
        .log
        .as_ref()
        .is_some_and(|log| log.kind == LogKind::StatusCheck);
    let begins = |state: &MessageState| state.attempts <= 1 && state.round <= 1;
    change.state.as_ref().is_some_and(begins) && !check
}

fn name_of(number: u32) -> String {
    format!("segment-{number:06}.db")
}

fn number_of(name: &str) -> Option<u32> {
    name.strip_prefix("segment-")?
        .strip_suffix(".db")?
        .parse()
        .ok()
}

fn set_aside(file: &Path, error: &rusqlite::Error) {
    let aside = file.with_extension("broken");
    tracing::error!(
        segment = %file.display(), aside = %aside.display(), %error,
        "a segment of the journal cannot be opened: it is put aside"
    );
    fs::rename(file, aside).ok();
    for suffix in ["-wal", "-shm"] {
        let mut file = file.to_owned().into_os_string();
        file.push(suffix);
        fs::remove_file(file).ok();
    }
}
