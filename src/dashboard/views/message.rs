//! What became of one message.

use maud::{Markup, html};

use super::overview::path;
use crate::channel::Subscription;
use crate::clock::UnixMillis;
use crate::dashboard::body::{self, Mode};
use crate::dashboard::frame::{Nav, View, region};
use crate::dashboard::ladder::ladder;
use crate::dashboard::query::Query;
use crate::dashboard::{Dashboard, patiently, words};
use crate::event::Event;
use crate::journal::{Message, Status, Story};
use crate::log::{Offset, Partition, TopicName, TopicPartition};

/// Siblings that are shown.
const SIBLINGS: usize = 20;

/// `/messages/{id}`; `None`: there is no such message.
pub(in crate::dashboard) async fn view(
    dashboard: &Dashboard,
    id: &str,
    query: &Query,
    now: UnixMillis,
) -> Result<Option<View>, String> {
    let Some(Opened { story, event }) = opened(dashboard, id).await? else {
        return Ok(None);
    };
    let message = &story.message;
    let siblings = dashboard
        .ask(|journal| journal.siblings(&message.event.id, SIBLINGS))
        .await;
    let entry = dashboard.entry(&message.subscription);
    let subscription = entry.and_then(|entry| entry.resolved().cloned());
    let spec = subscription
        .as_ref()
        .map(|subscription| &subscription.delivery);
    let body = html! {
        div data-live="head" { (head(&story, query, now)) }
        (sent_also(message, siblings.as_deref().unwrap_or_default()))
        div data-live="actions" { (actions(dashboard, message, &event, subscription.as_deref())) }
        (tabs(&story, false))
        section aria-labelledby="timeline" {
            h2 #timeline { "Timeline" }
            div data-live="ladder" { (ladder(&story, spec, now)) }
        }
        section aria-labelledby="event" {
            h2 #event { "Event" }
            (region("the log", &event, now, |event| shown(message, event.as_ref(), query)))
        }
        section aria-labelledby="statuses" {
            h2 #statuses { "Statuses" }
            div data-live="statuses" { (statuses(&story, now)) }
        }
    };
    let look = words::look(message.status, message.is_final, message.attempts);
    let title = format!("{} - {}", look.word.to_lowercase(), message.event.id);
    let every = if message.is_final { 2000 } else { 1000 };
    Ok(Some(View::new(Nav::Messages, title, every, body)))
}

/// What both views of a message show of.
pub(in crate::dashboard) struct Opened {
    pub(in crate::dashboard) story: Story,
    /// The event, from the log; `None`: the log has let it go.
    pub(in crate::dashboard) event: Result<Option<Event>, String>,
}

/// Reads a message; `None`: there is none of this id. One that was not tried yet has no story.
pub(in crate::dashboard) async fn opened(
    dashboard: &Dashboard,
    id: &str,
) -> Result<Option<Opened>, String> {
    let known = dashboard.ask(|journal| journal.story(id)).await;
    let story = match known {
        Ok(Some(story)) => story,
        failed => match (dashboard.untried(id).await, failed) {
            (Some(message), Ok(_)) => Story {
                message,
                statuses: Vec::new(),
                logs: Vec::new(),
            },
            (_, Err(error)) => return Err(error),
            (None, Ok(_)) => return Ok(None),
        },
    };
    let event = event(dashboard, &story.message).await;
    Ok(Some(Opened { story, event }))
}

async fn event(dashboard: &Dashboard, message: &Message) -> Result<Option<Event>, String> {
    let Some(log) = &dashboard.parts.log else {
        return Err("this node has no access to the log".into());
    };
    let topic = TopicName::try_new(&message.topic).map_err(|error| error.to_string())?;
    let at = TopicPartition {
        topic,
        partition: Partition(message.partition),
    };
    let offset = Offset(message.offset);
    let read = async {
        match log.read(&at, offset, 1).await {
            Ok(records) => Ok(records),
            Err(crate::log::LogError::OutOfRange(_) | crate::log::LogError::UnknownTopic(_)) => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    };
    let records = patiently(read, "the log").await?;
    let found = records.into_iter().find(|stored| stored.offset == offset);
    Ok(found.and_then(|stored| Event::from_record(stored.record).ok()))
}

pub(in crate::dashboard) fn head(story: &Story, query: &Query, now: UnixMillis) -> Markup {
    let message = &story.message;
    html! {
        p.crumb { a href="/messages" { "‹ Messages" } }
        div.bar {
            h1 { span data-copy { (words::id_to_copy(&message.event.id)) } " " (copy()) }
            p.big { (words::status(message, Some(now))) (numbered(message)) }
        }
        p.facts {
            a href=(path(&message.subscription)) { (message.subscription) }
            " · " (words::id(&message.event.r#type)) " · source " (words::id(&message.event.source))
            @if let Some(subject) = &message.event.subject { " · subject " (words::id(subject)) }
            " · partition " (message.partition) " offset " (words::grouped(u64::try_from(message.offset).unwrap_or(0)))
            " · accepted " (words::time_ms(message.accepted, now)) " " span data-zone { "UTC" } " " (words::ago(message.accepted, now))
        }
        @if let Some(done) = query.get("done") { p.done role="status" { (words::icon("tick", "green")) " " (words::text(done)) } }
        @if let Some(error) = query.get("error") { p.trouble role="alert" { (words::icon("bang", "amber")) " " (words::text(error)) } }
    }
}

/// `attempt 3 of 9` behind the status of one that waits.
fn numbered(message: &Message) -> Markup {
    html! {
        @if !message.is_final && message.status != Status::Sent {
            span.sub { " attempt " (message.attempts + 1) @if message.round == 1 { " of " (message.max_attempts) } }
        }
        @if let Some(reason) = &message.last_reason { @if message.status != Status::Delivered { span.sub { " · last: " (words::text(&words::reason(reason))) } } }
    }
}

/// The button that copies what stands beside it.
pub(in crate::dashboard) fn copy() -> Markup {
    html! { button.copy.js type="button" title="Copy" { (words::icon("copy", "slate")) span.quiet { "Copy" } } }
}

pub(in crate::dashboard) fn tabs(story: &Story, logs: bool) -> Markup {
    let id = &story.message.id;
    html! {
        nav.tabs aria-label="Message" data-live="tabs" {
            a href={ "/messages/" (id) } aria-current=[(!logs).then_some("page")] { "Overview" }
            a href={ "/messages/" (id) "/logs" } aria-current=[logs.then_some("page")] { "Logs " (story.logs.len()) }
        }
    }
}

fn sent_also(message: &Message, siblings: &[Message]) -> Markup {
    let others: Vec<_> = siblings
        .iter()
        .filter(|other| other.id != message.id)
        .collect();
    html! {
        @if !others.is_empty() {
            p.facts {
                "also sent to: "
                @for other in others {
                    a href={ "/messages/" (other.id) } { (other.subscription) } " " (words::status(other, None)) " "
                }
            }
        }
    }
}

/// What can be done, and what it means.
fn actions(
    dashboard: &Dashboard,
    message: &Message,
    event: &Result<Option<Event>, String>,
    subscription: Option<&Subscription>,
) -> Markup {
    if dashboard.parts.actions.is_none() || dashboard.parts.read_only {
        return html! {};
    }
    let ordered =
        subscription.is_some_and(|s| s.delivery.ordering != crate::channel::Ordering::None);
    let waits =
        !message.is_final && message.next_attempt.is_some() && message.status != Status::Sent;
    let is_dead = message.status == Status::Undelivered
        && subscription.is_some_and(|s| s.delivery.dead_letter_topic);
    let gone = match (event, subscription) {
        (Ok(None), Some(_)) if is_dead => None,
        (Ok(None), _) => Some("the event is no longer in the log"),
        (_, None) => Some("its subscription is not in force"),
        _ => None,
    };
    html! {
        div.actions {
            @if waits {
                form method="post" action={ "/messages/" (message.id) "/retry-now" } {
                    button { "Retry now" } span.hint { " makes the waiting attempt now; it uses one attempt" }
                }
            }
            @if let Some(gone) = gone { p.hint { "Redeliver is not possible: " (gone) "." } }
            @else if message.is_final {
                details data-key="redeliver" {
                    summary.button { "Redeliver…" }
                    form.confirm method="post" action={ "/messages/" (message.id) "/redeliver" } {
                        p {
                            @if message.status == Status::Delivered || message.status == Status::Sent { "The subscriber has it already: it gets it twice, with the same id." }
                            @else { "It is sent again now, with all its attempts, in a new round." }
                            @if ordered { " It arrives out of order." }
                            @if matches!(event, Ok(None)) { " Its event is taken from its dead letter." }
                        }
                        button { "Redeliver" }
                    }
                }
            }
        }
    }
}

fn shown(message: &Message, event: Option<&Event>, query: &Query) -> Markup {
    let Some(event) = event else {
        return html! { p.trouble { (words::icon("info", "slate")) " The event is no longer in the log: its retention has ended. What the journal keeps of it stands above." } };
    };
    let data = event.data().map(|data| &data[..]).unwrap_or_default();
    let mode = query
        .get("data")
        .and_then(Mode::from_name)
        .unwrap_or_else(|| Mode::of(data));
    let all = query.get("more").is_some();
    let here = format!("/messages/{}", message.id);
    let to = |mode: Mode| Query::default().with("data", mode.name()).at(&here) + "#event";
    let (content, cut) = body::show(data, mode, all);
    html! {
        details data-key="attributes" {
            summary { "Attributes " (event.attributes().count()) }
            table.pairs { tbody {
                @for (name, value) in event.attributes() { tr { th scope="row" { (words::text(name)) } td { (words::id(value)) } } }
            } }
        }
        div.bar {
            span.tabs {
                "data " (words::grouped(data.len() as u64)) " bytes"
                @if let Some(media) = event.content_type() { ", " (words::id(media)) }
                " "
                @for one in [Mode::Pretty, Mode::Raw, Mode::Hex] { a href=(to(one)) aria-current=[(one == mode).then_some("true")] { (one.name()) } }
            }
            span { a href={ "/v1/messages/" (message.id) "/content" } download { "download" } }
        }
        @if data.is_empty() { p.hint { "The event has no data." } } @else { (content) }
        @if let Some(cut) = cut {
            p.hint {
                "Cut at " (words::grouped(cut as u64)) " bytes. "
                @if !all { a href={ (Query::default().with("data", mode.name()).with("more", "1").at(&here)) "#event" } { "More" } } @else { "The download has all of it." }
            }
        }
    }
}

fn statuses(story: &Story, now: UnixMillis) -> Markup {
    html! {
        @if story.statuses.is_empty() { p.hint { "None recorded." } }
        ol.statuses {
            @for one in &story.statuses {
                // The end of an undelivered message is told by the message itself.
                @let look = words::look(one.status, !one.retryable && one.status != Status::Queued, u32::from(one.attempt > 0));
                li {
                    (words::time_ms(one.at, now)) " "
                    span class={ "st " (look.tone) } { (words::icon(look.icon, look.tone)) " " (look.word) }
                    @if one.attempt > 0 { span.sub { " after attempt " (one.attempt) } }
                    @if let Some(reason) = &one.reason { span.sub { ", " (words::text(&words::reason(reason))) } }
                }
            }
        }
    }
}
