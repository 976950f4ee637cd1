//! Metrics of dispatch and delivery.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::dead_letter::Cause;
use crate::channel::ResourceName;
use crate::delivery::{AttemptReport, Failure, Success};
use crate::status::Lag;

/// Seconds, from what a subscriber on this machine takes to the longest sensible timeout.
const SECONDS: &[f64] = &[
    0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
    30.0, 60.0, 300.0, 1800.0,
];

/// The families; labels are a subscription's namespace and name.
#[derive(Clone, Debug)]
pub struct DispatchMetrics {
    attempts: IntCounterVec,
    attempt_seconds: HistogramVec,
    end_to_end_seconds: HistogramVec,
    in_flight: IntGaugeVec,
    retries: IntCounterVec,
    parkings: IntCounterVec,
    parked: IntGaugeVec,
    dead_letters: IntCounterVec,
    dead_letter_sink_failures: IntCounterVec,
    dropped: IntCounterVec,
    skipped: IntCounterVec,
    redelivered: IntCounterVec,
    expired: IntCounterVec,
    metadata_refused: IntCounterVec,
    rebalances: IntCounterVec,
    paused: IntGaugeVec,
    lag: IntGaugeVec,
    lag_seconds: GaugeVec,
}

impl DispatchMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// When one of them is on the registry already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        const SUBSCRIPTION: &[&str] = &["namespace", "subscription"];
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let family = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let histogram = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            let family = HistogramVec::new(options, SUBSCRIPTION)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let gauge = |name: &str, help: &str| {
            let family = IntGaugeVec::new(Opts::new(name, help), SUBSCRIPTION)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        Ok(Self {
            attempts: counter(
                "levada_delivery_attempts_total",
                "Attempts by outcome (delivered, retryable, permanent) and status code (empty: no answer)",
                &["namespace", "subscription", "outcome", "code"],
            )?,
            attempt_seconds: histogram(
                "levada_delivery_attempt_seconds",
                "How long attempts took",
            )?,
            end_to_end_seconds: histogram(
                "levada_delivery_end_to_end_seconds",
                "From the log's timestamp of an event to the subscriber's 2xx",
            )?,
            in_flight: gauge("levada_dispatch_in_flight", "Attempts being made")?,
            retries: counter(
                "levada_delivery_retries_total",
                "Retries that were scheduled",
                SUBSCRIPTION,
            )?,
            parkings: counter(
                "levada_dispatch_parkings_total",
                "Events that were written to the retry topic to wait there",
                SUBSCRIPTION,
            )?,
            parked: gauge(
                "levada_dispatch_parked",
                "Events that wait in the retry topic",
            )?,
            dead_letters: counter(
                "levada_dead_letters_total",
                "Events that a dead-letter sink or topic took, by the reason of the last failure",
                &["namespace", "subscription", "reason"],
            )?,
            dead_letter_sink_failures: counter(
                "levada_dead_letter_sink_failures_total",
                "Events that the dead-letter sink did not take",
                SUBSCRIPTION,
            )?,
            dropped: counter(
                "levada_dropped_total",
                "Events dropped: no sink took them and deadLetterTopic is false",
                SUBSCRIPTION,
            )?,
            skipped: counter(
                "levada_skipped_records_total",
                "Records of the channel topic that are no CloudEvents",
                SUBSCRIPTION,
            )?,
            redelivered: counter(
                "levada_redelivered_total",
                "Records read again below the furthest one that this process had taken",
                SUBSCRIPTION,
            )?,
            expired: counter(
                "levada_expired_total",
                "Records deleted by retention before they were finished",
                SUBSCRIPTION,
            )?,
            metadata_refused: counter(
                "levada_commit_metadata_refused_total",
                "Commits that had to be repeated without their metadata",
                SUBSCRIPTION,
            )?,
            rebalances: counter(
                "levada_rebalances_total",
                "Assignments and revocations of partitions",
                SUBSCRIPTION,
            )?,
            paused: gauge(
                "levada_dispatch_paused_partitions",
                "Partitions that take nothing because their window of unfinished events is full",
            )?,
            lag: gauge(
                "levada_consumer_lag_records",
                "Newest offset minus committed offset, over all partitions",
            )?,
            lag_seconds: {
                let options = Opts::new(
                    "levada_consumer_lag_seconds",
                    "Age of the oldest event that was not tried yet (untried); 0 without any",
                );
                let family = GaugeVec::new(options, &["namespace", "subscription", "kind"])?;
                registry.register(Box::new(family.clone()))?;
                family
            },
        })
    }

    /// The handles of one subscription.
    #[must_use]
    pub(crate) fn subscription(&self, name: &ResourceName) -> SubscriptionMetrics {
        let labels = [name.namespace(), name.name()];
        let counter = |family: &IntCounterVec| family.with_label_values(&labels);
        SubscriptionMetrics(Arc::new(Handles {
            families: self.clone(),
            name: name.clone(),
            attempts: Mutex::default(),
            attempt_seconds: self.attempt_seconds.with_label_values(&labels),
            end_to_end_seconds: self.end_to_end_seconds.with_label_values(&labels),
            in_flight: self.in_flight.with_label_values(&labels),
            retries: counter(&self.retries),
            parkings: counter(&self.parkings),
            parked: self.parked.with_label_values(&labels),
            dead_letter_sink_failures: counter(&self.dead_letter_sink_failures),
            dropped: counter(&self.dropped),
            skipped: counter(&self.skipped),
            redelivered: counter(&self.redelivered),
            expired: counter(&self.expired),
            metadata_refused: counter(&self.metadata_refused),
            rebalances: counter(&self.rebalances),
            paused: self.paused.with_label_values(&labels),
        }))
    }

    /// A subscription's lag as it is now.
    pub(crate) fn lag(&self, name: &ResourceName, lag: &Lag) {
        let (namespace, name) = (name.namespace(), name.name());
        let records = self.lag.with_label_values(&[namespace, name]);
        records.set(lag.records);
        let seconds = lag.untried_for().unwrap_or_default().as_secs_f64();
        let age = self
            .lag_seconds
            .with_label_values(&[namespace, name, "untried"]);
        age.set(seconds);
    }

    /// Forgets the gauges of a subscription that is gone; its counters stay.
    pub(crate) fn forget(&self, name: &ResourceName) {
        let labels = [name.namespace(), name.name()];
        for family in [&self.in_flight, &self.paused, &self.lag, &self.parked] {
            // It is an error only when the family has no such child, and then all is well.
            family.remove_label_values(&labels).ok();
        }
        let untried = [name.namespace(), name.name(), "untried"];
        self.lag_seconds.remove_label_values(&untried).ok();
    }
}

/// One subscription's handles, resolved once.
#[derive(Clone, Debug)]
pub(crate) struct SubscriptionMetrics(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    families: DispatchMetrics,
    name: ResourceName,
    /// By outcome and code; a dispatcher is one task, so the lock is never contended.
    attempts: Mutex<HashMap<(&'static str, Option<u16>), IntCounter>>,
    attempt_seconds: Histogram,
    end_to_end_seconds: Histogram,
    in_flight: IntGauge,
    retries: IntCounter,
    parkings: IntCounter,
    parked: IntGauge,
    dead_letter_sink_failures: IntCounter,
    dropped: IntCounter,
    skipped: IntCounter,
    redelivered: IntCounter,
    expired: IntCounter,
    metadata_refused: IntCounter,
    rebalances: IntCounter,
    paused: IntGauge,
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl SubscriptionMetrics {
    pub(crate) fn attempt(&self, report: &AttemptReport) {
        let (outcome, code) = match &report.result {
            Ok(Success { code, .. }) => ("delivered", Some(*code)),
            Err(Failure {
                retryable: true,
                code,
                ..
            }) => ("retryable", *code),
            Err(Failure { code, .. }) => ("permanent", *code),
        };
        self.0
            .attempt_seconds
            .observe(report.duration.as_secs_f64());
        let mut attempts = self
            .0
            .attempts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        attempts
            .entry((outcome, code))
            .or_insert_with(|| {
                let code = code.map(|code| code.to_string()).unwrap_or_default();
                let name = &self.0.name;
                let labels = [name.namespace(), name.name(), outcome, code.as_str()];
                self.0.families.attempts.with_label_values(&labels)
            })
            .inc();
    }

    pub(crate) fn end_to_end(&self, took: Duration) {
        self.0.end_to_end_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn in_flight(&self, count: usize) {
        self.0.in_flight.set(gauge_value(count));
    }

    pub(crate) fn retried(&self) {
        self.0.retries.inc();
    }

    pub(crate) fn parked(&self) {
        self.0.parkings.inc();
    }

    pub(crate) fn parked_now(&self, count: usize) {
        self.0.parked.set(gauge_value(count));
    }

    pub(crate) fn dead_letter(&self, cause: &Cause) {
        let name = &self.0.name;
        let reason = cause.reason.to_string();
        let labels = [name.namespace(), name.name(), reason.as_str()];
        self.0
            .families
            .dead_letters
            .with_label_values(&labels)
            .inc();
    }

    pub(crate) fn dead_letter_sink_failed(&self) {
        self.0.dead_letter_sink_failures.inc();
    }

    pub(crate) fn dropped(&self) {
        self.0.dropped.inc();
    }

    pub(crate) fn skipped(&self) {
        self.0.skipped.inc();
    }

    pub(crate) fn redelivered(&self, count: usize) {
        self.0.redelivered.inc_by(count as u64);
    }

    pub(crate) fn expired(&self, records: u64) {
        self.0.expired.inc_by(records);
    }

    pub(crate) fn metadata_refused(&self) {
        self.0.metadata_refused.inc();
    }

    pub(crate) fn rebalanced(&self) {
        self.0.rebalances.inc();
    }

    pub(crate) fn paused(&self, partitions: usize) {
        self.0.paused.set(gauge_value(partitions));
    }
}
