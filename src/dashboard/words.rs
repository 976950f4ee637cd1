//! How values read: text that others wrote, times, durations, numbers, statuses.
//!
//! Everything that is not ours passes through [`text`]: what steers a terminal or turns the
//! direction of writing is shown as what it is.

use std::time::Duration;

use maud::{Markup, html};

use crate::clock::UnixMillis;
use crate::health::State;
use crate::journal::{FinalReason, Message, Status};

/// Longer ids are cut in the middle.
const ID_LENGTH: usize = 64;

/// Whether a character is shown as its number: it steers, hides or turns the text around it.
pub(super) fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Text that others wrote, on one line.
pub(super) fn text(text: &str) -> Markup {
    html! { bdi.v { (escaped(text, false)) } }
}

/// Text that others wrote, with its lines.
pub(super) fn lines(text: &str) -> Markup {
    html! { bdi { (escaped(text, true)) } }
}

fn escaped(text: &str, lines: bool) -> Markup {
    let kept = |c: char| lines && matches!(c, '\n' | '\t');
    let mut parts: Vec<(bool, String)> = Vec::new();
    for c in text.chars() {
        let odd = is_treacherous(c) && !kept(c);
        let piece = if odd {
            format!("\\u{:04x}", c as u32)
        } else {
            c.to_string()
        };
        match parts.last_mut() {
            Some((last, part)) if *last == odd => part.push_str(&piece),
            _ => parts.push((odd, piece)),
        }
    }
    html! {
        @for (odd, part) in &parts {
            @if *odd { span.esc { (part) } } @else { (part) }
        }
    }
}

/// What is copied of a value that is shown cut or with numbers in it, up to this size.
const COPIED: usize = 8 << 10;

/// An id with all of it beside, for copying.
pub(super) fn id_to_copy(id: &str) -> Markup {
    let is_changed = id.chars().count() > ID_LENGTH || id.chars().any(is_treacherous);
    html! {
        (self::id(id))
        @if is_changed && id.len() <= COPIED { bdi.full hidden { (id) } }
    }
}

/// An id, cut in the middle when it is long.
pub(super) fn id(id: &str) -> Markup {
    let chars: Vec<char> = id.chars().collect();
    if chars.len() <= ID_LENGTH {
        return text(id);
    }
    let half = ID_LENGTH / 2 - 1;
    let cut: String = chars[..half].iter().chain(['…'].iter()).collect();
    let end: String = chars[chars.len() - half..].iter().collect();
    html! { span.cut { (text(&format!("{cut}{end}"))) } }
}

/// `14:16:01`, with the date when that is not today's.
pub(super) fn time(at: UnixMillis, now: UnixMillis) -> Markup {
    stamp(at, now, false)
}

/// `14:16:01.112`
pub(super) fn time_ms(at: UnixMillis, now: UnixMillis) -> Markup {
    stamp(at, now, true)
}

fn stamp(at: UnixMillis, now: UnixMillis, millis: bool) -> Markup {
    let iso = at.rfc3339();
    html! {
        time datetime=(iso) title=(iso) data-t=(at.0) data-ms[millis] { (clock(at, now, millis)) }
    }
}

/// The same without markup.
pub(super) fn clock(at: UnixMillis, now: UnixMillis, millis: bool) -> String {
    let (Ok(time), Ok(today)) = (
        jiff::Timestamp::from_millisecond(at.0),
        jiff::Timestamp::from_millisecond(now.0),
    ) else {
        return "–".into();
    };
    let day = |time: jiff::Timestamp| time.strftime("%Y-%m-%d").to_string();
    let date = if day(time) == day(today) {
        ""
    } else {
        "%-d %b "
    };
    let millis = if millis { ".%3f" } else { "" };
    time.strftime(&format!("{date}%H:%M:%S{millis}"))
        .to_string()
}

/// `2 s ago`; the script keeps it true.
pub(super) fn ago(at: UnixMillis, now: UnixMillis) -> Markup {
    html! { span.ago data-ago=(at.0) data-tick { (spoken(now.since(at))) " ago" } }
}

/// `in 5 s`, or `due now`; the script counts down.
pub(super) fn due(at: UnixMillis, now: UnixMillis) -> Markup {
    html! { span.due data-due=(at.0) data-tick { (countdown(at, now)) } }
}

/// Until `at`, never negative.
pub(super) fn countdown(at: UnixMillis, now: UnixMillis) -> String {
    if at <= now {
        "due now".into()
    } else {
        // What is left of a second counts as one, so that 0 means now.
        let left = at.since(now) + Duration::from_millis(999);
        format!("in {}", spoken(left))
    }
}

/// Whole units: `2 s`, `14 min`, `3 h`, `6 d`.
pub(super) fn spoken(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// How long something took: `0.4 ms`, `41 ms`, `5.9 s`, `4 min 10 s`, `2 h 5 min`.
pub(super) fn lasting(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    match time.as_secs() {
        0 if millis < 10.0 => format!("{millis:.1} ms"),
        0 => format!("{millis:.0} ms"),
        1..60 => format!("{:.1} s", (time.as_millis() / 100) as f64 / 10.0),
        seconds @ 60..3600 => pair(seconds / 60, "min", seconds % 60, "s"),
        seconds @ 3600..172_800 => pair(seconds / 3600, "h", seconds / 60 % 60, "min"),
        seconds => pair(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

fn pair(big: u64, unit: &str, small: u64, part: &str) -> String {
    if small == 0 {
        format!("{big} {unit}")
    } else {
        format!("{big} {unit} {small} {part}")
    }
}

/// `99,999`, then `1.23 M` with the exact number in the tooltip.
pub(super) fn number(number: u64) -> Markup {
    let exact = grouped(number);
    if number <= 99_999 {
        return html! { (exact) };
    }
    let (unit, size) = match number {
        0..1_000_000 => ("k", 1e3),
        1_000_000..1_000_000_000 => ("M", 1e6),
        _ => ("G", 1e9),
    };
    html! { span title=(exact) { (three(as_float(number) / size)) " " (unit) } }
}

fn as_float(number: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
    let float = number as f64;
    float
}

/// `8,211`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits, rounded down.
fn three(value: f64) -> String {
    let decimals = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    let scale = 10_f64.powi(decimals);
    let down = (value * scale).floor() / scale;
    format!("{down:.*}", usize::try_from(decimals).unwrap_or(0))
}

/// `212/s`
pub(super) fn rate(rate: f64) -> String {
    match rate {
        rate if rate <= 0.0 => "0/s".into(),
        rate if rate < 0.01 => "< 0.01/s".into(),
        rate if rate >= 1000.0 => format!("{}/s", grouped(floor(rate))),
        rate => {
            let text = three(rate);
            let short = if text.contains('.') {
                text.trim_end_matches('0')
            } else {
                &text
            };
            format!("{}/s", short.trim_end_matches('.'))
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates at the ends"
)]
fn floor(value: f64) -> u64 {
    value as u64
}

/// The share in per cent, rounded down, so that 100 % has no exception; `–` of nothing.
pub(super) fn percent(part: u64, all: u64) -> String {
    if all == 0 {
        return "–".into();
    }
    let hundredths = u128::from(part) * 10_000 / u128::from(all);
    match hundredths {
        0 if part > 0 => "< 0.01 %".into(),
        10_000 => "100 %".into(),
        small if small.is_multiple_of(100) => format!("{} %", small / 100),
        some if some < 9_000 => format!("{}.{} %", some / 100, some / 10 % 10),
        many => format!("{}.{:02} %", many / 100, many % 100),
    }
}

/// `1 message`, `3 messages`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// The icon of a status: a name in the sheet of symbols, and a class for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) icon: &'static str,
    pub(super) tone: &'static str,
    pub(super) word: &'static str,
}

/// How a message's status looks.
pub(super) fn look(status: Status, is_final: bool, attempts: u32) -> Look {
    let (icon, tone, word) = match (status, is_final) {
        (Status::Queued, _) if attempts > 0 => ("retry", "amber", "Queued"),
        (Status::Queued, _) => ("ring", "slate", "Queued"),
        (Status::Sent, _) => ("wing", "blue", "Sent"),
        (Status::Delivered, _) => ("tick", "green", "Delivered"),
        (Status::Undelivered, false) => ("hatch", "amber", "Undelivered"),
        (Status::Undelivered, true) => ("cross", "red", "Undelivered"),
        (Status::Bounced, _) => ("hook", "red", "Bounced"),
        (Status::NotSent, _) => ("barred", "slate", "Not sent"),
    };
    Look { icon, tone, word }
}

/// What is said behind the status' word; the time of the next attempt is not in it.
pub(super) fn status_detail(message: &Message) -> String {
    let retries = message.max_attempts.saturating_sub(1);
    match message.status {
        Status::Queued if message.attempts > 0 => {
            format!("retry {}/{}", message.attempts.min(retries.max(1)), retries)
        }
        Status::Undelivered if !message.is_final => "retry follows".into(),
        Status::Undelivered => match message.failure {
            Some(FinalReason::RetriesExhausted) | None => "retries exhausted".into(),
            Some(FinalReason::FatalError) => "fatal error".into(),
            Some(FinalReason::Dropped) => "dropped".into(),
            Some(FinalReason::Expired) => "expired".into(),
        },
        Status::Sent if message.is_final => "no final status from provider".into(),
        Status::Sent => "waiting for the provider's word".into(),
        Status::Queued | Status::Delivered | Status::Bounced | Status::NotSent => String::new(),
    }
}

/// An icon of the sheet; the word beside it says the same.
pub(super) fn icon(name: &str, tone: &str) -> Markup {
    html! {
        svg class={ "i " (tone) } width="14" height="14" viewBox="0 0 16 16" aria-hidden="true" {
            use href={ "#i-" (name) } {}
        }
    }
}

/// Icon and word of a message's status, with what follows when `now` is given.
pub(super) fn status(message: &Message, now: Option<UnixMillis>) -> Markup {
    let look = look(message.status, message.is_final, message.attempts);
    let detail = status_detail(message);
    html! {
        span class={ "st " (look.tone) } {
            (icon(look.icon, look.tone)) " " (look.word)
            @if !detail.is_empty() {
                @if message.is_final { ": " } @else { ", " }
                (detail)
            }
            @if let (Some(now), Some(at), false) = (now, message.next_attempt, message.is_final) {
                " " (due(at, now))
            }
        }
    }
}

/// Icon and word of a subscription's state.
pub(super) fn state(state: State) -> Markup {
    let (icon_name, tone) = match state {
        State::NotReady => ("barred", "red"),
        State::Failing => ("cross", "red"),
        State::Degraded | State::Slow => ("bang", "amber"),
        State::Unknown => ("question", "slate"),
        State::Healthy => ("tick", "green"),
        State::Idle => ("dash", "slate"),
    };
    html! { span class={ "st " (tone) } { (icon(icon_name, tone)) " " (state.word()) } }
}

/// A reason of the closed list, for people.
pub(super) fn reason(reason: &str) -> String {
    let words = match reason {
        "connect_refused" => "connection refused",
        "connect_timeout" => "no connection in time",
        "attempt_timeout" => "no answer in time",
        "connection_reset" => "connection reset",
        "dns" => "name not resolved",
        "tls" => "TLS failed",
        "invalid_response" => "answer is not HTTP",
        "body_too_large" => "answer too large",
        "address_blocked" => "address blocked",
        "interrupted" => "interrupted by a restart",
        "pipeline_error" => "error of the broker",
        "invalid_event" => "record is no event",
        "" => "unknown",
        other => {
            return other
                .strip_prefix("http_")
                .map_or_else(|| other.to_owned(), |code| format!("HTTP {code}"));
        }
    };
    words.into()
}

#[cfg(test)]
mod tests;
