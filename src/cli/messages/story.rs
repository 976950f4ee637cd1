//! One message for people: how it stands, then its attempts and waits, one a line.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::super::api::text;
use super::{plain, standing};
use crate::clock::UnixMillis;

/// The message with its attempts and waits, oldest first.
pub(super) fn told(message: &Value, events: &Value, logs: &Value) -> String {
    let mut out = String::new();
    let mut put = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "{:<14}{value}", format!("{name}:"));
        }
    };
    let of = |pointer: &str| plain(&text(message, pointer));
    put("Message", of("/id"));
    put("Status", status(message));
    put("Last reason", of("/last_reason"));
    put("Event", of("/event/id"));
    put("Type", of("/event/type"));
    put("Source", of("/event/source"));
    put("Subject", of("/event/subject"));
    put("Channel", of("/channel"));
    put("Subscription", of("/subscription"));
    let (partition, offset) = (of("/position/partition"), of("/position/offset"));
    put(
        "Position",
        format!(
            "{}, partition {partition}, offset {offset}",
            of("/position/topic")
        ),
    );
    out.push('\n');
    out.push_str(&timeline(message, logs));
    let changes: Vec<String> = list(events).iter().map(change).collect();
    if !changes.is_empty() {
        let _ = writeln!(out, "\nStatuses: {}", changes.join(" > "));
    }
    out
}

fn status(message: &Value) -> String {
    let mut status = standing(message);
    let made = message["attempts"].as_u64().unwrap_or(0);
    if message["final"] == false && message["status"] == "queued" && made > 0 {
        let next = text(message, "/next_attempt_at");
        let _ = write!(status, ", next attempt at {next}");
    }
    status
}

fn list(of: &Value) -> &[Value] {
    of.as_array().map_or(&[], Vec::as_slice)
}

fn change(event: &Value) -> String {
    let name = text(event, "/type");
    let (name, at) = (name.trim_start_matches("message."), clock(event));
    format!("{name} {at}")
}

/// A line for each attempt or check, and one for each wait between them.
fn timeline(message: &Value, logs: &Value) -> String {
    let accepted = text(message, "/inserted_at");
    let mut out = format!("{}  accepted\n", time_of_day(&accepted));
    let mut before = millis(&accepted);
    let mut round = 1;
    for log in list(logs) {
        let number = log["round"].as_u64().unwrap_or(1);
        if number > round {
            round = number;
            let _ = writeln!(out, "{:14}round {round}, {}", "", text(log, "/trigger"));
        }
        let begun = millis(&text(log, "/inserted_at"));
        if let (Some(before), Some(begun)) = (before, begun) {
            let waited = begun.since(before);
            if !waited.is_zero() {
                let _ = writeln!(out, "{:14}waited {}", "", span(waited));
            }
        }
        let took = log["duration_ms"].as_f64().unwrap_or(0.0) / 1000.0;
        let took = Duration::try_from_secs_f64(took).unwrap_or_default();
        let _ = writeln!(out, "{}  {}", clock(log), attempt(log, took));
        before = begun.map(|begun| begun.plus(took));
    }
    let next = text(message, "/next_attempt_at");
    if !next.is_empty() && message["final"] == false {
        let _ = writeln!(out, "{}  next attempt due", time_of_day(&next));
    }
    out
}

fn attempt(log: &Value, took: Duration) -> String {
    let what = match (&*text(log, "/kind"), &*text(log, "/phase")) {
        ("status_check", _) => "check",
        (_, "reply") => "reply attempt",
        (_, "dead-letter") => "dead-letter attempt",
        _ => "attempt",
    };
    let number = text(log, "/attempt");
    let came = match text(log, "/response/status") {
        code if code.is_empty() => match text(log, "/reason") {
            none if none.is_empty() => "ok".to_owned(),
            reason => reason,
        },
        code => code,
    };
    let (method, url) = (text(log, "/request/method"), text(log, "/request/url"));
    let mut line = format!(
        "{what} {number}  {came}  {}  {method} {}",
        span(took),
        plain(&url)
    );
    let said = text(log, "/error/message");
    if !said.is_empty() {
        let _ = write!(line, "  ({})", plain(&said));
    }
    line
}

fn clock(entry: &Value) -> String {
    time_of_day(&text(entry, "/inserted_at"))
}

/// `14:16:00.112` of a time as the API writes it, which is in UTC.
fn time_of_day(time: &str) -> String {
    let clock = time.split_once('T').map_or(time, |(_, clock)| clock);
    clock.trim_end_matches('Z').to_owned()
}

fn millis(time: &str) -> Option<UnixMillis> {
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(UnixMillis(time.as_millisecond()))
}

/// A span as people say it.
fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.01 {
        format!("{:.1} ms", seconds * 1000.0)
    } else if seconds < 1.0 {
        format!("{} ms", time.as_millis())
    } else if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_story_is_told_line_by_line() {
        let message = json!({
            "id": "m", "status": "queued", "final": false, "attempts": 1, "last_reason": "http_503",
            "inserted_at": "2026-01-31T14:16:00.112Z", "next_attempt_at": "2026-01-31T14:16:20.500Z",
            "channel": "a/c", "subscription": "a/b", "event": { "id": "e", "type": "t", "source": "/s" },
            "position": { "topic": "top", "partition": 3, "offset": 7 },
        });
        let events = json!([
            { "type": "message.queued", "inserted_at": "2026-01-31T14:16:00.112Z" },
            { "type": "message.undelivered", "inserted_at": "2026-01-31T14:16:06.100Z" },
        ]);
        let logs = json!([{
            "kind": "attempt", "phase": "subscriber", "round": 1, "attempt": 1, "reason": "http_503",
            "inserted_at": "2026-01-31T14:16:06.034Z", "duration_ms": 41.2,
            "request": { "method": "POST", "url": "http://s/" }, "response": { "status": 503 },
        }]);
        let wanted = "\
Message:      m
Status:       queued, next attempt at 2026-01-31T14:16:20.500Z
Last reason:  http_503
Event:        e
Type:         t
Source:       /s
Channel:      a/c
Subscription: a/b
Position:     top, partition 3, offset 7

14:16:00.112  accepted
              waited 5.9 s
14:16:06.034  attempt 1  503  41 ms  POST http://s/
14:16:20.500  next attempt due

Statuses: queued 14:16:00.112 > undelivered 14:16:06.100
";
        assert_eq!(told(&message, &events, &logs), wanted);
    }

    #[test]
    fn spans_are_said_as_people_say_them() {
        for (us, said) in [
            (420, "0.4 ms"),
            (41_200, "41 ms"),
            (5_921_000, "5.9 s"),
            (896_000_000, "14 min 56 s"),
        ] {
            assert_eq!(span(Duration::from_micros(us)), said);
        }
    }
}
