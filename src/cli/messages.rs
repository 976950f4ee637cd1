//! `levada messages`: what became of events, one message for each event and subscription.

mod story;

use serde_json::{Value, json};

use super::api::{AdminArgs, Output, encode, text, write_json};
use super::dead_letters::parse_time;
use super::table::table;
use super::{CliError, Console};
use crate::channel::ResourceName;
use crate::clock::UnixMillis;

/// Arguments of `messages`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levada messages list --subscription billing --status undelivered
  levada messages list --event-id ord-8814
  levada messages list --reason http_503 --since PT1H --output json
  levada messages show 6ec31f2fcd0f49ba-3-1042
  levada messages redeliver 6ec31f2fcd0f49ba-3-1042
  levada messages retry-now 6ec31f2fcd0f49ba-3-1042")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List messages, the newest first.
    List(ListArgs),
    /// Show one with its attempts, one after the other.
    Show(ShowArgs),
    /// Send one again that is at its end, with all its attempts, in a round of its own.
    Redeliver(ShowArgs),
    /// Make the attempt that one waits for now.
    RetryNow(ShowArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The message's id, as the list shows it.
    id: String,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Which messages; everything that is given must hold, of one that is given several times any.
#[derive(Debug, Default, clap::Args)]
struct FilterArgs {
    /// queued, sent, delivered, undelivered, bounced or not_sent. Can be given several times.
    #[arg(long)]
    status: Vec<String>,
    /// NAME or NAMESPACE/NAME. Can be given several times.
    #[arg(long, value_name = "NAME")]
    subscription: Vec<ResourceName>,
    /// NAME or NAMESPACE/NAME. Can be given several times.
    #[arg(long, value_name = "NAME")]
    channel: Vec<ResourceName>,
    /// Why the last attempt failed, such as http_503 or attempt_timeout. Can be given several
    /// times.
    #[arg(long)]
    reason: Vec<String>,
    /// Id of the event.
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// Type of the event.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Source of the event.
    #[arg(long = "source", value_name = "SOURCE")]
    event_source: Option<String>,
    /// Not older than this: a time such as 2026-01-31T12:00:00Z, or so long ago, such as PT2H.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<UnixMillis>,
    /// Older than this.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<UnixMillis>,
}

impl FilterArgs {
    /// As the API has it, each parameter with `&` before it.
    fn query(&self) -> String {
        let mut query = String::new();
        let mut put = |name: &str, value: &str| {
            query.push_str(&format!("&{name}={}", encode(value)));
        };
        self.status.iter().for_each(|one| put("status", one));
        let names = |names: &[ResourceName]| names.iter().map(ToString::to_string).collect();
        let subscriptions: Vec<String> = names(&self.subscription);
        let channels: Vec<String> = names(&self.channel);
        subscriptions
            .iter()
            .for_each(|one| put("subscription", one));
        channels.iter().for_each(|one| put("channel", one));
        self.reason.iter().for_each(|one| put("reason", one));
        for (name, value) in [
            ("event_id", &self.event_id),
            ("event_type", &self.event_type),
            ("event_source", &self.event_source),
            ("inserted_at.gte", &self.since.map(UnixMillis::rfc3339)),
            ("inserted_at.lt", &self.until.map(UnixMillis::rfc3339)),
        ] {
            value.iter().for_each(|value| put(name, value));
        }
        query
    }
}

pub(super) async fn run(args: Args, console: &Console) -> Result<(), CliError> {
    match args.what {
        What::List(args) => list(&args, console).await,
        What::Show(args) => show(&args, console).await,
        What::Redeliver(args) => act(&args, "redeliver", "is sent again", console).await,
        What::RetryNow(args) => act(&args, "retry-now", "is tried now", console).await,
    }
}

async fn list(args: &ListArgs, console: &Console) -> Result<(), CliError> {
    let filter = args.filter.query();
    let path = "/v1/messages";
    let items = args.admin.list(path, &filter, args.limit, console).await?;
    if args.admin.output == Output::Json {
        return write_json(console, &json!({ "items": items }));
    }
    if items.is_empty() {
        return console.line("no such messages; one is listed from its first attempt on");
    }
    console.text(&rendered(&items))
}

fn rendered(items: &[Value]) -> String {
    let row = |item: &Value| {
        vec![
            text(item, "/inserted_at"),
            standing(item),
            plain(&text(item, "/event/id")),
            plain(&text(item, "/event/type")),
            text(item, "/subscription"),
            text(item, "/attempts"),
            text(item, "/last_reason"),
            text(item, "/id"),
        ]
    };
    let rows: Vec<_> = items.iter().map(row).collect();
    let head = [
        "ACCEPTED",
        "STATUS",
        "EVENT",
        "TYPE",
        "SUBSCRIPTION",
        "ATTEMPTS",
        "LAST REASON",
        "ID",
    ];
    table(&head, &rows)
}

/// The status, with why it is the end where that is not what was wanted.
fn standing(message: &Value) -> String {
    let status = text(message, "/status");
    match text(message, "/failure_reason") {
        none if none.is_empty() => status,
        reason => format!("{status} ({})", reason.replace('_', " ")),
    }
}

/// Has something done about a message.
async fn act(args: &ShowArgs, act: &str, done: &str, console: &Console) -> Result<(), CliError> {
    let path = format!("{}/{act}", path_of(&args.id));
    let message = args.admin.post(&path, &json!({})).await?;
    if args.admin.output == Output::Json {
        return write_json(console, &message);
    }
    console.line(format_args!(
        "{} ({}) {done}",
        args.id,
        plain(&text(&message, "/event/id"))
    ))
}

/// Where a message is in the API.
fn path_of(id: &str) -> String {
    format!("/v1/messages/{}", encode(id).replace('/', "%2F"))
}

async fn show(args: &ShowArgs, console: &Console) -> Result<(), CliError> {
    let path = path_of(&args.id);
    let message = args.admin.get(&path).await?;
    let mut events = args.admin.get(&format!("{path}/events")).await?;
    let mut logs = args.admin.get(&format!("{path}/delivery_logs")).await?;
    let (events, logs) = (events["items"].take(), logs["items"].take());
    if args.admin.output == Output::Json {
        let all = json!({ "message": message, "events": events, "delivery_logs": logs });
        return write_json(console, &all);
    }
    console.text(&story::told(&message, &events, &logs))
}

/// Text of an event, which is anybody's: what moves a terminal's cursor is written out.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || hidden {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_queries() {
        let filter = FilterArgs {
            status: vec!["queued".into(), "sent".into()],
            subscription: vec![ResourceName::try_new("a", "b").unwrap()],
            event_id: Some("x&y".into()),
            since: Some(UnixMillis(0)),
            ..FilterArgs::default()
        };
        assert_eq!(
            filter.query(),
            "&status=queued&status=sent&subscription=a/b&event_id=x%26y\
             &inserted_at.gte=1970-01-01T00:00:00.000Z"
        );
    }

    #[test]
    fn hostile_ids_do_not_move_the_cursor() {
        let items = [json!({
            "id": "6ec31f2fcd0f49ba-3-1042", "status": "undelivered", "subscription": "a/b",
            "failure_reason": "retries_exhausted", "last_reason": "http_503", "attempts": 4,
            "inserted_at": "2026-01-31T12:00:00.000Z",
            "event": { "id": "\u{1b}[2Jx\u{202e}", "type": "t" },
        })];
        let text = rendered(&items);
        assert!(text.contains(r"\u{1b}[2Jx\u{202e}"), "{text}");
        assert!(text.contains("undelivered (retries exhausted)"), "{text}");
    }
}
