//! Documents to snapshot: follows every reference, as a pure function.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::naming::Templates;
use super::{Manifest, Reason, Resolution, Snapshot, SubscriptionEntry};
use crate::channel::{Channel, HttpSink, ResourceName, Sink, Subscription};
use crate::clock::UnixMillis;
use crate::log::{GroupId, TopicName};
use crate::manifest::{
    ChannelSpec, DeliveryOptions, Destination, Document, HttpUrl, Loops, Problem, RefKind,
    Reference, SinkSpec, Spec, SubscriptionSpec, Target, effective,
};

/// A resource in force, as it was declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// The last good document.
    pub document: Arc<Document>,
    /// `metadata.generation`, else 1 and one more for every change seen.
    pub generation: i64,
    /// `metadata.creationTimestamp`, else when it was first seen.
    pub created: UnixMillis,
}

/// Follows the references of all `declared` resources, each declared once. Where two cannot both
/// be had (the same topic or group, a circle of channels) the one that comes first is served.
#[must_use]
pub fn resolve(
    declared: &[Declared],
    templates: &Templates,
    defaults: &DeliveryOptions,
) -> Snapshot {
    let mut resolver = Resolver::new(templates, defaults);
    for resource in declared {
        match &resource.document.spec {
            Spec::Channel(spec) => resolver.add_channel(resource, spec),
            Spec::Sink(spec) => {
                let name = resource.document.key.name.clone();
                resolver.sinks.insert(name, spec);
            }
            Spec::Subscription(_) => {}
        }
    }
    resolver.finish_channels(declared);
    for resource in declared {
        if let Spec::Subscription(spec) = &resource.document.spec {
            resolver.add_subscription(resource, spec);
        }
    }
    let mut snapshot = resolver.snapshot;
    let order = |problem: &Problem| (Arc::clone(&problem.file), problem.line);
    snapshot.problems.sort_by_key(order);
    snapshot
}

struct Resolver<'d> {
    templates: &'d Templates,
    defaults: &'d DeliveryOptions,
    snapshot: Snapshot,
    sinks: BTreeMap<ResourceName, &'d SinkSpec>,
    specs: BTreeMap<ResourceName, &'d ChannelSpec>,
    /// What has each topic, to find names that are given twice.
    topics: HashMap<TopicName, String>,
    groups: HashMap<GroupId, ResourceName>,
    loops: Loops,
}

/// Why a subscription is not served.
struct Failure {
    reason: Reason,
    message: String,
    /// The field, when it is a mistake in the manifest and not something that may come yet.
    problem: Option<(usize, &'static str)>,
}

impl Failure {
    fn missing(reason: Reason) -> impl FnOnce(String) -> Self {
        move |message| Self {
            reason,
            message,
            problem: None,
        }
    }
}

impl<'d> Resolver<'d> {
    fn new(templates: &'d Templates, defaults: &'d DeliveryOptions) -> Self {
        Self {
            templates,
            defaults,
            snapshot: Snapshot::default(),
            sinks: BTreeMap::new(),
            specs: BTreeMap::new(),
            topics: HashMap::new(),
            groups: HashMap::new(),
            loops: Loops::default(),
        }
    }

    fn problem(&mut self, document: &Document, line: usize, field: &str, message: String) {
        self.snapshot.problems.push(Problem {
            file: Arc::clone(&document.file),
            line,
            field: field.to_owned(),
            message,
        });
    }

    /// Adds a channel, its dead-letter sink still open.
    fn add_channel(&mut self, resource: &Declared, spec: &'d ChannelSpec) {
        let document = &resource.document;
        let name = &document.key.name;
        let topic = match self.templates.channel_topic(name) {
            Ok(topic) => topic,
            Err(error) => {
                let line = document.line;
                return self.problem(document, line, "metadata.name", error.to_string());
            }
        };
        if let Err(message) = self.claim(&topic, &document.key.to_string()) {
            return self.problem(document, document.line, "metadata.name", message);
        }
        self.specs.insert(name.clone(), spec);
        self.snapshot
            .channel_manifests
            .insert(name.clone(), manifest(resource));
        let channel = Channel {
            name: name.clone(),
            generation: resource.generation,
            partitions: spec.partitions,
            replicas: spec.replicas,
            retention: spec.retention,
            topic,
            dead_letter: None,
        };
        self.snapshot
            .channels
            .insert(name.clone(), Arc::new(channel));
    }

    fn claim(&mut self, topic: &TopicName, owner: &str) -> Result<(), String> {
        match self.topics.get(topic) {
            Some(other) => Err(format!("topic {topic} already belongs to {other}")),
            None => {
                self.topics.insert(topic.clone(), owner.to_owned());
                Ok(())
            }
        }
    }

    /// Resolves the channels' dead-letter sinks, now that all channels and sinks are known.
    fn finish_channels(&mut self, declared: &[Declared]) {
        for resource in declared {
            let document = &resource.document;
            let Spec::Channel(spec) = &document.spec else {
                continue;
            };
            let Some(destination) = &spec.delivery.dead_letter else {
                continue;
            };
            match self.sink(destination, &[]) {
                Ok(sink) => {
                    if let Some(channel) = self.snapshot.channels.get_mut(&document.key.name) {
                        Arc::make_mut(channel).dead_letter = Some(sink);
                    }
                }
                Err(message) => {
                    let field = "spec.delivery.deadLetterSink";
                    self.problem(document, destination.line, field, message);
                }
            }
        }
    }

    fn add_subscription(&mut self, resource: &Declared, spec: &SubscriptionSpec) {
        let document = &resource.document;
        let name = &document.key.name;
        let uid = document
            .uid
            .clone()
            .unwrap_or_else(|| format!("{}.{}", name.namespace(), name.name()));
        let resolution = match self.subscription(resource, spec, &uid) {
            Ok(subscription) => Resolution::Resolved(Arc::new(subscription)),
            Err(Failure {
                reason,
                message,
                problem,
            }) => {
                if let Some((line, field)) = problem {
                    self.problem(document, line, field, message.clone());
                }
                Resolution::Unresolved { reason, message }
            }
        };
        let inherited = self
            .specs
            .get(&spec.channel.name)
            .map(|spec| &spec.delivery);
        let entry = SubscriptionEntry {
            channel: spec.channel.name.clone(),
            uid,
            generation: resource.generation,
            delivery: effective(&spec.delivery, inherited, self.defaults),
            resolution,
            manifest: manifest(resource),
        };
        self.snapshot.subscriptions.insert(name.clone(), entry);
    }

    fn subscription(
        &mut self,
        resource: &Declared,
        spec: &SubscriptionSpec,
        uid: &str,
    ) -> Result<Subscription, Failure> {
        let document = &resource.document;
        let name = &document.key.name;
        let channel = self.snapshot.channels.get(&spec.channel.name).cloned();
        let channel = channel.ok_or_else(|| {
            let message = format!("channel {} does not exist", spec.channel.name);
            Failure::missing(Reason::ChannelReferenceFailed)(message)
        })?;
        let inherited = self
            .specs
            .get(&spec.channel.name)
            .map(|spec| &spec.delivery);
        let own_dead_letter = spec.delivery.dead_letter.as_ref();
        let dead_letter =
            own_dead_letter.or(inherited.and_then(|delivery| delivery.dead_letter.as_ref()));
        let subscriber = self
            .sink(&spec.subscriber, &spec.headers)
            .map_err(Failure::missing(Reason::SubscriberResolveFailed))?;
        let reply = spec
            .reply
            .as_ref()
            .map(|reply| self.sink(reply, &[]))
            .transpose()
            .map_err(Failure::missing(Reason::ReplyResolveFailed))?;
        let dead_letter = dead_letter
            .map(|destination| self.sink(destination, &[]))
            .transpose()
            .map_err(Failure::missing(Reason::DeadLetterSinkResolveFailed))?;
        let delivery = effective(&spec.delivery, inherited, self.defaults);
        let (retry_topic, dead_letter_topic) = self.topics_of(document, &channel.topic)?;
        let group = self.group_of(document, &channel.name, uid)?;
        self.guard_circles(document, spec, &subscriber, dead_letter.as_ref())?;
        Ok(Subscription {
            name: name.clone(),
            uid: uid.to_owned(),
            generation: resource.generation,
            channel: channel.name.clone(),
            topic: channel.topic.clone(),
            retry_topic,
            dead_letter_topic,
            group,
            subscriber,
            reply,
            dead_letter,
            delivery,
        })
    }

    /// Refuses what would send events round for ever.
    fn guard_circles(
        &mut self,
        document: &Document,
        spec: &SubscriptionSpec,
        subscriber: &Sink,
        dead_letter: Option<&Sink>,
    ) -> Result<(), Failure> {
        let field = "spec.delivery.deadLetterSink";
        let own = spec.delivery.dead_letter.as_ref();
        let dead_line = own.map_or(document.line, |destination| destination.line);
        let subscriber_line = spec.subscriber.line;
        let ways = [
            (
                Some(subscriber),
                Reason::SubscriberResolveFailed,
                "spec.subscriber",
                subscriber_line,
            ),
            (
                dead_letter,
                Reason::DeadLetterSinkResolveFailed,
                field,
                dead_line,
            ),
        ];
        let to_channel = |sink: Option<&Sink>| matches!(sink, Some(Sink::Channel { .. }));
        if !to_channel(Some(subscriber)) && !to_channel(dead_letter) {
            return Ok(());
        }
        // Of a subscription that is refused no way must stay behind.
        let mut loops = self.loops.clone();
        for (sink, reason, field, line) in ways {
            let Some(Sink::Channel { name, .. }) = sink else {
                continue;
            };
            if let Some(circle) = loops.add(&spec.channel.name, name) {
                return Err(Failure {
                    reason,
                    message: crate::manifest::circle_message(&circle),
                    problem: Some((line, field)),
                });
            }
        }
        self.loops = loops;
        Ok(())
    }

    fn topics_of(
        &mut self,
        document: &Document,
        topic: &TopicName,
    ) -> Result<(TopicName, TopicName), Failure> {
        let name = &document.key.name;
        let wrong = |message: String| Failure {
            reason: Reason::ChannelReferenceFailed,
            message,
            problem: Some((document.line, "metadata.name")),
        };
        let retry = self.templates.retry_topic(topic, name);
        let retry = retry.map_err(|error| wrong(error.to_string()))?;
        let dead_letter = self.templates.dead_letter_topic(topic, name);
        let dead_letter = dead_letter.map_err(|error| wrong(error.to_string()))?;
        let owner = document.key.to_string();
        self.claim(&retry, &owner).map_err(wrong)?;
        self.claim(&dead_letter, &owner).map_err(wrong)?;
        Ok((retry, dead_letter))
    }

    /// The group; two subscriptions in one would take each other's events.
    fn group_of(
        &mut self,
        document: &Document,
        channel: &ResourceName,
        uid: &str,
    ) -> Result<GroupId, Failure> {
        let name = &document.key.name;
        let group = self.templates.group(channel, name, uid);
        if let Some(other) = self.groups.get(&group) {
            return Err(Failure {
                reason: Reason::ChannelReferenceFailed,
                message: format!(
                    "consumer group {group} already belongs to subscription {other}: \
                     give each its own metadata.uid, or none"
                ),
                problem: Some((document.line, "metadata.uid")),
            });
        }
        self.groups.insert(group.clone(), name.clone());
        Ok(group)
    }

    /// Follows a destination; `headers` win over those of a named sink.
    fn sink(
        &self,
        destination: &Destination,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Sink, String> {
        let (url, below) = match &destination.target {
            Target::Url(url) => (url.clone(), None),
            Target::Ref { reference, path } => {
                let (base, sink_headers) = match self.follow(reference)? {
                    Followed::Channel(sink) => return Ok(sink),
                    Followed::Address(url, headers) => (url, headers),
                };
                match path {
                    Some(path) => (base.join(path)?, sink_headers),
                    None => (base, sink_headers),
                }
            }
        };
        let mut merged = headers.to_vec();
        for (name, value) in below.map(|headers| &**headers).unwrap_or_default() {
            if !headers.iter().any(|(own, _)| own == name) {
                merged.push((name.clone(), value.clone()));
            }
        }
        Ok(Sink::Http(HttpSink {
            url: url.text,
            uri: url.uri,
            headers: merged.into(),
            ca_certs: destination.ca_certs.clone(),
        }))
    }

    fn follow(&self, reference: &Reference) -> Result<Followed<'d>, String> {
        let name = &reference.name;
        match reference.kind {
            RefKind::Service => {
                let url = format!("http://{}.{}.svc/", name.name(), name.namespace());
                Ok(Followed::Address(HttpUrl::try_new(&url)?, None))
            }
            RefKind::Channel => match self.snapshot.channels.get(name) {
                Some(channel) => Ok(Followed::Channel(Sink::Channel {
                    name: name.clone(),
                    topic: channel.topic.clone(),
                })),
                None => Err(format!("channel {name} does not exist")),
            },
            RefKind::Sink => match self.sinks.get(name) {
                Some(sink) => Ok(Followed::Address(sink.uri.clone(), Some(&sink.headers))),
                None => Err(format!("sink {name} does not exist")),
            },
        }
    }
}

/// What a reference leads to.
enum Followed<'d> {
    Channel(Sink),
    Address(HttpUrl, Option<&'d Arc<[(HeaderName, HeaderValue)]>>),
}

fn manifest(resource: &Declared) -> Arc<Manifest> {
    Arc::new(Manifest {
        file: Arc::clone(&resource.document.file),
        line: resource.document.line,
        created: resource.created,
        spec: resource.document.raw.clone(),
    })
}
