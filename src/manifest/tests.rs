//! Manifests as a whole: the conformance vectors, and what the vectors leave open.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::channel::{BackoffPolicy, Format, Ordering, RetryCodes};
use crate::duration;

/// Where the vectors leave it open and ours is the stricter answer: an unknown field is an error.
const STRICTER: [&str; 2] = ["unknown-spec-field", "unknown-delivery-field"];

fn vectors() -> Vec<Json> {
    let text = include_str!("../../tests/vectors/subscription_yaml.json");
    let mut vectors: Json = serde_json::from_str(text).unwrap();
    match vectors["cases"].take() {
        Json::Array(cases) => cases,
        other => panic!("no list of cases: {other}"),
    }
}

fn source(name: &str, text: &str) -> Source {
    Source {
        name: name.to_owned(),
        content: text.into(),
    }
}

fn checked(text: &str) -> Report {
    check(&[source("a.yaml", text)], &[])
}

fn fields(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|p| p.field.as_str()).collect()
}

#[test]
fn every_vector_is_judged_as_it_says() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 72);
    for case in &vectors {
        let name = case["name"].as_str().unwrap();
        let text = case["yaml"].as_str().unwrap();
        let old = case["old_yaml"].as_str();
        let old: Vec<_> = old.iter().map(|old| source("old.yaml", old)).collect();
        let report = check(&[source(name, text)], &old);
        let wanted = case["valid"].as_bool().unwrap() && !STRICTER.contains(&name);
        assert_eq!(report.is_valid(), wanted, "{name}: {:?}", report.problems);
        for path in case["error_paths"].as_array().into_iter().flatten() {
            let path = path.as_str().unwrap();
            assert!(
                report.problems.iter().any(|p| p.field == path),
                "{name}: {path:?} is not among {:?}",
                report.problems
            );
        }
        assert!(report.problems.iter().all(|p| p.line > 0), "{name}");
    }
}

const CHANNEL: &str = "
apiVersion: messaging.knative.dev/v1beta1
kind: KafkaChannel
metadata: {name: orders}
spec: {}
";

/// A subscription of our own kind with `delivery` (a flow mapping).
fn levada(delivery: &str) -> String {
    format!(
        "
apiVersion: levada.dev/v1
kind: Subscription
metadata: {{name: s1}}
spec:
  channel: {{apiVersion: messaging.knative.dev/v1beta1, kind: KafkaChannel, name: orders}}
  subscriber: {{uri: http://sub.example.com/}}
  delivery: {delivery}
"
    )
}

fn knative(delivery: &str) -> String {
    levada(delivery).replace("levada.dev/v1", "messaging.knative.dev/v1")
}

fn subscription(text: &str) -> SubscriptionSpec {
    let report = checked(text);
    assert_eq!(report.problems, [], "{text}");
    let found = report
        .documents
        .into_iter()
        .find_map(|document| match document.spec {
            Spec::Subscription(spec) => Some(*spec),
            Spec::Channel(_) | Spec::Sink(_) => None,
        });
    found.unwrap()
}

#[test]
fn channels_have_their_defaults() {
    let report = checked(CHANNEL);
    let Spec::Channel(spec) = &report.documents[0].spec else {
        panic!()
    };
    let retention = duration::iso(spec.retention);
    assert_eq!(
        (spec.partitions, spec.replicas, retention.as_str()),
        (1, 1, "PT168H")
    );
    assert_eq!(
        report.documents[0].key.to_string(),
        "channel default/orders"
    );
}

#[test]
fn a_channel_template_is_followed() {
    let text = "
apiVersion: messaging.knative.dev/v1
kind: Channel
metadata: {name: orders}
spec:
  channelTemplate:
    apiVersion: messaging.knative.dev/v1beta1
    kind: KafkaChannel
    spec: {numPartitions: 6, retentionDuration: PT1H}
  replicationFactor: 3
";
    let report = checked(text);
    let Spec::Channel(spec) = &report.documents[0].spec else {
        panic!()
    };
    assert_eq!((spec.partitions, spec.replicas), (6, 3));
    let report = checked(&text.replace("kind: KafkaChannel", "kind: InMemoryChannel"));
    assert_eq!(fields(&report.problems), ["spec.channelTemplate.kind"]);
}

#[test]
fn our_own_fields_are_read() {
    let spec = subscription(&levada(
        "{retry: 3, ordering: none, maxInFlight: 7, maxWindow: 99, jitter: 0.25, \
          backoffMax: PT1M, retryWindow: PT1H, retryStatusCodes: [429, '500-599', '404'], \
          deadLetterTopic: false, rateLimit: 10, format: json, backoffPolicy: linear}",
    ));
    let delivery = effective(&spec.delivery, None, &DeliveryOptions::default());
    assert_eq!(delivery.retry, 3);
    assert_eq!(delivery.ordering, Ordering::None);
    assert_eq!((delivery.max_in_flight, delivery.max_window), (7, 99));
    assert_eq!(delivery.backoff.jitter, 0.25);
    assert_eq!(delivery.backoff.policy, BackoffPolicy::Linear);
    assert_eq!(delivery.backoff.max.map(duration::iso).unwrap(), "PT1M");
    assert_eq!(delivery.retry_window.map(duration::iso).unwrap(), "PT1H");
    let codes = [(429, 429), (500, 599), (404, 404)];
    assert_eq!(delivery.retry_codes, RetryCodes::Listed(codes.into()));
    assert!(!delivery.dead_letter_topic);
    assert_eq!(delivery.rate_limit, Some(10.0));
    assert_eq!(delivery.format, Some(Format::Json));
}

#[test]
fn our_own_fields_are_checked() {
    for (delivery, field) in [
        ("{ordering: total}", "ordering"),
        ("{maxInFlight: 0}", "maxInFlight"),
        ("{maxWindow: 1.5}", "maxWindow"),
        ("{jitter: 1.01}", "jitter"),
        ("{jitter: true}", "jitter"),
        ("{jitter: .nan}", "jitter"),
        ("{backoffMax: PT0S}", "backoffMax"),
        ("{retryWindow: 30m}", "retryWindow"),
        ("{retryStatusCodes: 500}", "retryStatusCodes"),
        ("{retryStatusCodes: [500, 200]}", "retryStatusCodes[1]"),
        ("{retryStatusCodes: ['599-500']}", "retryStatusCodes[0]"),
        ("{retryStatusCodes: ['5xx']}", "retryStatusCodes[0]"),
        ("{deadLetterTopic: 'false'}", "deadLetterTopic"),
        ("{preset: mail}", "preset"),
        ("{rateLimit: 0}", "rateLimit"),
        ("{rateLimit: .inf}", "rateLimit"),
        ("{headers: [a]}", "headers"),
        ("{headers: {'a b': x}}", "headers.a b"),
        ("{headers: {Content-Type: x}}", "headers.Content-Type"),
        ("{headers: {ce-id: x}}", "headers.ce-id"),
        ("{headers: {x-a: 1}}", "headers.x-a"),
        ("{headers: {x-a: y, X-A: z}}", "headers.X-A"),
        ("{headers: {x-a: \"a\\nb\"}}", "headers.x-a"),
        ("{headers: {x-a: '${HOME}'}}", "headers.x-a"),
        ("{accepted: maybe}", "accepted"),
        ("{sandbox: 1}", "sandbox"),
        ("{statusCheck: {}}", "statusCheck.status"),
        ("{statusCheck: {status: /s}}", "statusCheck.delivered"),
        (
            "{statusCheck: {status: s, delivered: d}}",
            "statusCheck.status",
        ),
        (
            "{statusCheck: {status: /s, delivered: d, url: 'http://a/b'}, retry: -1}",
            "retry",
        ),
        (
            "{statusCheck: {status: /s, delivered: d, url: 'http://a/{receipt}'}}",
            "statusCheck.url",
        ),
        (
            "{statusCheck: {status: /s, delivered: d, receipt: {pointer: /id}}}",
            "statusCheck.url",
        ),
        (
            "{statusCheck: {status: /s, delivered: d, url: 'http://a/{receipt}', receipt: {}}}",
            "statusCheck.receipt",
        ),
        (
            "{statusCheck: {status: /s, delivered: d, colour: blue}}",
            "statusCheck.colour",
        ),
        ("{colour: blue}", "colour"),
        ("[]", ""),
    ] {
        let report = checked(&levada(delivery));
        let field = format!("spec.delivery.{field}");
        assert_eq!(
            fields(&report.problems),
            [field.trim_end_matches('.')],
            "{delivery}"
        );
    }
    let report = checked(&knative("{jitter: 0.5}"));
    assert!(report.problems[0].message.contains("levada.dev/v1"));
    let report = checked(&knative("{retries: 3}"));
    assert!(report.problems[0].message.contains("did you mean retry?"));
}

#[test]
fn what_is_explicit_wins_over_the_preset_and_that_over_the_channel() {
    let channel = DeliveryOptions {
        retry: Some(1),
        timeout: Some(std::time::Duration::from_secs(7)),
        jitter: Some(0.9),
        ..DeliveryOptions::default()
    };
    let spec = subscription(&levada("{preset: notification, retry: 2}"));
    let delivery = effective(&spec.delivery, Some(&channel), &DeliveryOptions::default());
    assert_eq!(delivery.retry, 2);
    assert_eq!(delivery.backoff.jitter, 0.5);
    assert_eq!(delivery.timeout.as_secs(), 7);
    assert_eq!(duration::iso(delivery.backoff.delay), "PT3.5S");
    for code in [408, 425, 429, 500, 599] {
        assert!(delivery.retry_codes.contains(code), "{code}");
    }
    assert!(!delivery.retry_codes.contains(404));
}

#[test]
fn the_order_annotation_is_followed_below_the_field() {
    let with = |order: &str, delivery: &str| {
        let annotated = format!(
            "metadata:\n  name: s1\n  annotations: \
             {{kafka.eventing.knative.dev/delivery.order: {order}}}"
        );
        let text = levada(delivery);
        effective(
            &subscription(&text.replace("metadata: {name: s1}", &annotated)).delivery,
            None,
            &DeliveryOptions::default(),
        )
        .ordering
    };
    assert_eq!(
        effective(
            &subscription(&levada("{}")).delivery,
            None,
            &DeliveryOptions::default()
        )
        .ordering,
        Ordering::Key
    );
    assert_eq!(with("ordered", "{}"), Ordering::Partition);
    assert_eq!(with("unordered", "{}"), Ordering::None);
    assert_eq!(with("unordered", "{ordering: key}"), Ordering::Key);
    let text = levada("{}").replace(
        "{name: s1}",
        "{name: s1, annotations: {kafka.eventing.knative.dev/delivery.order: sorted}}",
    );
    let field = "metadata.annotations.kafka.eventing.knative.dev/delivery.order";
    assert_eq!(fields(&checked(&text).problems), [field]);
}

#[derive(Debug)]
struct Fixed;

impl Secrets for Fixed {
    fn resolve(&self, secret: &SecretRef) -> Result<String, String> {
        match secret {
            SecretRef::Env(name) if name == "TOKEN" => Ok("t0p".to_owned()),
            SecretRef::File(path) => Ok(path.display().to_string()),
            SecretRef::Env(_) => Err("it is not set".to_owned()),
        }
    }
}

#[test]
fn headers_take_secrets_and_never_show_them() {
    let text = levada("{headers: {Authorization: 'Bearer ${env:TOKEN}', x-k: '${file:k}', a: b}}");
    let parsed = parse("/m/a.yaml", text.as_bytes(), &Fixed);
    let Spec::Subscription(spec) = &parsed.documents[0].spec else {
        panic!()
    };
    let shown: Vec<_> = spec
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap(), value.is_sensitive()))
        .collect();
    assert_eq!(
        shown,
        [
            ("authorization", "Bearer t0p", true),
            ("x-k", "/m/k", true),
            ("a", "b", false)
        ]
    );
    assert_eq!(parsed.secret_files, [std::path::Path::new("/m/k")]);
    let raw = parsed.documents[0].raw.to_string();
    assert!(raw.contains("${env:TOKEN}") && !raw.contains("t0p"));

    let text = levada("{headers: {Authorization: '${env:LEVADA_TEST_NEVER_SET}'}}");
    let parsed = parse("a.yaml", text.as_bytes(), &Fixed);
    assert_eq!(
        fields(&parsed.problems),
        ["spec.delivery.headers.Authorization"]
    );
    assert!(parsed.problems[0].message.contains("LEVADA_TEST_NEVER_SET"));
    let report = checked(&text);
    assert!(report.is_valid());
    assert!(fields(&report.warnings).contains(&"spec.delivery.headers.Authorization"));
}

#[test]
fn destinations_are_read() {
    let with =
        |subscriber: &str| levada("{}").replace("{uri: http://sub.example.com/}", subscriber);
    for (subscriber, field) in [
        (
            "{ref: {apiVersion: v1, kind: Pod, name: a}}",
            "spec.subscriber.ref.kind",
        ),
        (
            "{ref: {apiVersion: v2, kind: Service, name: a}}",
            "spec.subscriber.ref.apiVersion",
        ),
        (
            "{ref: {apiVersion: v1, kind: Service, name: A}}",
            "spec.subscriber.ref.name",
        ),
        (
            "{ref: {apiVersion: v1, kind: Service, name: a, group: g}}",
            "spec.subscriber.ref.group",
        ),
        (
            "{ref: {apiVersion: v1, kind: Service, name: a}, uri: //b/}",
            "spec.subscriber",
        ),
        (
            "{ref: {apiVersion: messaging.knative.dev/v1, kind: Channel, name: a}, uri: /x}",
            "spec.subscriber.uri",
        ),
        ("{uri: http://a/, audience: b}", "spec.subscriber.audience"),
        (
            "{uri: http://a/, CACerts: nonsense}",
            "spec.subscriber.CACerts",
        ),
        ("{uri: http://a/, url: http://b/}", "spec.subscriber.url"),
        ("{uri: ''}", "spec.subscriber.uri"),
        ("http://a/", "spec.subscriber"),
        ("{}", "spec.subscriber"),
    ] {
        assert_eq!(
            fields(&checked(&with(subscriber)).problems),
            [field],
            "{subscriber}"
        );
    }
    let pem = "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n";
    let spec = subscription(&with(&format!("{{uri: 'http://a/', CACerts: \"{pem}\"}}")));
    assert!(spec.subscriber.ca_certs.unwrap().contains("AAAA"));
    let service = "{ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: a}, uri: x}";
    let Target::Ref { reference, path } = subscription(&with(service)).subscriber.target else {
        panic!()
    };
    assert_eq!(
        (reference.kind, path.as_deref()),
        (RefKind::Service, Some("x"))
    );
}

#[test]
fn exported_objects_load() {
    let exported = "
apiVersion: v1
kind: List
items:
- apiVersion: messaging.knative.dev/v1beta1
  kind: KafkaChannel
  metadata:
    name: orders
    namespace: prod
    uid: 6d6e2b3a-0000-4000-8000-000000000001
    generation: 4
    creationTimestamp: '2026-01-31T12:00:00Z'
    labels: {a: b}
    managedFields: [{manager: kubectl}]
    finalizers: [x]
  spec:
    numPartitions: 3
    replicationFactor: 1
    retentionDuration: PT168H
    subscribers: [{uid: x, subscriberUri: http://a/}]
  status: {anything: [1, {goes: true}]}
metadata: {resourceVersion: ''}
";
    let report = checked(exported);
    assert_eq!(report.problems, []);
    let document = &report.documents[0];
    assert_eq!(document.generation, Some(4));
    assert_eq!(document.uid.as_deref().unwrap().len(), 36);
    assert_eq!(
        document.created.unwrap().rfc3339(),
        "2026-01-31T12:00:00.000Z"
    );
    assert_eq!(document.line, 5);
}

#[test]
fn problems_are_shown_with_file_line_and_field() {
    let text = format!("{CHANNEL}---\n# a comment\n---{}", levada("{retry: '3'}"));
    let report = checked(&text);
    let shown: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        ["a.yaml:15: spec.delivery.retry: \
          must be an integer from 0 to 2147483647, not a string"]
    );
    assert_eq!(report.documents.len(), 1, "the channel is not disturbed");
    let shown = checked("a: [b").problems[0].to_string();
    assert!(shown.starts_with("a.yaml:1: not YAML"), "{shown}");
}

#[test]
fn names_and_repeated_keys_are_reported() {
    for (from, to, field) in [
        (
            "{name: orders}",
            "{name: orders, namespace: A}",
            "metadata.namespace",
        ),
        ("{name: orders}", "{name: a.b}", "metadata.name"),
        ("{name: orders}", "{name: a, name: b}", "metadata.name"),
        ("{name: orders}", "{name: a, uid: 'a b'}", "metadata.uid"),
        ("metadata: {name: orders}\n", "", "metadata"),
        ("spec: {}", "spec: {}\nspec: {}", "spec"),
        ("spec: {}", "spec: 3", "spec"),
        ("spec: {}", "specs: {}", "specs"),
        ("spec: {}", "spec: {numpartitions: 3}", "spec.numpartitions"),
        (
            "spec: {}",
            "spec: {retentionDuration: PT0S}",
            "spec.retentionDuration",
        ),
        ("kind: KafkaChannel", "kind: ConfigMap", "apiVersion/kind"),
        ("kind: KafkaChannel\n", "", "apiVersion/kind"),
    ] {
        let report = checked(&CHANNEL.replace(from, to));
        assert_eq!(fields(&report.problems), [field], "{to}");
    }
}

#[test]
fn one_resource_has_one_document() {
    let twice = [source("a.yaml", CHANNEL), source("b.yaml", CHANNEL)];
    let report = check(&twice, &[]);
    assert_eq!(
        report.problems[0].to_string(),
        "b.yaml:2: metadata.name: \
        channel default/orders is already declared in a.yaml:2, which stays in force"
    );
}

#[test]
fn references_to_nothing_are_warned_of() {
    let text =
        levada("{deadLetterSink: {ref: {apiVersion: levada.dev/v1, kind: Sink, name: dead}}}");
    let report = checked(&text);
    assert!(report.is_valid());
    let dead = "spec.delivery.deadLetterSink.ref";
    assert_eq!(fields(&report.warnings), ["spec.channel", dead]);
    let sink = "---\napiVersion: levada.dev/v1\nkind: Sink\nmetadata: {name: dead}\n\
                spec: {uri: 'https://dead.example.com/', headers: {x-a: b}}\n";
    let report = checked(&format!("{CHANNEL}---{text}{sink}"));
    assert_eq!((report.problems, report.warnings), (vec![], vec![]));
}

#[test]
fn circles_are_found_at_once_and_by_way_of_others() {
    let to = |channel: &str| {
        format!(
            "{{deadLetterSink: {{ref: {{apiVersion: messaging.knative.dev/v1beta1, \
             kind: KafkaChannel, name: {channel}}}}}}}"
        )
    };
    let other = CHANNEL.replace("orders", "other");
    let back = levada(&to("orders"))
        .replace("name: s1", "name: s2")
        .replacen("name: orders", "name: other", 1);
    let own = format!("{CHANNEL}---{}", levada(&to("orders")));
    let fine = format!("{CHANNEL}---{other}---{}", levada(&to("other")));
    let two = format!("{fine}---{back}");
    assert_eq!(checked(&fine).problems, []);
    for text in [own, two] {
        let report = checked(&text);
        assert_eq!(fields(&report.problems), ["spec.delivery.deadLetterSink"]);
        assert!(report.problems[0].message.contains("default/orders"));
    }
    let inherited = format!(
        "{}---{}",
        CHANNEL.replace("spec: {}", &format!("spec: {{delivery: {}}}", to("orders"))),
        levada("{}")
    );
    assert!(!checked(&inherited).is_valid());
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_line() {
    let parsed = parse("a.yaml", b"a: 1\nb: \xff\n", &NoSecrets);
    assert!(parsed.broken);
    assert_eq!(
        parsed.problems[0].to_string(),
        "a.yaml:2: the text is not UTF-8"
    );
}

#[test]
fn the_examples_load() {
    let mut files = Vec::new();
    for entry in std::fs::read_dir("config/examples").unwrap() {
        let path = entry.unwrap().path();
        let content = std::fs::read(&path).unwrap();
        files.push(Source {
            name: path.display().to_string(),
            content,
        });
    }
    assert!(files.len() >= 3);
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let report = check(&files, &[]);
    assert_eq!(report.problems, []);
    assert!(report.deliveries().len() >= 3);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse("x", &bytes, &NoSecrets);
    }

    #[test]
    fn random_yaml_never_panics(text in "[a-c \\n\\t:?|>&*!%@`'\"#,\\[\\]{}.0-9~-]{0,80}") {
        let _ = parse("x", text.as_bytes(), &NoSecrets);
    }

    #[test]
    fn mutated_vectors_never_panic(
        case in 0..72_usize,
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), "\\PC{0,3}|[\\n\\t :\\[{&*!|>'\"-]"), 1..6),
        end in any::<prop::sample::Index>(),
    ) {
        let case = &vectors()[case];
        let mut text: Vec<char> = case["yaml"].as_str().unwrap().chars().collect();
        for (at, with) in cuts {
            let at = at.index(text.len());
            text.splice(at..=at, with.chars());
            if text.is_empty() {
                text.push(' ');
            }
        }
        let whole: String = text.iter().collect();
        let half: String = text[..end.index(text.len())].iter().collect();
        for text in [whole, half] {
            let parsed = parse("x", text.as_bytes(), &NoSecrets);
            prop_assert!(!parsed.broken || !parsed.problems.is_empty());
            prop_assert!(parsed.problems.iter().all(|p| p.line > 0));
        }
    }
}

#[test]
fn no_file_brings_more_problems_than_anyone_reads() {
    let fields: String = (0..5_000).map(|i| format!("k{i}: 1\n")).collect();
    let parsed = parse(
        "a.yaml",
        format!("{CHANNEL}{fields}").as_bytes(),
        &NoSecrets,
    );
    assert_eq!((parsed.problems.len(), parsed.documents.len()), (1_000, 0));
    assert_eq!(parsed.invalid.len(), 1);
}
