//! A channel and the subscriptions that read it.

use maud::html;

use super::overview::{named, path};
use crate::channel::ResourceName;
use crate::clock::UnixMillis;
use crate::dashboard::frame::{Nav, View};
use crate::dashboard::query::Query;
use crate::dashboard::{Dashboard, words};

/// `/channels/{namespace}/{name}`; `None`: there is none of this name.
pub(in crate::dashboard) fn view(
    dashboard: &Dashboard,
    name: &ResourceName,
    now: UnixMillis,
) -> Option<View> {
    let resource = named(dashboard.parts.view.channels(), name)?;
    let report = dashboard.parts.watch.report();
    let channel = name.to_string();
    let readers: Vec<_> = report
        .subscriptions
        .iter()
        .filter(|one| one.channel == channel)
        .collect();
    let status = &resource["status"];
    let conditions = status["conditions"].as_array();
    let messages = Query::default().with("channel", &channel).at("/messages");
    let rate = report
        .channels
        .get(name)
        .map_or(0.0, |channel| channel.rate);
    let body = html! {
        p.crumb { a href="/" { "‹ Overview" } }
        div.bar { h1 { (name) } p.big data-live="rate" { (words::rate(rate)) " in over the last minute" } }
        p.facts {
            "topic " (words::text(status["topic"]["name"].as_str().unwrap_or_default()))
            @if let Some(partitions) = status["topic"]["partitions"].as_u64() { " · " (words::counted(partitions, "partition")) }
            @if let Some(replicas) = status["topic"]["replicas"].as_u64() { " · " (words::counted(replicas, "replica")) }
            " · retention " (words::text(resource["spec"]["retentionDuration"].as_str().unwrap_or("–")))
        }
        p { "Post events to " code { "http://" (name.name()) "." (name.namespace()) ".localhost:8080/" } " or:" }
        pre.cmd { "levada send --channel " (name) " --data '{\"total\": 7}'" }
        div data-live="conditions" {
            @for condition in conditions.into_iter().flatten().filter(|condition| condition["status"] != "True") {
                p.trouble {
                    (words::icon("bang", "amber")) " " (words::text(condition["type"].as_str().unwrap_or_default())) " is "
                    (words::text(condition["status"].as_str().unwrap_or_default())) ": " (words::text(condition["message"].as_str().unwrap_or_default()))
                }
            }
        }
        div.bar { h2 { "Subscriptions " (readers.len()) } a href=(messages) { "messages of this channel" } }
        div data-live="readers" {
            @if readers.is_empty() { div.empty { p { "No subscription reads this channel: its events are kept until their retention ends, and go nowhere." } } }
            @else {
                table.cards {
                    caption.quiet { "Subscriptions of this channel" }
                    thead { tr { th scope="col" { "Subscription" } th scope="col" { "State" } th.n scope="col" { "Rate" } th.n scope="col" { "Lag" } } }
                    tbody {
                        @for one in readers {
                            tr data-row {
                                th scope="row" { a href=(path(&one.name)) data-open { (one.name) } }
                                td { (words::state(one.state())) @if !one.verdict.reason.is_empty() { span.sub { " " (words::text(&one.verdict.reason)) " since " (words::time(one.since, now)) } } }
                                td.n data-l="Rate" { (words::rate(one.rate)) }
                                td.n data-l="Lag" { @match one.unfinished() { None => "–", Some(lag) => (words::number(lag)) } }
                            }
                        }
                    }
                }
            }
        }
    };
    Some(View::new(Nav::None, format!("channel {name}"), 2000, body))
}
