//! Dead letters by reason, the plan of a redrive, and its start.

use http::StatusCode;
use maud::{Markup, html};

use super::overview::{messages_of, path};
use crate::channel::ResourceName;
use crate::clock::UnixMillis;
use crate::dashboard::frame::{Nav, View, trouble};
use crate::dashboard::query::Query;
use crate::dashboard::{Dashboard, patiently, views, words};
use crate::dead_letters::{
    DeadLetters, Filter, Group, Groups, Listed, Page, Planned, Redrive, Selection, State,
};

/// Letters that are listed one by one.
const LISTED: usize = 20;
/// What the form suggests, a second.
const RATE: u32 = 100;

/// `/dead-letters`: of all subscriptions.
pub(in crate::dashboard) fn all(dashboard: &Dashboard, now: UnixMillis) -> View {
    let letters = dashboard.background.letters();
    let (open, more) = dashboard.background.open();
    let body = html! {
        div.bar {
            h1 { "Dead letters" }
            p.big data-live="sum" { (words::number(open)) @if more { "+" } " open" }
        }
        p.hint { "Messages that were given up. They are kept in the log until they expire, and can be sent again." }
        div data-live="all" {
            @if open == 0 { div.empty { p { "None. What fails for good shows up here, by subscription and reason." } } }
            @for (name, groups) in letters.iter().filter(|(_, groups)| groups.open > 0) {
                section {
                    div.bar {
                        h2 { a href={ (path(name)) "/dead-letters" } { (name) } }
                        p { (words::number(groups.open)) @if groups.cut { "+" } " open · " a href={ (path(name)) "/dead-letters" } { "look and redrive" } }
                    }
                    (table(name, groups, false, now))
                }
            }
        }
    };
    View::new(
        Nav::DeadLetters,
        words::counted(open, "dead letter"),
        2000,
        body,
    )
}

/// `/subscriptions/{namespace}/{name}/dead-letters`
pub(in crate::dashboard) async fn one(
    dashboard: &Dashboard,
    name: &ResourceName,
    query: &Query,
    now: UnixMillis,
) -> Option<View> {
    let entry = dashboard.entry(name)?;
    let letters = dashboard.parts.dead_letters.as_ref()?;
    let known = dashboard.background.letters().get(name).cloned();
    let groups = patiently(letters.groups(name, known.as_ref()), "the log").await;
    let page = Page {
        size: LISTED,
        after: None,
    };
    let listed = patiently(letters.list(name, &Filter::default(), page), "the log").await;
    let redrives = patiently(letters.redrives(name), "the log").await;
    let plan = query
        .get("plan")
        .and_then(|plan| letters.planned(name, plan));
    let open = groups.as_ref().map_or(0, |groups| groups.open);
    let resolved = entry.resolved();
    let sink = resolved
        .and_then(|s| s.dead_letter.as_ref())
        .map(crate::channel::Sink::url);
    let body = html! {
        p.crumb { a href="/dead-letters" { "‹ Dead letters" } " · " a href=(path(name)) { (name) } }
        div.bar { h1 { "Dead letters of " (name) } p.big data-live="sum" { (sum(&groups, now)) } }
        @if let Some(sink) = &sink { p.facts { "They go to the sink " (words::text(sink)) " first; what stands here is what the dead-letter topic holds." } }
        @if let Some(error) = query.get("error") { p.trouble role="alert" { (words::icon("bang", "amber")) " " (words::text(error)) } }
        @if query.get("plan").is_some() && plan.is_none() { p.trouble { "This plan is no longer good: plans hold for 15 minutes, on the node that made them. Make another." } }
        div data-live="redrives" { @if let Ok(redrives) = &redrives { (running(redrives, now)) } }
        @match &groups {
            Err(error) => (trouble("the dead letters", error, now)),
            Ok(groups) if groups.open == 0 => div.empty { p { "No open dead letters." } },
            Ok(groups) if dashboard.parts.read_only => (table(name, groups, false, now)),
            Ok(groups) => (form(name, groups, plan.as_ref().map(|(_, selection)| selection), now)),
        }
        @if let Some((planned, selection)) = &plan { (self::plan(dashboard, name, planned, selection, now)) }
        @if let Ok(listed) = &listed { @if !listed.letters.is_empty() {
            section { h2 { "Newest dead letters" } div data-live="newest" { (newest(&listed.letters, now)) } }
        } }
        @if let Ok(redrives) = &redrives { (past(redrives, now)) }
    };
    let title = format!("{} - {name}", words::counted(open, "dead letter"));
    Some(View::new(Nav::DeadLetters, title, 2000, body))
}

fn sum(groups: &Result<std::sync::Arc<Groups>, String>, now: UnixMillis) -> Markup {
    html! {
        @if let Ok(groups) = groups {
            (words::number(groups.open)) @if groups.cut { "+" } " open"
            @if groups.sent_again > 0 { span.sub { " · " (words::number(groups.sent_again)) " sent again" } }
            @if let (Some(oldest), false) = (groups.oldest, groups.cut) { span.sub { " · oldest " (words::ago(oldest, now)) } }
        }
    }
}

fn table(name: &ResourceName, groups: &Groups, choose: bool, now: UnixMillis) -> Markup {
    html! {
        table.cards {
            caption.quiet { "Open dead letters by reason" }
            thead { tr {
                @if choose { th scope="col" { span.quiet { "Choose" } } }
                th scope="col" { "Reason" } th.n scope="col" { "Count" } th scope="col" { "Types" }
                th scope="col" { "First seen" } th scope="col" { "Last seen" } th scope="col" { "Sample answer" }
            } }
            tbody { @for group in &groups.groups { (row(name, group, choose, now)) } }
        }
        @if groups.cut { p.hint { "Counted over the newest 20,000; there are older ones. A dry run counts all." } }
    }
}

fn row(name: &ResourceName, group: &Group, choose: bool, now: UnixMillis) -> Markup {
    let list = messages_of(
        name,
        &[
            ("status", "undelivered"),
            ("reason", &group.reason),
            ("final", "1"),
        ],
    );
    html! {
        tr data-row {
            @if choose { td.pick { label { input type="checkbox" name="reason" value=(group.reason) checked[false]; span.quiet { "Choose " (words::text(&words::reason(&group.reason))) } } } }
            th scope="row" { a href=(list) data-open { (words::text(&words::reason(&group.reason))) } }
            td.n data-l="Count" { (words::number(group.count)) }
            td data-l="Types" { @for kind in &group.types { (words::id(kind)) " " } @if group.more_types { "…" } }
            td data-l="First seen" { (words::time(group.first, now)) }
            td data-l="Last seen" { (words::time(group.last, now)) " " (words::ago(group.last, now)) }
            td data-l="Sample" { @if group.sample.is_empty() { @if group.reason.starts_with("http_") { "(empty body)" } @else { "(no answer)" } } @else { (words::id(&group.sample)) } }
        }
    }
}

/// Which ones, and how fast.
fn form(
    name: &ResourceName,
    groups: &Groups,
    chosen: Option<&Selection>,
    now: UnixMillis,
) -> Markup {
    html! {
        form method="post" action={ (path(name)) "/dead-letters/plan" } {
            div data-live=[chosen.is_none().then_some("groups")] { (table(name, groups, true, now)) }
            div.fields {
                label { "Type " input name="event_type" spellcheck="false" placeholder="any"; }
                label { "From (UTC) " input type="datetime-local" name="from" step="1"; }
                label { "To (UTC) " input type="datetime-local" name="to" step="1"; }
                button.main { "Dry run" }
                span.hint { "counts what would be sent to " (name) "; no reason chosen means all" }
            }
        }
    }
}

/// What a form asks for.
pub(in crate::dashboard) fn selection(form: &Query) -> Result<Selection, String> {
    let time = |name: &str| -> Result<Option<UnixMillis>, String> {
        let Some(text) = form.get(name) else {
            return Ok(None);
        };
        let parsed = format!("{text}Z")
            .parse()
            .or_else(|_| format!("{text}:00Z").parse());
        let time: jiff::Timestamp = parsed.map_err(|_| format!("{name} is no time: {text}"))?;
        Ok(Some(UnixMillis(time.as_millisecond())))
    };
    Ok(Selection {
        filter: Filter {
            since: time("from")?,
            until: time("to")?,
            event_type: form.get("event_type").map(str::to_owned),
            reasons: form.all("reason").map(str::to_owned).collect(),
            ..Filter::default()
        },
        limit: None,
        again: false,
    })
}

/// Counts and freezes; the answer is where the plan is shown.
pub(in crate::dashboard) async fn make_plan(
    letters: &DeadLetters,
    name: &ResourceName,
    form: &Query,
) -> Result<String, String> {
    let planned = letters
        .plan(name, selection(form)?)
        .await
        .map_err(|error| error.to_string())?;
    let query = Query::default().with("plan", &planned.plan);
    Ok(query.at(&format!("{}/dead-letters", path(name))) + "#plan")
}

/// Starts what was planned, or one of it; the answer is where its progress is shown.
pub(in crate::dashboard) async fn start(
    letters: &DeadLetters,
    name: &ResourceName,
    form: &Query,
) -> Result<String, String> {
    let plan = form.get("plan").ok_or("the form names no plan")?;
    let rate = match form.get("rate") {
        None => None,
        Some(text) => {
            let rate = text
                .parse::<f64>()
                .ok()
                .filter(|rate| rate.is_finite() && *rate > 0.0);
            Some(rate.ok_or("the rate must be a number above 0")?)
        }
    };
    let started = if form.get("first").is_some() {
        let (_, selection) = letters
            .planned(name, plan)
            .ok_or("this plan is no longer good")?;
        let one = Selection {
            limit: Some(1),
            ..selection
        };
        letters.start(name, one, rate).await
    } else {
        letters.start_plan(name, plan, rate).await
    };
    let redrive = started.map_err(|error| error.to_string())?;
    let query = match form.get("first") {
        Some(_) => Query::default().with("plan", plan),
        None => Query::default(),
    };
    Ok(query.at(&format!("/redrives/{}", redrive.id)))
}

fn plan(
    dashboard: &Dashboard,
    name: &ResourceName,
    planned: &Planned,
    selection: &Selection,
    now: UnixMillis,
) -> Markup {
    let report = dashboard.parts.watch.report();
    let recent = report
        .subscription(name)
        .map(|one| one.recent.clone())
        .unwrap_or_default();
    let reasons: Vec<_> = selection
        .filter
        .reasons
        .iter()
        .map(|r| words::reason(r))
        .collect();
    let count = planned.count;
    html! {
        section.plan #plan aria-labelledby="plan-title" {
            h2 #plan-title { "Plan: " (words::counted(count, "dead letter")) }
            p {
                @if reasons.is_empty() { "All reasons" } @else { (words::text(&reasons.join(", "))) }
                @if let Some(kind) = &selection.filter.event_type { ", type " (words::id(kind)) }
                ". Counted and frozen; later ones are not included. Good until " (words::time(planned.expires_at, now)) " " span data-zone { "UTC" } "."
            }
            @if recent.attempts() > 0 && recent.ok * 2 < recent.attempts() {
                p.trouble {
                    (words::icon("bang", "amber")) " In the last 5 minutes " (words::percent(recent.failed(), recent.attempts()))
                    " of the attempts of this subscription still failed"
                    @match recent.worst() { Some(Some(code)) => { " (" (code) " from the subscriber)" } Some(None) => { " (no answer)" } None => {} }
                    ". Try one first."
                }
            }
            @if count == 0 { p { "Nothing to send: choose other reasons, or they were sent again already." } }
            @else {
                form.inline method="post" action={ (path(name)) "/dead-letters/redrive" } {
                    input type="hidden" name="plan" value=(planned.plan);
                    label { "Rate " input.short type="number" name="rate" min="1" value=(RATE); " a second" }
                    span.sub { "about " (words::lasting(std::time::Duration::from_millis(count.saturating_mul(1000) / u64::from(RATE)))) " at " (RATE) "/s" }
                    @if count > 1 { button name="first" value="1" { "Try 1 first" } }
                    button.main { "Redrive " (words::grouped(count)) }
                }
            }
        }
    }
}

/// The word for how a redrive stands.
pub(in crate::dashboard) fn word(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Paused => "paused",
        State::Cancelled => "cancelled",
        State::Done => "done",
    }
}

fn running(redrives: &[Redrive], now: UnixMillis) -> Markup {
    html! {
        @for redrive in redrives.iter().filter(|redrive| !redrive.state.is_final()) {
            p.note {
                a href={ "/redrives/" (redrive.id) } { "Redrive of " (words::grouped(redrive.terms.count)) } " "
                progress value=(redrive.sent) max=(redrive.terms.count.max(1)) {} " "
                (words::grouped(redrive.sent)) "/" (words::grouped(redrive.terms.count)) " sent, " (word(redrive.state))
                @if let Some(why) = &redrive.why { ": " (words::text(why)) }
                ", begun " (words::ago(redrive.created_at, now))
            }
        }
    }
}

fn past(redrives: &[Redrive], now: UnixMillis) -> Markup {
    html! {
        @if !redrives.is_empty() {
            section {
                h2 { "Redrives" }
                ul {
                    @for redrive in redrives.iter().take(10) {
                        li { a href={ "/redrives/" (redrive.id) } { (words::time(redrive.created_at, now)) } " " (words::grouped(redrive.sent)) " of " (words::grouped(redrive.terms.count)) " sent, " (word(redrive.state)) }
                    }
                }
            }
        }
    }
}

fn newest(letters: &[Listed], now: UnixMillis) -> Markup {
    html! {
        table.cards {
            caption.quiet { "The newest dead letters" }
            thead { tr { th scope="col" { "Since" } th scope="col" { "Event id" } th scope="col" { "Type" } th scope="col" { "Reason" } th.n scope="col" { "Tries" } th scope="col" { "Sent again" } } }
            tbody {
                @for listed in letters {
                    @let letter = &listed.letter;
                    tr data-row {
                        td { (words::time(letter.inserted_at, now)) " " (words::ago(letter.inserted_at, now)) }
                        th scope="row" { a href={ "/messages/" (letter.id) } data-open { (words::id(letter.attribute("id").unwrap_or("(no event)"))) } }
                        td data-l="Type" { (words::id(letter.attribute("type").unwrap_or_default())) }
                        td data-l="Reason" { (words::text(&words::reason(&letter.outcome))) }
                        td.n data-l="Tries" { @match letter.attempts { None => "–", Some(attempts) => (attempts) } }
                        td data-l="Sent again" { @if listed.is_sent { "yes" } @else if listed.is_redrivable { "no" } @else { "not possible" } }
                    }
                }
            }
        }
    }
}

/// A node that has no dead letters to show.
pub(in crate::dashboard) fn unavailable() -> View {
    views::missing::failed(StatusCode::NOT_FOUND, "this node shows no dead letters")
}
