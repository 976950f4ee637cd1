//! The status of channels and subscriptions, as API and commands show it.
//!
//! Parts of the program write facts (a topic's state, a member's state, how far commits are); the
//! conditions that Knative's users know are derived from them (requirements E-01 to E-07).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::channel::{ResourceName, Sink, Subscription, channel_url};
use crate::clock::{Clock, UnixMillis};
use crate::dispatch::{DueCounts, SubscriptionState};
use crate::log::{Offset, Partition};
use crate::registry::{Resolution, Snapshot, SubscriptionEntry};
use crate::topics::TopicState;

mod condition;

use condition::{Conditions, Truth, is_true};

pub(crate) use crate::dispatch::Progress;

/// The facts and the conditions made of them.
#[derive(Clone, Debug)]
pub struct Board {
    clock: Clock,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    snapshot: Arc<Snapshot>,
    topics: BTreeMap<ResourceName, watch::Receiver<TopicState>>,
    members: BTreeMap<ResourceName, Member>,
    channel_conditions: BTreeMap<ResourceName, Conditions>,
    subscription_conditions: BTreeMap<ResourceName, Conditions>,
    lag: BTreeMap<ResourceName, Lag>,
}

#[derive(Debug)]
struct Member {
    state: watch::Receiver<SubscriptionState>,
    progress: Progress,
}

/// How far a subscription is behind, over the partitions of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Newest offsets minus commits.
    pub records: i64,
    /// Events that were not tried yet.
    pub untried: u64,
    /// When the channel took the oldest of them.
    pub oldest_untried: Option<UnixMillis>,
    /// When the next of those that wait for a retry is due.
    pub next_due: Option<UnixMillis>,
    /// How many are due when; `None`: they are too many to count.
    pub due: Option<DueCounts>,
    /// The partitions of the channel's topic.
    pub partitions: BTreeMap<Partition, PartitionLag>,
    /// When it was looked at.
    pub at: UnixMillis,
}

/// How far one partition is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionLag {
    /// The offset that the next event gets.
    pub end: Offset,
    /// What is committed.
    pub committed: Offset,
    /// What is taken next; `None`: not known yet.
    pub taken: Option<Offset>,
    /// Events that were taken and are not finished.
    pub unfinished: u64,
    /// It takes nothing because too many are unfinished.
    pub paused: bool,
}

impl Lag {
    /// How long the oldest event waits that was not tried yet.
    #[must_use]
    pub fn untried_for(&self) -> Option<Duration> {
        Some(self.at.since(self.oldest_untried?))
    }

    fn to_json(&self) -> Value {
        let within = DueCounts::WITHIN.map(|within| json!(crate::duration::iso(within)));
        let within = within.into_iter().chain([Value::Null]);
        let due = |(within, count): (Value, &u64)| json!({ "within": within, "count": count });
        let partition = |(partition, one): (&Partition, &PartitionLag)| {
            json!({
                "partition": partition.0,
                "end": one.end.0,
                "committed": one.committed.0,
                "taken": one.taken.map(|taken| taken.0),
                "unfinished": one.unfinished,
                "paused": one.paused,
            })
        };
        json!({
            "records": self.records,
            "untried": self.untried,
            "oldestUntriedAt": self.oldest_untried.map(UnixMillis::rfc3339),
            "nextDueAt": self.next_due.map(UnixMillis::rfc3339),
            "due": self.due.map(|counts| within.zip(&counts.0).map(due).collect::<Vec<_>>()),
            "partitions": self.partitions.iter().map(partition).collect::<Vec<_>>(),
            "at": self.at.rfc3339(),
        })
    }
}

impl Board {
    /// An empty board.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            inner: Arc::default(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The resources in force changed.
    pub(crate) fn snapshot(&self, snapshot: &Snapshot) {
        self.with(|inner| {
            inner
                .topics
                .retain(|name, _| snapshot.channels.contains_key(name));
            inner
                .members
                .retain(|name, _| snapshot.subscriptions.contains_key(name));
            inner
                .lag
                .retain(|name, _| snapshot.subscriptions.contains_key(name));
            inner.snapshot = Arc::new(snapshot.clone());
        });
        self.refresh();
    }

    /// Where to read the state of a channel's topic.
    pub(crate) fn channel(&self, name: ResourceName, state: watch::Receiver<TopicState>) {
        self.with(|inner| inner.topics.insert(name, state));
    }

    /// Where to read the state of a subscription's member.
    pub(crate) fn subscription(
        &self,
        name: ResourceName,
        state: watch::Receiver<SubscriptionState>,
        progress: Progress,
    ) {
        self.with(|inner| inner.members.insert(name, Member { state, progress }));
    }

    /// Subscriptions of this node and how far they are, to compute lag from.
    pub(crate) fn progress(&self) -> Vec<(Arc<Subscription>, Progress)> {
        self.with(|inner| {
            let progress = |(name, member): (&ResourceName, &Member)| match &inner
                .snapshot
                .subscriptions
                .get(name)?
                .resolution
            {
                Resolution::Resolved(subscription) => {
                    Some((Arc::clone(subscription), member.progress.clone()))
                }
                Resolution::Unresolved { .. } => None,
            };
            inner.members.iter().filter_map(progress).collect()
        })
    }

    /// A subscription's lag as it is now.
    pub(crate) fn lag(&self, name: &ResourceName, lag: Lag) {
        self.with(|inner| inner.lag.insert(name.clone(), lag));
    }

    /// How far a subscription's lags were when they were looked at last.
    pub(crate) fn lag_of(&self, name: &ResourceName) -> Option<Lag> {
        self.with(|inner| inner.lag.get(name).cloned())
    }

    /// What a subscription has committed of a partition that this node holds.
    pub(crate) fn committed(&self, name: &ResourceName, partition: Partition) -> Option<Offset> {
        self.with(|inner| {
            let member = inner.members.get(name)?;
            member.progress.commits().get(&partition).copied()
        })
    }

    /// Derives the conditions anew, so that a transition is stamped soon after it happened.
    pub fn refresh(&self) {
        let now = self.clock.now();
        self.with(|inner| inner.refresh(now));
    }

    /// Every channel as a Kubernetes-shaped object with its status.
    #[must_use]
    pub fn channels(&self) -> Vec<Value> {
        self.refresh();
        self.with(|inner| inner.channels())
    }

    /// Every subscription as a Kubernetes-shaped object with its status.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Value> {
        self.refresh();
        self.with(|inner| inner.subscriptions())
    }

    /// What is wrong with the manifests.
    #[must_use]
    pub fn problems(&self) -> Vec<Value> {
        self.with(|inner| inner.snapshot.problems.iter().map(problem).collect())
    }
}

fn problem(problem: &crate::manifest::Problem) -> Value {
    json!({
        "file": &*problem.file,
        "line": problem.line,
        "field": problem.field,
        "message": problem.message,
    })
}

impl Inner {
    fn topic(&self, name: &ResourceName) -> TopicState {
        self.topics
            .get(name)
            .map_or(TopicState::Pending, |state| state.borrow().clone())
    }

    fn refresh(&mut self, now: UnixMillis) {
        let snapshot = Arc::clone(&self.snapshot);
        self.channel_conditions
            .retain(|name, _| snapshot.channels.contains_key(name));
        self.subscription_conditions
            .retain(|name, _| snapshot.subscriptions.contains_key(name));
        for name in snapshot.channels.keys() {
            let parts = channel_parts(&self.topic(name));
            self.channel_conditions
                .entry(name.clone())
                .or_default()
                .set(&parts, now);
        }
        for (name, entry) in &snapshot.subscriptions {
            let parts = self.subscription_parts(name, entry);
            self.subscription_conditions
                .entry(name.clone())
                .or_default()
                .set(&parts, now);
        }
    }

    fn subscription_parts(&self, name: &ResourceName, entry: &SubscriptionEntry) -> Parts {
        let subscription = match &entry.resolution {
            Resolution::Unresolved { reason, message } => {
                let unknown = Truth::Unknown("NotResolved", "the references come first".into());
                return vec![
                    (
                        "ReferencesResolved",
                        Truth::False(reason.name(), message.clone()),
                    ),
                    ("AddedToChannel", unknown.clone()),
                    ("ChannelReady", unknown),
                ];
            }
            Resolution::Resolved(subscription) => subscription,
        };
        let channel = match self.topic(&subscription.channel) {
            TopicState::Ready { .. } => Truth::True,
            TopicState::Pending => {
                Truth::Unknown("TopicPending", "the channel's topic is being made".into())
            }
            TopicState::Failed(error) => Truth::False("TopicNotReady", error.to_string()),
        };
        let state = self
            .members
            .get(name)
            .map(|member| member.state.borrow().clone());
        let added = match state {
            None => Truth::Unknown("NotDispatched", "this node does not deliver".into()),
            Some(SubscriptionState::Ready) => Truth::True,
            Some(SubscriptionState::WaitingForChannel) => Truth::Unknown(
                "WaitingForChannel",
                format!("channel {} is not ready", subscription.channel),
            ),
            Some(SubscriptionState::Preparing) => Truth::Unknown(
                "SubscriptionNotMarkedReadyByChannel",
                "its topics and its start are being made".into(),
            ),
            Some(SubscriptionState::Failed(error)) => {
                Truth::False("PhysicalChannelSyncFailed", error.to_string())
            }
        };
        vec![
            ("ReferencesResolved", Truth::True),
            ("AddedToChannel", added),
            ("ChannelReady", channel),
        ]
    }

    fn channels(&self) -> Vec<Value> {
        let mut items = Vec::new();
        for (name, channel) in &self.snapshot.channels {
            let topic = match self.topic(name) {
                TopicState::Ready { topic, notes } => json!({
                    "name": channel.topic.as_str(),
                    "partitions": topic.partitions,
                    "replicas": topic.replicas,
                    "retention": topic.retention.map(crate::duration::iso),
                    "maxRecordBytes": topic.max_record_bytes,
                    "notes": notes,
                }),
                TopicState::Pending | TopicState::Failed(_) => {
                    json!({ "name": channel.topic.as_str() })
                }
            };
            items.push(json!({
                "apiVersion": "messaging.knative.dev/v1beta1",
                "kind": "KafkaChannel",
                "metadata": {
                    "name": name.name(),
                    "namespace": name.namespace(),
                    "generation": channel.generation,
                },
                "spec": {
                    "numPartitions": channel.partitions,
                    "replicationFactor": channel.replicas,
                    "retentionDuration": crate::duration::iso(channel.retention),
                },
                "status": {
                    "observedGeneration": channel.generation,
                    "conditions": conditions(self.channel_conditions.get(name)),
                    "address": { "url": channel_url(name) },
                    "deadLetterSinkUri": channel.dead_letter.as_ref().map(Sink::url),
                    "subscribers": self.subscribers(name),
                    "topic": topic,
                },
            }));
        }
        items
    }

    fn subscribers(&self, channel: &ResourceName) -> Vec<Value> {
        let mut subscribers = Vec::new();
        for (name, entry) in &self.snapshot.subscriptions {
            let Resolution::Resolved(subscription) = &entry.resolution else {
                continue;
            };
            if subscription.channel != *channel {
                continue;
            }
            let ready = self
                .subscription_conditions
                .get(name)
                .map(Conditions::ready);
            let (truth, message) = match &ready {
                Some(truth) => (truth.name(), truth.message()),
                None => ("Unknown", ""),
            };
            subscribers.push(json!({
                "uid": subscription.uid,
                "name": name.to_string(),
                "observedGeneration": subscription.generation,
                "ready": truth,
                "message": message,
            }));
        }
        subscribers
    }

    fn subscriptions(&self) -> Vec<Value> {
        let entries = self.snapshot.subscriptions.iter();
        entries
            .map(|(name, entry)| self.subscription(name, entry))
            .collect()
    }

    fn subscription(&self, name: &ResourceName, entry: &SubscriptionEntry) -> Value {
        let mut status = json!({
            "observedGeneration": entry.generation,
            "conditions": conditions(self.subscription_conditions.get(name)),
            "physicalSubscription": {},
        });
        let mut uid = Value::Null;
        if let Resolution::Resolved(subscription) = &entry.resolution {
            uid = json!(subscription.uid);
            status["physicalSubscription"] = json!({
                "subscriberUri": subscription.subscriber.url(),
                "replyUri": subscription.reply.as_ref().map(Sink::url),
                "deadLetterSinkUri": subscription.dead_letter.as_ref().map(Sink::url),
            });
            status["topic"] = json!(subscription.topic.as_str());
            status["retryTopic"] = json!(subscription.retry_topic.as_str());
            status["deadLetterTopic"] = json!(subscription.dead_letter_topic.as_str());
            status["group"] = json!(subscription.group.to_string());
            if let Some(lag) = self.lag.get(name) {
                status["lag"] = lag.to_json();
            }
            if let Some(member) = self.members.get(name) {
                status["expiredRecords"] = json!(member.progress.expired_records());
            }
        }
        json!({
            "apiVersion": "messaging.knative.dev/v1",
            "kind": "Subscription",
            "metadata": {
                "name": name.name(),
                "namespace": name.namespace(),
                "uid": uid,
                "generation": entry.generation,
            },
            "spec": entry.manifest.spec,
            "status": status,
        })
    }
}

type Parts = Vec<(&'static str, Truth)>;

fn channel_parts(topic: &TopicState) -> Parts {
    let ready = match topic {
        TopicState::Ready { .. } => Truth::True,
        TopicState::Pending => Truth::Unknown("TopicPending", "the topic is being made".into()),
        TopicState::Failed(error) => Truth::False("TopicNotReady", error.to_string()),
    };
    let addressable = if is_true(&ready) {
        Truth::True
    } else {
        Truth::Unknown("TopicNotReady", "the topic comes first".into())
    };
    vec![
        ("TopicReady", ready),
        ("Addressable", addressable),
        ("Subscribers", Truth::True),
    ]
}

fn conditions(conditions: Option<&Conditions>) -> Value {
    conditions.map_or_else(|| json!([]), Conditions::to_json)
}
