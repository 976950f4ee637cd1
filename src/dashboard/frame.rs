//! What stands around every view.

use maud::{DOCTYPE, Markup, html};

use super::{Dashboard, assets, words};
use crate::clock::UnixMillis;

/// Which entry of the navigation a view belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nav {
    Overview,
    Messages,
    DeadLetters,
    None,
}

/// A view before it is framed.
#[derive(Debug)]
pub(super) struct View {
    pub(super) status: http::StatusCode,
    /// The state first, so that a tab tells it.
    pub(super) title: String,
    pub(super) nav: Nav,
    /// How often the script asks again, in milliseconds; 0: never.
    pub(super) every: u32,
    pub(super) body: Markup,
}

impl View {
    pub(super) fn new(nav: Nav, title: impl Into<String>, every: u32, body: Markup) -> Self {
        Self {
            status: http::StatusCode::OK,
            title: title.into(),
            nav,
            every,
            body,
        }
    }
}

/// The whole page.
pub(super) fn page(dashboard: &Dashboard, view: &View, now: UnixMillis) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(view, true))
            body data-every=(view.every) {
                (symbols())
                a.skip href="#main" { "Skip to content" }
                (header(dashboard, view.nav))
                div #offline role="alert" hidden {}
                main #main tabindex="-1" { (view.body) }
                (footer(dashboard, now))
                p #said.quiet role="status" aria-live="polite" {}
                (help())
            }
        }
    }
}

fn head(view: &View, script: bool) -> Markup {
    html! {
        head {
        meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (plain(&view.title)) " - Levada" }
            link rel="stylesheet" href=(assets::STYLE.path());
            link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M2 4q6 0 6 4t6 4' fill='none' stroke='%231D4ED8' stroke-width='3'/%3E%3C/svg%3E";
            @if script { script src=(assets::SCRIPT.path()) defer {} }
        }
    }
}

/// A page that tells nothing of what stands behind it.
pub(super) fn bare(view: &View) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(view, false))
            body { main #main { p.brand { "Levada" } (view.body) } }
        }
    }
}

/// A title is text of the browser's own: what steers text is left out of it.
fn plain(title: &str) -> String {
    let kept = title.chars().map(|c| if c.is_control() { ' ' } else { c });
    let harmless = |c: &char| !matches!(*c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    kept.filter(harmless).take(120).collect()
}

fn header(dashboard: &Dashboard, current: Nav) -> Markup {
    let (open, more) = dashboard.background.open();
    let link = |nav: Nav, address: &str, word: &str| {
        html! { a href=(address) aria-current=[(nav == current).then_some("page")] { (word) } }
    };
    html! {
        header.top {
            a.brand href="/" { "Levada" }
            nav aria-label="Views" {
                (link(Nav::Overview, "/", "Overview"))
                (link(Nav::Messages, "/messages", "Messages"))
                a href="/dead-letters" aria-current=[(current == Nav::DeadLetters).then_some("page")] {
                    "Dead letters"
                    span data-live="open-letters" {
                        @if open > 0 { " " span.count { (words::number(open)) @if more { "+" } } }
                    }
                }
            }
            form.search action="/messages" method="get" role="search" {
                label.quiet for="q" { "Event id" }
                input #q type="search" name="event_id" placeholder="event id" autocomplete="off" spellcheck="false" aria-keyshortcuts="/";
                button { "Find" }
            }
            span.switches {
                button #zone.js type="button" aria-pressed="false" title="Show times in UTC or in the browser's zone" { "UTC" }
                button #live.js type="button" aria-pressed="true" title="Stop or go on with live updates" { "Live" }
            }
        }
    }
}

fn footer(dashboard: &Dashboard, now: UnixMillis) -> Markup {
    let heard = dashboard.background.heard();
    html! {
        footer {
            "Data as of " span #as-of data-tick data-now=(now.0) { (words::clock(now, now, false)) }
            " " span data-zone { "UTC" } " · node " (words::id(&dashboard.parts.node))
            span data-live="reach" {
                " · "
                @match (&heard.error, heard.reach.as_ref().and_then(|reach| reach.oldest)) {
                    (Some(error), _) => { "journal: " (words::text(error)) }
                    (None, Some(oldest)) => { "journal reaches back to " (words::time(oldest, now)) }
                    (None, None) => { "journal is empty" }
                }
            }
            " · v" (env!("CARGO_PKG_VERSION"))
            span #skew hidden {}
            button #keys.js type="button" aria-haspopup="dialog" { "Keys ?" }
        }
    }
}

fn help() -> Markup {
    let keys = [
        ("/", "search an event id"),
        ("g o, g m, g d", "Overview, Messages, Dead letters"),
        ("j, k", "next, previous row"),
        ("Enter", "open the row"),
        ("n", "show newer messages"),
        ("?", "this list"),
    ];
    html! {
        dialog #help aria-labelledby="help-title" {
            h2 #help-title { "Keys" }
            dl { @for (key, does) in keys { dt { kbd { (key) } } dd { (does) } } }
            form method="dialog" {
                label { input #letters type="checkbox" checked; " Single letters are keys" }
                button { "Close" }
            }
        }
    }
}

/// The icons, referred to by name.
fn symbols() -> Markup {
    let stroke = [
        ("ring", "M8 3a5 5 0 1 0 .01 0z"),
        ("retry", "M13 8a5 5 0 1 1-2-4M13 1v4H9"),
        ("wing", "M2 8l12-5-4 10-3-4z"),
        ("tick", "M3 8.5l3.5 3.5L13 4"),
        ("hatch", "M3 3h10v10H3zM3 8l5-5M3 13L13 3M8 13l5-5"),
        ("hook", "M4 3v5a4 4 0 0 0 8 0V5M9 8l3-3 3 3"),
        ("barred", "M8 2a6 6 0 1 0 .01 0zM4 12L12 4"),
        ("bang", "M8 2l6.5 12h-13zM8 6v4M8 12v.5"),
        ("question", "M5 6a3 3 0 1 1 4 2.6c-.8.4-1 1-1 1.900M8 13v.5"),
        ("dash", "M3 8h10"),
        ("copy", "M6 6h8v8H6zM3 10H2V2h8v1"),
        ("info", "M8 2a6 6 0 1 0 .01 0zM8 7.500v4M8 5v.5"),
    ];
    html! {
        svg.sheet width="0" height="0" aria-hidden="true" focusable="false" {
            @for (name, path) in stroke {
                symbol id={ "i-" (name) } viewBox="0 0 16 16" {
                    path d=(path) fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" {}
                }
            }
            symbol #i-cross viewBox="0 0 16 16" {
                circle cx="8" cy="8" r="7" fill="currentColor" {}
                path d="M5 5l6 6M11 5l-6 6" stroke="Canvas" stroke-width="2" {}
            }
            pattern #p-retry width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                rect.c-retry width="3" height="6" {}
                rect.c-retry width="6" height="6" opacity=".35" {}
            }
            pattern #p-perm width="6" height="6" patternUnits="userSpaceOnUse" {
                rect.c-perm width="6" height="6" opacity=".45" {}
                path.s-perm d="M0 0l6 6M6 0l-6 6" stroke-width="1.5" {}
            }
            pattern #p-gap width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                rect.c-gap width="3" height="8" {}
            }
        }
    }
}

/// Says in a region that it could not be read, and why; the others live on.
pub(super) fn trouble(what: &str, error: &str, now: UnixMillis) -> Markup {
    html! {
        p.trouble role="note" {
            (words::icon("bang", "amber")) " Could not read " (what) ": " (words::text(error))
            " (as of " (words::time(now, now)) ")"
        }
    }
}

/// Shows a region, or that it could not be read.
pub(super) fn region<T>(
    what: &str,
    answer: &Result<T, String>,
    now: UnixMillis,
    show: impl FnOnce(&T) -> Markup,
) -> Markup {
    match answer {
        Ok(value) => show(value),
        Err(error) => trouble(what, error, now),
    }
}
