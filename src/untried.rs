//! Messages before their first attempt: the journal does not know them yet, the log does.

use std::sync::Arc;

use crate::admin::AdminView;
use crate::channel::Subscription;
use crate::event::Event;
use crate::journal::{EventFacts, Message, Status};
use crate::log::{EventLog, LogError, Offset, StoredRecord, TopicPartition};
use crate::message::MessageId;
use crate::registry::Snapshot;

/// Why the log has no event for a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// It never had: no subscription in force has such a message.
    Unknown,
    /// It let the event go.
    Gone,
    /// It does not answer.
    Log(LogError),
}

/// The event of a message, in the log.
#[derive(Clone, Debug)]
pub struct InLog {
    /// Whose message it is.
    pub subscription: Arc<Subscription>,
    /// Where its event is.
    pub at: TopicPartition,
    /// The event's record.
    pub stored: StoredRecord,
}

/// Whose message it is, and where its event is or was; `None`: no subscription in force has it.
#[must_use]
pub fn whose(snapshot: &Snapshot, id: MessageId) -> Option<(Arc<Subscription>, TopicPartition)> {
    let place = |subscription: &Subscription| TopicPartition {
        topic: subscription.topic.clone(),
        partition: id.partition(),
    };
    let is_its = |subscription: &&Arc<Subscription>| {
        MessageId::new(&subscription.uid, &place(subscription), id.offset()) == id
    };
    let mut resolved = snapshot
        .subscriptions
        .values()
        .filter_map(|entry| entry.resolved());
    let subscription = resolved.find(is_its)?;
    Some((Arc::clone(subscription), place(subscription)))
}

/// Reads the event of a message.
///
/// # Errors
/// [`Missing`] when it is not there.
pub async fn event(
    log: &dyn EventLog,
    snapshot: &Snapshot,
    id: MessageId,
) -> Result<InLog, Missing> {
    let (subscription, at) = whose(snapshot, id).ok_or(Missing::Unknown)?;
    let records = match log.read(&at, id.offset(), 1).await {
        Ok(records) => records,
        Err(LogError::OutOfRange(_)) => return Err(Missing::Gone),
        Err(LogError::UnknownPartition(_)) => return Err(Missing::Unknown),
        Err(error) => return Err(Missing::Log(error)),
    };
    match records.into_iter().next() {
        Some(stored) if stored.offset == id.offset() => Ok(InLog {
            subscription,
            at,
            stored,
        }),
        Some(_) => Err(Missing::Gone),
        None => Err(nothing(log, &at, id.offset()).await),
    }
}

/// Why nothing can be read at an offset: it lies before what is left, or beyond the end.
async fn nothing(log: &dyn EventLog, at: &TopicPartition, offset: Offset) -> Missing {
    match log.watermarks(&at.topic).await {
        Ok(marks) => match marks.get(at.partition.index()) {
            Some(marks) if offset < marks.low => Missing::Gone,
            _ => Missing::Unknown,
        },
        Err(error) => Missing::Log(error),
    }
}

impl InLog {
    /// Whether it was finished already, as far as this node can tell: then the journal once knew
    /// it, or the subscription began after it.
    #[must_use]
    pub fn is_past(&self, view: &dyn AdminView) -> bool {
        let committed = view.committed(&self.subscription.name, self.at.partition);
        committed.is_some_and(|committed| self.stored.offset < committed)
    }

    /// The message as it stands before its first attempt.
    #[must_use]
    pub fn message(&self, id: MessageId) -> Message {
        let event = Event::from_record(self.stored.record.clone()).ok();
        let attribute = |name: &str| {
            let event = event.as_ref()?;
            Some(event.attribute(name)?.to_owned())
        };
        Message {
            id: id.to_string(),
            channel: self.subscription.channel.clone(),
            subscription: self.subscription.name.clone(),
            status: Status::Queued,
            is_final: false,
            failure: None,
            last_reason: None,
            attempts: 0,
            max_attempts: self.subscription.delivery.retry.saturating_add(1),
            next_attempt: None,
            round: 1,
            accepted: self.stored.time,
            updated: self.stored.time,
            event: EventFacts {
                id: attribute("id").unwrap_or_default(),
                source: attribute("source").unwrap_or_default(),
                r#type: attribute("type").unwrap_or_default(),
                subject: attribute("subject"),
                time: attribute("time"),
            },
            topic: self.at.topic.to_string(),
            partition: self.at.partition.0,
            offset: self.stored.offset.0,
        }
    }
}
