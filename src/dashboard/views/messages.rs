//! A list of messages with its filters, all of which stand in the address.

use std::time::Duration;

use maud::{Markup, html};

use super::overview::path;
use crate::channel::ResourceName;
use crate::clock::UnixMillis;
use crate::dashboard::frame::{Nav, View, region};
use crate::dashboard::query::Query;
use crate::dashboard::{Dashboard, words};
use crate::journal::{Cursor, Filter, Message, Page, PageRequest, Status};

/// Messages a page.
const PAGE: usize = 50;
/// Messages are counted up to here.
const COUNTED: usize = 10_000;
/// Newer ones are counted up to here.
const NEWER: usize = 200;

/// The filters: name in the address, and for people.
const FILTERS: [(&str, &str); 10] = [
    ("status", "status"),
    ("subscription", "subscription"),
    ("channel", "channel"),
    ("reason", "reason"),
    ("event_type", "type"),
    ("event_source", "source"),
    ("event_id", "event id"),
    ("last", "last"),
    ("from", "from"),
    ("to", "to"),
];

const SPANS: [(&str, u64); 5] = [
    ("15m", 900),
    ("1h", 3600),
    ("24h", 86_400),
    ("7d", 604_800),
    ("30d", 2_592_000),
];

/// What an address asks for; what cannot be read is left out and named.
fn filter(query: &Query, now: UnixMillis) -> (Filter, Vec<String>) {
    let mut filter = Filter::default();
    let mut wrong = Vec::new();
    for status in query.all("status") {
        match Status::from_name(status) {
            Some(status) => filter.status.push(status),
            None if status == "retrying" => filter.retrying = true,
            None => wrong.push(format!("status {status:?}")),
        }
    }
    if query.get("final").is_some() {
        filter.is_final = Some(true);
    }
    for (name, list) in [
        ("subscription", &mut filter.subscription),
        ("channel", &mut filter.channel),
    ] {
        for text in query.all(name) {
            match text.parse::<ResourceName>() {
                Ok(resource) => list.push(resource),
                Err(error) => wrong.push(error.to_string()),
            }
        }
    }
    filter.reason = query.all("reason").map(str::to_owned).collect();
    filter.event_id = query.get("event_id").map(str::to_owned);
    filter.event_type = query.get("event_type").map(str::to_owned);
    filter.event_source = query.get("event_source").map(str::to_owned);
    if let Some(last) = query.get("last") {
        match SPANS.iter().find(|(name, _)| *name == last) {
            Some((_, seconds)) => {
                let from = now
                    .0
                    .saturating_sub(i64::try_from(seconds * 1000).unwrap_or(0));
                filter.from = Some(UnixMillis(from));
            }
            None => wrong.push(format!("last {last:?}")),
        }
    }
    for (name, place) in [("from", &mut filter.from), ("to", &mut filter.to)] {
        if let Some(text) = query.get(name) {
            match time(text) {
                Some(time) => *place = Some(time),
                None => wrong.push(format!("{name} {text:?}")),
            }
        }
    }
    (filter, wrong)
}

/// A time as inputs send it (`2026-01-31T12:00`), in UTC, or RFC 3339.
fn time(text: &str) -> Option<UnixMillis> {
    let zoned = text.parse::<jiff::Timestamp>();
    let time = zoned
        .or_else(|_| format!("{text}Z").parse())
        .or_else(|_| format!("{text}:00Z").parse());
    time.ok().map(|time| UnixMillis(time.as_millisecond()))
}

/// A place in the list, if the address names one that is.
fn cursor(query: &Query, name: &str) -> Option<Cursor> {
    query.get(name)?.parse().ok()
}

/// `/messages`
pub(in crate::dashboard) async fn view(
    dashboard: &Dashboard,
    query: &Query,
    now: UnixMillis,
) -> View {
    let (filter, wrong) = filter(query, now);
    let request = PageRequest {
        after: cursor(query, "after"),
        before: cursor(query, "before"),
        size: PAGE,
    };
    let is_first = request.after.is_none() && request.before.is_none();
    let page = if filter.retrying && filter.status.iter().any(|s| *s != Status::Queued) {
        union(dashboard, &filter, &request).await
    } else {
        dashboard
            .ask(|journal| journal.list(&filter, &request))
            .await
    };
    let count = match is_first {
        true => {
            dashboard
                .ask(|journal| journal.count(&filter, COUNTED))
                .await
        }
        false => Ok(None),
    };
    let count = count.unwrap_or(None);
    let body = html! {
        div.bar {
            h1 { "Messages" }
            @if is_first { span.hint data-live="untried" { (untried(dashboard, &filter)) } }
            span.hint data-live="total" { (total(count)) "newest first, " (PAGE) " a page" }
        }
        (chips(query))
        (add_filter(dashboard, query))
        @if !wrong.is_empty() { p.trouble { "Not understood and left out: " (words::text(&wrong.join(", "))) } }
        @if is_first { (newer_bar(query, page.as_ref().ok())) }
        div data-live=[is_first.then_some("rows")] data-calm[is_first] {
            (region("the journal", &page, now, |page| html! {
                (table(dashboard, query, page, now))
                (pages(query, page, now))
            }))
        }
    };
    View::new(
        Nav::Messages,
        "Messages",
        if is_first { 2000 } else { 0 },
        body,
    )
}

/// "Or" over statuses one of which is "retrying": two lists, merged.
async fn union(
    dashboard: &Dashboard,
    filter: &Filter,
    request: &PageRequest,
) -> Result<Page<Message>, String> {
    let retrying = Filter {
        status: vec![Status::Queued],
        ..filter.clone()
    };
    let others = Filter {
        retrying: false,
        ..filter.clone()
    };
    let one = dashboard
        .ask(|journal| journal.list(&retrying, request))
        .await?;
    let other = dashboard
        .ask(|journal| journal.list(&others, request))
        .await?;
    let forward = request.before.is_none();
    let has_more = |page: &Page<Message>| {
        if forward {
            page.after.is_some()
        } else {
            page.before.is_some()
        }
    };
    let more = has_more(&one) || has_more(&other);
    let searched_to = one.searched_to.max(other.searched_to);
    let mut items = one.items;
    items.extend(other.items);
    items.sort_by(|a, b| (b.accepted, &b.id).cmp(&(a.accepted, &a.id)));
    items.dedup_by(|a, b| a.id == b.id);
    let more = more || items.len() > request.size;
    if forward {
        items.truncate(request.size);
    } else {
        items.drain(..items.len().saturating_sub(request.size));
    }
    Ok(Page {
        after: items.last().map(place).filter(|_| more || !forward),
        before: items
            .first()
            .map(place)
            .filter(|_| request.after.is_some() || (!forward && more)),
        items,
        searched_to,
    })
}

fn place(message: &Message) -> Cursor {
    Cursor {
        accepted: message.accepted,
        id: message.id.clone(),
    }
}

/// The filters in force; each is a link that takes it away.
fn chips(query: &Query) -> Markup {
    let set: Vec<_> = query
        .pairs()
        .filter_map(|(name, value)| {
            let (_, word) = FILTERS.iter().find(|(known, _)| *known == name)?;
            Some((name, *word, value))
        })
        .collect();
    html! {
        @if !set.is_empty() {
            p.chips {
                @for (name, word, value) in &set {
                    @let rest = query.without(|n, v| (n == *name && v == *value) || n == "after" || n == "before");
                    a.chip href=(rest.at("/messages")) title="Remove this filter" {
                        (word) ": "
                        @if *name == "reason" { (words::text(&words::reason(value))) } @else { (words::id(value)) }
                        " ×"
                    }
                }
                " " a href="/messages" { "clear" }
            }
        }
    }
}

fn select(name: &str, label: &str, options: &[(String, String)]) -> Markup {
    html! {
        label { (label) " "
            select name=(name) {
                option value="" { "any" }
                @for (value, word) in options { option value=(value) { (word) } }
            }
        }
    }
}

fn add_filter(dashboard: &Dashboard, query: &Query) -> Markup {
    let pair = |value: &str, word: &str| (value.to_owned(), word.to_owned());
    let mut statuses: Vec<_> = Status::ALL
        .iter()
        .map(|status| pair(status.name(), &status.name().replace('_', " ")))
        .collect();
    statuses.insert(1, pair("retrying", "queued for a retry"));
    let snapshot = dashboard.parts.snapshots.borrow().clone();
    let named = |name: &ResourceName| pair(&name.to_string(), &name.to_string());
    let subscriptions: Vec<_> = snapshot.subscriptions.keys().map(named).collect();
    let channels: Vec<_> = snapshot.channels.keys().map(named).collect();
    let spans: Vec<_> = SPANS.iter().map(|(name, _)| pair(name, name)).collect();
    let kept = query.without(|name, _| name == "after" || name == "before");
    html! {
        details.filters data-key="filters" {
            summary { "+ filter" }
            form method="get" action="/messages" {
                @for (name, value) in kept.pairs() { input type="hidden" name=(name) value=(value); }
                (select("status", "Status", &statuses))
                (select("subscription", "Subscription", &subscriptions))
                (select("channel", "Channel", &channels))
                label { "Reason " input name="reason" placeholder="http_503" spellcheck="false"; }
                label { "Type " input name="event_type" spellcheck="false"; }
                label { "Source " input name="event_source" spellcheck="false"; }
                label { "Event id " input name="event_id" spellcheck="false"; }
                (select("last", "Last", &spans))
                label { "From (UTC) " input type="datetime-local" name="from" step="1"; }
                label { "To (UTC) " input type="datetime-local" name="to" step="1"; }
                button { "Apply" }
                p.hint { "Values are compared exactly; ids and data are not searched for parts. The same filter twice means “or”." }
            }
        }
    }
}

/// How many there are, where that is known.
fn total(count: Option<usize>) -> String {
    match count {
        Some(count) if count >= COUNTED => format!("{}+ · ", words::grouped(COUNTED as u64)),
        Some(count) => format!("about {} · ", words::grouped(count as u64)),
        None => String::new(),
    }
}

/// What is not in the list yet.
fn untried(dashboard: &Dashboard, filter: &Filter) -> Markup {
    let asked =
        filter.status.is_empty() && !filter.retrying || filter.status.contains(&Status::Queued);
    let report = dashboard.parts.watch.report();
    let count = report.untried(&filter.subscription, &filter.channel);
    html! {
            @if let (true, true, Some(count @ 1..)) = (asked, filter.reason.is_empty(), count) {
    (words::icon("ring", "slate")) " " (words::counted(count, "event")) " " @if count == 1 { "waits" } @else { "wait" } " for the first attempt"
            }
        }
}

/// Where the script puts the count of newer messages.
fn newer_bar(query: &Query, page: Option<&Page<Message>>) -> Markup {
    let newest = page.and_then(|page| page.items.first());
    html! {
        @if let Some(newest) = newest {
            @let than = place(newest).to_string();
            @let source = query.without(|_, _| false).with("than", &than).at("/messages/newer");
            div.newer data-live="newer" data-src=(source) {}
        }
    }
}

/// `/messages/newer`: how many there are.
pub(in crate::dashboard) async fn newer(
    dashboard: &Dashboard,
    query: &Query,
    now: UnixMillis,
) -> Markup {
    let (filter, _) = filter(query, now);
    let rest = query.without(|name, _| matches!(name, "than" | "after" | "before"));
    let count = match cursor(query, "than") {
        Some(than) => dashboard
            .ask(|journal| journal.count_newer(&filter, &than, NEWER))
            .await
            .unwrap_or(0),
        None => 0,
    };
    html! {
        div.newer data-live="newer" {
            @if count > 0 {
                a href=(rest.at("/messages")) data-newer=(count) {
                    "▲ " (words::grouped(count as u64)) @if count >= NEWER { "+" } " newer (press n)"
                }
            }
        }
    }
}

fn table(dashboard: &Dashboard, query: &Query, page: &Page<Message>, now: UnixMillis) -> Markup {
    if page.items.is_empty() {
        return nothing(dashboard, query, page);
    }
    rows(&page.items, "Messages, newest first", now)
}

/// A table of messages.
pub(in crate::dashboard) fn rows(messages: &[Message], caption: &str, now: UnixMillis) -> Markup {
    html! {
        table.cards.msgs {
            caption.quiet { (caption) }
            thead {
                tr {
                    th scope="col" { "Accepted (" span data-zone { "UTC" } ")" } th scope="col" { "Status" } th scope="col" { "Event id" }
                    th scope="col" { "Type" } th scope="col" { "Subscription" } th.n scope="col" { "Tries" }
                }
            }
            tbody {
                @for message in messages {
                    tr data-row {
                        td { (words::time(message.accepted, now)) " " (words::ago(message.accepted, now)) }
                        td {
                            (words::status(message, Some(now)))
                            @if let Some(reason) = &message.last_reason { span.sub { " · " (words::text(&words::reason(reason))) } }
                        }
                        th scope="row" { a href={ "/messages/" (message.id) } data-open { (words::id(&message.event.id)) } }
                        td data-l="Type" { (words::id(&message.event.r#type)) }
                        td data-l="Subscription" { a href=(path(&message.subscription)) { (message.subscription) } }
                        td.n data-l="Tries" { (message.attempts) }
                    }
                }
            }
        }
    }
}

fn nothing(dashboard: &Dashboard, query: &Query, page: &Page<Message>) -> Markup {
    let filtered = query.pairs().next().is_some();
    let snapshot = dashboard.parts.snapshots.borrow().clone();
    let channel = snapshot.channels.keys().next().map(ToString::to_string);
    let wider = |last: &str| {
        query
            .without(|name, _| matches!(name, "last" | "from" | "to" | "after" | "before"))
            .with("last", last)
    };
    html! {
        div.empty {
            @if filtered {
                p {
                    @if page.searched_to.is_some() { "Nothing found so far." }
                    @else if let Some(last) = query.get("last") { "No message fits these filters in " (words::text(last)) "." }
                    @else { "No message fits these filters." }
                    @if query.get("last").is_some() || query.get("from").is_some() { " Look back " a href=(wider("7d").at("/messages")) { "7 d" } " · " a href=(wider("30d").at("/messages")) { "30 d" } }
                    " · " a href="/messages" { "clear filters" }
                }
            } @else {
                p { "No messages yet. A message appears here with its first attempt. Send one:" }
                pre.cmd { "levada send --channel " (channel.as_deref().unwrap_or("default/orders")) " --data '{\"total\": 7}'" }
            }
        }
    }
}

fn pages(query: &Query, page: &Page<Message>, now: UnixMillis) -> Markup {
    let base = query.without(|name, _| name == "after" || name == "before");
    let to =
        |name: &str, cursor: &Cursor| base.clone().with(name, &cursor.to_string()).at("/messages");
    html! {
        @if let Some(searched) = page.searched_to {
            p.hint {
                "Searched back to " (words::time(searched, now)) "; "
                @if page.items.is_empty() { "nothing matches yet. " } @else { "nothing older matches yet. " }
                @if let Some(after) = &page.after { a href=(to("after", after)) { "Search further back" } }
            }
        }
        nav.pages aria-label="Pages" {
            @match &page.before {
                Some(before) => { a href=(to("before", before)) rel="prev" { "‹ newer" } }
                None => span { "‹ newer" },
            }
            @match &page.after {
                Some(after) => a href=(to("after", after)) rel="next" { "older ›" },
                None => span { "older ›" },
            }
        }
    }
}

/// How long one of [`SPANS`] lasts.
pub(in crate::dashboard) fn span(name: &str) -> Option<Duration> {
    let found = SPANS.iter().find(|(known, _)| *known == name);
    found.map(|(_, seconds)| Duration::from_secs(*seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_filters() {
        let now = UnixMillis(86_400_000);
        let query = Query::parse(
            "status=undelivered&status=retrying&subscription=prod/billing&last=1h&to=1970-01-01T10:00&reason=http_503",
        );
        let (filter, wrong) = filter(&query, now);
        assert!(wrong.is_empty(), "{wrong:?}");
        assert_eq!(filter.status, [Status::Undelivered]);
        assert!(filter.retrying);
        assert_eq!(filter.from, Some(UnixMillis(82_800_000)));
        assert_eq!(filter.to, Some(UnixMillis(36_000_000)));
        let (filter, wrong) =
            super::filter(&Query::parse("status=x&last=2h&from=y&subscription=A"), now);
        assert_eq!((filter, wrong.len()), (Filter::default(), 4));
    }

    #[test]
    fn totals_are_told_as_far_as_they_are_known() {
        assert_eq!(total(Some(2960)), "about 2,960 · ");
        assert_eq!(total(Some(COUNTED)), "10,000+ · ");
        assert_eq!(total(None), "");
    }
}
