//! Takes the node's metrics once a second and keeps the last hour of them.

mod resources;
mod samples;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::proto::{Metric, MetricFamily};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::report::MinuteCounts;
use super::{
    ChannelReport, Counts, Figures, IngressReport, Report, State, SubscriptionReport, Thresholds,
    judge,
};
use crate::admin::AdminView;
use crate::clock::{Clock, UnixMillis};
use crate::status::Lag;
use resources::{channel, name, ready};
use samples::{count, key, label};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
const MINUTE: i64 = 60_000;
/// Short spans, for what happened in the last 5 minutes.
const SHORT: i64 = 10_000;
const MINUTES: usize = 60;
const SHORTS: usize = 30;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Watch {
    registry: prometheus::Registry,
    view: Arc<dyn AdminView>,
    clock: Clock,
    thresholds: Thresholds,
    inner: Arc<Mutex<Inner>>,
    report: Arc<ArcSwap<Report>>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Of the metrics of `registry`, for the resources that `view` shows.
    #[must_use]
    pub fn new(registry: prometheus::Registry, view: Arc<dyn AdminView>, clock: Clock) -> Self {
        let started = clock.now();
        let report = Report {
            at: started,
            since: started,
            ..Report::default()
        };
        Self {
            registry,
            view,
            clock,
            thresholds: Thresholds::default(),
            inner: Arc::new(Mutex::new(Inner {
                started,
                ..Inner::default()
            })),
            report: Arc::new(ArcSwap::from_pointee(report)),
        }
    }

    /// The same with other bounds between the states.
    #[must_use]
    pub fn with_thresholds(self, thresholds: Thresholds) -> Self {
        Self { thresholds, ..self }
    }

    /// Looks once a second until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                self.look();
                tokio::time::sleep(INTERVAL).await;
            }
        })
        .await;
    }

    /// Looks now.
    pub fn look(&self) {
        let now = self.clock.now();
        let families = self.registry.gather();
        let seen = Seen {
            channels: self.view.channels(),
            subscriptions: self.view.subscriptions(),
            view: &*self.view,
            now,
        };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.take(&families, now);
        let report = inner.report(&seen, &self.thresholds);
        drop(inner);
        self.report.store(Arc::new(report));
    }

    /// How things stood at the last look.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        self.report.load_full()
    }
}

/// Counts in spans of equal length, the oldest first.
#[derive(Debug)]
struct Ring<T> {
    step: i64,
    keep: usize,
    spans: VecDeque<(i64, T)>,
}

impl<T: Default> Ring<T> {
    fn new(step: i64, keep: usize) -> Self {
        Self {
            step,
            keep,
            spans: VecDeque::new(),
        }
    }

    fn at(&mut self, now: UnixMillis) -> Option<&mut T> {
        let start = now.0 - now.0.rem_euclid(self.step);
        // A clock that was set back goes on filling the last span.
        if self.spans.back().is_none_or(|(last, _)| *last < start) {
            self.spans.push_back((start, T::default()));
            while self.spans.len() > self.keep {
                self.spans.pop_front();
            }
        }
        self.spans.back_mut().map(|(_, span)| span)
    }

    /// The spans that began at `since` or later.
    fn since(&self, since: i64) -> impl Iterator<Item = &(i64, T)> {
        self.spans.iter().filter(move |(start, _)| *start >= since)
    }
}

/// The resources as they are at one look.
struct Seen<'v> {
    channels: Vec<Value>,
    subscriptions: Vec<Value>,
    view: &'v dyn AdminView,
    now: UnixMillis,
}

#[derive(Debug, Default)]
struct Inner {
    started: UnixMillis,
    subscriptions: BTreeMap<(String, String), Subscription>,
    channels: BTreeMap<(String, String), Channel>,
    ingress: Channel,
}

#[derive(Debug)]
struct Subscription {
    /// What the counters said at the last look.
    last: Counts,
    minutes: Ring<Counts>,
    shorts: Ring<Counts>,
    in_flight: u64,
    parked: u64,
    paused: u64,
    lag: Option<u64>,
    behind_since: Option<UnixMillis>,
    active: UnixMillis,
    state: Option<(State, UnixMillis)>,
}

impl Subscription {
    fn new(started: UnixMillis) -> Self {
        Self {
            last: Counts::default(),
            minutes: Ring::new(MINUTE, MINUTES),
            shorts: Ring::new(SHORT, SHORTS),
            in_flight: 0,
            parked: 0,
            paused: 0,
            lag: None,
            behind_since: None,
            active: started,
            state: None,
        }
    }

    fn take(&mut self, counters: Counts, now: UnixMillis) {
        let new = difference(&counters, &self.last);
        self.last = counters;
        if new.attempts() > 0 || new.dead_letters > 0 || self.in_flight > 0 {
            self.active = now;
        }
        if let Some(span) = self.minutes.at(now) {
            span.add(&new);
        }
        if let Some(span) = self.shorts.at(now) {
            span.add(&new);
        }
        let behind = self.lag.is_some_and(|lag| lag > 0);
        self.behind_since = behind.then(|| self.behind_since.unwrap_or(now));
    }

    fn recent(&self, now: UnixMillis) -> Counts {
        let mut sum = Counts::default();
        let since = now.0 - 5 * MINUTE;
        self.shorts.since(since).for_each(|(_, span)| sum.add(span));
        sum
    }

    /// One entry a minute, also where nothing happened.
    fn sparkline(&self, now: UnixMillis) -> Vec<MinuteCounts> {
        let last = now.0 - now.0.rem_euclid(MINUTE);
        let mut line = vec![MinuteCounts::default(); MINUTES];
        for (start, span) in &self.minutes.spans {
            let back = usize::try_from((last - start) / MINUTE).unwrap_or(usize::MAX);
            let place = (MINUTES - 1).checked_sub(back);
            if let Some(minute) = place.and_then(|place| line.get_mut(place)) {
                minute.ok += span.ok;
                minute.failed += span.failed();
            }
        }
        line
    }

    fn hour_median(&self) -> Option<Duration> {
        let mut sum = super::LatencyCounts::default();
        let all = self.minutes.spans.iter();
        all.for_each(|(_, span)| sum.add(&span.latency));
        sum.quantile(0.5)
    }
}

#[derive(Debug)]
struct Channel {
    last: [u64; 3],
    shorts: Ring<[u64; 3]>,
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            last: [0; 3],
            shorts: Ring::new(SHORT, SHORTS),
        }
    }
}

impl Channel {
    /// Stored, refused, not stored, as the counters say.
    fn take(&mut self, counters: [u64; 3], now: UnixMillis) {
        let last = std::mem::replace(&mut self.last, counters);
        if let Some(span) = self.shorts.at(now) {
            for (index, count) in span.iter_mut().enumerate() {
                *count += counters[index].saturating_sub(last[index]);
            }
        }
    }

    fn minute(&self, now: UnixMillis) -> [u64; 3] {
        let mut sum = [0; 3];
        for (_, span) in self.shorts.since(now.0 - MINUTE) {
            for (sum, count) in sum.iter_mut().zip(span) {
                *sum += count;
            }
        }
        sum
    }
}

fn difference(new: &Counts, old: &Counts) -> Counts {
    let mut failures = new.failures.clone();
    for (code, count) in &mut failures {
        *count = count.saturating_sub(old.failures.get(code).copied().unwrap_or(0));
    }
    failures.retain(|_, count| *count > 0);
    Counts {
        ok: new.ok.saturating_sub(old.ok),
        retryable: new.retryable.saturating_sub(old.retryable),
        permanent: new.permanent.saturating_sub(old.permanent),
        dead_letters: new.dead_letters.saturating_sub(old.dead_letters),
        failures,
        latency: new.latency.minus(&old.latency),
    }
}

impl Inner {
    fn take(&mut self, families: &[MetricFamily], now: UnixMillis) {
        let mut counters: BTreeMap<(String, String), Counts> = BTreeMap::new();
        let mut channels: BTreeMap<(String, String), [u64; 3]> = BTreeMap::new();
        for family in families {
            for metric in family.get_metric() {
                self.one(family.name(), metric, &mut counters, &mut channels);
            }
        }
        for (name, counts) in counters {
            self.of(name).take(counts, now);
        }
        let mut all = [0; 3];
        for (name, counts) in channels {
            for (sum, count) in all.iter_mut().zip(counts) {
                *sum += count;
            }
            self.channels.entry(name).or_default().take(counts, now);
        }
        self.ingress.take(all, now);
    }

    fn of(&mut self, name: (String, String)) -> &mut Subscription {
        let started = self.started;
        let new = || Subscription::new(started);
        self.subscriptions.entry(name).or_insert_with(new)
    }

    fn one(
        &mut self,
        family: &str,
        metric: &Metric,
        counters: &mut BTreeMap<(String, String), Counts>,
        channels: &mut BTreeMap<(String, String), [u64; 3]>,
    ) {
        if family == "levada_ingress_requests_total" {
            let number = count(metric.get_counter().get_value());
            let counts = channels.entry(key(metric, "channel")).or_default();
            match label(metric, "code") {
                "200" | "202" => counts[0] += number,
                "500" => counts[2] += number,
                _ => counts[1] += number,
            }
            return;
        }
        let gauge = || count(metric.get_gauge().get_value());
        let name = key(metric, "subscription");
        match family {
            "levada_delivery_attempts_total" => {
                let number = count(metric.get_counter().get_value());
                let counts = counters.entry(name).or_default();
                match label(metric, "outcome") {
                    "delivered" => counts.ok += number,
                    "permanent" => counts.permanent += number,
                    _ => counts.retryable += number,
                }
                if label(metric, "outcome") != "delivered" {
                    let code = label(metric, "code").parse().ok();
                    *counts.failures.entry(code).or_default() += number;
                }
            }
            "levada_delivery_attempt_seconds" => {
                let latency = &mut counters.entry(name).or_default().latency;
                let mut below = 0;
                for bucket in metric.get_histogram().get_bucket() {
                    let upto = bucket.cumulative_count();
                    latency.count(bucket.upper_bound(), upto.saturating_sub(below));
                    below = upto;
                }
            }
            "levada_dead_letters_total" => {
                counters.entry(name).or_default().dead_letters +=
                    count(metric.get_counter().get_value());
            }
            "levada_dispatch_in_flight" => self.of(name).in_flight = gauge(),
            "levada_dispatch_parked" => self.of(name).parked = gauge(),
            "levada_dispatch_paused_partitions" => self.of(name).paused = gauge(),
            "levada_consumer_lag_records" => self.of(name).lag = Some(gauge()),
            _ => {}
        }
    }

    fn report(&mut self, seen: &Seen<'_>, thresholds: &Thresholds) -> Report {
        let now = seen.now;
        let mut report = Report {
            at: now,
            since: self.started,
            ..Report::default()
        };
        let [stored, refused, not_stored] = self.ingress.minute(now);
        report.ingress = IngressReport {
            rate: self.rate(stored, now),
            refused,
            not_stored,
        };
        for name in seen.channels.iter().filter_map(name) {
            let key = (name.namespace().to_owned(), name.name().to_owned());
            let known = self.channels.get(&key);
            let stored = known.map_or(0, |channel| channel.minute(now)[0]);
            let channel = ChannelReport {
                rate: self.rate(stored, now),
                subscriptions: 0,
            };
            report.channels.insert(name, channel);
        }
        for resource in &seen.subscriptions {
            let Some(one) = self.subscription(resource, seen, thresholds) else {
                continue;
            };
            let channel = one.channel.parse().ok();
            if let Some(channel) = channel.and_then(|name| report.channels.get_mut(&name)) {
                channel.subscriptions += 1;
            }
            report.subscriptions.push(one);
        }
        let order = |one: &SubscriptionReport| (one.state(), one.name.clone());
        report.subscriptions.sort_by_key(order);
        report
    }

    /// A second, over the last minute, or over the time that this node counts.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no 52 bits")]
    fn rate(&self, count: u64, now: UnixMillis) -> f64 {
        let span = now.since(self.started).as_secs_f64().clamp(1.0, 60.0);
        count as f64 / span
    }

    fn subscription(
        &mut self,
        resource: &Value,
        seen: &Seen<'_>,
        thresholds: &Thresholds,
    ) -> Option<SubscriptionReport> {
        let name = name(resource)?;
        let (now, lag) = (seen.now, seen.view.lag(&name));
        let key = (name.namespace().to_owned(), name.name().to_owned());
        let started = self.started;
        let known = self
            .subscriptions
            .entry(key)
            .or_insert_with(|| Subscription::new(started));
        let recent = known.recent(now);
        let p95 = recent.latency.quantile(0.95);
        let figures = Figures {
            ready: ready(resource),
            worst: recent.worst(),
            untried_for: lag.as_ref().and_then(Lag::untried_for),
            paused: known.paused,
            p95,
            hour_median: known.hour_median(),
            quiet_for: now.since(known.active),
            lag: known.lag,
            silent_for: Duration::ZERO,
            recent: recent.clone(),
        };
        let verdict = judge(&figures, thresholds);
        let since = match known.state {
            Some((state, since)) if state == verdict.state => since,
            _ => now,
        };
        known.state = Some((verdict.state, since));
        let minutes = known.sparkline(now);
        let minute: u64 = known
            .shorts
            .since(now.0 - MINUTE)
            .map(|(_, span)| span.attempts())
            .sum();
        let behind_for = known.behind_since.map(|since| now.since(since));
        let (in_flight, parked, paused) = (known.in_flight, known.parked, known.paused);
        Some(SubscriptionReport {
            channel: channel(resource, &name),
            name,
            verdict,
            since,
            minutes,
            rate: self.rate(minute, now),
            recent,
            p95,
            lag,
            behind_for,
            in_flight,
            parked,
            paused,
        })
    }
}

#[cfg(test)]
mod tests;
