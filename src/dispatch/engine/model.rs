//! What a message and a partition are to the engine.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{LaneKey, MessageId, RetrySlot, SlotId};
use crate::clock::UnixMillis;
use crate::delivery::Reason;
use crate::dispatch::dead_letter::{self, Cause, Origin};
use crate::dispatch::lane::Lanes;
use crate::dispatch::offsets::{OffsetTracker, Waiting};
use crate::event::Event;
use crate::log::{Commit, Offset, Record, TopicPartition};

/// A message while it is unfinished.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) slot: SlotId,
    pub(super) offset: Offset,
    /// Where it was in the channel topic, when this is a record of the retry topic.
    pub(super) origin: Option<Box<Origin>>,
    /// When the channel topic took it.
    pub(super) time: UnixMillis,
    pub(super) bytes: usize,
    /// The lane it holds or waits in.
    pub(super) lane: Option<LaneKey>,
    pub(super) phase: Phase,
    /// Attempts made in this phase.
    pub(super) attempts: u32,
    /// When the first attempt of this phase ended.
    pub(super) first_attempt: Option<UnixMillis>,
    /// When it is due again, while it waits.
    pub(super) due: Option<UnixMillis>,
    /// Why the last attempt failed.
    pub(super) reason: Option<Reason>,
    /// It is to be parked, however long that takes: the retry topic may hold it already.
    pub(super) must_park: bool,
    pub(super) activity: Activity,
}

/// What is being done about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// It waits for its lane, its time or its turn.
    Idle,
    /// It is one of the attempts in flight.
    Attempting,
    /// It is on its way to the retry topic.
    Parking,
}

/// Whose turn it is.
#[derive(Debug)]
pub(super) enum Phase {
    Subscriber(Arc<Event>),
    Reply(Box<Reply>),
    DeadLetter(Arc<Failed>),
    /// The provider has it and is asked what became of it.
    Check(Box<Checking>),
    /// On its way to the dead-letter topic, which failed to take it `tries` times.
    Keep {
        failed: Arc<Failed>,
        tries: u32,
    },
    /// A record that is no event, on its way there.
    KeepRaw {
        record: Record,
        tries: u32,
    },
}

/// A message that a provider took.
#[derive(Debug)]
pub(super) struct Checking {
    pub(super) event: Arc<Event>,
    /// Where its status is told.
    pub(super) url: Arc<str>,
}

/// An event that the subscriber answered with.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) original: Arc<Event>,
    pub(super) reply: Arc<Event>,
}

/// An event whose delivery failed for good.
#[derive(Debug)]
pub(super) struct Failed {
    /// The event with the error attributes.
    pub(super) letter: Arc<Event>,
    pub(super) cause: Cause,
    /// Whose attempts these were.
    pub(super) stage: Stage,
    /// Attempts made there.
    pub(super) attempts: u32,
    pub(super) first_attempt: Option<UnixMillis>,
}

/// Who was called in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Subscriber,
    Reply,
}

impl Failed {
    /// The record that the dead-letter topic keeps.
    pub(super) fn record(&self, origin: &Origin) -> Record {
        let phase = match self.stage {
            Stage::Subscriber => "subscriber",
            Stage::Reply => "reply",
        };
        let made = (self.attempts, self.first_attempt);
        dead_letter::record(&self.letter, origin, &self.cause, phase, made)
    }
}

/// One assignment of one partition.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) at: TopicPartition,
    /// The end of the partition when it was taken over: what comes after it no earlier owner had.
    pub(super) taken_over: Offset,
    /// The other topic's slot for the partition with this number.
    pub(super) sibling: Option<SlotId>,
    pub(super) tracker: OffsetTracker,
    pub(super) lanes: Lanes<MessageId>,
    /// Messages whose subscriber was called in vain, by offset: how often goes into the commits.
    pub(super) retrying: BTreeMap<Offset, MessageId>,
    /// Attempts that were made before this assignment, by offset.
    pub(super) restored: HashMap<Offset, Waiting>,
    /// What was handed out for commit last.
    pub(super) committed: Option<Commit>,
    /// Something changed since then.
    pub(super) dirty: bool,
    /// The commit's metadata is full: nothing more is taken.
    pub(super) full: bool,
    /// Messages that are being worked on.
    pub(super) working: usize,
    pub(super) life: Life,
    /// What a partition of the retry topic has besides.
    pub(super) retry: Option<Box<RetrySlot>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Records come in, attempts begin.
    Open,
    /// Nothing begins any more; what is being worked on may still finish.
    Closing,
    /// Given up: results of its messages mean nothing.
    Closed,
}

impl Slot {
    pub(super) fn origin(&self, offset: Offset, time: UnixMillis) -> Origin {
        Origin {
            at: self.at.clone(),
            offset,
            time,
            redriven: 0,
        }
    }

    /// Where a message of this partition was in the channel topic.
    pub(super) fn origin_of(&self, message: &Message) -> Origin {
        match &message.origin {
            Some(origin) => (**origin).clone(),
            None => self.origin(message.offset, message.time),
        }
    }
}
