//! The journal's answers, each out of all segments, on threads that may block.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::scan;
use super::store::{Directory, Known};
use super::{charts, count, story};
use crate::channel::ResourceName;
use crate::clock::UnixMillis;
use crate::journal::walk::{Budget, Found, Way};
use crate::journal::{
    Bucket, Cursor, Filter, Gap, JournalError, Message, Page, PageRequest, Queued, Reach,
    ReadFuture, Reader, ReasonCount, Span, Story,
};
use crate::message::MessageId;

/// Answers that are worked on at one time.
const AT_ONCE: usize = 4;
/// How long an answer may wait for its turn.
const TURN: Duration = Duration::from_secs(5);
/// Gaps that are told.
const GAPS: usize = 50;

/// Connections to segments, by number.
type Connections = HashMap<u32, Connection>;

/// Reads the segments that a [`super::Store`] writes.
#[derive(Clone)]
pub struct SqliteReader {
    directory: Directory,
    turns: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connections>>>,
    /// Changes that wait to be written.
    queued: Queued,
}

impl fmt::Debug for SqliteReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteReader")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// The segments as one answer sees them.
pub(super) struct Segments<'a> {
    connections: &'a mut Connections,
    /// Newest first.
    pub(super) known: Vec<Known>,
}

impl Segments<'_> {
    pub(super) fn open(&mut self, known: &Known) -> rusqlite::Result<&Connection> {
        use std::collections::hash_map::Entry;
        match self.connections.entry(known.number) {
            Entry::Occupied(connection) => Ok(connection.into_mut()),
            Entry::Vacant(vacant) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags(&known.path, flags)?;
                connection.busy_timeout(Duration::from_millis(200))?;
                connection.execute_batch("pragma cache_size = -4096; pragma query_only = 1;")?;
                Ok(vacant.insert(connection))
            }
        }
    }
}

impl SqliteReader {
    pub(in crate::journal) fn new(directory: Directory, queued: Queued) -> Self {
        Self {
            directory,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            idle: Arc::default(),
            queued,
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Segments<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let unavailable = |error: &dyn fmt::Display| JournalError::Unavailable(error.to_string());
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(unavailable(&"too many questions at once"));
        };
        let (idle, known) = (Arc::clone(&self.idle), self.directory.load_full());
        let answer = tokio::task::spawn_blocking(move || -> rusqlite::Result<T> {
            let _turn = turn;
            let taken = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connections = taken.unwrap_or_default();
            connections.retain(|number, _| known.iter().any(|known| known.number == *number));
            let known = known.iter().rev().cloned().collect();
            let mut segments = Segments {
                connections: &mut connections,
                known,
            };
            let answer = question(&mut segments)?;
            idle.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connections);
            Ok(answer)
        });
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(error) => Err(unavailable(&error)),
        }
    }
}

/// Messages of all segments in the order of the walk, each once, at most `limit`.
fn search(
    segments: &mut Segments<'_>,
    filter: &Filter,
    way: Way,
    limit: usize,
) -> rusqlite::Result<Found> {
    let mut budget = Budget::new();
    let mut all = Found::default();
    let mut known = segments.known.clone();
    if !way.down {
        known.reverse();
    }
    // The newest message of those that are not looked at.
    let mut rest = known
        .iter()
        .map(|segment| segment.newest)
        .collect::<Vec<_>>();
    for at in (0..rest.len().saturating_sub(1)).rev() {
        rest[at] = rest[at].max(rest[at + 1]);
    }
    for (at, segment) in known.iter().enumerate() {
        let enough = all.messages.len() >= limit;
        let complete = way.down && enough && all.messages[limit - 1].0.0 > rest[at];
        if complete {
            break;
        }
        if budget.is_spent() && all.stopped.is_some() {
            break;
        }
        let connection = segments.open(segment)?;
        let found = scan::scan(connection, filter, way, limit, &mut budget)?;
        all.add(found, way);
        all.sort(way, limit);
    }
    all.settle(way, limit);
    Ok(all)
}

impl Reader for SqliteReader {
    fn list<'a>(
        &'a self,
        filter: &'a Filter,
        request: &'a PageRequest,
    ) -> ReadFuture<'a, Page<Message>> {
        Box::pin(async move {
            let way = Way::of(request)?;
            let (filter, request) = (filter.clone(), request.clone());
            self.ask(move |segments| {
                let found = search(segments, &filter, way, request.size + 1)?;
                Ok(found.page(request.size, way))
            })
            .await
        })
    }

    fn count_newer<'a>(
        &'a self,
        filter: &'a Filter,
        than: &'a Cursor,
        limit: usize,
    ) -> ReadFuture<'a, usize> {
        Box::pin(async move {
            let (filter, way) = (filter.clone(), Way::newer(than)?);
            self.ask(move |segments| Ok(search(segments, &filter, way, limit)?.messages.len()))
                .await
        })
    }

    fn count<'a>(&'a self, filter: &'a Filter, limit: usize) -> ReadFuture<'a, Option<usize>> {
        let filter = filter.clone();
        Box::pin(self.ask(move |segments| {
            if !count::is_covered(&filter) {
                return Ok(None);
            }
            let mut sum = 0;
            for known in segments.known.clone() {
                let left = limit.saturating_sub(sum);
                if left == 0 {
                    break;
                }
                let Some(count) = count::count(segments.open(&known)?, &filter, left)? else {
                    return Ok(None);
                };
                sum += count;
            }
            Ok(Some(sum))
        }))
    }

    fn story<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Story>> {
        Box::pin(async move {
            let Ok(id) = id.parse::<MessageId>() else {
                return Ok(None);
            };
            self.ask(move |segments| story::story(segments, id)).await
        })
    }

    fn message<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Message>> {
        Box::pin(async move {
            let Ok(id) = id.parse::<MessageId>() else {
                return Ok(None);
            };
            self.ask(move |segments| {
                for known in segments.known.clone() {
                    if let Some((_, message)) = scan::find(segments.open(&known)?, id)? {
                        return Ok(Some(message));
                    }
                }
                Ok(None)
            })
            .await
        })
    }

    fn siblings<'a>(&'a self, event_id: &'a str, limit: usize) -> ReadFuture<'a, Vec<Message>> {
        Box::pin(async move {
            let filter = Filter {
                event_id: Some(event_id.to_owned()),
                ..Filter::default()
            };
            self.ask(move |segments| {
                Ok(search(segments, &filter, Way::NEWEST, limit)?.into_messages())
            })
            .await
        })
    }

    fn chart<'a>(
        &'a self,
        subscription: Option<&'a ResourceName>,
        span: Span,
        step_minutes: u32,
    ) -> ReadFuture<'a, Vec<Bucket>> {
        let subscription = subscription.map(ToString::to_string);
        Box::pin(self.ask(move |segments| {
            charts::chart(segments, subscription.as_deref(), span, step_minutes)
        }))
    }

    fn reasons<'a>(
        &'a self,
        subscription: &'a ResourceName,
        span: Span,
    ) -> ReadFuture<'a, Vec<ReasonCount>> {
        let subscription = subscription.to_string();
        Box::pin(self.ask(move |segments| charts::reasons(segments, &subscription, span)))
    }

    fn reach(&self) -> ReadFuture<'_, Reach> {
        let queued = (self.queued)();
        Box::pin(self.ask(move |segments| reach(segments, queued)))
    }
}

fn reach(segments: &mut Segments<'_>, queued: u64) -> rusqlite::Result<Reach> {
    let mut reach = Reach {
        queued,
        ..Reach::default()
    };
    for known in segments.known.clone() {
        reach.messages += known.rows;
        reach.bytes += known.bytes;
        let connection = segments.open(&known)?;
        let oldest: Option<i64> =
            connection.query_row("select min(accepted) from message", [], |row| row.get(0))?;
        let oldest = oldest.map(UnixMillis);
        reach.oldest = match (reach.oldest, oldest) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let mut statement = connection
            .prepare_cached("select since, until, changes from gap order by rowid desc limit ?")?;
        let gap = |row: &rusqlite::Row<'_>| {
            Ok(Gap {
                from: UnixMillis(row.get(0)?),
                to: Some(UnixMillis(row.get(1)?)),
                changes: super::codes::unsigned(row.get(2)?),
            })
        };
        let left = i64::try_from(GAPS - reach.gaps.len()).unwrap_or(0);
        for gap in statement.query_map([left], gap)? {
            reach.gaps.push(gap?);
        }
    }
    Ok(reach)
}
