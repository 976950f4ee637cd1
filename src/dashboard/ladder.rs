//! The timeline of a message: its requests, and what lay between them, in words.

use std::time::Duration;

use maud::{Markup, html};

use super::words;
use crate::channel::DeliverySpec;
use crate::clock::UnixMillis;
use crate::delivery::retry::backoff;
use crate::journal::{LogKind, Status, StoredLog, Story, Trigger};

/// More rows than this are folded.
const ROWS: usize = 12;
const HEAD: usize = 3;
const TAIL: usize = 6;

/// The list. `spec`: the subscription's, if it still is there.
pub(super) fn ladder(story: &Story, spec: Option<&DeliverySpec>, now: UnixMillis) -> Markup {
    let logs = &story.logs;
    let fold = logs.len() > ROWS;
    html! {
        ol.ladder {
            li.ok {
                (words::time_ms(story.message.accepted, now)) " "
                (words::icon("tick", "slate")) " accepted (stored, 202)"
            }
            @for (index, log) in logs.iter().enumerate() {
                @let hidden = fold && index >= HEAD && index < logs.len() - TAIL;
                @if fold && index == HEAD {
                    li.fold { a href={ "/messages/" (story.message.id) "/logs" } { "… " (logs.len() - HEAD - TAIL) " more" } }
                }
                @if !hidden {
                    (before(story, index))
                    (entry(&story.message.id, log, now))
                }
            }
            (after(story, spec, now))
        }
    }
}

fn end(log: &StoredLog) -> UnixMillis {
    log.started.plus(Duration::from_micros(log.duration_us))
}

/// What lay between a request and the one before it.
fn before(story: &Story, index: usize) -> Markup {
    let log = &story.logs[index];
    let Some(last) = index.checked_sub(1).map(|before| &story.logs[before]) else {
        let waited = log.started.since(story.message.accepted);
        return html! {
            @if log.attempt > 1 && log.kind == LogKind::Attempt { (missing(1, log.attempt - 1)) }
            (gap(waited, &html! { (words::lasting(waited)) " until the first attempt" }))
        };
    };
    let waited = log.started.since(end(last));
    let skipped =
        log.kind == last.kind && log.phase == last.phase && log.attempt > last.attempt + 1;
    html! {
        @if log.round > last.round {
            li.round {
                b { "Round " (log.round) } ", "
                @if log.trigger == Trigger::Redrive { "redriven" } @else { "sent again by hand" }
                ", " (words::lasting(waited)) " later"
            }
        } @else if skipped {
            (missing(last.attempt + 1, log.attempt - 1))
        } @else {
            (gap(waited, &html! { "waited " (words::lasting(waited)) (why(last)) }))
        }
        @if log.attempt == last.attempt && log.kind == last.kind && log.phase == last.phase {
            li.note { "repeated after restart" }
        }
    }
}

fn missing(from: u32, to: u32) -> Markup {
    html! {
        li.note.missing {
            @if from == to { "attempt " (from) " not recorded" } @else { "attempts " (from) " to " (to) " not recorded" }
        }
    }
}

/// How a wait came about.
fn why(log: &StoredLog) -> String {
    let Some(wait) = &log.wait else {
        return if log.reason.as_deref() == Some("interrupted") {
            " (the node restarted)".into()
        } else {
            String::new()
        };
    };
    let mut why = format!(" (planned {}", words::lasting(wait.planned));
    if wait.retry_after {
        why.push_str(&format!(
            ", Retry-After made it {}",
            words::lasting(wait.delay)
        ));
    } else if wait.delay != wait.planned && !wait.planned.is_zero() {
        let jitter = wait.delay.as_secs_f64() / wait.planned.as_secs_f64();
        why.push_str(&format!(" × jitter {jitter:.2}"));
    }
    why.push(')');
    why.push_str(if wait.parked {
        ", parked in the retry topic"
    } else {
        ", in memory"
    });
    why
}

/// A row of waiting, longer for a longer wait: by the square root, so that 7 s and 15 min show.
fn gap(waited: Duration, text: &Markup) -> Markup {
    let width = (waited.as_secs_f64().sqrt() * 7.0).clamp(1.0, 240.0);
    html! {
        li.wait {
            svg.waitbar height="6" width=(format!("{width:.0}")) aria-hidden="true" { rect.c-wait width="100%" height="6" rx="3" {} }
            " " (text)
        }
    }
}

/// One attempt or check.
fn entry(message: &str, log: &StoredLog, now: UnixMillis) -> Markup {
    let (icon, tone) = mark(log);
    html! {
        li class=(tone) {
            (words::time_ms(log.started, now)) " " (words::icon(icon, tone)) " "
            b { (heading(log)) } " " (outcome(log))
            " " span.sub { (words::lasting(Duration::from_micros(log.duration_us))) } " "
            a href={ "/messages/" (message) "/logs#log-" (log.number) } { "log" }
        }
    }
}

pub(super) fn mark(log: &StoredLog) -> (&'static str, &'static str) {
    match (&log.reason, log.kind) {
        (None, _) => ("tick", "green"),
        (Some(_), LogKind::StatusCheck) => ("ring", "slate"),
        (Some(_), LogKind::Attempt) => ("hatch", "amber"),
    }
}

/// `attempt 2`, `check 1`, `dead-letter sink, attempt 1`.
pub(super) fn heading(log: &StoredLog) -> String {
    let number = log.attempt;
    match (log.kind, log.phase.as_str()) {
        (LogKind::StatusCheck, _) => format!("check {number}"),
        (_, "reply") => format!("reply sink, attempt {number}"),
        (_, "dead-letter") => format!("dead-letter sink, attempt {number}"),
        _ => format!("attempt {number}"),
    }
}

/// What came of it, in words.
pub(super) fn outcome(log: &StoredLog) -> Markup {
    let phrase = log
        .code
        .and_then(|code| http::StatusCode::from_u16(code).ok());
    let phrase = phrase.and_then(|code| code.canonical_reason());
    html! {
        @match (log.code, &log.reason) {
            (Some(code), reason) => {
                (code) @if let Some(phrase) = phrase { " " (phrase) }
                @if let Some(reason) = reason && !reason.starts_with("http_") { ", " (words::text(&words::reason(reason))) }
            }
            (None, Some(reason)) => (words::text(&words::reason(reason))),
            (None, None) => "done",
        }
    }
}

/// What is to come.
fn after(story: &Story, spec: Option<&DeliverySpec>, now: UnixMillis) -> Markup {
    let message = &story.message;
    let last = story.logs.last();
    html! {
        @if message.is_final {
            li class=(words::look(message.status, true, message.attempts).tone) {
                (words::time_ms(message.updated, now)) " " (words::status(message, None))
            }
        } @else if let Some(due) = message.next_attempt {
            @let since = last.map_or(message.updated, end);
            @let whole = due.since(since);
            @let done = now.since(since).min(whole);
            li.wait.now {
                progress data-tick value=(done.as_millis()) max=(whole.as_millis().max(1)) data-from=(since.0) data-to=(due.0) {}
                " waiting " span data-tick data-waited=(since.0) { (words::lasting(done)) } " of " (words::lasting(whole))
                @if let Some(last) = last { (why(last)) }
            }
            li.due {
                (words::time_ms(due, now)) " " (words::icon("ring", "slate")) " "
                @if message.status == Status::Sent { b { "check" } } @else { b { "attempt " (message.attempts + 1) } }
                " " (words::due(due, now))
                @if let (Some(spec), Status::Queued | Status::Undelivered) = (spec, message.status) { (budget(story, spec, due, now)) }
            }
        } @else if message.status == Status::Queued {
            li.due { (words::icon("ring", "slate")) " waits for its turn" }
        }
    }
}

/// How many attempts are left after the next one, and when the last of them is due.
fn budget(story: &Story, spec: &DeliverySpec, due: UnixMillis, now: UnixMillis) -> Markup {
    let message = &story.message;
    let earlier = story.logs.iter().filter(|log| log.round < message.round);
    let base = earlier.map(|log| log.attempt).max().unwrap_or(0);
    let made = message.attempts.saturating_sub(base);
    // The next attempt is number made + 1 of max_attempts; retries after it have these delays.
    let left = message.max_attempts.saturating_sub(made + 1);
    let delays = (1..=left.min(1000)).map(|more| backoff(&spec.backoff, made + more));
    let last = delays.fold(Duration::ZERO, Duration::saturating_add);
    let ends = due.plus(last);
    html! {
        span.sub {
            @if left == 0 { " · the last one, then " (fate(spec)) }
            @else { " · then up to " (words::counted(u64::from(left), "more attempt")) ", the last by " (words::time(ends, now)) ", then " (fate(spec)) }
        }
    }
}

fn fate(spec: &DeliverySpec) -> &'static str {
    if spec.dead_letter_topic {
        "dead letter"
    } else {
        "dropped unless a sink takes it"
    }
}

#[cfg(test)]
mod tests;
