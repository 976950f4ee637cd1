//! What one document declares, references not yet followed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::delivery::DeliveryOptions;
use super::destination::{Destination, HttpUrl};
use crate::channel::ResourceName;
use crate::clock::UnixMillis;

/// A resource as one document declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Which resource.
    pub key: ResourceKey,
    /// The file it stands in, as it was named.
    pub file: Arc<str>,
    /// The line it begins at, from 1.
    pub line: usize,
    /// `metadata.uid`
    pub uid: Option<String>,
    /// `metadata.generation`
    pub generation: Option<i64>,
    /// `metadata.creationTimestamp`
    pub created: Option<UnixMillis>,
    /// `spec` as it was written, as JSON; references to secrets are not filled in.
    pub raw: serde_json::Value,
    /// The same, understood.
    pub spec: Spec,
}

/// Names a resource among all: its type and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// What it is.
    pub resource: ResourceType,
    /// What it is called.
    pub name: ResourceName,
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = match self.resource {
            ResourceType::Channel => "channel",
            ResourceType::Subscription => "subscription",
            ResourceType::Sink => "sink",
        };
        write!(f, "{resource} {}", self.name)
    }
}

/// The types of resources. Kinds that share a type share its names: a Channel and a KafkaChannel
/// of one name would have the same topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `KafkaChannel` and `Channel`.
    Channel,
    /// Knative's `Subscription` and ours.
    Subscription,
    /// `Sink`.
    Sink,
}

/// What a document says about its resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// A channel.
    Channel(Box<ChannelSpec>),
    /// A subscription.
    Subscription(Box<SubscriptionSpec>),
    /// A named sink.
    Sink(SinkSpec),
}

/// `spec` of a channel, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelSpec {
    /// `numPartitions`, default 1.
    pub partitions: u32,
    /// `replicationFactor`, default 1.
    pub replicas: u16,
    /// `retentionDuration`, default seven days.
    pub retention: Duration,
    /// What its subscriptions use where they say nothing.
    pub delivery: DeliveryOptions,
}

/// `spec` of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionSpec {
    /// The channel it reads.
    pub channel: ChannelRef,
    /// Where events go.
    pub subscriber: Destination,
    /// Where replies go.
    pub reply: Option<Destination>,
    /// How events are delivered.
    pub delivery: DeliveryOptions,
    /// Request headers for the subscriber, secrets filled in.
    pub headers: Arc<[(HeaderName, HeaderValue)]>,
}

/// `spec.channel` of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRef {
    /// The kind that is named.
    pub kind: ChannelKind,
    /// The channel, in the subscription's namespace.
    pub name: ResourceName,
    /// The line it stands on.
    pub line: usize,
}

/// The kinds of channels. They differ in name only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// `messaging.knative.dev/v1beta1 KafkaChannel`
    KafkaChannel,
    /// `messaging.knative.dev/v1 Channel`
    Channel,
}

/// `spec` of a named sink.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkSpec {
    /// The address.
    pub uri: HttpUrl,
    /// Request headers, secrets filled in.
    pub headers: Arc<[(HeaderName, HeaderValue)]>,
}

/// Which immutable fields `new` would change in the same resource, if any.
#[must_use]
pub fn immutable_change(old: &Document, new: &Document) -> Option<String> {
    let changed = match (&old.spec, &new.spec) {
        (Spec::Channel(old), Spec::Channel(new)) => [
            ("numPartitions", old.partitions != new.partitions),
            ("replicationFactor", old.replicas != new.replicas),
            ("retentionDuration", old.retention != new.retention),
        ]
        .iter()
        .filter(|(_, changed)| *changed)
        .map(|(field, _)| *field)
        .collect::<Vec<_>>(),
        (Spec::Subscription(old), Spec::Subscription(new))
            if (old.channel.kind, &old.channel.name) != (new.channel.kind, &new.channel.name) =>
        {
            vec!["channel"]
        }
        _ => Vec::new(),
    };
    (!changed.is_empty()).then(|| {
        let fields = changed.join(", ");
        format!(
            "immutable fields changed: {fields}; the old state stays in force \
             (to change them, remove the resource first)"
        )
    })
}
