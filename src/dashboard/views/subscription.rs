//! What exactly fails, since when, and who waits.

use std::time::Duration;

use maud::{Markup, html};
use serde_json::Value;

use super::messages;
use super::overview::{messages_of, named, path};
use crate::channel::{DeliverySpec, Ordering, ResourceName};
use crate::clock::UnixMillis;
use crate::dashboard::chart::{self, Axis};
use crate::dashboard::frame::{Nav, View, region};
use crate::dashboard::query::Query;
use crate::dashboard::{Dashboard, words};
use crate::health::SubscriptionReport;
use crate::journal::{Bucket, Filter, Message, Page, PageRequest, ReasonCount, Span};
use crate::log::Offset;
use crate::manifest::{check_timeline, retry_timeline};
use crate::status::Lag;

/// Spans of the charts: name, and minutes a bar.
const SPANS: [(&str, u32); 5] = [("15m", 1), ("1h", 1), ("6h", 5), ("24h", 20), ("7d", 120)];
const RECENT: usize = 20;
/// Steps of the retry policy that are drawn.
const STEPS: usize = 12;

/// `/subscriptions/{namespace}/{name}`; `None`: there is none of this name.
pub(in crate::dashboard) async fn view(
    dashboard: &Dashboard,
    name: &ResourceName,
    query: &Query,
    now: UnixMillis,
) -> Option<View> {
    let entry = dashboard.entry(name)?;
    let report = dashboard.parts.watch.report();
    let one = report.subscription(name);
    let chosen = query
        .get("span")
        .and_then(|span| SPANS.iter().find(|(known, _)| *known == span));
    let (span_name, step) = *chosen.unwrap_or(&SPANS[1]);
    let axis = axis(span_name, step, now);
    let span = Span {
        from: axis.from,
        to: axis.to,
    };
    let chart = dashboard
        .ask(|journal| journal.chart(Some(name), span, step))
        .await;
    let reasons = dashboard.ask(|journal| journal.reasons(name, span)).await;
    let filter = Filter {
        subscription: vec![name.clone()],
        ..Filter::default()
    };
    let page = PageRequest {
        after: None,
        before: None,
        size: RECENT,
    };
    let recent = dashboard.ask(|journal| journal.list(&filter, &page)).await;
    let resource = named(dashboard.parts.view.subscriptions(), name).unwrap_or_default();
    let body = html! {
        div data-live="head" { (head(dashboard, name, one, &resource, now)) }
        p.facts {
            "channel " a href={ "/channels/" (entry.channel.namespace()) "/" (entry.channel.name()) } { (entry.channel) }
            " → " (words::text(resource["status"]["physicalSubscription"]["subscriberUri"].as_str().unwrap_or("unresolved subscriber")))
            " · order " (order(&entry.delivery)) " · max in flight " (entry.delivery.max_in_flight)
            " · timeout " (words::lasting(entry.delivery.timeout))
        }
        div data-live="waiting" { (waiting(dashboard, name, one, now)) }
        div data-live="due" { @if let Some(due) = one.and_then(|one| one.lag.as_ref()?.due) { (chart::due(due)) } }
        section aria-labelledby="charts" {
            div.bar { h2 #charts { "Attempts" } (spans(name, span_name)) }
            div.charts data-live="charts" { (region("the journal", &chart, now, |buckets| charts(dashboard, buckets, axis, now))) }
        }
        section aria-labelledby="reasons" {
            h2 #reasons { "Why attempts fail (" (span_name) ")" }
            div data-live="reasons" { (region("the journal", &reasons, now, |reasons| why(name, reasons, span_name, now))) }
        }
        section aria-labelledby="policy" {
            h2 #policy { "Retry policy" }
            (policy(&entry.delivery))
        }
        div data-live="partitions" { @if let Some(lag) = one.and_then(|one| one.lag.as_ref()) { (partitions(lag, now)) } }
        (self::recent(&recent, name, &entry.channel, now))
        (declared(&resource))
    };
    let state = one.map_or("unknown", |one| one.state().word());
    let title = format!("{} - {name}", state.to_lowercase());
    Some(View::new(Nav::None, title, 2000, body))
}

fn recent(
    recent: &Result<Page<Message>, String>,
    name: &ResourceName,
    channel: &ResourceName,
    now: UnixMillis,
) -> Markup {
    html! {
        section aria-labelledby="recent" {
            div.bar { h2 #recent { "Recent messages" } a href=(messages_of(name, &[])) { "all" } }
            div data-live="recent" {
                (region("the journal", recent, now, |page| html! {
                    @if page.items.is_empty() { div.empty { p { "None yet." } pre.cmd { "levada send --channel " (channel) " --data '{\"total\": 7}'" } } }
                    @else { (messages::rows(&page.items, "Recent messages, newest first", now)) }
                }))
            }
        }
    }
}

fn order(spec: &DeliverySpec) -> &'static str {
    match spec.ordering {
        Ordering::Key => "by key",
        Ordering::Partition => "by partition",
        Ordering::None => "none",
    }
}

/// The span, its ends on whole steps.
fn axis(span: &str, step: u32, now: UnixMillis) -> Axis {
    let length = messages::span(span).unwrap_or(Duration::from_secs(if span == "6h" {
        21_600
    } else {
        3600
    }));
    let step_millis = i64::from(step) * 60_000;
    let end = now.0 - now.0.rem_euclid(step_millis) + step_millis;
    Axis {
        from: UnixMillis(end - i64::try_from(length.as_millis()).unwrap_or(0)),
        to: UnixMillis(end),
        step_minutes: step,
    }
}

fn head(
    dashboard: &Dashboard,
    name: &ResourceName,
    one: Option<&SubscriptionReport>,
    resource: &Value,
    now: UnixMillis,
) -> Markup {
    let conditions = resource["status"]["conditions"].as_array();
    let ready = conditions.and_then(|all| all.iter().find(|c| c["type"] == "Ready"));
    let heard = dashboard.background.heard();
    let gaps = heard.reach.as_ref().map_or(&[][..], |reach| &reach.gaps);
    html! {
        p.crumb { a href="/" { "‹ Overview" } }
        div.bar {
            h1 { (name) }
            p.big {
                @if let Some(one) = one {
                    (words::state(one.state()))
                    @if !one.verdict.reason.is_empty() {
                        ": " (words::text(&one.verdict.reason)) " since " (words::time(one.since, now)) " (" (words::spoken(now.since(one.since))) ")"
                    }
                } @else { (words::state(crate::health::State::Unknown)) ": not looked at yet" }
                " · Ready: " (words::text(ready.and_then(|c| c["status"].as_str()).unwrap_or("Unknown")))
            }
        }
        @for gap in gaps.iter().take(1) { (super::overview::gap_bar(gap, now)) }
    }
}

fn waiting(
    dashboard: &Dashboard,
    name: &ResourceName,
    one: Option<&SubscriptionReport>,
    now: UnixMillis,
) -> Markup {
    let letters = dashboard.background.letters();
    let open = letters.get(name).map(|groups| groups.open);
    html! {
        @if let Some(one) = one {
            dl.tiles {
                div { dt { "rate, 1 min" } dd { (words::rate(one.rate)) } }
                div { dt { "OK, 5 min" } dd { (words::percent(one.recent.ok, one.recent.attempts())) } }
                div { dt { "p95, 5 min" } dd { (one.p95.map_or("–".into(), words::lasting)) } }
                div { dt { "lag" } dd { @match one.unfinished() { None => "–", Some(lag) => (words::number(lag)) } } }
                div { dt { "never tried" } dd { @match &one.lag { None => "–", Some(lag) => (words::number(lag.untried)) } } }
                div { dt { "oldest of them" } dd { (one.untried_for().map_or("–".into(), words::spoken)) } }
                div { dt { "behind for" } dd { (one.behind_for.map_or("–".into(), words::spoken)) } }
                div { dt { "in flight" } dd { (words::number(one.in_flight)) } }
                div { dt { "parked" } dd { a href=(messages_of(name, &[("status", "retrying")])) { (words::number(one.parked)) } } }
                div { dt { "next due" } dd { @match one.lag.as_ref().and_then(|lag| lag.next_due) { None => "–", Some(due) => (words::due(due, now)) } } }
                div { dt { "paused partitions" } dd { (words::number(one.paused)) } }
                div { dt { "dead letters" } dd { a href={ (path(name)) "/dead-letters" } { @match open { None => "–", Some(open) => (words::number(open)) } } } }
            }
        }
    }
}

fn partitions(lag: &Lag, now: UnixMillis) -> Markup {
    let number = |offset: Offset| words::grouped(u64::try_from(offset.0).unwrap_or(0));
    html! {
        details data-key="partitions" {
            summary { "Partitions of this node " (lag.partitions.len()) }
            p.hint { "As of " (words::time(lag.at, now)) " " span data-zone { "UTC" } "." }
            table.cards {
                caption.quiet { "Partitions of the channel that this node reads" }
                thead { tr {
                    th scope="col" { "Partition" } th.n scope="col" { "Committed" } th.n scope="col" { "Taken up to" } th.n scope="col" { "End" }
                    th.n scope="col" { "Lag" } th.n scope="col" { "Unfinished in memory" } th scope="col" { "State" }
                } }
                tbody {
                    @for (partition, one) in &lag.partitions {
                        tr data-row {
                            th scope="row" { (partition.0) }
                            td.n data-l="Committed" { (number(one.committed)) }
                            td.n data-l="Taken up to" { (one.taken.map_or("–".into(), number)) }
                            td.n data-l="End" { (number(one.end)) }
                            td.n data-l="Lag" { (number(Offset(one.end.0 - one.committed.0))) }
                            td.n data-l="Unfinished in memory" { (words::grouped(one.unfinished)) }
                            td data-l="State" { @if one.paused { "paused: the window is full" } @else { "reads" } }
                        }
                    }
                }
            }
        }
    }
}

fn spans(name: &ResourceName, current: &str) -> Markup {
    html! {
        span.tabs {
            @for (span, _) in SPANS {
                a href={ (path(name)) "?span=" (span) } aria-current=[(span == current).then_some("true")] { (span) }
            }
            " ending now"
        }
    }
}

fn charts(dashboard: &Dashboard, buckets: &[Bucket], axis: Axis, now: UnixMillis) -> Markup {
    let heard = dashboard.background.heard();
    let gaps = heard.reach.as_ref().map_or(&[][..], |reach| &reach.gaps);
    html! {
        (chart::attempts(buckets, axis, gaps, now))
        (chart::latency(buckets, axis, now))
    }
}

fn why(name: &ResourceName, reasons: &[ReasonCount], span: &str, now: UnixMillis) -> Markup {
    if reasons.is_empty() {
        return html! { p.hint { "No attempt failed in the last " (span) "." } };
    }
    html! {
        table.cards {
            caption.quiet { "Reasons, the most frequent first" }
            thead { tr { th scope="col" { "Reason" } th.n scope="col" { "Attempts" } th scope="col" { "First seen" } th scope="col" { "Last seen" } th scope="col" { "Sample answer" } } }
            tbody {
                @for one in reasons {
                    tr data-row {
                        th scope="row" { a href=(messages_of(name, &[("reason", &one.reason)])) data-open { (words::text(&words::reason(&one.reason))) } }
                        td.n data-l="Attempts" { (words::number(one.attempts)) }
                        td data-l="First seen" { (words::time(one.first, now)) }
                        td data-l="Last seen" { (words::time(one.last, now)) " " (words::ago(one.last, now)) }
                        td data-l="Sample" { @if one.sample.is_empty() { @if one.reason.starts_with("http_") { "(empty body)" } @else { "(no answer)" } } @else { (words::id(&one.sample)) } }
                    }
                }
            }
        }
    }
}

/// When the attempts come, drawn by what decides them.
fn policy(spec: &DeliverySpec) -> Markup {
    let steps = retry_timeline(spec);
    let shown = steps.len().min(STEPS);
    let last = steps.last().map_or(Duration::ZERO, |step| step.latest);
    html! {
        ol.policy {
            @for (index, step) in steps.iter().take(shown).enumerate() {
                @let before = index.checked_sub(1).map(|before| steps[before]);
                @if let Some(before) = before {
                    li.gap title={ "earliest " (words::lasting(step.earliest.saturating_sub(before.earliest))) } {
                        (words::lasting(step.latest.saturating_sub(before.latest)))
                    }
                }
                li title={ "between " (words::lasting(step.earliest)) " and " (words::lasting(step.latest)) " after the first attempt" } { @if index == 0 { "attempt " } (step.attempt) }
            }
            @if steps.len() > shown { li.gap { "…" } li { (steps.len()) } }
        }
        p.hint {
            @if steps.len() == 1 { "One attempt, no retries" } @else { "Gives up " (words::lasting(last)) " after the first attempt at the latest" }
            ", then "
            @if spec.dead_letter_topic { "it is a dead letter." } @else { "it is dropped unless a dead-letter sink takes it." }
        }
        @if let (true, Some(last)) = (spec.status_check.is_some(), check_timeline().last()) {
            p.hint { "After a 2xx the provider is asked what became of the message, up to " (last.attempt) " times, the last time after " (words::lasting(last.latest)) " at the latest." }
        }
    }
}

fn declared(resource: &Value) -> Markup {
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    html! {
        details data-key="declared" {
            summary { "Spec and conditions" }
            pre.data tabindex="0" { (words::lines(&text(&resource["spec"]))) }
            pre.data tabindex="0" { (words::lines(&text(&resource["status"]))) }
        }
    }
}
