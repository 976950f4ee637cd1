//! Doubles of the seams for tests in time: a log in memory and subscribers that do as scripted.
//!
//! Both live on tokio's clock, so a test with a paused one decides what happens before what. What
//! they see goes into one list of [`Happening`]s, which tests read in place of private fields.

mod log;
mod member;
mod sinks;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::budget::Budget;
use super::engine::Budgets;
use super::tools::Tools;
use super::{DispatchMetrics, Settings};
use crate::channel::{
    Backoff, BackoffPolicy, DeliverySpec, Format, HttpSink, Ordering, ResourceName, RetryCodes,
    Sink, Subscription,
};
use crate::clock::{Clock, UnixMillis};
use crate::log::{Commits, GroupId, Headers, Offset, Partition, Record, TopicName, TopicPartition};

pub(crate) use log::{AppendAnswer, CommitAnswer, TestLog};
pub(crate) use sinks::{Answer, Ended, Sinks};

/// Longer than anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);

/// What the doubles saw.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Happening {
    /// A member joined a group.
    Joined(GroupId),
    /// A member began to read here.
    Started(TopicPartition, Offset),
    /// A commit was handed to the log.
    CommitSent(Commits),
    /// The log took it.
    Committed(Commits),
    /// A partition is not read any more.
    SourceDropped(TopicPartition),
    /// Partitions were given up.
    Released(Vec<TopicPartition>),
    /// The member left; whether it keeps its place.
    Left { stay: bool },
    /// An attempt began.
    Began(String),
    /// An attempt ended, or was cut.
    Ended(String, Ended),
}

/// What happened and when, in order; it can be waited upon.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    happened: Arc<Mutex<Vec<(Instant, Happening)>>>,
    changed: watch::Sender<()>,
}

impl Default for Story {
    fn default() -> Self {
        Self {
            happened: Arc::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Story {
    pub(crate) fn tell(&self, happening: Happening) {
        let mut happened = self.happened.lock().unwrap_or_else(PoisonError::into_inner);
        happened.push((Instant::now(), happening));
        drop(happened);
        self.changed.send_replace(());
    }

    /// Everything so far that `pick` wants.
    pub(crate) fn pick<T>(&self, mut pick: impl FnMut(Instant, &Happening) -> Option<T>) -> Vec<T> {
        let happened = self.happened.lock().unwrap_or_else(PoisonError::into_inner);
        happened.iter().filter_map(|(at, h)| pick(*at, h)).collect()
    }

    /// The place of the first happening that `is` it.
    pub(crate) fn place(&self, is: impl Fn(&Happening) -> bool) -> Option<usize> {
        let happened = self.happened.lock().unwrap_or_else(PoisonError::into_inner);
        happened.iter().position(|(_, happening)| is(happening))
    }

    /// The place of the last happening that `is` it.
    pub(crate) fn last_place(&self, is: impl Fn(&Happening) -> bool) -> Option<usize> {
        let happened = self.happened.lock().unwrap_or_else(PoisonError::into_inner);
        happened.iter().rposition(|(_, happening)| is(happening))
    }

    /// Waits until `holds`, which is looked at again whenever something happened.
    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !holds() {
                changed.changed().await.unwrap();
            }
        };
        if timeout(PATIENCE, wait).await.is_err() {
            let all = self.pick(|_, happening| Some(format!("{happening:?}")));
            let last = &all[all.len().saturating_sub(20)..];
            panic!(
                "never came: {what}; what happened last:\n{}",
                last.join("\n")
            );
        }
    }

    /// When commits were sent.
    pub(crate) fn commit_times(&self) -> Vec<Instant> {
        self.pick(|at, happening| matches!(happening, Happening::CommitSent(_)).then_some(at))
    }

    /// The ids of events in the order their attempts began.
    pub(crate) fn began(&self) -> Vec<String> {
        self.pick(|_, happening| match happening {
            Happening::Began(id) => Some(id.clone()),
            _ => None,
        })
    }

    /// How many attempts began for the event.
    pub(crate) fn attempts(&self, id: &str) -> usize {
        self.began().iter().filter(|begun| *begun == id).count()
    }

    /// How many attempts succeeded for the event.
    pub(crate) fn deliveries(&self, id: &str) -> usize {
        let ok = Happening::Ended(id.into(), Ended::Delivered);
        self.pick(|_, happening| (*happening == ok).then_some(()))
            .len()
    }
}

/// A log, subscribers and what a dispatcher needs besides.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) story: Story,
    pub(crate) log: Arc<TestLog>,
    pub(crate) sinks: Sinks,
    pub(crate) clock: Clock,
    pub(crate) metrics: DispatchMetrics,
    pub(crate) registry: prometheus::Registry,
    pub(crate) tools: Arc<Tools<Sinks>>,
}

impl World {
    /// A world whose subscribers answer 200 at once.
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let story = Story::default();
        let clock = Clock::fixed(UnixMillis(1_700_000_000_000));
        let log = TestLog::new(story.clone(), clock.clone());
        let sinks = Sinks::new(story.clone(), clock.clone());
        let registry = prometheus::Registry::new();
        Self {
            metrics: DispatchMetrics::register(&registry).unwrap(),
            registry,
            tools: Arc::new(Tools {
                journal: crate::journal::Recorder::off(),
                log: log.clone(),
                deliver: sinks.clone(),
                clock: clock.clone(),
                settings,
            }),
            story,
            log,
            sinks,
            clock,
        }
    }

    /// Lets time pass on both clocks, wall time in steps of 10 ms.
    pub(crate) async fn pass(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let before = Instant::now();
            let step = Duration::from_millis(10).min(end - before);
            tokio::time::sleep(step).await;
            self.clock.set(self.clock.now().plus(before.elapsed()));
        }
    }

    /// The value of a counter or gauge, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
        let value =
            |m: &prometheus::proto::Metric| m.get_counter().get_value() + m.get_gauge().get_value();
        metrics.iter().map(value).sum()
    }
}

/// Budgets of a node of its own.
pub(crate) fn budgets(world: &World) -> Budgets {
    Budgets {
        events: Budget::new(world.tools.settings.max_total_bytes),
        parked: Budget::new(world.tools.settings.parked_index_bytes),
    }
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::try_new(name).unwrap()
}

pub(crate) fn at(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: topic("ch"),
        partition: Partition(partition),
    }
}

pub(crate) fn http(url: &str) -> Sink {
    Sink::Http(HttpSink {
        url: url.into(),
        uri: url.parse().unwrap(),
        headers: Arc::from([]),
        ca_certs: None,
    })
}

/// A subscription `ns/<name>` of the channel `ns/ch`, unordered, without retries.
pub(crate) fn subscription(name: &str) -> Subscription {
    Subscription {
        name: ResourceName::try_new("ns", name).unwrap(),
        uid: format!("ns.{name}"),
        generation: 1,
        channel: ResourceName::try_new("ns", "ch").unwrap(),
        topic: topic("ch"),
        retry_topic: topic(&format!("ch.{name}.retry")),
        dead_letter_topic: topic(&format!("ch.{name}.dead-letter")),
        group: GroupId(format!("group.{name}").into()),
        subscriber: http(&format!("http://{name}.test/")),
        reply: None,
        dead_letter: None,
        delivery: DeliverySpec {
            retry: 0,
            backoff: Backoff {
                policy: BackoffPolicy::Linear,
                delay: Duration::from_millis(200),
                max: None,
                jitter: 0.0,
            },
            retry_window: None,
            timeout: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(600),
            retry_codes: RetryCodes::Standard,
            format: Some(Format::Binary),
            ordering: Ordering::None,
            max_in_flight: 16,
            max_window: 1000,
            dead_letter_topic: true,
            rate_limit: None,
            accepted: crate::channel::Accepted::Delivered,
            sandbox: false,
            status_check: None,
        },
    }
}

/// A CloudEvent with `bytes` of data.
pub(crate) fn event(id: &str, key: Option<&str>, bytes: usize) -> Record {
    let mut headers = Headers::builder(5, 64);
    headers.push(b"ce_specversion", b"1.0");
    headers.push(b"ce_id", id.as_bytes());
    headers.push(b"ce_type", b"t");
    headers.push(b"ce_source", b"/s");
    if let Some(key) = key {
        headers.push(b"ce_partitionkey", key.as_bytes());
    }
    Record {
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: (bytes > 0).then(|| vec![b'x'; bytes].into()),
        headers: headers.finish(),
    }
}
