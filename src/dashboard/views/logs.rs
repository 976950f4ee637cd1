//! Every request that was made for a message, and its answer.

use std::time::Duration;

use maud::{Markup, html};

use super::message::{Opened, copy, head, opened, tabs};
use crate::clock::UnixMillis;
use crate::dashboard::body::{self, Mode};
use crate::dashboard::curl;
use crate::dashboard::frame::{Nav, View, trouble};
use crate::dashboard::ladder::{heading, mark, outcome};
use crate::dashboard::query::Query;
use crate::dashboard::{Dashboard, words};
use crate::event::Event;
use crate::journal::{LogKind, StoredLog, Story, Trigger};

/// `/messages/{id}/logs`; `None`: there is no such message.
pub(in crate::dashboard) async fn view(
    dashboard: &Dashboard,
    id: &str,
    query: &Query,
    now: UnixMillis,
) -> Result<Option<View>, String> {
    let Some(Opened { story, event }) = opened(dashboard, id).await? else {
        return Ok(None);
    };
    let body = html! {
        div data-live="head" { (head(&story, query, now)) }
        (tabs(&story, true))
        h2.quiet { "Requests and answers, newest first" }
        @if let Err(error) = &event { (trouble("the event in the log", error, now)) }
        div data-live="logs" { (logs(&story, event.as_ref().ok().and_then(Option::as_ref), now)) }
    };
    let title = format!("logs - {}", story.message.event.id);
    Ok(Some(View::new(Nav::Messages, title, 1000, body)))
}

fn logs(story: &Story, event: Option<&Event>, now: UnixMillis) -> Markup {
    html! {
        @if story.logs.is_empty() { div.empty { p { "No request was made yet, or none was recorded." } } }
        @for (index, log) in story.logs.iter().rev().enumerate() {
            (one(&story.message.id, log, index == 0, event, now))
        }
    }
}

fn trigger(log: &StoredLog) -> &'static str {
    match log.trigger {
        Trigger::First => "first",
        Trigger::Retry => "retry",
        Trigger::Redeliver => "sent again by hand",
        Trigger::Redrive => "redriven",
    }
}

fn one(id: &str, log: &StoredLog, open: bool, event: Option<&Event>, now: UnixMillis) -> Markup {
    let (icon, tone) = mark(log);
    let body = (log.kind == LogKind::Attempt)
        .then(|| event.map(|e| sent_body(log, e)))
        .flatten();
    html! {
        details.log id={ "log-" (log.number) } data-key={ "log-" (log.number) } open[open] {
            summary {
                (words::icon(icon, tone)) " " b { "#" (log.number) " " (heading(log)) } " · " (trigger(log)) " "
                (words::time_ms(log.started, now)) " " b { (outcome(log)) } " "
                span.sub { (words::lasting(Duration::from_micros(log.duration_us))) " · node " (words::id(&log.node)) }
                @if log.round > 1 { span.sub { " · round " (log.round) } }
            }
            div.halves {
                section {
                    h3 { "Request" }
                    p.url { (words::text(&log.method)) " " (words::text(&log.url)) }
                    (headers(&log.request_headers))
                    (request_body(body.as_deref(), log))
                    (as_curl(id, log, body.as_deref()))
                }
                section {
                    h3 { "Response" }
                    (response(log))
                }
            }
        }
    }
}

/// What the request carried: the event's data, or all of it as JSON.
fn sent_body(log: &StoredLog, event: &Event) -> Vec<u8> {
    let media = log
        .request_headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if media.is_some_and(|(_, value)| value.starts_with("application/cloudevents+json")) {
        event.to_structured_json().to_vec()
    } else {
        event.data().map(|data| data.to_vec()).unwrap_or_default()
    }
}

fn headers(headers: &[(String, String)]) -> Markup {
    html! {
        @if headers.is_empty() { p.hint { "no headers" } } @else {
            table.pairs { tbody {
                @for (name, value) in headers { tr { th scope="row" { (words::text(name)) } td { (words::id(value)) } } }
            } }
        }
    }
}

fn request_body(body: Option<&[u8]>, log: &StoredLog) -> Markup {
    html! {
        @match body {
            None if log.kind == LogKind::StatusCheck => {}
            None => p.hint { "The body is that of the event, which is not at hand." },
            Some([]) => p.hint { "no body" },
            Some(body) => details data-key={ "body-" (log.number) } {
                summary { "Body " (words::grouped(body.len() as u64)) " bytes" }
                (body::show(body, Mode::of(body), false).0)
            },
        }
    }
}

fn as_curl(id: &str, log: &StoredLog, body: Option<&[u8]>) -> Markup {
    if !matches!(log.method.as_str(), "POST" | "GET") {
        return html! {};
    }
    let command = curl::command(log, body);
    html! {
        details data-key={ "curl-" (log.number) } {
            summary { "as curl" }
            @if curl::needs_file(&command) {
                p.hint { "The body is not text: " a href={ "/v1/messages/" (id) "/content" } download="event.bin" { "download it" } " as event.bin first." }
            }
            div.copied { pre.cmd tabindex="0" data-copy { (words::lines(&command)) } (copy()) }
        }
    }
}

fn response(log: &StoredLog) -> Markup {
    let Some(code) = log.code else {
        return html! {
            p { b { "none" } }
            @if let Some((kind, message)) = &log.error {
                p { (words::text(&words::reason(kind))) ": " (words::text(message)) }
            }
        };
    };
    html! {
        p { b { (code) } @if let Some((kind, message)) = &log.error { " " (words::text(&words::reason(kind))) ": " (words::text(message)) } }
        (headers(&log.response_headers))
        @if log.body.is_empty() { p.hint { "no body" } } @else {
            (body::show(&log.body, Mode::of(&log.body), true).0)
            @if log.truncated { p.hint { "Cut at " (words::grouped(log.body.len() as u64)) " bytes: the journal keeps the beginning." } }
        }
    }
}
