//! Changes on their way into a segment.
//!
//! Most messages are delivered at once and told of in one change. For them a batch writes one row
//! of `message`, as it stands, and one of `entry`; nothing is looked up before.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{CachedStatement, OptionalExtension as _, Transaction, params};

use super::codes;
use super::names::{Names, Text};
use super::schema::BLOCK_BITS;
use super::segment::Carried;
use super::stats::Stats;
use super::store::is_first;
use crate::channel::Subscription;
use crate::journal::{Change, DeliveryLog, LogKind, MessageState, Status};
use crate::message::MessageId;

/// What is the same for all messages of a subscription.
#[derive(Clone, Copy, Debug)]
struct Subject {
    sub: i64,
    channel: i64,
}

/// A batch while it is written.
pub(super) struct Batch<'a> {
    transaction: &'a Transaction<'a>,
    names: &'a mut Names,
    node: i64,
    insert: CachedStatement<'a>,
    entry: CachedStatement<'a>,
    /// By the address of the subscription, which the changes keep alive.
    subjects: HashMap<*const Subscription, Subject>,
    packed: Vec<u8>,
    done: Done,
}

/// What a batch came to.
#[derive(Debug)]
pub(super) struct Done {
    /// Messages that older segments are to let go of.
    pub(super) carried: Vec<MessageId>,
    /// Messages of the segment.
    pub(super) rows: u64,
    pub(super) newest: i64,
}

/// Where a message is in the segment.
struct Place {
    row: i64,
    entries: i64,
    changes: i64,
}

/// The texts of a request and its answer.
struct Texts<'a> {
    method: i64,
    url: Text<'a>,
    request: Text<'a>,
    response: Option<Text<'a>>,
}

const INSERT: &str = "
insert into message (scope, part, off, sub, channel, topic, accepted, updated, status, final, failure, reason,
  attempts, max_attempts, round, next_attempt, entries, changes, block, event_hash, event_id, type, source, subject,
  event_time)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict do nothing";

const ENTRY: &str = "
insert into entry (message, n, change, statuses, kind, phase, cause, round, attempt, started, duration_us, reason,
  node, method, url, request, code, response, body, truncated, error_kind, error_text, wait_ms, planned_ms,
  wait_flags)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

const UPDATE: &str = "
update message set updated = ?, status = ?, final = ?, failure = ?, reason = ?, attempts = coalesce(?, attempts),
  max_attempts = coalesce(?, max_attempts), round = ?, next_attempt = ?, entries = ?, changes = ?
where id = ?";

/// A message that nothing is known of yet.
const BLANK: MessageState = MessageState {
    status: Status::Queued,
    is_final: false,
    failure: None,
    last_reason: None,
    attempts: 0,
    max_attempts: 0,
    next_attempt: None,
    round: 1,
};

impl<'a> Batch<'a> {
    pub(super) fn new(
        transaction: &'a Transaction<'a>,
        names: &'a mut Names,
        node: &str,
        rows: u64,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            node: names.number(transaction, node)?,
            names,
            insert: transaction.prepare_cached(INSERT)?,
            entry: transaction.prepare_cached(ENTRY)?,
            subjects: HashMap::new(),
            packed: Vec::new(),
            done: Done {
                carried: Vec::new(),
                rows,
                newest: 0,
            },
            transaction,
        })
    }

    pub(super) fn finish(self) -> Done {
        self.done
    }

    pub(super) fn change(
        &mut self,
        change: &Change,
        stats: &mut Stats,
        older: &mut impl FnMut(MessageId) -> rusqlite::Result<Option<Carried>>,
    ) -> rusqlite::Result<()> {
        let subject = self.subject(&change.key.subscription)?;
        if let Some(log) = &change.log {
            stats.count(subject.sub, log);
        }
        let first = is_first(change);
        if first && let Some(row) = self.insert(subject, change)? {
            return self.entry(row, 1, 0, change);
        }
        let id = change.key.id;
        let found = match self.find(id)? {
            None if !first => match older(id)? {
                Some(carried) => Some(self.carry(carried)?),
                None => None,
            },
            found => found,
        };
        match found {
            Some(place) => self.add(&place, change),
            None => match self.insert(subject, change)? {
                Some(row) => self.entry(row, 1, 0, change),
                None => Ok(()),
            },
        }
    }

    fn name(&mut self, text: &str) -> rusqlite::Result<i64> {
        self.names.number(self.transaction, text)
    }

    fn subject(&mut self, subscription: &Arc<Subscription>) -> rusqlite::Result<Subject> {
        let address = Arc::as_ptr(subscription);
        if let Some(subject) = self.subjects.get(&address) {
            return Ok(*subject);
        }
        let subject = Subject {
            sub: self.name(&subscription.name.to_string())?,
            channel: self.name(&subscription.channel.to_string())?,
        };
        self.note_subject(subject)?;
        self.subjects.insert(address, subject);
        Ok(subject)
    }

    fn note_subject(&self, Subject { sub, channel }: Subject) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("insert or ignore into subject values (?, ?)")?
            .execute([sub, channel])?;
        Ok(())
    }

    fn find(&self, id: MessageId) -> rusqlite::Result<Option<Place>> {
        let (scope, partition, offset) = id.parts();
        let mut statement = self.transaction.prepare_cached(
            "select id, entries, changes from message where scope = ? and part = ? and off = ?",
        )?;
        let place = |row: &rusqlite::Row<'_>| {
            Ok(Place {
                row: row.get(0)?,
                entries: row.get(1)?,
                changes: row.get(2)?,
            })
        };
        statement
            .query_row(params![codes::signed(scope), partition, offset], place)
            .optional()
    }

    /// A new message as the change leaves it, with its row; `None`: it is there already.
    fn insert(&mut self, subject: Subject, change: &Change) -> rusqlite::Result<Option<i64>> {
        let key = &change.key;
        let (scope, partition, offset) = key.id.parts();
        let event = change.event.as_deref();
        let attribute = |name: &str| event.and_then(|event| event.attribute(name));
        let event_id = attribute("id").unwrap_or_default();
        let topic = self.name(key.at.topic.as_str())?;
        let kind = self.name(attribute("type").unwrap_or_default())?;
        let source = self.name(attribute("source").unwrap_or_default())?;
        let state = change.state.as_ref().unwrap_or(&BLANK);
        let block = self.block();
        let inserted = self.insert.execute(params![
            codes::signed(scope),
            partition,
            offset,
            subject.sub,
            subject.channel,
            topic,
            key.accepted.0,
            change.at.0,
            codes::of_status(state.status),
            state.is_final,
            state.failure.map(codes::of_failure),
            state.last_reason.map(codes::of_reason),
            state.attempts,
            state.max_attempts,
            state.round,
            state.next_attempt.map(|time| time.0),
            1,
            count(&change.events),
            block,
            codes::event_hash(event_id),
            event_id,
            kind,
            source,
            attribute("subject"),
            attribute("time"),
        ])?;
        if inserted == 0 {
            return Ok(None);
        }
        self.done.rows += 1;
        self.done.newest = self.done.newest.max(key.accepted.0);
        Ok(Some(self.transaction.last_insert_rowid()))
    }

    /// The block of event ids that the next message belongs to.
    fn block(&self) -> i64 {
        codes::signed(self.done.rows >> BLOCK_BITS)
    }

    /// Adds to a message that is there.
    fn add(&mut self, place: &Place, change: &Change) -> rusqlite::Result<()> {
        // An attempt that is repeated after a crash begins nothing anew.
        let begun = place.changes > 0 && change.state.as_ref().is_some_and(|s| s.round == 1);
        let begins = change
            .events
            .first()
            .is_some_and(|event| event.status == Status::Queued && event.attempt == 0);
        let skip = usize::from(begun && begins);
        self.entry_without(skip, place.row, place.entries + 1, place.changes, change)?;
        let changes = place.changes + count(&change.events[skip..]);
        self.update(place, changes, change)
    }

    fn entry(&mut self, row: i64, n: i64, changes: i64, change: &Change) -> rusqlite::Result<()> {
        self.entry_without(0, row, n, changes, change)
    }

    /// Writes entry `n`, after so many changes of status, without the first `skip` of its own.
    fn entry_without(
        &mut self,
        skip: usize,
        row: i64,
        n: i64,
        changes: i64,
        change: &Change,
    ) -> rusqlite::Result<()> {
        self.packed.clear();
        for event in &change.events[skip..] {
            codes::pack(event, &mut self.packed);
        }
        let Some(log) = change.log.as_deref() else {
            self.entry.execute(rusqlite::params_from_iter(blank_entry(
                row,
                n,
                changes + 1,
                &self.packed,
            )))?;
            return Ok(());
        };
        let url = match log.kind {
            LogKind::Attempt => Text::Name(self.name(&log.request.url)?),
            // Its receipt makes it one of a kind.
            LogKind::StatusCheck => Text::Itself(Cow::Borrowed(&log.request.url)),
        };
        let method = self.name(log.request.method)?;
        let request = self.names.headers(
            self.transaction,
            &log.request.headers,
            change.event.as_deref(),
        )?;
        let response = match &log.response {
            Some(answer) => Some(
                self.names
                    .headers(self.transaction, &answer.headers, None)?,
            ),
            None => None,
        };
        let texts = Texts {
            method,
            url,
            request,
            response,
        };
        self.log_entry([row, n, changes + 1], log, &texts)
    }

    fn log_entry(
        &mut self,
        [row, n, change]: [i64; 3],
        log: &DeliveryLog,
        texts: &Texts<'_>,
    ) -> rusqlite::Result<()> {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let answer = log.response.as_ref();
        let error = log.error.as_ref();
        let wait = log.wait.as_ref();
        self.entry.execute(params![
            row,
            n,
            change,
            &self.packed[..],
            codes::of_kind(log.kind),
            codes::of_phase(log.phase),
            codes::of_trigger(log.trigger),
            log.round,
            log.attempt,
            log.started.0,
            i64::try_from(log.duration.as_micros()).unwrap_or(i64::MAX),
            log.reason.map(codes::of_reason),
            self.node,
            texts.method,
            texts.url,
            texts.request,
            answer.map(|answer| answer.code),
            texts.response,
            answer
                .map(|answer| &answer.body[..])
                .filter(|body| !body.is_empty()),
            answer.is_some_and(|answer| answer.truncated),
            error.map(|error| codes::of_reason(error.kind)),
            error.map(|error| &error.message),
            wait.map(|wait| millis(wait.delay)),
            wait.map(|wait| millis(wait.planned)),
            wait.map(|wait| i64::from(wait.retry_after) | i64::from(wait.parked) << 1),
        ])?;
        Ok(())
    }

    fn update(&self, place: &Place, changes: i64, change: &Change) -> rusqlite::Result<()> {
        let entries = place.entries + 1;
        let Some(state) = &change.state else {
            self.transaction
                .prepare_cached(
                    "update message set updated = ?, entries = ?, changes = ? where id = ?",
                )?
                .execute(params![change.at.0, entries, changes, place.row])?;
            return Ok(());
        };
        // A check is no attempt.
        let made = change
            .log
            .as_ref()
            .is_none_or(|log| log.kind == LogKind::Attempt);
        self.transaction.prepare_cached(UPDATE)?.execute(params![
            change.at.0,
            codes::of_status(state.status),
            state.is_final,
            state.failure.map(codes::of_failure),
            state.last_reason.map(codes::of_reason),
            made.then_some(state.attempts),
            made.then_some(state.max_attempts),
            state.round,
            state.next_attempt.map(|time| time.0),
            entries,
            changes,
            place.row,
        ])?;
        Ok(())
    }

    /// Takes a message over from an older segment.
    fn carry(&mut self, carried: Carried) -> rusqlite::Result<Place> {
        let Carried {
            id,
            mut message,
            entries,
        } = carried;
        self.rename(&mut message, &[0, 1, 2, 17, 18])?;
        if let [Value::Integer(sub), Value::Integer(channel), ..] = message[..] {
            self.note_subject(Subject { sub, channel })?;
        }
        let number = |at: usize| match message.get(at) {
            Some(Value::Integer(number)) => *number,
            _ => 0,
        };
        let (accepted, entries_told, changes) = (number(3), number(13), number(14));
        let (scope, partition, offset) = id.parts();
        let mut values = [codes::signed(scope), partition.into(), offset]
            .map(Value::Integer)
            .to_vec();
        let facts = message.split_off(15.min(message.len()));
        values.extend(message);
        values.push(Value::Integer(self.block()));
        values.extend(facts);
        self.insert.execute(rusqlite::params_from_iter(values))?;
        let place = Place {
            row: self.transaction.last_insert_rowid(),
            entries: entries_told,
            changes,
        };
        for mut entry in entries {
            self.rename(&mut entry, &[11, 12])?;
            let values = std::iter::once(Value::Integer(place.row)).chain(entry);
            self.entry.execute(rusqlite::params_from_iter(values))?;
        }
        self.done.rows += 1;
        self.done.newest = self.done.newest.max(accepted);
        self.done.carried.push(id);
        Ok(place)
    }

    /// Puts this segment's numbers in place of names.
    fn rename(&mut self, values: &mut [Value], names: &[usize]) -> rusqlite::Result<()> {
        for at in names {
            if let Some(Value::Text(text)) = values.get(*at) {
                let number = self.names.number(self.transaction, text)?;
                values[*at] = Value::Integer(number);
            }
        }
        Ok(())
    }
}

/// An entry without a request.
fn blank_entry(row: i64, n: i64, change: i64, packed: &[u8]) -> Vec<Value> {
    let mut values = vec![Value::Null; 25];
    values[0] = Value::Integer(row);
    values[1] = Value::Integer(n);
    values[2] = Value::Integer(change);
    values[3] = Value::Blob(packed.to_vec());
    values
}

fn count<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}
