//! A batch of changes as rows: each message once, its attempts and statuses numbered on.

use std::collections::{BTreeMap, HashMap};

use crate::journal::{
    Change, DeliveryLog, LogKind, MessageKey, MessageState, Status, StatusEvent, codes,
};

/// A message's key in the tables: what stands for uid and topic, partition, offset.
pub(super) type Id = (i64, i32, i64);

pub(super) fn id_of(key: &MessageKey) -> Id {
    let (scope, partition, offset) = key.id.parts();
    (codes::signed(scope), partition, offset)
}

/// How many rows a message has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) logs: i32,
    pub(super) changes: i32,
}

/// A message as the batch leaves it.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// Its first change in the batch.
    pub(super) first: &'a Change,
    /// Whether the tables know it.
    pub(super) known: bool,
    pub(super) counts: Counts,
    pub(super) updated: i64,
    /// How it stands; `None`: as before.
    pub(super) state: Option<&'a MessageState>,
    /// Attempts made and allowed; `None`: as before.
    pub(super) attempts: Option<(u32, u32)>,
}

/// A row that belongs to a message.
#[derive(Debug)]
pub(super) struct Row<'a, T> {
    pub(super) key: &'a MessageKey,
    /// From 1, in the order of the message's rows.
    pub(super) number: i32,
    pub(super) item: &'a T,
}

/// What a batch writes.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    /// In the order of their keys, in which everybody locks them.
    pub(super) messages: BTreeMap<Id, Entry<'a>>,
    pub(super) logs: Vec<Row<'a, DeliveryLog>>,
    pub(super) events: Vec<Row<'a, StatusEvent>>,
}

impl<'a> Batch<'a> {
    /// The rows of `changes`, on top of what the tables hold.
    pub(super) fn new(changes: &'a [Change], known: &HashMap<Id, Counts>) -> Self {
        let mut batch = Self::default();
        for change in changes {
            batch.add(change, known);
        }
        batch
    }

    fn add(&mut self, change: &'a Change, known: &HashMap<Id, Counts>) {
        let id = id_of(&change.key);
        let entry = self.messages.entry(id).or_insert_with(|| Entry {
            first: change,
            known: known.contains_key(&id),
            counts: known.get(&id).copied().unwrap_or_default(),
            updated: 0,
            state: None,
            attempts: None,
        });
        if let Some(log) = &change.log {
            entry.counts.logs += 1;
            self.logs.push(Row {
                key: &change.key,
                number: entry.counts.logs,
                item: log,
            });
        }
        for event in &change.events {
            if begins_anew(change, event, entry.counts) {
                continue;
            }
            entry.counts.changes += 1;
            self.events.push(Row {
                key: &change.key,
                number: entry.counts.changes,
                item: event,
            });
        }
        entry.updated = change.at.0;
        if let Some(state) = &change.state {
            entry.state = Some(state);
            // A check is no attempt.
            let log = change.log.as_ref();
            if log.is_none_or(|log| log.kind == LogKind::Attempt) {
                entry.attempts = Some((state.attempts, state.max_attempts));
            }
        }
    }
}

/// An attempt that is repeated after a crash begins nothing anew.
fn begins_anew(change: &Change, event: &StatusEvent, counts: Counts) -> bool {
    event.status == Status::Queued
        && event.attempt == 0
        && counts.changes > 0
        && change.state.as_ref().is_some_and(|state| state.round == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::contract::{change, delivered};

    #[test]
    fn a_message_stands_once_and_its_rows_are_numbered_on() {
        let changes = [
            change("sub", 7, 1, Status::Queued, Some(503)),
            delivered("sub", 1),
            change("sub", 7, 2, Status::Delivered, None),
        ];
        let seven = id_of(&changes[0].key);
        let known = HashMap::from([(
            seven,
            Counts {
                logs: 3,
                changes: 5,
            },
        )]);
        let batch = Batch::new(&changes, &known);
        assert_eq!(batch.messages.len(), 2);
        let entry = &batch.messages[&seven];
        assert!(entry.known && !batch.messages[&id_of(&changes[1].key)].known);
        assert_eq!((entry.counts.logs, entry.counts.changes), (5, 7));
        assert_eq!(entry.state.unwrap().status, Status::Delivered);
        assert_eq!(entry.attempts, Some((2, 4)));
        let numbers: Vec<_> = batch.logs.iter().map(|row| row.number).collect();
        assert_eq!(numbers, [4, 1, 5]);
    }

    #[test]
    fn what_a_crash_repeats_begins_only_once() {
        let mut first = change("sub", 7, 1, Status::Delivered, None);
        let begin = StatusEvent {
            status: Status::Queued,
            attempt: 0,
            ..first.events[0].clone()
        };
        first.events.insert(0, begin);
        let changes = [first.clone(), first];
        let batch = Batch::new(&changes, &HashMap::new());
        let statuses: Vec<_> = batch.events.iter().map(|row| row.item.status).collect();
        let (queued, delivered) = (Status::Queued, Status::Delivered);
        assert_eq!(statuses, [queued, delivered, delivered]);
    }
}
