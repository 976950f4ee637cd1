//! One message stays one over a crash between the record in the retry topic and the commit.
//!
//! The next owner finds such a message in both topics, in any order: what it reads of a partition
//! up to where it took it over may stand in the retry topic already, and is no second message.

use super::{Activity, Engine, Life, MessageId, Now, Phase, SlotId};
use crate::dispatch::offsets::Waiting;
use crate::dispatch::parked::{OriginKey, Rank};
use crate::dispatch::retry_record::{Entry, Parked};
use crate::log::{Offset, Record, TopicPartition};

impl Engine {
    /// The other topic's slot for the partition with this number. They have one owner.
    pub(super) fn sibling_of(&self, at: &TopicPartition) -> Option<SlotId> {
        let other = |slot: &&SlotId| {
            let slot = &self.slots[slot.0];
            let other = slot.at.partition == at.partition && slot.at.topic != at.topic;
            other && slot.life == Life::Open
        };
        self.live.iter().find(other).copied()
    }

    /// Whether a record of the channel is one that an earlier owner parked.
    pub(super) fn goes_on_elsewhere(
        &self,
        channel: SlotId,
        offset: Offset,
        restored: Option<Waiting>,
    ) -> bool {
        let slot = &self.slots[channel.0];
        let Some(retry) = slot.sibling.and_then(|it| self.slots[it.0].retry.as_ref()) else {
            return false;
        };
        let rank = Rank {
            phase: 0,
            attempts: restored.map_or(0, |waiting| waiting.attempts_made),
        };
        let partition = slot.at.partition;
        offset < slot.taken_over && retry.index.knows(OriginKey { partition, offset }, rank)
    }

    /// Whether a record of the retry topic is of a message that is held here, from the channel:
    /// it goes on as that one, with the attempts that the record tells of.
    pub(super) fn is_held(
        &mut self,
        retry: SlotId,
        key: OriginKey,
        entry: &Entry,
        record: &Record,
        now: Now,
    ) -> bool {
        let Some(channel) = self.slots[retry.0].sibling else {
            return false;
        };
        let slot = &self.slots[channel.0];
        let read = key.offset < slot.tracker.next() && !slot.tracker.is_complete(key.offset);
        if !read || entry.redrive || entry.phase != 0 || slot.life != Life::Open {
            return false;
        }
        let held = |(_, message): &(usize, &super::Message)| {
            message.slot == channel && message.offset == key.offset
        };
        let Some((id, _)) = self.messages.iter().find(held) else {
            return false;
        };
        // What is parked once more is one with this record when it is read.
        if self.is_parking(MessageId(id)) {
            return false;
        }
        if matches!(self.messages[id].phase, Phase::Subscriber(_)) {
            let first = Parked::from_record(record.clone()).map(|parked| parked.first_attempt);
            self.take_over(MessageId(id), entry, first.unwrap_or_default(), now);
        }
        true
    }

    fn take_over(
        &mut self,
        id: MessageId,
        entry: &Entry,
        first: Option<crate::clock::UnixMillis>,
        now: Now,
    ) {
        let message = &mut self.messages[id.0];
        if message.attempts >= entry.attempts {
            return;
        }
        message.attempts = entry.attempts;
        let first = first.unwrap_or(now.wall);
        message.first_attempt = Some(message.first_attempt.map_or(first, |it| it.min(first)));
        let slot = &mut self.slots[message.slot.0];
        slot.retrying.insert(message.offset, id);
        slot.dirty = true;
        // It was about to be tried as if for the first time.
        if message.activity == Activity::Idle && entry.due > now.wall {
            let before = self.ready.len();
            self.ready.retain(|ready| *ready != id);
            if self.ready.len() < before {
                self.messages[id.0].due = Some(entry.due);
                self.timers.add(now.until(entry.due), id);
            }
        }
    }

    /// A message of the channel came to its end. While the retry topic is not read up to where it
    /// was taken over, a record of that message may still turn up there.
    pub(super) fn end_chain(&mut self, channel: SlotId, offset: Offset) {
        let slot = &self.slots[channel.0];
        let Some(sibling) = slot.sibling.filter(|_| offset < slot.taken_over) else {
            return;
        };
        let retry = self.slots[sibling.0].retry.as_ref();
        if retry.is_some_and(|retry| retry.rebuild.is_some()) {
            let partition = slot.at.partition;
            self.end_entry(
                sibling,
                OriginKey { partition, offset },
                Offset(-1),
                super::parking::End::Ended,
            );
        }
    }
}
