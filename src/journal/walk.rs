//! How lists are walked, whatever store they are in: their order, how far a search goes, and the
//! page that comes of it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Cursor, JournalError, Message, Page, PageRequest, codes};
use crate::clock::UnixMillis;
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
fn key(cursor: &Cursor) -> Result<Key, JournalError> {
    let id: MessageId = cursor
        .id
        .parse()
        .map_err(|_| JournalError::Cursor(cursor.id.clone()))?;
    let (scope, partition, offset) = id.parts();
    let scope = codes::signed(scope);
    Ok((cursor.accepted.0, scope, partition.into(), offset))
}

/// The text of the id in a key.
pub(super) fn id_of(key: Key) -> String {
    let partition = i32::try_from(key.2).unwrap_or_default();
    MessageId::from_parts((codes::unsigned(key.1), partition, key.3)).to_string()
}

fn cursor(key: Key) -> Cursor {
    Cursor {
        accepted: UnixMillis(key.0),
        id: id_of(key),
    }
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

    /// Entries that may be walked yet, if the time is not over.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// Takes one entry; `false`: it was the last.
    pub(super) fn take(&mut self) -> bool {
        self.entries = self.entries.saturating_sub(1);
        self.entries > 0 && (!self.entries.is_multiple_of(LOOK) || Instant::now() < self.until)
    }

    /// Takes entries that were walked at one go.
    pub(super) fn take_many(&mut self, entries: usize) {
        self.entries = self.entries.saturating_sub(entries);
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

impl Way {
    /// From the newest on.
    pub(super) const NEWEST: Self = Self {
        down: true,
        from: None,
    };

    /// The way of a page.
    pub(super) fn of(request: &PageRequest) -> Result<Self, JournalError> {
        match (&request.after, &request.before) {
            (Some(after), _) => Ok(Self {
                down: true,
                from: Some(key(after)?),
            }),
            (None, Some(before)) => Self::newer(before),
            (None, None) => Ok(Self::NEWEST),
        }
    }

    /// From a message to newer ones.
    pub(super) fn newer(than: &Cursor) -> Result<Self, JournalError> {
        Ok(Self {
            down: false,
            from: Some(key(than)?),
        })
    }
}

/// Of two places the one that the walk comes to first.
pub(super) fn nearer(way: Way, a: Key, b: Key) -> Key {
    if way.down { a.max(b) } else { a.min(b) }
}

/// What was found, in the order of the walk.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) messages: Vec<(Key, Message)>,
    /// The bounds ended the walk here.
    pub(super) stopped: Option<Key>,
}

impl Found {
    /// Adds what another part of the search found. It stopped where the first of its parts did.
    pub(super) fn add(&mut self, more: Self, way: Way) {
        self.messages.extend(more.messages);
        self.stopped = match (self.stopped, more.stopped) {
            (Some(a), Some(b)) => Some(nearer(way, a, b)),
            (a, b) => a.or(b),
        };
    }

    /// Brings parts into one order, each message once, at most `limit`.
    pub(super) fn sort(&mut self, way: Way, limit: usize) {
        // Stable: of one that stands twice the newer segment's comes first on the way down.
        self.messages.sort_by_key(|(key, _)| *key);
        if way.down {
            self.messages.reverse();
        }
        self.messages.dedup_by_key(|(key, _)| *key);
        self.messages.truncate(limit);
    }

    /// Leaves out what lies beyond where a part stopped, since nothing is complete there.
    pub(super) fn settle(&mut self, way: Way, limit: usize) {
        if let Some(stopped) = self.stopped {
            let within = |key: Key| {
                if way.down {
                    key >= stopped
                } else {
                    key <= stopped
                }
            };
            self.messages.retain(|(key, _)| within(*key));
        }
        if self.messages.len() >= limit {
            self.stopped = None;
        }
    }

    pub(super) fn into_messages(self) -> Vec<Message> {
        self.messages
            .into_iter()
            .map(|(_, message)| message)
            .collect()
    }

    /// The page of `size` that was asked for; the search went one message further.
    pub(super) fn page(mut self, size: usize, way: Way) -> Page<Message> {
        let more = self.messages.len() > size;
        self.messages.truncate(size);
        if !way.down {
            self.messages.reverse();
        }
        let first = self.messages.first().map(|(key, _)| *key);
        let last = self.messages.last().map(|(key, _)| *key);
        let (after, before) = if way.down {
            let on = if more { last } else { self.stopped };
            (on, way.from.and(first))
        } else {
            (last.or(way.from), more.then_some(first).flatten())
        };
        let stopped = self.stopped.filter(|_| way.down);
        Page {
            after: after.map(cursor),
            before: before.map(cursor),
            searched_to: stopped.map(|key| UnixMillis(key.0)),
            items: self.into_messages(),
        }
    }
}
