//! `levada dead-letters`: looks at a subscription's dead letters, and sends them round again.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::api::{AdminArgs, Output, encode, text, write_json};
use super::table::table;
use super::{CliError, Console, Tone, confirm};
use crate::channel::ResourceName;
use crate::clock::{Clock, UnixMillis};
use crate::duration;

/// How often a redrive is asked how far it is.
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// Arguments of `dead-letters`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levada dead-letters list billing --since PT2H
  levada dead-letters show prod/billing 6ec31f2fcd0f49ba-3-1042
  levada dead-letters redrive billing --code 503 --dry-run
  levada dead-letters redrive billing --type order.created --rate 50")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List dead letters, the newest first.
    List(ListArgs),
    /// Show one with its event.
    Show(ShowArgs),
    /// Send dead letters to their subscriber once more, with all their attempts.
    Redrive(RedriveArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Whose, as NAME or NAMESPACE/NAME.
    subscription: ResourceName,
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
    /// Whose, as NAME or NAMESPACE/NAME.
    subscription: ResourceName,
    /// The message's id, as the list shows it.
    id: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, clap::Args)]
struct RedriveArgs {
    /// Whose, as NAME or NAMESPACE/NAME.
    subscription: ResourceName,
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many, the oldest.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// At most so many a second.
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Also those that an earlier redrive sent.
    #[arg(long)]
    again: bool,
    /// Say how many there are and send none.
    #[arg(long)]
    dry_run: bool,
    /// Send without asking.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Which dead letters; everything that is given must hold.
#[derive(Debug, clap::Args)]
struct FilterArgs {
    /// Type of the event.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Id of the event.
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// Status code of the last answer.
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(100..=999))]
    code: Option<u16>,
    /// Not older than this: a time such as 2026-01-31T12:00:00Z, or so long ago, such as PT2H.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<UnixMillis>,
    /// Older than this.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<UnixMillis>,
}

pub(super) fn parse_time(written: &str) -> Result<UnixMillis, String> {
    if written.starts_with('P') {
        let ago = duration::parse(written).map_err(|error| error.to_string())?;
        let millis = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(UnixMillis(Clock::system().now().0.saturating_sub(millis)));
    }
    let time: Result<jiff::Timestamp, _> = written.parse();
    time.map(|time| UnixMillis(time.as_millisecond()))
        .map_err(|_| {
            "neither a time such as 2026-01-31T12:00:00Z nor a duration such as PT2H".into()
        })
}

impl FilterArgs {
    /// As the API names it.
    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        let time = |time: Option<UnixMillis>| time.map(|time| Value::from(time.rfc3339()));
        set("event_type", self.event_type.clone().map(Value::from));
        set("event_id", self.event_id.clone().map(Value::from));
        set("error_code", self.code.map(Value::from));
        set("inserted_at.gte", time(self.since));
        set("inserted_at.lt", time(self.until));
        fields
    }

    fn query(&self) -> String {
        let mut query = String::new();
        for (name, value) in self.fields() {
            let value = value.as_str().map_or_else(|| value.to_string(), encode);
            query.push_str(&format!("&{name}={value}"));
        }
        query
    }
}

pub(super) async fn run(args: Args, console: &Console) -> Result<(), CliError> {
    match args.what {
        What::List(args) => list(&args, console).await,
        What::Show(args) => show(&args, console).await,
        What::Redrive(args) => redrive(&args, console).await,
    }
}

fn path(subscription: &ResourceName) -> String {
    format!("/v1/subscriptions/{subscription}/dead-letters")
}

async fn list(args: &ListArgs, console: &Console) -> Result<(), CliError> {
    let (path, filter) = (path(&args.subscription), args.filter.query());
    let items = args.admin.list(&path, &filter, args.limit, console).await?;
    if args.admin.output == Output::Json {
        return write_json(console, &json!({ "items": items }));
    }
    if items.is_empty() {
        return console.line(format_args!(
            "{} has no such dead letters",
            args.subscription
        ));
    }
    console.text(&rendered(&items))
}

fn rendered(items: &[Value]) -> String {
    let row = |item: &Value| {
        let is = |pointer: &str| item.pointer(pointer) == Some(&Value::Bool(true));
        let state = match (is("/sent_again"), is("/redrivable")) {
            (true, _) => "sent again",
            (false, true) => "waits",
            (false, false) => "no event",
        };
        let mut cells = [
            "/id",
            "/inserted_at",
            "/event/id",
            "/event/type",
            "/reason",
            "/attempts",
            "/redriven",
        ]
        .map(|pointer| text(item, pointer))
        .to_vec();
        cells.push(state.to_owned());
        cells
    };
    let rows: Vec<_> = items.iter().map(row).collect();
    let head = [
        "ID", "SINCE", "EVENT", "TYPE", "REASON", "ATTEMPTS", "REDRIVEN", "STATE",
    ];
    table(&head, &rows)
}

async fn show(args: &ShowArgs, console: &Console) -> Result<(), CliError> {
    let path = format!("{}/{}", path(&args.subscription), encode(&args.id));
    let letter = args.admin.get(&path).await?;
    if args.admin.output == Output::Json {
        return write_json(console, &letter);
    }
    console.text(&described(&letter))
}

fn described(letter: &Value) -> String {
    let mut shown = String::new();
    let mut field = |label: &str, value: String| {
        if !value.is_empty() {
            shown.push_str(&format!("{:<15}{value}\n", format!("{label}:")));
        }
    };
    let place =
        ["topic", "partition", "offset"].map(|name| text(letter, &format!("/origin/{name}")));
    let [topic, partition, offset] = place;
    for (label, pointer) in [
        ("Id", "/id"),
        ("Subscription", "/subscription"),
        ("Since", "/inserted_at"),
        ("Reason", "/reason"),
        ("Failed at", "/error/dest"),
        ("Attempts", "/attempts"),
        ("First attempt", "/first_attempt_at"),
        ("Redriven", "/redriven"),
        ("Sent again", "/sent_again"),
    ] {
        field(label, text(letter, pointer));
    }
    let said = STANDARD
        .decode(text(letter, "/error/data"))
        .unwrap_or_default();
    field(
        "It said",
        String::from_utf8_lossy(&said).escape_debug().to_string(),
    );
    field("Origin", format!("{topic}/{partition} {offset}"));
    shown.push_str(&format!("Event:\n{:#}\n", letter["content"]));
    shown
}

async fn redrive(args: &RedriveArgs, console: &Console) -> Result<(), CliError> {
    let path = format!("{}/redrive", path(&args.subscription));
    let json_wanted = args.admin.output == Output::Json;
    let mut wish = args.filter.fields();
    wish.insert("dry_run".into(), true.into());
    wish.insert("again".into(), args.again.into());
    wish.extend(args.limit.map(|limit| ("limit".into(), limit.into())));
    let planned = args.admin.post(&path, &Value::Object(wish)).await?;
    let count = planned["count"].as_u64().unwrap_or(0);
    if args.dry_run || count == 0 {
        if json_wanted {
            return write_json(console, &planned);
        }
        return console.line(format_args!(
            "{} of {} would be sent round again",
            letters(count),
            args.subscription
        ));
    }
    let question = format!(
        "Send {} of {} round again?",
        letters(count),
        args.subscription
    );
    if !confirm::sure(args.yes, &question, console).await? {
        return Err(CliError::Failed("nothing was sent".into()));
    }
    let mut start = json!({ "plan": planned["plan"] });
    if let Some(rate) = args.rate {
        start["rate"] = rate.into();
    }
    let begun = args.admin.post(&path, &start).await?;
    let id = text(&begun, "/id");
    let ended = follow(args, &id, count, console).await?;
    if json_wanted {
        write_json(console, &ended)?;
    } else {
        console.line(outcome(&ended, count, console))?;
    }
    if ended["state"] == "done" && ended["failed"] == 0 {
        Ok(())
    } else {
        Err(CliError::Told)
    }
}

/// Waits for the end of a redrive.
async fn follow(
    args: &RedriveArgs,
    id: &str,
    count: u64,
    console: &Console,
) -> Result<Value, CliError> {
    loop {
        let redrive = args.admin.get(&format!("/v1/redrives/{id}")).await?;
        let is_over = matches!(redrive["state"].as_str(), Some("done" | "cancelled"));
        if is_over || !redrive["reason"].is_null() {
            console.progress("");
            return Ok(redrive);
        }
        console.progress(format_args!(
            "{} of {count} sent, {} (redrive {id}; it goes on without this command)",
            redrive["sent"],
            text(&redrive, "/state")
        ));
        sleep(ASK_AGAIN).await;
    }
}

fn letters(count: u64) -> String {
    match count {
        1 => "1 dead letter".into(),
        count => format!("{count} dead letters"),
    }
}

fn outcome(redrive: &Value, count: u64, console: &Console) -> String {
    let sent = redrive["sent"].as_u64().unwrap_or(0);
    let failed = redrive["failed"].as_u64().unwrap_or(0);
    let state = text(redrive, "/state");
    let tone = match (state.as_str(), failed) {
        ("done", 0) => Tone::Good,
        ("done", _) => Tone::Bad,
        _ => Tone::Notice,
    };
    let mut said = format!("{state}: {sent} of {} sent round again", letters(count));
    if failed > 0 {
        said.push_str(&format!(
            "; the log refused {failed}, see the log of the process"
        ));
    }
    let why = text(redrive, "/reason");
    if !why.is_empty() {
        let id = text(redrive, "/id");
        said.push_str(&format!(
            "; {why}: mend the subscriber, then resume {id} on the page"
        ));
    }
    console.paint(tone, said)
}

#[cfg(test)]
mod tests {
    use super::super::console::captured;
    use super::*;

    #[test]
    fn dead_letters_are_shown_with_what_became_of_them() {
        let letter = |id: &str, sent, redrivable| {
            json!({
                "id": id,
                "inserted_at": "2026-01-31T12:00:00.000Z",
                "event": { "id": "e1", "type": "order.created" },
                "reason": "http_503",
                "attempts": 4,
                "redriven": 0,
                "sent_again": sent,
                "redrivable": redrivable,
            })
        };
        let items = [
            letter("a-0-1", false, true),
            letter("a-0-0", true, true),
            json!({ "id": "a-0-2", "reason": "invalid_event", "redrivable": false }),
        ];
        let wanted = "\
ID     SINCE                     EVENT  TYPE           REASON         ATTEMPTS  REDRIVEN  STATE
a-0-1  2026-01-31T12:00:00.000Z  e1     order.created  http_503       4         0         waits
a-0-0  2026-01-31T12:00:00.000Z  e1     order.created  http_503       4         0         sent again
a-0-2  -                         -      -              invalid_event  -         -         no event
";
        assert_eq!(rendered(&items), wanted);
    }

    #[test]
    fn a_dead_letter_is_shown_with_its_event() {
        let letter = json!({
            "id": "a-3-7",
            "reason": "http_503",
            "error": { "dest": "http://s/", "data": "bm8K" },
            "origin": { "topic": "t", "partition": 3, "offset": 7 },
            "content": { "id": "e1", "data": [1] },
        });
        let shown = described(&letter);
        for line in [
            "Id:            a-3-7\n",
            "Failed at:     http://s/\n",
            "It said:       no\\n\n",
            "Origin:        t/3 7\n",
            "  \"id\": \"e1\"",
        ] {
            assert!(shown.contains(line), "{line:?} in {shown}");
        }
    }

    #[test]
    fn filters_become_queries() {
        let filter = FilterArgs {
            event_type: Some("a b&c".into()),
            event_id: None,
            code: Some(503),
            since: Some(UnixMillis(0)),
            until: None,
        };
        let wanted =
            "&error_code=503&event_type=a%20b%26c&inserted_at.gte=1970-01-01T00:00:00.000Z";
        assert_eq!(filter.query(), wanted);
        assert_eq!(parse_time("1970-01-01T00:00:01Z"), Ok(UnixMillis(1000)));
        let ago = Clock::system().now().since(parse_time("PT1H").unwrap());
        assert!(ago >= Duration::from_secs(3600) && ago < Duration::from_secs(3700));
        assert!(parse_time("yesterday").is_err());
    }

    #[test]
    fn the_outcome_says_what_was_not_sent() {
        let (console, _) = captured();
        let said = |state, failed| {
            outcome(
                &json!({"state": state, "sent": 2, "failed": failed}),
                3,
                &console,
            )
        };
        assert_eq!(
            said("cancelled", 0),
            "cancelled: 2 of 3 dead letters sent round again"
        );
        assert!(said("done", 1).ends_with("the log refused 1, see the log of the process"));
    }
}
