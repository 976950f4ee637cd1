//! Is anything wrong now? From memory alone.

use maud::{Markup, html};
use serde_json::Value;

use crate::channel::ResourceName;
use crate::clock::UnixMillis;
use crate::dashboard::frame::{Nav, View};
use crate::dashboard::query::Query;
use crate::dashboard::{Dashboard, chart, words};
use crate::health::{Report, State, SubscriptionReport};
use crate::journal::Gap;

/// `/`
pub(in crate::dashboard) fn view(dashboard: &Dashboard, query: &Query, now: UnixMillis) -> View {
    let report = dashboard.parts.watch.report();
    let attention_only = query.get("show") == Some("attention");
    let body = html! {
        section aria-label="State" {
            div data-live="verdict" { (verdict(dashboard, &report, now)) (journal(dashboard, now)) }
        }
        section aria-labelledby="subs" {
            div.bar {
                h1 #subs { "Subscriptions" }
                span.tabs data-live="filter" {
                    a href="/" aria-current=[(!attention_only).then_some("true")] { "all " (report.subscriptions.len()) }
                    a href="/?show=attention" aria-current=[attention_only.then_some("true")] { "attention " (report.need_attention()) }
                }
            }
            div data-live="table" { (table(dashboard, &report, attention_only, now)) }
        }
        div data-live="channels" { (channels(&report)) }
    };
    View::new(Nav::Overview, title(dashboard, &report), 1000, body)
}

fn title(dashboard: &Dashboard, report: &Report) -> String {
    let is = |state: State| {
        report
            .subscriptions
            .iter()
            .filter(|one| one.state() == state)
            .count()
    };
    let (failing, attention) = (
        is(State::Failing) + is(State::NotReady),
        report.need_attention(),
    );
    if dashboard
        .parts
        .view
        .readiness()
        .iter()
        .any(|check| !check.ok)
    {
        "not ready".into()
    } else if failing > 0 {
        format!("{failing} failing")
    } else if attention > 0 {
        format!("{attention} need attention")
    } else {
        "all well".into()
    }
}

/// One sentence on everything.
fn verdict(dashboard: &Dashboard, report: &Report, now: UnixMillis) -> Markup {
    let checks = dashboard.parts.view.readiness();
    let problems = dashboard.parts.view.problems();
    let (all, attention) = (report.subscriptions.len(), report.need_attention());
    let (icon, tone) = if attention > 0 {
        ("cross", "red")
    } else {
        ("tick", "green")
    };
    let noun = if all == 1 {
        "subscription"
    } else {
        "subscriptions"
    };
    let verb = if attention == 1 { "needs" } else { "need" };
    html! {
        p.verdict {
            span class={ "st " (tone) } {
                (words::icon(icon, tone)) " "
                @if all == 0 { "No subscriptions yet." }
                @else if attention == 0 { "All " (all) " " (noun) " are well." }
                @else { (attention) " of " (all) " " (noun) " " (verb) " attention." }
            }
            " Ingress " (words::rate(report.ingress.rate))
            @if report.ingress.not_stored > 0 {
                ", " b.red { (words::counted(report.ingress.not_stored, "request")) " not stored in the last minute" } "."
            } @else { ", all stored." }
            @for check in &checks {
                " " @if check.name == "log" { "Log" } @else { "Manifests" } ": "
                @if check.ok { "ok." } @else { b.red { (words::text(&check.message)) } "." }
            }
        }
        @if !problems.is_empty() {
            details.note data-key="problems" {
                summary { (words::icon("bang", "amber")) " " (words::counted(problems.len() as u64, "problem")) " in the manifests" }
                ul {
                    @for problem in problems.iter().take(50) {
                        li {
                            (words::text(problem["file"].as_str().unwrap_or_default()))
                            @if let Some(line) = problem["line"].as_u64() { ":" (line) }
                            " " (words::text(problem["message"].as_str().unwrap_or_default()))
                        }
                    }
                }
            }
        }
        @if now.since(report.since).as_secs() < 3600 {
            p.hint { "Figures since this node started at " (words::time(report.since, now)) "." }
        }
    }
}

fn journal(dashboard: &Dashboard, now: UnixMillis) -> Markup {
    let heard = dashboard.background.heard();
    let gaps = heard.reach.as_ref().map_or(&[][..], |reach| &reach.gaps);
    html! {
        @if let Some(error) = &heard.error {
            p.trouble { (words::icon("bang", "amber")) " Could not read the journal: " (words::text(error)) ". Deliveries go on." }
        } @else if let Some(reach) = &heard.reach {
            p.hint {
                (words::icon("info", "slate")) " Journal: "
                @if gaps.is_empty() { "no gaps" } @else { (words::counted(gaps.len() as u64, "gap")) }
                @if let Some(oldest) = reach.oldest { ", reaches back to " (words::time(oldest, now)) " " span data-zone { "UTC" } }
                ", about " (words::number(reach.messages)) " messages"
                @if reach.queued > 0 { ", " (words::number(reach.queued)) " changes wait to be written" }
                "."
            }
        }
        @for gap in gaps.iter().take(3) { (gap_bar(gap, now)) }
    }
}

/// That the journal missed something.
pub(in crate::dashboard) fn gap_bar(gap: &Gap, now: UnixMillis) -> Markup {
    html! {
        p.gap {
            (words::icon("bang", "amber")) " The journal missed " (words::counted(gap.changes, "change"))
            @match gap.to {
                Some(to) => { " between " (words::time(gap.from, now)) " and " (words::time(to, now)) }
                None => { " since " (words::time(gap.from, now)) }
            }
            ". Deliveries went on; statuses of that span may be behind."
        }
    }
}

fn table(dashboard: &Dashboard, report: &Report, attention_only: bool, now: UnixMillis) -> Markup {
    if report.subscriptions.is_empty() {
        return html! {
            div.empty {
                p { "Declare a channel and a subscription in a YAML file under " code { "--manifests" } "; it is in force within a second." }
                pre.cmd { "levada check --help\nlevada serve --manifests ./manifests" }
            }
        };
    }
    let shown = |one: &&SubscriptionReport| !attention_only || one.state().needs_attention();
    let rows: Vec<_> = report.subscriptions.iter().filter(shown).collect();
    if rows.is_empty() {
        return html! { div.empty { p { "Nothing needs attention. " a href="/" { "Show all" } } } };
    }
    let letters = dashboard.background.letters();
    html! {
        table.cards.subs {
            caption.quiet { "Subscriptions, the worst first" }
            thead {
                tr {
                    th scope="col" { "Subscription" } th scope="col" { "State" } th scope="col" { "60 min" }
                    th.n scope="col" { "Rate" } th.n scope="col" { "OK 5 min" } th.n scope="col" { "p95 5 min" }
                    th.n scope="col" { "Lag" } th.n scope="col" { "In flight" } th.n scope="col" { "Parked" } th.n scope="col" { "Next due" } th.n scope="col" { "Dead letters" }
                }
            }
            tbody {
                @for one in rows {
                    @let open = letters.get(&one.name).map(|groups| (groups.open, groups.cut));
                    (row(one, open, now))
                }
            }
        }
    }
}

/// Of these resources the one of this name.
pub(in crate::dashboard) fn named(resources: Vec<Value>, name: &ResourceName) -> Option<Value> {
    let is_it = |resource: &Value| {
        let metadata = &resource["metadata"];
        metadata["namespace"] == name.namespace() && metadata["name"] == name.name()
    };
    resources.into_iter().find(is_it)
}

/// The address of a subscription's view.
pub(in crate::dashboard) fn path(name: &ResourceName) -> String {
    format!("/subscriptions/{}/{}", name.namespace(), name.name())
}

/// The address of a list of a subscription's messages.
pub(in crate::dashboard) fn messages_of(name: &ResourceName, more: &[(&str, &str)]) -> String {
    let mut query = Query::default().with("subscription", &name.to_string());
    for (name, value) in more {
        query = query.with(name, value);
    }
    query.at("/messages")
}

fn row(one: &SubscriptionReport, open: Option<(u64, bool)>, now: UnixMillis) -> Markup {
    let at = path(&one.name);
    let recent = &one.recent;
    let ok_title = format!(
        "{} of {} attempts in 5 minutes succeeded",
        words::grouped(recent.ok),
        words::grouped(recent.attempts())
    );
    html! {
        tr data-row {
            th scope="row" { a href=(at) data-open { (one.name) } }
            td { (words::state(one.state())) }
            td data-l="60 min" { (chart::sparkline(&one.minutes)) }
            td.n data-l="Rate" { (words::rate(one.rate)) }
            td.n data-l="OK 5 min" title=(ok_title) {
                @if recent.failed() > 0 { a href=(messages_of(&one.name, &[("status", "undelivered"), ("status", "retrying")])) { (words::percent(recent.ok, recent.attempts())) } }
                @else { (words::percent(recent.ok, recent.attempts())) }
            }
            td.n data-l="p95 5 min" { (one.p95.map_or("–".into(), words::lasting)) }
            td.n data-l="Lag" {
                @match one.unfinished() {
                    None => "–",
                    Some(lag) => { (words::number(lag)) @if let Some(waits) = one.untried_for() { span.sub title=(lag_title(one)) { " · " (words::spoken(waits)) } } }
                }
            }
            td.n data-l="In flight" { (words::number(one.in_flight)) }
            td.n data-l="Parked" {
                @if one.parked > 0 { a href=(messages_of(&one.name, &[("status", "retrying")])) { (words::number(one.parked)) } } @else { "0" }
            }
            td.n data-l="Next due" { @match one.lag.as_ref().and_then(|lag| lag.next_due) { None => "–", Some(due) => (words::due(due, now)) } }
            td.n data-l="Dead letters" {
                @match open {
                    None => "–",
                    Some((0, _)) => "0",
                    Some((count, cut)) => a href={ (at) "/dead-letters" } { (words::number(count)) @if cut { "+" } },
                }
            }
        }
        @if one.state().needs_attention() && !one.verdict.reason.is_empty() {
            tr.why {
                td colspan="11" {
                    (words::text(&one.verdict.reason)) " since " (words::time(one.since, now)) " (" (words::spoken(now.since(one.since))) ") "
                    span.next { a href={ (at) "#reasons" } { "reasons" } " " a href={ (at) "/dead-letters" } { "dead letters" } }
                }
            }
        }
    }
}

/// Two ages, since one event that waits half an hour for its retry is no outage.
fn lag_title(one: &SubscriptionReport) -> String {
    let untried = one.untried_for().map_or("none".into(), words::lasting);
    let behind = one.behind_for.map_or("none".into(), words::lasting);
    format!("oldest never tried: {untried}; something unfinished for: {behind}")
}

fn channels(report: &Report) -> Markup {
    html! {
        @if !report.channels.is_empty() {
            details data-key="channels" open[report.channels.len() <= 8] {
                summary { h2 { "Channels " (report.channels.len()) } }
                ul.inline {
                    @for (name, channel) in &report.channels {
                        li {
                            a href={ "/channels/" (name.namespace()) "/" (name.name()) } { (name) }
                            " " (words::rate(channel.rate)) " in, " (words::counted(channel.subscriptions as u64, "subscription"))
                        }
                    }
                }
            }
        }
    }
}
