//! Messages: lists, one with its story, its event.

mod act;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answer::{self, Answer};
use super::guard::{Refusal, refuse};
use super::query::Query;
use crate::channel::{ResourceName, Subscription};
use crate::clock::{Clock, UnixMillis};
use crate::event::Event;
use crate::health::Watch;
use crate::journal::{
    Bucket, Cursor, Filter, JournalError, Message, PageRequest, Reader, Span, Status, StoredLog,
    StoredStatus, Story,
};
use crate::journal::{LogKind, Trigger};
use crate::log::{EventLog, LogError, StoredRecord, TopicPartition};
use crate::message::MessageId;
use crate::registry::Snapshot;

pub(super) use act::Act;

/// Messages of a page: unless asked otherwise, and at most.
const PAGE: (usize, usize) = (50, 250);
/// The parameters of a list.
const PARAMETERS: [&str; 11] = [
    "status",
    "channel",
    "subscription",
    "reason",
    "event_id",
    "event_type",
    "event_source",
    "inserted_at.gte",
    "inserted_at.lt",
    "page_size",
    "after",
];
/// Those that may be there several times.
const REPEATED: [&str; 4] = ["status", "channel", "subscription", "reason"];
/// A chart tells of so many hours unless asked otherwise.
const HOURS: u64 = 1;

/// What tells of messages.
#[derive(Clone, Debug)]
pub struct Messages {
    /// The journal; `None`: this node keeps none.
    pub reader: Option<Arc<dyn Reader>>,
    /// Where events are.
    pub log: Arc<dyn EventLog>,
    /// Subscriptions in force.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// How subscriptions are doing.
    pub watch: Watch,
    /// Wall time.
    pub clock: Clock,
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
    pub(super) async fn list(&self, query: Option<&str>) -> Result<Answer, Refusal> {
        let (filter, request) = asked(query.unwrap_or_default()).map_err(bad)?;
        let page = self
            .reader()?
            .list(&filter, &request)
            .await
            .map_err(|error| failed(&error))?;
        let items: Vec<Value> = page.items.iter().map(message).collect();
        let page = json!({
            "page_size": request.size,
            "after": page.after.as_ref().map(written),
            "before": page.before.as_ref().map(written),
            "searched_to": page.searched_to.map(UnixMillis::rfc3339),
        });
        Ok(answer::json(
            StatusCode::OK,
            &json!({ "items": items, "page_info": page }),
        ))
    }

    /// `GET /v1/messages/{id}`
    pub(super) async fn one(&self, id: &str) -> Result<Answer, Refusal> {
        let known = match self.reader.as_deref() {
            Some(reader) => reader.message(id).await.map_err(|error| failed(&error))?,
            None => None,
        };
        if let Some(known) = known {
            return Ok(answer::json(StatusCode::OK, &message(&known)));
        }
        let (subscription, at, stored) = self.in_log(id).await?;
        let queued = queued(id, &subscription, &at, &stored);
        Ok(answer::json(StatusCode::OK, &queued))
    }

    async fn story(&self, id: &str) -> Result<Story, Refusal> {
        let story = self
            .reader()?
            .story(id)
            .await
            .map_err(|error| failed(&error))?;
        story.ok_or_else(|| unknown(id))
    }

    /// `GET /v1/messages/{id}/events`
    pub(super) async fn events(&self, id: &str) -> Result<Answer, Refusal> {
        let story = self.story(id).await?;
        let entry = |status: &StoredStatus| event(id, status);
        Ok(answer::list(story.statuses.iter().map(entry).collect()))
    }

    /// `GET /v1/messages/{id}/delivery_logs`
    pub(super) async fn logs(&self, id: &str) -> Result<Answer, Refusal> {
        let story = self.story(id).await?;
        Ok(answer::list(
            story.logs.iter().map(|entry| log(id, entry)).collect(),
        ))
    }

    /// `GET /v1/messages/{id}/content`: never rendered by a browser.
    pub(super) async fn content(&self, id: &str) -> Result<Answer, Refusal> {
        let (.., stored) = self.in_log(id).await?;
        let event = Event::from_record(stored.record).map_err(|error| {
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
        query: Option<&str>,
    ) -> Result<Answer, Refusal> {
        let name = ResourceName::try_new(namespace, name)
            .map_err(|error| refuse(StatusCode::NOT_FOUND, error.to_string()))?;
        if !self.snapshots.borrow().subscriptions.contains_key(&name) {
            return Err(refuse(
                StatusCode::NOT_FOUND,
                format!("there is no subscription {name}"),
            ));
        }
        let query = Query::parse(
            query.unwrap_or_default(),
            &["inserted_at.gte", "inserted_at.lt", "step_minutes"],
        )
        .map_err(bad)?;
        let now = self.clock.now();
        let to = time(&query, "inserted_at.lt").map_err(bad)?.unwrap_or(now);
        let hours = std::time::Duration::from_secs(HOURS * 3600);
        let begin = UnixMillis(to.0 - i64::try_from(hours.as_millis()).unwrap_or(0));
        let from = time(&query, "inserted_at.gte")
            .map_err(bad)?
            .unwrap_or(begin);
        let step = match query.get("step_minutes").map(str::parse) {
            None => 1,
            Some(Ok(step)) if (1..=1440).contains(&step) => step,
            Some(_) => return Err(bad("step_minutes is a whole number from 1 to 1440")),
        };
        let span = Span { from, to };
        let reader = self.reader()?;
        let chart = reader
            .chart(Some(&name), span, step)
            .await
            .map_err(|error| failed(&error))?;
        let reasons = reader
            .reasons(&name, span)
            .await
            .map_err(|error| failed(&error))?;
        let reasons: Vec<Value> = reasons
            .iter()
            .map(|reason| {
                json!({
                    "reason": reason.reason, "attempts": reason.attempts, "first_seen_at": reason.first.rfc3339(),
                    "last_seen_at": reason.last.rfc3339(), "sample": reason.sample,
                })
            })
            .collect();
        let stats = json!({
            "subscription": name.to_string(), "from": from.rfc3339(), "to": to.rfc3339(), "step_minutes": step,
            "attempts": chart.iter().map(bucket).collect::<Vec<_>>(), "reasons": reasons,
        });
        Ok(answer::json(StatusCode::OK, &stats))
    }

    /// `GET /v1/health`
    pub(super) async fn health(&self) -> Answer {
        let report = self.watch.report();
        let state = |one: &crate::health::SubscriptionReport| {
            json!({
                "subscription": one.name.to_string(), "channel": one.channel,
                "state": one.verdict.state.name(), "reason": one.verdict.reason,
                "since": one.since.rfc3339(), "lag": one.lag, "in_flight": one.in_flight, "parked": one.parked,
            })
        };
        let journal = match self.reader.as_deref() {
            None => json!({ "state": "off" }),
            Some(reader) => match reader.reach().await {
                Err(error) => json!({ "state": "unavailable", "reason": error.to_string() }),
                Ok(reach) => {
                    let gaps: Vec<Value> = reach
                        .gaps
                        .iter()
                        .map(|gap| {
                            json!({
                                "from": gap.from.rfc3339(), "to": gap.to.map(UnixMillis::rfc3339), "changes": gap.changes,
                            })
                        })
                        .collect();
                    json!({
                        "state": "ok", "reaches_back_to": reach.oldest.map(UnixMillis::rfc3339),
                        "messages": reach.messages, "bytes": reach.bytes, "queued": reach.queued, "gaps": gaps,
                    })
                }
            },
        };
        let health = json!({
            "at": report.at.rfc3339(),
            "subscriptions": report.subscriptions.iter().map(state).collect::<Vec<_>>(),
            "journal": journal,
        });
        answer::json(StatusCode::OK, &health)
    }

    /// The event of a message, where its channel keeps it.
    async fn in_log(
        &self,
        id: &str,
    ) -> Result<(Arc<Subscription>, TopicPartition, StoredRecord), Refusal> {
        let parsed: MessageId = id.parse().map_err(|_| unknown(id))?;
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let place = |subscription: &Subscription| TopicPartition {
            topic: subscription.topic.clone(),
            partition: parsed.partition(),
        };
        let is_its = |subscription: &&Arc<Subscription>| {
            MessageId::new(&subscription.uid, &place(subscription), parsed.offset()) == parsed
        };
        let mut resolved = snapshot
            .subscriptions
            .values()
            .filter_map(|entry| entry.resolved());
        let subscription = resolved.find(is_its).cloned().ok_or_else(|| unknown(id))?;
        let at = place(&subscription);
        let gone = || {
            let detail = "the event is not in the log any more: the channel's retention is over";
            refuse(StatusCode::GONE, detail)
        };
        let records = match self.log.read(&at, parsed.offset(), 1).await {
            Ok(records) => records,
            Err(LogError::OutOfRange(_)) => return Err(gone()),
            Err(LogError::UnknownPartition(_)) => return Err(unknown(id)),
            Err(error) => return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
        };
        match records.into_iter().next() {
            Some(stored) if stored.offset == parsed.offset() => Ok((subscription, at, stored)),
            Some(_) => Err(gone()),
            None => Err(unknown(id)),
        }
    }
}

/// A cursor as users carry it.
fn written(cursor: &Cursor) -> String {
    format!("{}.{}", cursor.accepted.0, cursor.id)
}

fn cursor(text: &str) -> Result<Cursor, String> {
    let read = || {
        let (accepted, id) = text.split_once('.')?;
        Some(Cursor {
            accepted: UnixMillis(accepted.parse().ok()?),
            id: id.to_owned(),
        })
    };
    read().ok_or_else(|| format!("{text:?} is no cursor of this list: take it from page_info"))
}

fn time(query: &Query, name: &str) -> Result<Option<UnixMillis>, String> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    let time: Result<jiff::Timestamp, _> = text.parse();
    time.map(|time| Some(UnixMillis(time.as_millisecond())))
        .map_err(|_| format!("{name} is a time such as 2026-01-31T12:00:00Z, not {text:?}"))
}

fn asked(query: &str) -> Result<(Filter, PageRequest), String> {
    let mut known = PARAMETERS.to_vec();
    known.push("before");
    let query = Query::parse_repeated(query, &known, &REPEATED)?;
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
        from: time(&query, "inserted_at.gte")?,
        to: time(&query, "inserted_at.lt")?,
        ..Filter::default()
    };
    let size = match query.get("page_size").map(str::parse) {
        None => PAGE.0,
        Some(Ok(size)) if (1..=PAGE.1).contains(&size) => size,
        Some(_) => return Err(format!("page_size is a whole number from 1 to {}", PAGE.1)),
    };
    let (after, before) = (query.get("after"), query.get("before"));
    if after.is_some() && before.is_some() {
        return Err("after and before exclude each other".into());
    }
    let request = PageRequest {
        after: after.map(cursor).transpose()?,
        before: before.map(cursor).transpose()?,
        size,
    };
    Ok((filter, request))
}

fn message(message: &Message) -> Value {
    json!({
        "id": message.id,
        "channel": message.channel.to_string(),
        "subscription": message.subscription.to_string(),
        "status": message.status.name(),
        "final": message.is_final,
        "failure_reason": message.failure.map(crate::journal::FinalReason::name),
        "last_reason": message.last_reason,
        "attempts": message.attempts,
        "max_attempts": message.max_attempts,
        "round": message.round,
        "next_attempt_at": message.next_attempt.map(UnixMillis::rfc3339),
        "inserted_at": message.accepted.rfc3339(),
        "updated_at": message.updated.rfc3339(),
        "event": {
            "id": message.event.id, "source": message.event.source, "type": message.event.r#type,
            "subject": message.event.subject, "time": message.event.time,
        },
        "position": { "topic": message.topic, "partition": message.partition, "offset": message.offset },
    })
}

/// A message that was not tried yet, as the log tells of it.
fn queued(
    id: &str,
    subscription: &Subscription,
    at: &TopicPartition,
    stored: &StoredRecord,
) -> Value {
    let event = Event::from_record(stored.record.clone()).ok();
    let attribute = |name: &str| event.as_ref().and_then(|event| event.attribute(name));
    json!({
        "id": id,
        "channel": subscription.channel.to_string(),
        "subscription": subscription.name.to_string(),
        "status": Status::Queued.name(),
        "final": false,
        "failure_reason": null,
        "last_reason": null,
        "attempts": 0,
        "max_attempts": subscription.delivery.retry.saturating_add(1),
        "round": 1,
        "next_attempt_at": null,
        "inserted_at": stored.time.rfc3339(),
        "updated_at": stored.time.rfc3339(),
        "event": {
            "id": attribute("id"), "source": attribute("source"), "type": attribute("type"),
            "subject": attribute("subject"), "time": attribute("time"),
        },
        "position": { "topic": at.topic.as_str(), "partition": at.partition.0, "offset": stored.offset.0 },
    })
}

fn event(id: &str, status: &StoredStatus) -> Value {
    json!({
        "id": format!("{id}-e{}", status.number),
        "type": format!("message.{}", status.status.name()),
        "inserted_at": status.at.rfc3339(),
        "data": {
            "attempt": status.attempt, "max_attempts": status.max_attempts,
            "retryable": status.retryable, "reason": status.reason,
        },
    })
}

fn log(id: &str, log: &StoredLog) -> Value {
    let kind = match log.kind {
        LogKind::Attempt => "attempt",
        LogKind::StatusCheck => "status_check",
    };
    let trigger = match log.trigger {
        Trigger::First => "first",
        Trigger::Retry => "retry",
        Trigger::Redeliver => "redeliver",
        Trigger::Redrive => "redrive",
    };
    let pairs = |headers: &[(String, String)]| {
        headers
            .iter()
            .map(|(name, value)| json!([name, value]))
            .collect::<Vec<_>>()
    };
    let response = log.code.map(|code| {
        json!({
            "status": code, "headers": pairs(&log.response_headers),
            "body": String::from_utf8_lossy(&log.body), "truncated": log.truncated,
        })
    });
    let error = log
        .error
        .as_ref()
        .map(|(kind, message)| json!({ "kind": kind, "message": message }));
    #[expect(clippy::cast_precision_loss, reason = "no attempt takes that long")]
    let duration = log.duration_us as f64 / 1000.0;
    json!({
        "id": format!("{id}-l{}", log.number),
        "kind": kind,
        "phase": log.phase,
        "trigger": trigger,
        "round": log.round,
        "attempt": log.attempt,
        "reason": log.reason,
        "inserted_at": log.started.rfc3339(),
        "duration_ms": duration,
        "node": log.node,
        "request": { "method": log.method, "url": log.url, "headers": pairs(&log.request_headers) },
        "response": response,
        "error": error,
    })
}

fn bucket(bucket: &Bucket) -> Value {
    json!({
        "at": bucket.start.rfc3339(), "ok": bucket.ok, "retryable": bucket.retryable,
        "permanent": bucket.permanent, "p50_ms": bucket.p50_ms, "p95_ms": bucket.p95_ms, "p99_ms": bucket.p99_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_or_refused_by_name() {
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
        let after = request.after.unwrap();
        assert_eq!(cursor(&written(&after)).unwrap(), after);
        for (bad, names) in [
            ("status=done", "status"),
            ("subscription=b", "subscription"),
            ("page_size=0", "page_size"),
            ("page_size=251", "page_size"),
            ("after=x", "cursor"),
            ("after=1.a&before=1.a", "before"),
            ("event_id=a&event_id=b", "event_id"),
            ("inserted_at.lt=today", "inserted_at.lt"),
            ("colour=red", "colour"),
        ] {
            let refused = asked(bad).unwrap_err();
            assert!(refused.contains(names), "{bad}: {refused}");
        }
    }
}
