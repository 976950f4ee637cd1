//! Messages: lists, one with its story, its event.

mod act;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use tokio::sync::watch;

use super::AdminView;
use super::answer::{self, Answer};
use super::guard::{Refusal, refuse};
use super::query::Query;
use super::shapes::{self, DeliveryLog, JournalHealth, List, MessageEvent, PageInfo, Time};
use super::table::Parameter;
use crate::channel::ResourceName;
use crate::clock::{Clock, UnixMillis};
use crate::dead_letters::DeadLetters;
use crate::event::Event;
use crate::health::Watch;
use crate::journal::{
    Cursor, Filter, JournalError, Message, PageRequest, Reader, Span, Status, Story,
};
use crate::log::EventLog;
use crate::message::MessageId;
use crate::registry::Snapshot;
use crate::untried::{self, InLog, Missing};

pub(super) use act::Act;

/// Messages of a page unless asked otherwise.
const PAGE: usize = 50;
/// What a chart tells of unless asked otherwise, in milliseconds.
const HOUR: i64 = 3_600_000;

/// What tells of messages.
#[derive(Clone)]
pub struct Messages {
    /// The journal; `None`: this node keeps none.
    pub reader: Option<Arc<dyn Reader>>,
    /// Where events are.
    pub log: Arc<dyn EventLog>,
    /// Subscriptions in force.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// How subscriptions are doing.
    pub watch: Watch,
    /// How far subscriptions are.
    pub view: Arc<dyn AdminView>,
    /// What became of events that the log let go.
    pub dead_letters: Option<DeadLetters>,
    /// Wall time.
    pub clock: Clock,
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

fn bad(detail: impl Into<String>) -> Refusal {
    refuse(StatusCode::BAD_REQUEST, detail.into())
}

fn failed(error: &JournalError) -> Refusal {
    let status = match error {
        JournalError::Cursor(_) => StatusCode::BAD_REQUEST,
        JournalError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    refuse(status, error.to_string())
}

fn unknown(id: &str) -> Refusal {
    let detail = format!(
        "there is no message {id}: it may be older than the journal's retention, lie in a gap of the \
         journal, or never have been accepted"
    );
    refuse(StatusCode::NOT_FOUND, detail)
}

impl Messages {
    fn reader(&self) -> Result<&dyn Reader, Refusal> {
        let none = || {
            let detail = "this node keeps no journal: ask a node with the role dispatcher, or start it \
                          without --journal-store off";
            refuse(StatusCode::NOT_FOUND, detail)
        };
        self.reader.as_deref().ok_or_else(none)
    }

    /// `GET /v1/messages`
    pub(super) async fn list(&self, query: &Query, known: &[Parameter]) -> Result<Answer, Refusal> {
        let (filter, request) = asked(query, known).map_err(bad)?;
        let page = self
            .reader()?
            .list(&filter, &request)
            .await
            .map_err(|error| failed(&error))?;
        let cursor = |cursor: Option<Cursor>| cursor.map(|cursor| cursor.to_string());
        let list = List {
            items: page.items.iter().map(shapes::Message::from).collect(),
            page_info: PageInfo {
                page_size: request.size,
                after: cursor(page.after),
                before: cursor(page.before),
                searched_to: page.searched_to.map(Time::from),
                untried: self.untried(&filter),
            },
        };
        Ok(answer::json(StatusCode::OK, &list))
    }

    /// `GET /v1/messages/{id}`
    pub(super) async fn one(&self, id: &str) -> Result<Answer, Refusal> {
        let known = match self.reader.as_deref() {
            Some(reader) => reader.message(id).await.map_err(|error| failed(&error))?,
            None => None,
        };
        let message = match known {
            Some(known) => known,
            None => self.waiting(id).await?,
        };
        let message = shapes::Message::from(&message);
        Ok(answer::json(StatusCode::OK, &message))
    }

    /// What became of a message; `None`: it waits for its first attempt.
    async fn story(&self, id: &str) -> Result<Option<Story>, Refusal> {
        let Some(reader) = self.reader.as_deref() else {
            let waits = self.waiting(id).await.is_ok();
            return if waits {
                Ok(None)
            } else {
                self.reader().map(|_| None)
            };
        };
        let story = reader.story(id).await.map_err(|error| failed(&error))?;
        if story.is_none() {
            self.waiting(id).await?;
        }
        Ok(story)
    }

    /// A message that waits for its first attempt, as far as this node can tell.
    async fn waiting(&self, id: &str) -> Result<Message, Refusal> {
        let parsed = parsed(id)?;
        let found = self.in_log(parsed).await?;
        if found.is_past(&*self.view) {
            return Err(unknown(id));
        }
        Ok(found.message(parsed))
    }

    /// `GET /v1/messages/{id}/events`
    pub(super) async fn events(&self, id: &str) -> Result<Answer, Refusal> {
        let story = self.story(id).await?;
        let statuses = story.iter().flat_map(|story| &story.statuses);
        let entry = |status| MessageEvent::new(id, status);
        Ok(answer::list(statuses.map(entry).collect()))
    }

    /// `GET /v1/messages/{id}/delivery_logs`
    pub(super) async fn logs(&self, id: &str) -> Result<Answer, Refusal> {
        let story = self.story(id).await?;
        let logs = story.iter().flat_map(|story| &story.logs);
        let entry = |log| DeliveryLog::new(id, log);
        Ok(answer::list(logs.map(entry).collect()))
    }

    /// `GET /v1/messages/{id}/content`: never rendered by a browser.
    pub(super) async fn content(&self, id: &str) -> Result<Answer, Refusal> {
        let found = self.in_log(parsed(id)?).await?;
        let event = Event::from_record(found.stored.record).map_err(|error| {
            refuse(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("the record is no CloudEvent: {error}"),
            )
        })?;
        let (headers, body): (_, Bytes) = event.to_http_binary();
        let mut answer = answer::answer(StatusCode::OK, "application/octet-stream", body);
        for (name, value) in &headers {
            let attribute = name.as_str().starts_with("ce-");
            if attribute || *name == CONTENT_TYPE {
                answer.headers_mut().insert(name.clone(), value.clone());
            }
        }
        let fixed = answer.headers_mut();
        fixed.insert(
            CONTENT_DISPOSITION,
            HeaderValue::from_static("attachment; filename=\"event.bin\""),
        );
        fixed.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; sandbox"),
        );
        Ok(answer)
    }

    /// `GET /v1/subscriptions/{namespace}/{name}/stats`
    pub(super) async fn stats(
        &self,
        (namespace, name): (&str, &str),
        query: &Query,
        known: &[Parameter],
    ) -> Result<Answer, Refusal> {
        let name = ResourceName::try_new(namespace, name)
            .map_err(|error| refuse(StatusCode::NOT_FOUND, error.to_string()))?;
        if !self.snapshots.borrow().subscriptions.contains_key(&name) {
            return Err(refuse(
                StatusCode::NOT_FOUND,
                format!("there is no subscription {name}"),
            ));
        }
        let (span, step_minutes) = span(query, known, self.clock.now()).map_err(bad)?;
        let reader = self.reader()?;
        let chart = reader
            .chart(Some(&name), span, step_minutes)
            .await
            .map_err(|error| failed(&error))?;
        let reasons = reader
            .reasons(&name, span)
            .await
            .map_err(|error| failed(&error))?;
        let stats = shapes::Stats {
            subscription: name.to_string(),
            from: span.from.into(),
            to: span.to.into(),
            step_minutes,
            attempts: chart.iter().map(shapes::Span::from).collect(),
            reasons: reasons.iter().map(shapes::ReasonCount::from).collect(),
        };
        Ok(answer::json(StatusCode::OK, &stats))
    }

    /// `GET /v1/health`
    pub(super) async fn health(&self) -> Answer {
        let report = self.watch.report();
        let journal = match self.reader.as_deref() {
            None => JournalHealth::Off,
            Some(reader) => match reader.reach().await {
                Ok(reach) => JournalHealth::from(reach),
                Err(error) => JournalHealth::Unavailable {
                    reason: error.to_string(),
                },
            },
        };
        let health = shapes::Health {
            at: report.at.into(),
            subscriptions: report.subscriptions.iter().map(Into::into).collect(),
            journal,
        };
        answer::json(StatusCode::OK, &health)
    }

    /// The event of a message, where its channel keeps it.
    async fn in_log(&self, id: MessageId) -> Result<InLog, Refusal> {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let found = untried::event(&*self.log, &snapshot, id).await;
        found.map_err(|missing| match missing {
            Missing::Unknown => unknown(&id.to_string()),
            Missing::Gone => {
                let detail =
                    "the event is not in the log any more: the channel's retention is over";
                refuse(StatusCode::GONE, detail)
            }
            Missing::Log(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        })
    }

    /// How many events wait for their first attempt in the subscriptions that a filter asks for;
    /// `None`: it asks for none of those, or this node does not know.
    fn untried(&self, filter: &Filter) -> Option<u64> {
        let wanted = filter.status.is_empty() || filter.status.contains(&Status::Queued);
        if !wanted || !filter.reason.is_empty() {
            return None;
        }
        let report = self.watch.report();
        report.untried(&filter.subscription, &filter.channel)
    }
}

fn parsed(id: &str) -> Result<MessageId, Refusal> {
    id.parse().map_err(|_| unknown(id))
}

fn span(query: &Query, known: &[Parameter], now: UnixMillis) -> Result<(Span, u32), String> {
    let to = query.time("inserted_at.lt")?.unwrap_or(now);
    let from = query.time("inserted_at.gte")?;
    let from = from.unwrap_or(UnixMillis(to.0.saturating_sub(HOUR)));
    if from >= to {
        return Err("inserted_at.gte must be before inserted_at.lt".into());
    }
    let step = query.number("step_minutes", known)?.unwrap_or(1);
    Ok((Span { from, to }, step))
}

fn asked(query: &Query, known: &[Parameter]) -> Result<(Filter, PageRequest), String> {
    let status = |name: &str| {
        let all = Status::ALL.map(Status::name).join(", ");
        Status::from_name(name).ok_or_else(|| format!("status {name:?} is none of {all}"))
    };
    let names = |name: &str| {
        let parsed = query.all(name).map(|text| match text.contains('/') {
            true => text
                .parse::<ResourceName>()
                .map_err(|error| format!("{name}: {error}")),
            false => Err(format!("{name} is <namespace>/<name>, not {text:?}")),
        });
        parsed.collect::<Result<Vec<_>, _>>()
    };
    let text = |name: &str| query.get(name).map(str::to_owned);
    let filter = Filter {
        status: query.all("status").map(status).collect::<Result<_, _>>()?,
        subscription: names("subscription")?,
        channel: names("channel")?,
        reason: query.all("reason").map(str::to_owned).collect(),
        event_id: text("event_id"),
        event_type: text("event_type"),
        event_source: text("event_source"),
        from: query.time("inserted_at.gte")?,
        to: query.time("inserted_at.lt")?,
        ..Filter::default()
    };
    let (after, before) = (query.get("after"), query.get("before"));
    if after.is_some() && before.is_some() {
        return Err("after and before exclude each other".into());
    }
    let cursor = |text: Option<&str>| text.map(str::parse).transpose();
    let request = PageRequest {
        after: cursor(after).map_err(|error: JournalError| error.to_string())?,
        before: cursor(before).map_err(|error| error.to_string())?,
        size: query.number("page_size", known)?.unwrap_or(PAGE),
    };
    Ok((filter, request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_or_refused_by_name() {
        let known = crate::admin::table::find("/v1/messages")
            .unwrap()
            .0
            .parameters;
        let asked = |query| asked(&Query::parse(Some(query), known)?, known);
        let (filter, request) = asked(
            "status=queued&status=sent&subscription=a/b&reason=http_503&inserted_at.gte=2026-01-31T12:00:00Z\
             &page_size=7&after=5.ae0c19cbe0315e6b-3-1042",
        )
        .unwrap();
        assert_eq!(filter.status, [Status::Queued, Status::Sent]);
        assert_eq!(filter.subscription[0].to_string(), "a/b");
        assert_eq!(filter.reason, ["http_503"]);
        assert_eq!(filter.from, Some(UnixMillis(1_769_860_800_000)));
        assert_eq!(request.size, 7);
        assert_eq!(
            request.after.unwrap().to_string(),
            "5.ae0c19cbe0315e6b-3-1042"
        );
        for (bad, names) in [
            ("status=done", "status"),
            ("subscription=b", "subscription"),
            ("page_size=0", "page_size"),
            ("page_size=251", "page_size"),
            ("after=x", "cursor"),
            ("after=1.a", "cursor"),
            (
                "after=1.ae0c19cbe0315e6b-3-1&before=1.ae0c19cbe0315e6b-3-1",
                "before",
            ),
            ("event_id=a&event_id=b", "event_id"),
            ("inserted_at.lt=today", "inserted_at.lt"),
            ("colour=red", "colour"),
        ] {
            let refused = asked(bad).unwrap_err();
            assert!(refused.contains(names), "{bad}: {refused}");
        }
    }

    #[test]
    fn spans_are_an_hour_unless_somebody_says_more() {
        let path = "/v1/subscriptions/a/b/stats";
        let known = crate::admin::table::find(path).unwrap().0.parameters;
        let asked = |query| {
            let now = UnixMillis(HOUR * 10);
            span(&Query::parse(Some(query), known)?, known, now)
        };
        let (span, step) = asked("").unwrap();
        assert_eq!((span.from.0, span.to.0, step), (HOUR * 9, HOUR * 10, 1));
        let (span, step) = asked("inserted_at.lt=1970-01-01T02:00:00Z&step_minutes=60").unwrap();
        assert_eq!((span.from.0, span.to.0, step), (HOUR, HOUR * 2, 60));
        for (bad, names) in [
            ("step_minutes=0", "step_minutes"),
            ("step_minute=1", "step_minutes"),
            ("inserted_at.gte=2026-01-31T12:00:00Z", "inserted_at.lt"),
        ] {
            let refused = asked(bad).unwrap_err();
            assert!(refused.contains(names), "{bad}: {refused}");
        }
    }
}
