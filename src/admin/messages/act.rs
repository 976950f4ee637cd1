//! What can be done about one message: send it again, or make the attempt it waits for now.

use http::StatusCode;

use super::{Messages, failed, queued, unknown};
use crate::admin::answer::{self, Answer};
use crate::admin::guard::{Refusal, refuse};
use crate::admin::shapes;
use crate::dashboard::{ActionFuture, MessageActions};
use crate::delivery::Reason;
use crate::dispatch::{Origin, redrive, wish};
use crate::event::Event;
use crate::journal::{Message, Status};
use crate::log::{LogError, Record, Target};
use crate::message::MessageId;

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
        let (subscription, at, stored) = self.in_log(id).await?;
        let shown = match &known {
            Some(known) => shapes::Message::from(known),
            None => queued(id, &subscription, &at, &stored),
        };
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
            offset: stored.offset,
            time: stored.time,
            redriven,
        };
        let record = match act {
            Act::RetryNow => wish(&origin),
            Act::Redeliver => self.again(&stored.record, &origin, known.as_ref())?,
        };
        let log = &self.log;
        match log
            .append(
                &subscription.retry_topic,
                Target::Partition(partition),
                record,
            )
            .await
        {
            Ok(_) => Ok(shown),
            Err(LogError::UnknownPartition(_)) => Err(unknown(id)),
            Err(error) => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
        }
    }

    fn again(
        &self,
        record: &Record,
        origin: &Origin,
        known: Option<&Message>,
    ) -> Result<Record, Refusal> {
        let event = Event::from_record(record.clone()).map_err(|error| {
            let detail = format!("the record is no CloudEvent: {error}");
            refuse(StatusCode::UNPROCESSABLE_ENTITY, detail)
        })?;
        let reason = known.and_then(|known| known.last_reason.as_deref()?.parse().ok());
        let reason = reason.unwrap_or(Reason::PipelineError);
        Ok(redrive(&event, origin, reason, self.clock.now()))
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
