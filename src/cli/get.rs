//! `levada get`: channels or subscriptions as a table.

use serde_json::Value;

use super::api::{AdminArgs, Output, notes, ready, text, write_json};
use super::table::table;
use super::{CliError, Console};

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levada get channels
  levada get subscriptions --output json
  levada get subscriptions --admin http://10.0.0.7:8081 --token \"$TOKEN\"")]
pub(super) struct Args {
    /// What to list.
    what: Kind,
    #[command(flatten)]
    admin: AdminArgs,
}

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    #[value(alias = "channel")]
    Channels,
    #[value(alias = "subscription")]
    Subscriptions,
}

impl Kind {
    /// Its list in the API.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Channels => "/v1/channels",
            Self::Subscriptions => "/v1/subscriptions",
        }
    }
}

pub(super) async fn run(args: Args, console: &Console) -> Result<(), CliError> {
    let list = args.admin.get(args.what.path()).await?;
    if args.admin.output == Output::Json {
        return write_json(console, &list);
    }
    let none = Vec::new();
    let items = list["items"].as_array().unwrap_or(&none);
    if items.is_empty() {
        let word = args.what.path().trim_start_matches("/v1/");
        return console.line(format_args!(
            "no {word}; they come from the files given by --manifests"
        ));
    }
    console.text(&rendered(args.what, items))
}

fn rendered(kind: Kind, items: &[Value]) -> String {
    match kind {
        Kind::Channels => {
            let rows: Vec<_> = items.iter().map(channel_row).collect();
            table(
                &[
                    "NAMESPACE",
                    "NAME",
                    "READY",
                    "SUBSCRIBERS",
                    "TOPIC",
                    "PARTITIONS",
                    "RETENTION",
                    "REASON",
                ],
                &rows,
            )
        }
        Kind::Subscriptions => {
            let head = [
                "NAMESPACE",
                "NAME",
                "READY",
                "CHANNEL",
                "SUBSCRIBER",
                "LAG",
                "REASON",
            ];
            let rows: Vec<_> = items.iter().map(subscription_row).collect();
            table(&head, &rows)
        }
    }
}

fn channel_row(channel: &Value) -> Vec<String> {
    let subscribers = channel.pointer("/status/subscribers");
    let subscribers = subscribers.and_then(Value::as_array).map_or(0, Vec::len);
    vec![
        text(channel, "/metadata/namespace"),
        text(channel, "/metadata/name"),
        readiness(channel),
        subscribers.to_string(),
        text(channel, "/status/topic/name"),
        text(channel, "/status/topic/partitions"),
        text(channel, "/status/topic/retention"),
        match reason(channel) {
            none if none.is_empty() => notes(channel).join("; "),
            reason => reason,
        },
    ]
}

fn subscription_row(subscription: &Value) -> Vec<String> {
    vec![
        text(subscription, "/metadata/namespace"),
        text(subscription, "/metadata/name"),
        readiness(subscription),
        text(subscription, "/spec/channel/name"),
        text(subscription, "/status/physicalSubscription/subscriberUri"),
        text(subscription, "/status/lag/records"),
        reason(subscription),
    ]
}

fn readiness(resource: &Value) -> String {
    ready(resource).map_or_else(|| "Unknown".into(), |ready| text(ready, "/status"))
}

/// Why a resource is not ready.
fn reason(resource: &Value) -> String {
    match ready(resource) {
        Some(ready) if ready["status"] != "True" => {
            let (reason, message) = (text(ready, "/reason"), text(ready, "/message"));
            let colon = if reason.is_empty() || message.is_empty() {
                ""
            } else {
                ": "
            };
            format!("{reason}{colon}{message}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn subscriptions_are_shown_with_what_keeps_them_from_being_ready() {
        let items = [
            json!({
                "metadata": { "namespace": "prod", "name": "billing" },
                "spec": { "channel": { "name": "orders" } },
                "status": {
                    "conditions": [{ "type": "Ready", "status": "True", "reason": "", "message": "" }],
                    "physicalSubscription": { "subscriberUri": "http://billing/" },
                    "lag": { "records": 12 },
                },
            }),
            json!({
                "metadata": { "namespace": "prod", "name": "mail" },
                "spec": { "channel": { "name": "orders" } },
                "status": { "conditions": [
                    { "type": "ReferencesResolved", "status": "False" },
                    { "type": "Ready", "status": "False", "reason": "SubscriberResolveFailed",
                      "message": "there is no Sink prod/mail" },
                ] },
            }),
            json!({ "metadata": { "namespace": "prod", "name": "new" } }),
        ];
        let wanted = "\
NAMESPACE  NAME     READY    CHANNEL  SUBSCRIBER       LAG  REASON
prod       billing  True     orders   http://billing/  12   -
prod       mail     False    orders   -                -    SubscriberResolveFailed: there is no Sink prod/mail
prod       new      Unknown  -        -                -    -
";
        assert_eq!(rendered(Kind::Subscriptions, &items), wanted);
    }

    #[test]
    fn channels_are_shown_with_their_topic() {
        let items = [json!({
            "metadata": { "namespace": "default", "name": "orders" },
            "status": {
                "topic": {
                    "name": "knative-messaging-kafka.default.orders",
                    "partitions": 4, "retention": "PT168H", "notes": ["1 replica", "small"],
                },
                "conditions": [{ "type": "Ready", "status": "True" }],
                "subscribers": [{ "uid": "a" }, { "uid": "b" }],
            },
        })];
        let wanted = "\
NAMESPACE  NAME    READY  SUBSCRIBERS  TOPIC                                   PARTITIONS  RETENTION  REASON
default    orders  True   2            knative-messaging-kafka.default.orders  4           PT168H     1 replica; small
";
        assert_eq!(rendered(Kind::Channels, &items), wanted);
    }
}
