//! What can be done about one message: send it again, or make the attempt it waits for now.

use std::sync::Arc;

use http::StatusCode;

use super::{Messages, failed, parsed, unknown};
use crate::admin::answer::{self, Answer};
use crate::admin::guard::{Refusal, refuse};
use crate::admin::shapes;
use crate::channel::Subscription;
use crate::clock::UnixMillis;
use crate::dashboard::{ActionFuture, MessageActions};
use crate::dead_letters;
use crate::delivery::Reason;
use crate::dispatch::{Origin, redrive, wish};
use crate::event::Event;
use crate::journal::{Message, Status};
use crate::log::{LogError, Target, TopicPartition};
use crate::message::MessageId;
use crate::untried;

/// What somebody wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Act {
    /// Send it again, in a round of its own.
    Redeliver,
    /// Make the waiting attempt now.
    RetryNow,
}

/// Why an act makes no sense for a message as it stands, or that it does.
fn check(act: Act, known: Option<&Message>) -> Result<(), &'static str> {
    match (act, known) {
        (Act::Redeliver, Some(known)) if known.is_final => Ok(()),
        (Act::Redeliver, Some(known)) if known.status == Status::Sent => {
            Err("the provider has the message and is still asked what became of it")
        }
        (Act::Redeliver, Some(_)) => Err(
            "the message is not at its end: it is tried again by itself, or at once by retry-now",
        ),
        (Act::Redeliver, None) => Err("the message was not tried yet: it will be, by itself"),
        (Act::RetryNow, Some(known)) if known.next_attempt.is_some() && !known.is_final => Ok(()),
        (Act::RetryNow, Some(known)) if known.is_final => {
            Err("the message waits for no attempt: it is at its end, redeliver it")
        }
        (Act::RetryNow, _) => Err("the message waits for no attempt"),
    }
}

/// What a message is sent again from.
struct Source {
    subscription: Arc<Subscription>,
    /// Where its event is, or was, in the channel's topic.
    at: TopicPartition,
    /// When the channel took it.
    time: UnixMillis,
    event: Result<Event, Refusal>,
    shown: shapes::Message,
}

impl Messages {
    /// `POST /v1/messages/{id}/redeliver` and `/retry-now`
    pub(in crate::admin) async fn act(&self, id: &str, act: Act) -> Result<Answer, Refusal> {
        let message = self.perform(id, act).await?;
        Ok(answer::json(StatusCode::ACCEPTED, &message))
    }

    async fn perform(&self, id: &str, act: Act) -> Result<shapes::Message, Refusal> {
        let known = match self.reader.as_deref() {
            Some(reader) => reader.message(id).await.map_err(|error| failed(&error))?,
            None => None,
        };
        if self.reader.is_some() {
            check(act, known.as_ref()).map_err(|why| refuse(StatusCode::CONFLICT, why))?;
        }
        let id = parsed(id)?;
        let Source {
            subscription,
            at,
            time,
            event,
            shown,
        } = self.source(id, known.as_ref()).await?;
        let partition = at.partition;
        // The round that is over.
        let round = known.as_ref().map_or(1, |known| known.round);
        let redriven = if act == Act::Redeliver {
            round
        } else {
            round.saturating_sub(1)
        };
        let origin = Origin {
            at,
            offset: id.offset(),
            time,
            redriven,
        };
        let record = match act {
            Act::RetryNow => wish(&origin),
            Act::Redeliver => {
                let reason = known.and_then(|known| known.last_reason.as_deref()?.parse().ok());
                let reason = reason.unwrap_or(Reason::PipelineError);
                redrive(&event?, &origin, reason, self.clock.now())
            }
        };
        let target = Target::Partition(partition);
        match self
            .log
            .append(&subscription.retry_topic, target, record)
            .await
        {
            Ok(_) => Ok(shown),
            Err(LogError::UnknownPartition(_)) => Err(unknown(&id.to_string())),
            Err(error) => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
        }
    }

    /// Where a message's event can be had: from its channel, or from its dead letter once the
    /// channel let it go.
    async fn source(&self, id: MessageId, known: Option<&Message>) -> Result<Source, Refusal> {
        let no_event = |error: &dyn std::fmt::Display| {
            let detail = format!("the record is no CloudEvent: {error}");
            refuse(StatusCode::UNPROCESSABLE_ENTITY, detail)
        };
        let gone = match self.in_log(id).await {
            Ok(found) => {
                let message = known.cloned().unwrap_or_else(|| found.message(id));
                let event = Event::from_record(found.stored.record);
                return Ok(Source {
                    subscription: found.subscription,
                    at: found.at,
                    time: found.stored.time,
                    event: event.map_err(|error| no_event(&error)),
                    shown: shapes::Message::from(&message),
                });
            }
            Err(refusal) if refusal.status == StatusCode::GONE => refusal,
            Err(refusal) => return Err(refusal),
        };
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let whose = untried::whose(&snapshot, id);
        let (Some((subscription, at)), Some(known), Some(letters)) =
            (whose, known, &self.dead_letters)
        else {
            return Err(gone);
        };
        let listed = match letters.get(&subscription.name, id).await {
            Ok(listed) => listed,
            Err(dead_letters::Error::NotFound(_)) => return Err(gone),
            Err(error) => return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
        };
        let event = listed.letter.event();
        Ok(Source {
            subscription,
            at,
            time: known.accepted,
            event: event.ok_or_else(|| no_event(&"its dead letter says so")),
            shown: shapes::Message::from(known),
        })
    }

    fn act_on_page(&self, id: MessageId, act: Act) -> ActionFuture<'_> {
        Box::pin(async move {
            let id = id.to_string();
            match self.perform(&id, act).await {
                Ok(_) => Ok(format!("/messages/{id}")),
                Err(refusal) => Err(refusal.detail),
            }
        })
    }
}

impl MessageActions for Messages {
    fn redeliver(&self, id: MessageId) -> ActionFuture<'_> {
        self.act_on_page(id, Act::Redeliver)
    }

    fn retry_now(&self, id: MessageId) -> ActionFuture<'_> {
        self.act_on_page(id, Act::RetryNow)
    }
}
