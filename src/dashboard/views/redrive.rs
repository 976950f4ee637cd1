//! One redrive: how far it is, and what became of what it sent.

use maud::{Markup, html};

use super::dead_letters::word;
use super::overview::{messages_of, path};
use crate::clock::UnixMillis;
use crate::dashboard::frame::{Nav, View, trouble};
use crate::dashboard::query::Query;
use crate::dashboard::{Dashboard, words};
use crate::dead_letters::{DeadLetters, Redrive, RedriveId, State};
use crate::journal::Status;

/// So many messages of a redrive are followed.
const FOLLOWED: usize = 2_000;

/// What became of the messages that were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::dashboard) struct Results {
    pub(in crate::dashboard) delivered: u64,
    pub(in crate::dashboard) waiting: u64,
    pub(in crate::dashboard) dead_again: u64,
}

/// `/redrives/{id}`
pub(in crate::dashboard) async fn view(
    dashboard: &Dashboard,
    letters: &DeadLetters,
    id: &RedriveId,
    query: &Query,
    now: UnixMillis,
) -> Result<View, crate::dead_letters::Error> {
    let redrive = letters.redrive(id).await?;
    let results = results(dashboard, letters, &redrive).await;
    let name = &id.subscription;
    let (sent, count) = (redrive.sent, redrive.terms.count);
    let body = html! {
        p.crumb { a href={ (path(name)) "/dead-letters" } { "‹ Dead letters of " (name) } }
        div.bar {
            h1 { "Redrive " (id.to_string()) }
            p.big data-live="state" { (stands(redrive.state)) }
        }
        @if let Some(error) = query.get("error") { p.trouble role="alert" { (words::icon("bang", "amber")) " " (words::text(error)) } }
        div data-live="progress" {
            p.run {
                progress value=(sent) max=(count.max(1)) {}
                " " b { (words::grouped(sent)) "/" (words::grouped(count)) } " sent"
                @if redrive.failed > 0 { " · " b.red { (words::grouped(redrive.failed)) " refused by the log" } }
            }
            (outcome(&results, name, &redrive, now))
        }
        div data-live="why" {
            @if let Some(why) = &redrive.why {
                p.trouble { (words::icon("bang", "amber")) " Paused by itself: " (words::text(why)) ". Nothing is lost: those that failed are dead letters again or wait for a retry, the others were not sent yet. Mend the subscriber, then resume." }
            }
        }
        @if !dashboard.parts.read_only { div data-live="buttons" { (buttons(&redrive)) } }
        @if let (Some(plan), true) = (query.get("plan"), redrive.state.is_final()) {
            p { a href={ (Query::default().with("plan", plan).at(&format!("{}/dead-letters", path(name)))) "#plan" } { "Back to the plan" } }
        }
        (facts(&redrive, now))
    };
    let title = format!("{sent}/{count} {} - redrive", word(redrive.state));
    Ok(View::new(Nav::DeadLetters, title, 1000, body))
}

fn stands(state: State) -> Markup {
    let (icon, tone) = match state {
        State::Running => ("retry", "blue"),
        State::Paused => ("ring", "amber"),
        State::Cancelled => ("barred", "slate"),
        State::Done => ("tick", "green"),
    };
    html! { span class={ "st " (tone) } { (words::icon(icon, tone)) " " (word(state)) } }
}

async fn results(
    dashboard: &Dashboard,
    letters: &DeadLetters,
    redrive: &Redrive,
) -> Result<(Results, bool), String> {
    let sent = letters
        .sent_by(&redrive.id, FOLLOWED)
        .await
        .map_err(|error| error.to_string())?;
    let mut results = Results::default();
    for id in &sent {
        let id = id.to_string();
        let message = dashboard.ask(|journal| journal.message(&id)).await?;
        // What was not touched since is still on its way there.
        let since = message.filter(|message| message.updated >= redrive.created_at);
        match since.map(|message| (message.status, message.is_final)) {
            Some((Status::Delivered | Status::Sent | Status::NotSent, _)) => results.delivered += 1,
            Some((Status::Undelivered | Status::Bounced, true)) => results.dead_again += 1,
            _ => results.waiting += 1,
        }
    }
    Ok((
        results,
        sent.len() == FOLLOWED && redrive.sent > FOLLOWED as u64,
    ))
}

fn outcome(
    results: &Result<(Results, bool), String>,
    name: &crate::channel::ResourceName,
    redrive: &Redrive,
    now: UnixMillis,
) -> Markup {
    let (results, cut) = match results {
        Ok(results) => results,
        Err(error) => return trouble("what became of them", error, now),
    };
    let from = redrive
        .terms
        .filter
        .since
        .map(UnixMillis::rfc3339)
        .unwrap_or_default();
    let list = |status: &str| messages_of(name, &[("status", status), ("from", &from)]);
    html! {
        p.big {
            a href=(list("delivered")) { "delivered " (words::grouped(results.delivered)) }
            " · " a href=(list("retrying")) { "waiting " (words::grouped(results.waiting)) }
            " · " a href={ (path(name)) "/dead-letters" } { "dead again " (words::grouped(results.dead_again)) }
        }
        @if *cut { p.hint { "Counted over the first " (words::grouped(FOLLOWED as u64)) " that were sent." } }
    }
}

fn buttons(redrive: &Redrive) -> Markup {
    let button = |command: &str, word: &str| {
        html! { form.inline method="post" action={ "/redrives/" (redrive.id) "/" (command) } { button { (word) } } }
    };
    html! {
        div.actions {
            @match redrive.state {
                State::Running => { (button("pause", "Pause")) (button("cancel", "Cancel")) }
                State::Paused => { (button("resume", "Resume")) (button("cancel", "Cancel")) }
                State::Done | State::Cancelled => {}
            }
        }
    }
}

fn facts(redrive: &Redrive, now: UnixMillis) -> Markup {
    let terms = &redrive.terms;
    let reasons: Vec<_> = terms
        .filter
        .reasons
        .iter()
        .map(|reason| words::reason(reason))
        .collect();
    html! {
        p.facts {
            "begun " (words::time(redrive.created_at, now)) " " span data-zone { "UTC" }
            " · " @if reasons.is_empty() { "all reasons" } @else { (words::text(&reasons.join(", "))) }
            @if let Some(kind) = &terms.filter.event_type { " · type " (words::id(kind)) }
            @if let Some(code) = terms.filter.error_code { " · code " (code) }
            @if let Some(rate) = terms.rate { " · " (words::rate(rate)) } @else { " · as fast as the log takes them" }
            @if let Some(limit) = terms.limit { " · at most " (words::grouped(limit)) }
            " · node " (words::id(&terms.node))
        }
    }
}
