//! The text of one file to documents.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Problem;
use super::delivery::{self, Delivery, DeliveryOptions, Dialect};
use super::destination::{self, CHANNEL_KINDS, HttpUrl, read_kind, read_name};
use super::document::{
    ChannelRef, ChannelSpec, Document, ResourceKey, ResourceType, SinkSpec, Spec, SubscriptionSpec,
};
use super::fields::{Context, Fields, Others};
use super::headers::read_headers;
use super::secrets::Secrets;
use super::yaml::{self, Node, Value};
use crate::channel::{Ordering, ResourceName, label_problem};
use crate::clock::UnixMillis;

/// What one file came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The documents without a problem, in order.
    pub documents: Vec<Document>,
    /// The resources whose documents have one, as far as their names could be read.
    pub invalid: Vec<ResourceKey>,
    /// All problems, by line.
    pub problems: Vec<Problem>,
    /// The text is no YAML: which resources it was to declare is not known.
    pub broken: bool,
    /// Files that request headers were read from.
    pub secret_files: Vec<PathBuf>,
}

/// Reads the text of one file. Nothing in it can make this panic.
#[must_use]
pub fn parse(file: &str, bytes: &[u8], secrets: &dyn Secrets) -> Parsed {
    let mut cx = Context::new(file, secrets);
    let mut parsed = Parsed::default();
    match load(bytes) {
        Ok(nodes) => {
            for node in nodes.iter().filter(|node| !node.is_null()) {
                read_root(node, &mut parsed, &mut cx);
            }
        }
        Err(error) => {
            parsed.broken = true;
            cx.problem(error.line, "", error.message);
        }
    }
    parsed.secret_files = std::mem::take(&mut cx.secret_files);
    parsed.problems = cx.into_problems();
    parsed
}

fn load(bytes: &[u8]) -> Result<Vec<Node>, yaml::SyntaxError> {
    if bytes.len() > yaml::MAX_BYTES {
        let (size, limit) = (bytes.len(), yaml::MAX_BYTES);
        let message = format!("the file has {size} bytes, more than the {limit} that are read");
        return Err(yaml::SyntaxError { line: 1, message });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = &bytes[..error.valid_up_to()];
        yaml::SyntaxError {
            line: 1 + good.iter().filter(|byte| **byte == b'\n').count(),
            message: "the text is not UTF-8".to_owned(),
        }
    })?;
    yaml::load(text).map_err(|error| yaml::SyntaxError {
        message: format!("not YAML: {}", error.message),
        ..error
    })
}

/// A document, or a `v1 List` of them as `kubectl get -o yaml` writes it.
fn read_root(node: &Node, parsed: &mut Parsed, cx: &mut Context<'_>) {
    let Value::Map(entries) = &node.value else {
        let message = format!(
            "a document must be an object (a mapping), not {}",
            node.kind()
        );
        return cx.problem(node.line, "", message);
    };
    let text = |name: &str| {
        entries
            .iter()
            .find(|entry| entry.key == name)
            .and_then(|entry| match &entry.value.value {
                Value::Text(text) => Some(text.as_str()),
                _ => None,
            })
    };
    let items = entries
        .iter()
        .find(|entry| entry.key == "items")
        .map(|entry| &entry.value.value);
    match (text("apiVersion"), text("kind"), items) {
        (Some("v1"), Some("List"), Some(Value::List(items))) => {
            for item in items {
                read_document(item, parsed, cx);
            }
        }
        _ => read_document(node, parsed, cx),
    }
}

/// The kinds of documents.
#[derive(Clone, Copy)]
enum Kind {
    Channel { template: bool },
    Subscription(Dialect),
    Sink,
}

const KINDS: [(&str, &str, Kind); 5] = [
    (
        "messaging.knative.dev/v1beta1",
        "KafkaChannel",
        Kind::Channel { template: false },
    ),
    (
        "messaging.knative.dev/v1",
        "Channel",
        Kind::Channel { template: true },
    ),
    (
        "messaging.knative.dev/v1",
        "Subscription",
        Kind::Subscription(Dialect::Knative),
    ),
    (
        "levada.dev/v1",
        "Subscription",
        Kind::Subscription(Dialect::Levada),
    ),
    ("levada.dev/v1", "Sink", Kind::Sink),
];

fn read_document(node: &Node, parsed: &mut Parsed, cx: &mut Context<'_>) {
    let before = cx.found();
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    let Some(fields) = Fields::open(node, "", &known, Others::Refused, cx) else {
        return;
    };
    let kind = read_document_kind(&fields, cx);
    let metadata = Metadata::read(&fields, cx);
    let empty = Node {
        line: fields.line,
        value: Value::Map(Vec::new()),
    };
    let spec_node = fields.get("spec").unwrap_or(&empty);
    let Some(kind) = kind else { return };
    // The spec is looked at even when the name is wrong, so that every problem is reported.
    let namespace = metadata
        .as_ref()
        .map_or("default", |metadata| metadata.name.namespace());
    let (resource, spec) = match kind {
        Kind::Channel { template } => (
            ResourceType::Channel,
            read_channel(spec_node, template, namespace, cx),
        ),
        Kind::Subscription(dialect) => {
            let annotated = annotated_ordering(&fields, cx);
            let spec = read_subscription(spec_node, dialect, namespace, annotated, cx);
            (ResourceType::Subscription, spec)
        }
        Kind::Sink => (ResourceType::Sink, read_sink(spec_node, cx)),
    };
    let Some(metadata) = metadata else { return };
    let key = ResourceKey {
        resource,
        name: metadata.name,
    };
    match spec {
        Some(spec) if cx.found() == before => parsed.documents.push(Document {
            key,
            file: Arc::clone(&cx.file),
            line: fields.line,
            uid: metadata.uid,
            generation: metadata.generation,
            created: metadata.created,
            raw: spec_node.to_json(),
            spec,
        }),
        _ => parsed.invalid.push(key),
    }
}

fn read_document_kind(fields: &Fields<'_>, cx: &mut Context<'_>) -> Option<Kind> {
    let version = fields.text("apiVersion", cx).unwrap_or_default();
    let kind = fields.text("kind", cx).unwrap_or_default();
    let found = KINDS.iter().find(|(v, k, _)| (*v, *k) == (version, kind));
    if found.is_none() {
        let same: Vec<_> = KINDS.iter().filter(|(_, k, _)| *k == kind).collect();
        let named = if same.is_empty() {
            KINDS.iter().collect()
        } else {
            same
        };
        let known: Vec<_> = named.iter().map(|(v, k, _)| format!("{v} {k}")).collect();
        let what = match (version, kind) {
            ("", _) | (_, "") => "missing field: a document needs both".to_owned(),
            _ => format!("{version} {kind} is not known"),
        };
        let line = fields.line_of(if version.is_empty() {
            "kind"
        } else {
            "apiVersion"
        });
        cx.problem(
            line,
            "apiVersion/kind",
            format!("{what}; known: {}", known.join(", ")),
        );
    }
    found.map(|(_, _, kind)| *kind)
}

struct Metadata {
    name: ResourceName,
    uid: Option<String>,
    generation: Option<i64>,
    created: Option<UnixMillis>,
}

impl Metadata {
    fn read(document: &Fields<'_>, cx: &mut Context<'_>) -> Option<Self> {
        let Some(node) = document.get("metadata") else {
            document.problem("metadata", "missing field: metadata.name is needed", cx);
            return None;
        };
        let fields = Fields::open(node, "metadata", &[], Others::Ignored, cx)?;
        let namespace = fields.text("namespace", cx).filter(|text| !text.is_empty());
        let namespace = namespace.unwrap_or("default");
        if let Some(problem) = label_problem(namespace) {
            let message = format!("{namespace:?} is not a DNS label: {problem}");
            fields.problem("namespace", message, cx);
            return None;
        }
        let name = read_name(&fields, namespace, cx);
        let uid = fields.text("uid", cx).filter(|uid| !uid.is_empty());
        // It becomes part of a group's name and of message ids.
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if uid.is_some_and(|uid| uid.len() > 128 || !uid.chars().all(legal)) {
            fields.problem("uid", "must be at most 128 of a-z A-Z 0-9 . _ -", cx);
        }
        let created = fields.text("creationTimestamp", cx);
        let created = created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Some(Self {
            name: name?,
            uid: uid.map(str::to_owned),
            generation: fields.int("generation", 0..=i64::MAX, cx),
            created: created.map(|time| UnixMillis(time.as_millisecond())),
        })
    }
}

const ORDER_ANNOTATION: &str = "kafka.eventing.knative.dev/delivery.order";

fn annotated_ordering(document: &Fields<'_>, cx: &mut Context<'_>) -> Option<Ordering> {
    // Everything else about metadata is reported where it is read.
    let Value::Map(metadata) = &document.get("metadata")?.value else {
        return None;
    };
    let annotations = metadata.iter().find(|entry| entry.key == "annotations")?;
    if annotations.value.is_null() {
        return None;
    }
    let path = "metadata.annotations";
    let fields = Fields::open(&annotations.value, path, &[], Others::Ignored, cx)?;
    let orders = [
        ("ordered", Ordering::Partition),
        ("unordered", Ordering::None),
    ];
    fields.choice(ORDER_ANNOTATION, &orders, cx)
}

/// Seven days.
const DEFAULT_RETENTION: Duration = Duration::from_secs(168 * 3_600);

fn read_channel(
    node: &Node,
    template: bool,
    namespace: &str,
    cx: &mut Context<'_>,
) -> Option<Spec> {
    // An exported channel lists its subscribers; they are declared by the subscriptions.
    let mut known = vec!["numPartitions", "replicationFactor", "retentionDuration"];
    known.extend(["delivery", "subscribers"]);
    known.extend(template.then_some("channelTemplate"));
    let fields = Fields::open(node, "spec", &known, Others::Refused, cx)?;
    let delivery = delivery::read(fields.get("delivery"), Dialect::Knative, namespace, cx);
    let own = Sizes::read(&fields, cx);
    let templated = fields
        .get("channelTemplate")
        .filter(|_| template)
        .and_then(|node| read_template(node, cx))
        .unwrap_or_default();
    Some(Spec::Channel(Box::new(ChannelSpec {
        partitions: own.partitions.or(templated.partitions).unwrap_or(1),
        replicas: own.replicas.or(templated.replicas).unwrap_or(1),
        retention: own
            .retention
            .or(templated.retention)
            .unwrap_or(DEFAULT_RETENTION),
        delivery: delivery.options,
    })))
}

#[derive(Default)]
struct Sizes {
    partitions: Option<u32>,
    replicas: Option<u16>,
    retention: Option<Duration>,
}

impl Sizes {
    fn read(fields: &Fields<'_>, cx: &mut Context<'_>) -> Self {
        let partitions = fields.int("numPartitions", 0..=i32::MAX.into(), cx);
        let replicas = fields.int("replicationFactor", 0..=i16::MAX.into(), cx);
        Self {
            // 0 is what Kubernetes writes for a number that was left out.
            partitions: partitions.filter(|count| *count > 0),
            replicas: replicas.filter(|count| *count > 0),
            retention: fields.positive_duration("retentionDuration", cx),
        }
    }
}

/// `spec.channelTemplate` of a Channel, which says what channel stands behind it.
fn read_template(node: &Node, cx: &mut Context<'_>) -> Option<Sizes> {
    let path = "spec.channelTemplate";
    let known = ["apiVersion", "kind", "spec"];
    let fields = Fields::open(node, path, &known, Others::Refused, cx)?;
    read_kind(
        &fields,
        &[("messaging.knative.dev/v1beta1", "KafkaChannel", ())],
        cx,
    )?;
    let known = ["numPartitions", "replicationFactor", "retentionDuration"];
    let spec = fields.get("spec")?;
    let path = fields.path_of("spec");
    Fields::open(spec, &path, &known, Others::Refused, cx).map(|fields| Sizes::read(&fields, cx))
}

fn read_subscription(
    node: &Node,
    dialect: Dialect,
    namespace: &str,
    annotated: Option<Ordering>,
    cx: &mut Context<'_>,
) -> Option<Spec> {
    let known = ["channel", "subscriber", "reply", "delivery"];
    let fields = Fields::open(node, "spec", &known, Others::Refused, cx)?;
    let channel = read_channel_ref(&fields, namespace, cx);
    let said = |name: &str| fields.get(name).filter(|node| !destination::is_blank(node));
    let subscriber = match said("subscriber") {
        Some(node) => destination::read(node, "spec.subscriber", namespace, cx),
        None => {
            fields.problem("subscriber", "missing field: say where events go", cx);
            None
        }
    };
    let reply = said("reply").and_then(|node| destination::read(node, "spec.reply", namespace, cx));
    let Delivery { options, headers } =
        delivery::read(fields.get("delivery"), dialect, namespace, cx);
    let annotated = DeliveryOptions {
        ordering: annotated,
        ..DeliveryOptions::default()
    };
    Some(Spec::Subscription(Box::new(SubscriptionSpec {
        channel: channel?,
        subscriber: subscriber?,
        reply,
        delivery: options.or(annotated),
        headers: headers.into(),
    })))
}

fn read_channel_ref(
    spec: &Fields<'_>,
    namespace: &str,
    cx: &mut Context<'_>,
) -> Option<ChannelRef> {
    let Some(node) = spec
        .get("channel")
        .filter(|node| !destination::is_blank(node))
    else {
        spec.problem("channel", "missing field: say which channel to read", cx);
        return None;
    };
    let known = ["apiVersion", "kind", "name", "namespace"];
    let fields = Fields::open(node, "spec.channel", &known, Others::Refused, cx)?;
    if fields.get("namespace").is_some() {
        let message = "must not be set: a subscription reads a channel of its own namespace";
        fields.problem("namespace", message, cx);
    }
    let kind = read_kind(&fields, &CHANNEL_KINDS, cx);
    let name = read_name(&fields, namespace, cx);
    Some(ChannelRef {
        kind: kind?,
        name: name?,
        line: spec.line_of("channel"),
    })
}

fn read_sink(node: &Node, cx: &mut Context<'_>) -> Option<Spec> {
    let fields = Fields::open(node, "spec", &["uri", "headers"], Others::Refused, cx)?;
    let headers = fields
        .get("headers")
        .map(|node| read_headers(node, "spec.headers", cx));
    let uri = fields.required_text("uri", cx)?;
    match HttpUrl::try_new(uri) {
        Ok(uri) => Some(Spec::Sink(SinkSpec {
            uri,
            headers: headers.unwrap_or_default().into(),
        })),
        Err(message) => {
            fields.problem("uri", message, cx);
            None
        }
    }
}
