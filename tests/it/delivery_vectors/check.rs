//! Whether what a case expects has happened.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::case::{Case, Expect, Rule};
use super::{Role, Run, path, trap};
use crate::harness::event::Mode;
use crate::harness::sink::{Seen, Sink};

/// What a dead letter may carry besides the event's own attributes.
const DEAD_LETTER_ATTRIBUTES: [&str; 4] = [
    "knativeerrordest",
    "knativeerrorcode",
    "knativeerrordata",
    "testerror",
];

type Arrivals = Vec<Arc<Seen>>;

fn taken(arrivals: &[Arc<Seen>]) -> usize {
    arrivals.iter().filter(|seen| seen.success).count()
}

fn millis_between(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

fn gaps(arrivals: &[Arc<Seen>]) -> Vec<f64> {
    arrivals
        .windows(2)
        .map(|pair| millis_between(pair[0].at, pair[1].at))
        .collect()
}

impl Run {
    /// The requests of a case to one destination, in order.
    fn arrivals(
        &self,
        all: &[Arc<Seen>],
        index: usize,
        subscription: &str,
        role: Role,
    ) -> Arrivals {
        let path = path(&self.cases[index], subscription, role);
        let ours = |seen: &&Arc<Seen>| {
            seen.path == path
                && self
                    .case_of(seen.id())
                    .is_some_and(|(case, _)| case == index)
        };
        all.iter().filter(ours).cloned().collect()
    }

    fn key<'a>(&self, seen: &'a Seen) -> &'a str {
        self.case_of(seen.id()).map_or("", |(_, key)| key)
    }

    /// Whether everything that these cases wait for has come.
    pub(super) fn are_complete(&self, all: &[Arc<Seen>], cases: &[usize]) -> bool {
        cases.iter().all(|index| {
            let expect = &self.cases[*index].expect;
            expect
                .iter()
                .all(|(name, expect)| self.is_complete(all, *index, name, expect))
        })
    }

    fn is_complete(&self, all: &[Arc<Seen>], index: usize, name: &str, expect: &Expect) -> bool {
        let subscriber = self.arrivals(all, index, name, Role::Subscriber);
        let dead_letters = self.arrivals(all, index, name, Role::DeadLetter);
        let replies = self.arrivals(all, index, name, Role::Reply);
        let of_event = |key: &str| {
            subscriber
                .iter()
                .filter(|seen| self.key(seen) == key)
                .count()
        };
        let counts = [
            (subscriber.len(), expect.attempts.map(|count| count.min())),
            (subscriber.len(), expect.sequence.as_ref().map(Vec::len)),
            (taken(&subscriber), expect.delivered_ok_at_least),
            (taken(&dead_letters), expect.dead_letters),
            (dead_letters.len(), expect.dead_letter_attempts),
            (taken(&replies), expect.replies),
            (replies.len(), expect.reply_attempts),
        ];
        counts
            .iter()
            .all(|(have, want)| want.is_none_or(|want| *have >= want))
            && expect
                .attempts_by_event
                .iter()
                .all(|(key, want)| of_event(key) >= *want)
    }

    /// What is wrong with a case; nothing when it passed.
    pub(super) fn check(&self, sink: &Sink, index: usize, case: &Case) -> Vec<String> {
        let all = sink.seen();
        let mut errors = Vec::new();
        for (name, expect) in &case.expect {
            let check = Check {
                run: self,
                sink,
                index,
                case,
                name,
                subscriber: self.arrivals(&all, index, name, Role::Subscriber),
                dead_letters: self.arrivals(&all, index, name, Role::DeadLetter),
                replies: self.arrivals(&all, index, name, Role::Reply),
                errors: Vec::new(),
            };
            let found = check.run(expect, &all);
            errors.extend(found.into_iter().map(|error| format!("{name}: {error}")));
        }
        errors
    }
}

/// The check of one subscription of a case.
struct Check<'a> {
    run: &'a Run,
    sink: &'a Sink,
    index: usize,
    case: &'a Case,
    name: &'a str,
    subscriber: Arrivals,
    dead_letters: Arrivals,
    replies: Arrivals,
    errors: Vec<String>,
}

impl Check<'_> {
    fn run(mut self, expect: &Expect, all: &[Arc<Seen>]) -> Vec<String> {
        self.attempts(expect);
        self.order_and_time(expect);
        self.request(expect);
        self.dead_letter(expect);
        self.reply(expect);
        let trap = trap(self.index);
        let hits = all.iter().filter(|seen| seen.path == trap).count();
        self.count(
            "requests to a place that must not be called",
            hits,
            expect.trap_hits,
        );
        self.errors
    }

    /// The subscriber's requests with one event.
    fn of_event(&self, key: &str) -> Arrivals {
        let of_key = self
            .subscriber
            .iter()
            .filter(|seen| self.run.key(seen) == key);
        of_key.cloned().collect()
    }

    fn of_first_event(&self) -> Arrivals {
        self.of_event(&self.case.events[0].key)
    }

    fn posted(&self) -> Instant {
        let id = self.run.id(self.index, &self.case.events[0].key);
        self.run.posted.lock().unwrap()[&id]
    }

    fn count(&mut self, what: &str, have: usize, want: Option<usize>) {
        if want.is_some_and(|want| want != have) {
            self.errors.push(format!("{what}: {have}, want {want:?}"));
        }
    }

    fn windows(&mut self, what: &str, have: &[f64], want: &[(f64, f64)]) {
        for (number, (have, (low, high))) in have.iter().zip(want).enumerate() {
            if have < low || have > high {
                let error = format!("{what} {}: {have:.0} ms, want {low} to {high}", number + 1);
                self.errors.push(error);
            }
        }
    }

    fn attempts(&mut self, expect: &Expect) {
        let first = self.of_first_event();
        if expect
            .attempts
            .is_some_and(|want| !want.allows(first.len()))
        {
            let want = expect.attempts.map(|count| count.min());
            self.errors
                .push(format!("attempts: {}, want {want:?}", first.len()));
        }
        for (key, want) in &expect.attempts_by_event {
            let have = self.of_event(key).len();
            self.count(&format!("attempts of {key}"), have, Some(*want));
        }
        let ok = taken(&self.subscriber);
        if expect.delivered_ok_at_least.is_some_and(|want| ok < want) {
            self.errors.push(format!("{ok} successful deliveries"));
        }
        self.windows("gap", &gaps(&first), &expect.gaps_ms);
    }

    fn order_and_time(&mut self, expect: &Expect) {
        let keys: Vec<_> = self
            .subscriber
            .iter()
            .map(|seen| self.run.key(seen))
            .collect();
        let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        if expect.sequence.as_ref().is_some_and(|want| *want != keys) {
            self.errors
                .push(format!("sequence {keys:?}, want {:?}", expect.sequence));
        }
        if expect.last_arrival.is_some() && keys.last() != expect.last_arrival.as_ref() {
            let last = keys.last();
            self.errors.push(format!(
                "last came {last:?}, want {:?}",
                expect.last_arrival
            ));
        }
        if let (Some(limit), Some(first)) = (expect.first_within_ms, self.subscriber.first()) {
            let after = millis_between(self.posted(), first.at);
            self.windows("first arrival", &[after], &[(0.0, limit)]);
        }
    }

    fn request(&mut self, expect: &Expect) {
        let Some(first) = self.of_first_event().first().cloned() else {
            return;
        };
        let method = first.message.start.split(' ').next();
        if expect.request_method.is_some() && expect.request_method.as_deref() != method {
            self.errors.push(format!("method {method:?}"));
        }
        for (name, rule) in &expect.request_headers {
            self.rule(&format!("header {name}"), first.message.header(name), rule);
        }
        let binary = first
            .event
            .as_ref()
            .is_some_and(|event| event.mode == Mode::Binary);
        for (name, rule) in expect.binary_headers.iter().filter(|_| binary) {
            self.rule(&format!("header {name}"), first.message.header(name), rule);
        }
        for name in &expect.absent_headers {
            if let Some(value) = first.message.header(name) {
                self.errors
                    .push(format!("header {name} must not be sent: {value}"));
            }
        }
        if expect.delivered_unchanged == Some(true) {
            self.unchanged("delivery", &first, &[]);
        }
    }

    fn unchanged(&mut self, what: &str, seen: &Seen, may_differ: &[&str]) {
        let sent = self.run.event(self.index, &self.case.events[0]);
        let errors = match &seen.event {
            None => vec!["not a CloudEvent".to_owned()],
            Some(event) => sent.differences(event, may_differ),
        };
        self.errors
            .extend(errors.iter().map(|error| format!("{what}: {error}")));
    }

    fn dead_letter(&mut self, expect: &Expect) {
        self.count(
            "dead letters",
            taken(&self.dead_letters),
            expect.dead_letters,
        );
        self.count(
            "dead letter attempts",
            self.dead_letters.len(),
            expect.dead_letter_attempts,
        );
        let between = gaps(&self.dead_letters);
        self.windows("dead letter gap", &between, &expect.dead_letter_gaps_ms);
        let Some(first) = self.dead_letters.first().cloned() else {
            return;
        };
        if let Some(window) = expect.dead_letter_after_ms {
            let after = millis_between(self.posted(), first.at);
            self.windows("dead letter after the post", &[after], &[window]);
        }
        for (name, rule) in &expect.dead_letter_attributes {
            let event = first.event.as_ref();
            let value = event
                .and_then(|event| event.attributes.get(name))
                .map(String::as_str);
            self.rule(&format!("dead letter {name}"), value, rule);
        }
        if expect.dead_letter_unchanged == Some(true) {
            self.unchanged("dead letter", &first, &DEAD_LETTER_ATTRIBUTES);
        }
    }

    fn reply(&mut self, expect: &Expect) {
        self.count("replies", taken(&self.replies), expect.replies);
        self.count("reply attempts", self.replies.len(), expect.reply_attempts);
        let Some(event) = self.replies.first().and_then(|seen| seen.event.clone()) else {
            return;
        };
        for (name, rule) in &expect.reply_attributes {
            let value = event.attributes.get(name).map(String::as_str);
            self.rule(&format!("reply {name}"), value, rule);
        }
        if let Some(want) = &expect.reply_data {
            let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
            let have = event.data.as_deref().and_then(json);
            let want = want.as_ref().and_then(|want| json(want.as_bytes()));
            if have != want {
                self.errors
                    .push(format!("reply data {have:?}, want {want:?}"));
            }
        }
    }

    fn filled(&self, text: &str) -> String {
        let unreachable = self.case.subscriptions[self.name].subscriber.unreachable;
        let subscriber = match unreachable {
            None => self.sink.url(&path(self.case, self.name, Role::Subscriber)),
            Some(way) => self.run.unreachable(way),
        };
        let reply = self.sink.url(&path(self.case, self.name, Role::Reply));
        text.replace("{{subscriber_url}}", &subscriber)
            .replace("{{reply_url}}", &reply)
            .replace("{{id}}", &self.run.id(self.index, &self.case.events[0].key))
    }

    fn rule(&mut self, what: &str, value: Option<&str>, rule: &Rule) {
        let broken = match value {
            None if rule.absent => None,
            None => Some("it is missing".to_owned()),
            Some(_) if rule.absent => Some("it must be absent".to_owned()),
            Some(value) => self.broken(value, rule),
        };
        if let Some(broken) = broken {
            let shown: Option<String> = value.map(|value| value.chars().take(100).collect());
            self.errors.push(format!("{what} is {shown:?}: {broken}"));
        }
    }

    fn broken(&self, value: &str, rule: &Rule) -> Option<String> {
        if let Some(want) = &rule.eq {
            let want = self.filled(want);
            return (value != want).then(|| format!("want {want:?}"));
        }
        if let Some(all) = &rule.one_of {
            let all: Vec<_> = all.iter().map(|want| self.filled(want)).collect();
            return (!all.iter().any(|want| want == value)).then(|| format!("want one of {all:?}"));
        }
        if let Some(prefix) = &rule.prefix {
            return (!value.starts_with(prefix))
                .then(|| format!("want it to begin with {prefix:?}"));
        }
        if let Some(all) = &rule.media_type {
            let media = value.split(';').next().unwrap_or_default().trim();
            return (!all.iter().any(|want| want == media)).then(|| format!("want one of {all:?}"));
        }
        let bytes = STANDARD.decode(value).unwrap_or_default();
        if let Some(text) = &rule.b64_of {
            let same = bytes == text.expand().as_bytes();
            return (!same).then(|| "it is not the base64 form of the body".to_owned());
        }
        let text = rule
            .b64_prefix_of
            .as_ref()
            .expect("a rule has one condition")
            .expand();
        let fits = (rule.min_bytes..=rule.max_bytes).contains(&bytes.len());
        let good = fits && text.as_bytes().starts_with(&bytes);
        (!good).then(|| format!("{} bytes that are not the body's first", bytes.len()))
    }
}
