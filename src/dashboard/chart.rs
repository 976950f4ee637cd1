//! Charts as SVG, drawn here: no script, and text that can be read aloud and tested.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::words;
use crate::clock::UnixMillis;
use crate::dispatch::DueCounts;
use crate::health::MinuteCounts;
use crate::journal::{Bucket, Gap};

const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 110.0;

#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
fn float(number: u64) -> f64 {
    number as f64
}

/// Adds a bar to a path.
fn bar(path: &mut String, x: f64, width: f64, bottom: f64, height: f64) {
    if height > 0.0 {
        // Writing to a string does not fail.
        let _ = write!(
            path,
            "M{x:.1} {bottom:.1}v-{height:.1}h{width:.1}v{height:.1}z"
        );
    }
}

/// Attempts a minute, the failed part on top; what a row of the Overview shows.
pub(super) fn sparkline(minutes: &[MinuteCounts]) -> Markup {
    let most = minutes.iter().map(|m| m.ok + m.failed).max().unwrap_or(0);
    let attempts: u64 = minutes.iter().map(|m| m.ok + m.failed).sum();
    let failed: u64 = minutes.iter().map(|m| m.failed).sum();
    let (mut good, mut bad) = (String::new(), String::new());
    for (index, minute) in (0_u64..).zip(minutes) {
        let scale = 20.0 / float(most.max(1));
        let x = float(index) * 2.0;
        let visible = |count: u64| {
            if count > 0 {
                (float(count) * scale).max(1.0)
            } else {
                0.0
            }
        };
        let below = visible(minute.ok);
        bar(&mut good, x, 1.6, 22.0, below);
        bar(
            &mut bad,
            x,
            1.6,
            22.0 - below.min(20.0),
            visible(minute.failed),
        );
    }
    let said = format!(
        "{} of {} attempts failed in the last 60 minutes",
        words::grouped(failed),
        words::grouped(attempts)
    );
    html! {
        svg.spark width="120" height="22" viewBox="0 0 120 22" role="img" {
            title { (said) }
            @if attempts == 0 { path.base d="M0 21.5h120" {} }
            path.c-ok d=(good) {}
            path.c-perm d=(bad) {}
        }
    }
}

/// How many of those that wait are due when, in bars.
pub(super) fn due(counts: DueCounts) -> Markup {
    let all: u64 = counts.0.iter().sum();
    let most = counts.0.iter().max().copied().unwrap_or(0).max(1);
    let within = DueCounts::WITHIN.iter().enumerate();
    let mut names: Vec<_> = within
        .map(|(index, within)| match index {
            0 => "now".to_owned(),
            _ => format!("in {}", words::spoken(*within)),
        })
        .collect();
    names.push("later".into());
    html! {
        @if all > 0 {
            p.hint { (words::counted(all, "message")) " " @if all == 1 { "waits" } @else { "wait" } " for the next attempt or check, due:" }
            table.due-bars {
                caption.quiet { "Messages that wait, by when they are due" }
                tbody {
                    @for (name, count) in names.iter().zip(counts.0) {
                        tr {
                            th scope="row" { (name) }
                            td { svg.waits height="10" width=(format!("{:.0}", float(count) / float(most) * 240.0)) aria-hidden="true" { rect.c-retry width="100%" height="10" rx="2" {} } " " (words::number(count)) }
                        }
                    }
                }
            }
        }
    }
}

/// What a chart covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) from: UnixMillis,
    pub(super) to: UnixMillis,
    pub(super) step_minutes: u32,
}

impl Axis {
    fn x(&self, at: UnixMillis) -> f64 {
        let length = self.to.since(self.from).as_secs_f64().max(1.0);
        at.since(self.from).as_secs_f64().min(length) / length * WIDTH
    }
}

/// Attempts by outcome, in bars.
pub(super) fn attempts(buckets: &[Bucket], axis: Axis, gaps: &[Gap], now: UnixMillis) -> Markup {
    let total = |bucket: &Bucket| bucket.ok + bucket.retryable + bucket.permanent;
    let most = buckets.iter().map(total).max().unwrap_or(0);
    let all: u64 = buckets.iter().map(total).sum();
    let failed: u64 = buckets.iter().map(|b| b.retryable + b.permanent).sum();
    let width = WIDTH / float(buckets.len().max(1) as u64);
    let scale = (HEIGHT - 10.0) / float(most.max(1));
    let mut paths = [String::new(), String::new(), String::new()];
    for bucket in buckets {
        let mut bottom = HEIGHT;
        for (path, count) in paths
            .iter_mut()
            .zip([bucket.ok, bucket.retryable, bucket.permanent])
        {
            let height = float(count) * scale;
            bar(
                path,
                axis.x(bucket.start),
                (width * 0.85).max(0.8),
                bottom,
                height,
            );
            bottom -= height;
        }
    }
    let [ok, retryable, permanent] = paths;
    let each = span_words(axis.step_minutes);
    let said = format!(
        "{} of {} attempts failed",
        words::grouped(failed),
        words::grouped(all)
    );
    html! {
        figure {
            figcaption {
                b { "Attempts" } " per " (each) ", up to " (words::grouped(most)) " "
                span.key { svg.k viewBox="0 0 10 10" aria-hidden="true" { rect.c-ok width="10" height="10" {} } " delivered" }
                span.key { svg.k viewBox="0 0 10 10" aria-hidden="true" { rect width="10" height="10" fill="url(#p-retry)" {} } " retryable" }
                span.key { svg.k viewBox="0 0 10 10" aria-hidden="true" { rect width="10" height="10" fill="url(#p-perm)" {} } " permanent" }
            }
            svg.chart viewBox="0 0 600 110" preserveAspectRatio="none" role="img" {
                title { (said) }
                (hatched(gaps, axis))
                path.base d="M0 109.5h600" {}
                path.c-ok d=(ok) {}
                path d=(retryable) fill="url(#p-retry)" {}
                path d=(permanent) fill="url(#p-perm)" {}
            }
            (ends(axis, now))
            (attempts_table(buckets, now))
        }
    }
}

/// Where the journal missed something.
fn hatched(gaps: &[Gap], axis: Axis) -> Markup {
    let band = |gap: &Gap| {
        let end = gap.to.unwrap_or(axis.to);
        (end >= axis.from && gap.from <= axis.to).then(|| (axis.x(gap.from), axis.x(end)))
    };
    html! {
        @for (from, to) in gaps.iter().filter_map(band) {
            rect x=(format!("{from:.1}")) y="0" width=(format!("{:.1}", (to - from).max(2.0))) height="110" fill="url(#p-gap)" {
                title { "The journal missed attempts here" }
            }
        }
    }
}

fn ends(axis: Axis, now: UnixMillis) -> Markup {
    html! {
        div.ends {
            span { (words::time(axis.from, now)) }
            span { (words::time(axis.to, now)) " " span data-zone { "UTC" } }
        }
    }
}

fn span_words(minutes: u32) -> String {
    match minutes {
        1 => "minute".into(),
        60 => "hour".into(),
        minutes if minutes.is_multiple_of(60) => format!("{} h", minutes / 60),
        minutes => format!("{minutes} min"),
    }
}

fn attempts_table(buckets: &[Bucket], now: UnixMillis) -> Markup {
    let busy = |bucket: &&Bucket| bucket.ok + bucket.retryable + bucket.permanent > 0;
    html! {
        details data-key="attempts-table" {
            summary { "as table" }
            div.scroll {
                table {
                    thead { tr { th scope="col" { "From" } th.n scope="col" { "delivered" } th.n scope="col" { "retryable" } th.n scope="col" { "permanent" } } }
                    tbody {
                        @for bucket in buckets.iter().rev().filter(busy).take(120) {
                            tr {
                                td { (words::time(bucket.start, now)) }
                                td.n { (words::grouped(bucket.ok)) }
                                td.n { (words::grouped(bucket.retryable)) }
                                td.n { (words::grouped(bucket.permanent)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A quantile of a bucket, in milliseconds.
type Quantile = fn(&Bucket) -> Option<f64>;

/// Quantiles of the attempts' durations on a logarithmic scale.
pub(super) fn latency(buckets: &[Bucket], axis: Axis, now: UnixMillis) -> Markup {
    let series: [(&str, &str, Quantile); 3] = [
        ("p50", "l-50", |bucket| bucket.p50_ms),
        ("p95", "l-95", |bucket| bucket.p95_ms),
        ("p99", "l-99", |bucket| bucket.p99_ms),
    ];
    let values = || {
        buckets
            .iter()
            .flat_map(|b| [b.p50_ms, b.p95_ms, b.p99_ms])
            .flatten()
    };
    let low = values().fold(f64::INFINITY, f64::min).max(0.1);
    let high = values().fold(0.0, f64::max).max(low * 10.0);
    let last = |of: Quantile| buckets.iter().rev().find_map(of);
    let shown = |value: Option<f64>| value.map_or("–".into(), millis);
    let said = format!(
        "The slowest 5 % took {} or longer at the end",
        shown(last(|b| b.p95_ms))
    );
    html! {
        figure {
            figcaption {
                b { "Duration" } " of attempts, log scale "
                @for (name, class, of) in series {
                    span.key { svg.k viewBox="0 0 10 10" aria-hidden="true" { path class={ "line " (class) } d="M0 5h10" {} } " " (name) " " (shown(last(of))) }
                }
            }
            svg.chart viewBox="0 0 600 110" preserveAspectRatio="none" role="img" {
                title { (said) }
                path.base d="M0 109.5h600" {}
                @for (_, class, of) in series { path class={ "line " (class) } d=(line(buckets, axis, of, low, high)) {} }
            }
            (ends(axis, now))
        }
    }
}

fn millis(value: f64) -> String {
    words::lasting(std::time::Duration::from_secs_f64(
        (value / 1e3).clamp(0.0, 1e9),
    ))
}

fn line(buckets: &[Bucket], axis: Axis, of: Quantile, low: f64, high: f64) -> String {
    let half = WIDTH / float(buckets.len().max(1) as u64) / 2.0;
    let mut path = String::new();
    let mut joined = false;
    for bucket in buckets {
        let Some(value) = of(bucket) else {
            joined = false;
            continue;
        };
        let share = (value.max(low) / low).ln() / (high / low).ln();
        let (x, y) = (
            axis.x(bucket.start) + half,
            (HEIGHT - 5.0) - share * (HEIGHT - 10.0),
        );
        // A point alone is a short stroke, so that it is seen.
        let step = if joined {
            format!("L{x:.1} {y:.1}")
        } else {
            format!("M{x:.1} {y:.1}h1")
        };
        path.push_str(&step);
        joined = true;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(minute: i64, ok: u64, retryable: u64) -> Bucket {
        Bucket {
            start: UnixMillis(minute * 60_000),
            ok,
            retryable,
            p95_ms: Some(12.0),
            ..Bucket::default()
        }
    }

    #[test]
    fn charts_say_in_words_what_they_show() {
        let axis = Axis {
            from: UnixMillis(0),
            to: UnixMillis(120_000),
            step_minutes: 1,
        };
        let buckets = [bucket(0, 10, 0), bucket(1, 2, 3)];
        let gap = Gap {
            from: UnixMillis(60_000),
            to: None,
            changes: 5,
        };
        let svg = attempts(&buckets, axis, &[gap], UnixMillis(120_000)).into_string();
        assert!(
            svg.contains("<title>3 of 15 attempts failed</title>"),
            "{svg}"
        );
        assert!(svg.contains("The journal missed attempts here"));
        assert!(!svg.contains("style="));
        let svg = latency(&buckets, axis, UnixMillis(120_000)).into_string();
        assert!(svg.contains("p95 12 ms"), "{svg}");
        assert!(svg.contains("<path class=\"line l-95\" d=\"M"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        let svg = latency(&[], axis, UnixMillis(120_000)).into_string();
        assert!(svg.contains("p95 –") && !svg.contains("NaN"));
    }

    #[test]
    fn what_waits_is_drawn_by_when_it_is_due() {
        assert_eq!(due(DueCounts::default()).into_string(), "");
        let svg = due(DueCounts([1, 0, 4, 0, 0, 2])).into_string();
        for part in [
            "7 messages wait",
            ">now<",
            "in 10 s",
            "in 30 min",
            "later",
            "width=\"240\"",
        ] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
    }

    #[test]
    fn a_sparkline_shows_single_failures() {
        let mut minutes = vec![
            MinuteCounts {
                ok: 1000,
                failed: 0
            };
            60
        ];
        minutes[59].failed = 1;
        let svg = sparkline(&minutes).into_string();
        assert!(svg.contains("1 of 60,001 attempts failed"));
        assert!(
            svg.contains("class=\"c-perm\" d=\"M118.0 2.0v-1.0"),
            "{svg}"
        );
    }
}
