//! `levada describe`: one channel or subscription, with every condition and its reason.

use std::fmt::Write as _;

use serde_json::Value;

use super::api::{AdminArgs, Output, conditions, notes, text, write_json};
use super::get::Kind;
use super::table::{indented, table};
use super::{CliError, Console, Tone};
use crate::channel::ResourceName;

/// Arguments of `describe`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levada describe channel orders
  levada describe subscription prod/billing")]
pub(super) struct Args {
    /// What it is.
    what: Kind,
    /// Which one, as NAME or NAMESPACE/NAME.
    name: ResourceName,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn run(args: Args, console: &Console) -> Result<(), CliError> {
    let (namespace, name) = (args.name.namespace(), args.name.name());
    let path = format!("{}/{namespace}/{name}", args.what.path());
    let resource = args.admin.get(&path).await?;
    if args.admin.output == Output::Json {
        return write_json(console, &resource);
    }
    console.text(&rendered(args.what, &resource, console))
}

/// What is shown of each kind: a label and where its value stands.
const CHANNEL: [(&str, &str); 7] = [
    ("Address", "/status/address/url"),
    ("Topic", "/status/topic/name"),
    ("Partitions", "/status/topic/partitions"),
    ("Replicas", "/status/topic/replicas"),
    ("Retention", "/status/topic/retention"),
    ("Largest record", "/status/topic/maxRecordBytes"),
    ("Dead letters", "/status/deadLetterSinkUri"),
];
const SUBSCRIPTION: [(&str, &str); 9] = [
    ("Channel", "/spec/channel/name"),
    ("Subscriber", "/status/physicalSubscription/subscriberUri"),
    ("Replies to", "/status/physicalSubscription/replyUri"),
    (
        "Dead letters to",
        "/status/physicalSubscription/deadLetterSinkUri",
    ),
    ("Topic", "/status/topic"),
    ("Retry topic", "/status/retryTopic"),
    ("Dead-letter topic", "/status/deadLetterTopic"),
    ("Group", "/status/group"),
    ("Lag", "/status/lag/records"),
];

fn rendered(kind: Kind, resource: &Value, console: &Console) -> String {
    let mut shown = String::new();
    let mut field = |label: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(shown, "{:<19}{value}", format!("{label}:"));
        }
    };
    let (namespace, name) = (
        text(resource, "/metadata/namespace"),
        text(resource, "/metadata/name"),
    );
    field("Name", &format!("{namespace}/{name}"));
    field(
        "Kind",
        &format!(
            "{} ({})",
            text(resource, "/kind"),
            text(resource, "/apiVersion")
        ),
    );
    field("Generation", &generation(resource));
    let fields: &[_] = match kind {
        Kind::Channels => &CHANNEL,
        Kind::Subscriptions => &SUBSCRIPTION,
    };
    for (label, pointer) in fields {
        field(label, &text(resource, pointer));
    }
    for note in notes(resource) {
        field("Note", note);
    }
    shown.push_str("Conditions:\n");
    for condition in conditions(resource) {
        shown.push_str(&condition_line(condition, console));
    }
    if kind == Kind::Channels {
        shown.push_str(&subscribers(resource));
    }
    shown
}

fn generation(resource: &Value) -> String {
    let written = text(resource, "/metadata/generation");
    let observed = text(resource, "/status/observedGeneration");
    if written == observed {
        written
    } else {
        format!("{written}, the status is of {observed}")
    }
}

fn condition_line(condition: &Value, console: &Console) -> String {
    let status = text(condition, "/status");
    let (sign, tone) = match status.as_str() {
        "True" => ("✓", Tone::Good),
        "False" => ("✗", Tone::Bad),
        _ => ("?", Tone::Notice),
    };
    let mut line = format!(
        "  {} {:<20}",
        console.paint(tone, sign),
        text(condition, "/type")
    );
    let since = text(condition, "/lastTransitionTime");
    if !since.is_empty() {
        let _ = write!(
            line,
            "  {}",
            console.paint(Tone::Dim, format_args!("since {since}"))
        );
    }
    for part in ["/reason", "/message"] {
        let said = text(condition, part);
        if !said.is_empty() {
            let _ = write!(line, "  {said}");
        }
    }
    format!("{}\n", line.trim_end())
}

fn subscribers(channel: &Value) -> String {
    let subscribers = channel
        .pointer("/status/subscribers")
        .and_then(Value::as_array);
    let Some(subscribers) = subscribers.filter(|subscribers| !subscribers.is_empty()) else {
        return "Subscribers:       none\n".into();
    };
    let row = |subscriber: &Value| {
        ["/uid", "/ready", "/message"]
            .map(|pointer| text(subscriber, pointer))
            .to_vec()
    };
    let rows: Vec<_> = subscribers.iter().map(row).collect();
    format!(
        "Subscribers:\n{}",
        indented(&table(&["UID", "READY", "MESSAGE"], &rows), 2)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::console::captured;
    use super::*;

    #[test]
    fn a_channel_is_described_with_its_conditions_and_subscribers() {
        let channel = json!({
            "apiVersion": "messaging.knative.dev/v1beta1",
            "kind": "KafkaChannel",
            "metadata": { "namespace": "prod", "name": "orders", "generation": 2 },
            "status": {
                "observedGeneration": 1,
                "address": { "url": "http://orders-kn-channel.prod.svc.cluster.local" },
                "topic": {
                    "name": "knative-messaging-kafka.prod.orders", "partitions": 4,
                    "replicas": 1, "retention": "PT168H", "maxRecordBytes": 1114112,
                    "notes": ["min.insync.replicas is 1", "other"],
                },
                "conditions": [
                    { "type": "Ready", "status": "False", "reason": "TopicFailed",
                      "message": "the log does not answer", "lastTransitionTime": "2026-01-31T12:00:00Z" },
                    { "type": "Addressable", "status": "True" },
                ],
                "subscribers": [{ "uid": "u1", "ready": "True" }],
            },
        });
        let (console, _) = captured();
        let wanted = "\
Name:              prod/orders
Kind:              KafkaChannel (messaging.knative.dev/v1beta1)
Generation:        2, the status is of 1
Address:           http://orders-kn-channel.prod.svc.cluster.local
Topic:             knative-messaging-kafka.prod.orders
Partitions:        4
Replicas:          1
Retention:         PT168H
Largest record:    1114112
Note:              min.insync.replicas is 1
Note:              other
Conditions:
  ✗ Ready                 since 2026-01-31T12:00:00Z  TopicFailed  the log does not answer
  ✓ Addressable
Subscribers:
  UID  READY  MESSAGE
  u1   True   -
";
        assert_eq!(rendered(Kind::Channels, &channel, &console), wanted);
    }

    #[test]
    fn a_subscription_without_status_is_described_too() {
        let (console, _) = captured();
        let bare = json!({ "metadata": { "namespace": "a", "name": "b", "generation": 1 } });
        let shown = rendered(Kind::Subscriptions, &bare, &console);
        assert!(shown.starts_with("Name:              a/b\n"), "{shown}");
    }
}
