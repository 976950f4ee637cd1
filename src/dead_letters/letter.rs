//! One dead letter, and the record that sends it round again.

use std::str::FromStr;

use crate::channel::Subscription;
use crate::clock::UnixMillis;
use crate::delivery::Reason;
use crate::dispatch::{Origin, redrive};
use crate::event::Event;
use crate::log::{Offset, Partition, Position, Record, StoredRecord, TopicName, TopicPartition};
use crate::message::MessageId;

/// The attributes that a dead letter has more than its event.
const ADDED: [&str; 3] = ["knativeerrordest", "knativeerrorcode", "knativeerrordata"];

/// A record of a dead-letter topic.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The message it was.
    pub id: MessageId,
    /// Where it is in the dead-letter topic.
    pub position: Position,
    /// When it got there.
    pub inserted_at: UnixMillis,
    /// Why it was given up: a [`Reason`], or `invalid_event` for a record that is no event.
    pub outcome: String,
    /// Whose attempts failed: `subscriber` or `reply`; empty for a record that is no event.
    pub phase: String,
    /// The address that was called last.
    pub dest: Option<String>,
    /// The status code of the last answer; `None`: there was none.
    pub code: Option<u16>,
    /// Base64 of the beginning of the last answer's body, or of what is wrong with the record.
    pub data: Option<String>,
    /// How many attempts were made in the last round.
    pub attempts: Option<u32>,
    /// When the first of them ended.
    pub first_attempt: Option<UnixMillis>,
    origin: Origin,
    record: Record,
}

impl DeadLetter {
    /// Reads a record of the subscription's dead-letter topic; `None` when it is none of ours.
    #[must_use]
    pub fn read(
        subscription: &Subscription,
        partition: Partition,
        stored: StoredRecord,
    ) -> Option<Self> {
        let headers = &stored.record.headers;
        let text = |name: &str| {
            let value = headers.get(name.as_bytes())?;
            std::str::from_utf8(value).ok().map(str::to_owned)
        };
        let origin = Origin {
            at: TopicPartition {
                topic: TopicName::try_new(&text("levada-origin-topic")?).ok()?,
                partition: Partition(number(text("levada-origin-partition"))?),
            },
            offset: Offset(number(text("levada-origin-offset"))?),
            time: UnixMillis(number(text("levada-origin-time"))?),
            redriven: number(text("levada-redriven")).unwrap_or(0),
        };
        Some(Self {
            id: MessageId::new(&subscription.uid, &origin.at, origin.offset),
            position: Position {
                partition,
                offset: stored.offset,
            },
            inserted_at: stored.time,
            outcome: text("levada-outcome").unwrap_or_default(),
            phase: text("levada-phase").unwrap_or_default(),
            dest: text("levada-error-dest"),
            code: number(text("levada-error-code")),
            data: text("levada-error-data"),
            attempts: number(text("levada-attempts")),
            first_attempt: number(text("levada-first-attempt")).map(UnixMillis),
            origin,
            record: stored.record,
        })
    }

    /// Where the event is, or was, in the channel topic, and when that took it.
    #[must_use]
    pub fn origin(&self) -> (&TopicPartition, Offset, UnixMillis) {
        (&self.origin.at, self.origin.offset, self.origin.time)
    }

    /// How often the message had been sent round again before it became this dead letter.
    #[must_use]
    pub fn redriven(&self) -> u32 {
        self.origin.redriven
    }

    /// An attribute of the event as it is stored.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let mut headers = self.record.headers.iter();
        let found =
            headers.find(|(header, _)| header.strip_prefix(b"ce_") == Some(name.as_bytes()));
        let (_, value) = found?;
        std::str::from_utf8(value).ok()
    }

    /// The event as it was before it became a dead letter; `None` for a record that is no event.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        let event = Event::from_record(self.record.clone()).ok()?;
        event.with_attributes(&ADDED.map(|name| (name, ""))).ok()
    }

    /// Whether it can be sent round again: it is an event, and came from the channel.
    #[must_use]
    pub fn is_redrivable(&self, subscription: &Subscription) -> bool {
        self.origin.at.topic == subscription.topic && self.event().is_some()
    }

    /// The record for the retry topic that sends it round again at `now`, and its partition.
    pub(super) fn redrive(&self, now: UnixMillis) -> Option<(Partition, Record)> {
        let origin = Origin {
            redriven: self.origin.redriven.saturating_add(1),
            ..self.origin.clone()
        };
        let reason = self.outcome.parse().unwrap_or(Reason::PipelineError);
        let record = redrive(&self.event()?, &origin, reason, now);
        Some((origin.at.partition, record))
    }
}

fn number<N: FromStr>(text: Option<String>) -> Option<N> {
    text?.parse().ok()
}
