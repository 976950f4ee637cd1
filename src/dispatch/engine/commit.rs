//! Commits: the first unfinished offset of each partition, and what is known beyond it.
//!
//! What is known goes into the commit's metadata. When it does not fit, an unordered message that
//! waits is parked at once, so that the retry topic knows its attempts; a partition with ordered
//! ones takes nothing more until it fits. What is finished in the retry topic and does not fit is
//! written there as checkpoints.

use std::collections::HashSet;
use std::ops::Range;

use slab::Slab;

use super::{Engine, Life, Message, Phase, Slot, SlotId, Work};
use crate::dispatch::offsets::{Fit, METADATA_LIMIT, Metadata, Waiting};
use crate::dispatch::retry_record;
use crate::log::{Commit, Offset};

/// More ranges than this never fit into metadata.
const MAX_RANGES: usize = 12_500;
/// Ranges of one checkpoint record: 64 KiB.
const CHECKPOINT_RANGES: usize = 4096;

impl Engine {
    /// Whether there may be something to commit.
    pub(crate) fn is_dirty(&self) -> bool {
        self.live().any(|slot| slot.dirty)
    }

    /// What changed on `slots` since the last call: the first unfinished offset of each, with
    /// what is known beyond it.
    pub(crate) fn commits(&mut self, slots: &[SlotId]) -> Vec<(SlotId, Commit)> {
        let retry = self.subscription.delivery.retry;
        let mut commits = Vec::new();
        for index in slots.iter().map(|slot| slot.0) {
            if !self.slots[index].dirty || self.slots[index].life == Life::Closed {
                continue;
            }
            self.slots[index].dirty = false;
            let (commit, fit) = commit(&self.slots[index], &self.messages, retry);
            self.save_what_does_not_fit(SlotId(index), fit);
            let slot = &mut self.slots[index];
            if slot.committed.as_ref() != Some(&commit) {
                slot.committed = Some(commit.clone());
                commits.push((SlotId(index), commit));
            }
        }
        commits
    }

    /// A commit did not get through: it is due again.
    pub(crate) fn commit_failed(&mut self, slot: SlotId) {
        let slot = &mut self.slots[slot.0];
        slot.committed = None;
        slot.dirty = true;
    }

    fn save_what_does_not_fit(&mut self, id: SlotId, fit: Fit) {
        let (waiting, done_from) = match fit {
            Fit::All => (Vec::new(), None),
            Fit::Truncated { waiting, done_from } => (waiting, done_from),
        };
        let open = self.slots[id.0].life == Life::Open;
        let mut ordered = false;
        let mut parked = HashSet::new();
        for offset in waiting {
            match self.slots[id.0].retrying.get(&offset) {
                Some(&message) if self.is_parking(message) => {}
                Some(&message) if open && self.may_park(message) => {
                    self.park(message);
                    parked.insert(message);
                }
                _ => ordered = true,
            }
        }
        if !parked.is_empty() {
            self.timers.retain(|id| !parked.contains(&id));
        }
        let slot = &mut self.slots[id.0];
        if slot.full != ordered {
            slot.full = ordered;
            tracing::debug!(
                partition = %slot.at, paused = ordered,
                "more events wait for a retry than a commit can tell of"
            );
        }
        let Some(retry) = &mut slot.retry else {
            return;
        };
        let unsaved = std::mem::take(&mut retry.unsaved);
        if done_from.is_none() {
            retry.saved = false;
            return;
        }
        // The first checkpoint tells all, later ones what came since.
        let done = if retry.saved {
            ranges(unsaved)
        } else {
            slot.tracker.done()
        };
        retry.saved = true;
        for some in done.chunks(CHECKPOINT_RANGES) {
            let (partition, record) = (slot.at.partition, retry_record::checkpoint(some));
            self.chores.push_back(Work::Checkpoint {
                slot: id,
                partition,
                record,
            });
        }
    }

    /// A checkpoint was stored, or not: then the next one tells all again.
    pub(crate) fn checkpointed(&mut self, slot: SlotId, stored: bool) {
        let slot = &mut self.slots[slot.0];
        if let Some(retry) = &mut slot.retry
            && !stored
        {
            retry.saved = false;
            slot.dirty = true;
        }
    }
}

/// Offsets as ordered ranges that do not touch.
fn ranges(mut offsets: Vec<Offset>) -> Vec<Range<Offset>> {
    offsets.sort_unstable();
    let mut ranges: Vec<Range<Offset>> = Vec::new();
    for offset in offsets {
        match ranges.last_mut() {
            Some(last) if offset < last.end => {}
            Some(last) if offset == last.end => last.end.0 += 1,
            _ => ranges.push(offset..Offset(offset.0 + 1)),
        }
    }
    ranges
}

fn commit(slot: &Slot, messages: &Slab<Message>, retry: u32) -> (Commit, Fit) {
    let offset = slot.tracker.committable();
    let made_now = slot.retrying.iter().filter_map(|(offset, id)| {
        let message = &messages[id.0];
        let (attempts, first_attempt) = match &message.phase {
            Phase::DeadLetter(failed) | Phase::Keep { failed, .. } => {
                // A new owner must not try again what was given up, also when it was for good
                // after the first attempt: later events of the lane may have gone on.
                (
                    failed.attempts.max(retry.saturating_add(1)),
                    failed.first_attempt,
                )
            }
            Phase::Subscriber(_) | Phase::Reply(_) | Phase::Check(_) | Phase::KeepRaw { .. } => {
                (message.attempts, message.first_attempt)
            }
        };
        Some(Waiting {
            offset: *offset,
            attempts_made: attempts,
            first_attempt: first_attempt?,
            due: message.due.unwrap_or_default(),
        })
    });
    // What an earlier owner attempted and we have not read yet must not be lost either.
    let made_before = slot
        .restored
        .values()
        .filter(|attempt| attempt.offset >= offset)
        .copied();
    let mut waiting: Vec<Waiting> = made_now.chain(made_before).collect();
    waiting.sort_by_key(|waiting| waiting.offset);
    let metadata = Metadata {
        done: slot.tracker.first_done(MAX_RANGES),
        waiting,
    };
    let (metadata, fit) = metadata.encode(offset, METADATA_LIMIT);
    (Commit { offset, metadata }, fit)
}
