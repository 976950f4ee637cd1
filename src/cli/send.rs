//! `levada send`: posts events to a channel.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use cloudevents::{EventBuilder as _, EventBuilderV10};
use http::Uri;
use tokio::time::{Instant, MissedTickBehavior};

use super::event::{Mode, Outgoing, parse_attribute};
use super::http::{Answer, HttpClient, join, parse_url};
use super::{CliError, Console, Tone};
use crate::channel::ResourceName;
use crate::clock::Clock;

/// Arguments of `send`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levada send --channel orders --data '{\"total\": 3}'
  levada send --channel prod/orders --type order.created --subject 17 --data @order.json
  levada send --url http://orders.prod.localhost:8080 --data -  < order.json
  levada send --channel orders --attribute partitionkey=17 --count 1000 --rate 100")]
pub(super) struct Args {
    /// The channel, as NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "NAME")]
    channel: Option<ResourceName>,
    /// Where Levada listens; without --channel, the address of the channel itself.
    #[arg(
        long,
        env = "LEVADA_URL",
        default_value = "http://127.0.0.1:8080",
        value_parser = parse_url
    )]
    url: Uri,
    /// What happened.
    #[arg(long = "type", value_name = "TYPE", default_value = "dev.levada.test")]
    kind: String,
    /// Where it happened.
    #[arg(long, default_value = "/levada/send")]
    source: String,
    /// Id of the event; with --count a number is added to it. Random if not given.
    #[arg(long)]
    id: Option<String>,
    /// What it happened to.
    #[arg(long)]
    subject: Option<String>,
    /// The data: text, @FILE, or - for standard input.
    #[arg(long, value_name = "DATA", allow_hyphen_values = true)]
    data: Option<String>,
    /// Media type of the data.
    #[arg(long, default_value = "application/json")]
    content_type: String,
    /// Another attribute, such as partitionkey=17 or time=2026-01-31T12:00:00Z. Several times.
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = parse_attribute)]
    attributes: Vec<(String, String)>,
    /// How many events to send.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// At most so many events a second.
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Put the whole event into the body, as JSON.
    #[arg(long)]
    structured: bool,
}

const HINT: &str = "start Levada with `levada serve --manifests DIR` or `levada quickstart`, or say with --url where it is";

pub(super) async fn run(args: Args, console: &Console) -> Result<(), CliError> {
    let uri = match &args.channel {
        Some(name) => join(&args.url, &format!("/{}/{}", name.namespace(), name.name()))?,
        None => args.url.clone(),
    };
    let mode = if args.structured {
        Mode::Structured
    } else {
        Mode::Binary
    };
    let event = event(&args, &Clock::system())?;
    let client = HttpClient::new()?;
    let started = Instant::now();
    let mut pace = args.rate.map(|rate| {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    });
    let (mut accepted, mut refused) = (0_u64, 0_u64);
    for number in 1..=args.count {
        if let Some(ticks) = &mut pace {
            ticks.tick().await;
        }
        let id = id(args.id.as_deref(), number, args.count);
        let answer = client
            .send(event.with_id(id.clone()).request(&uri, mode)?, HINT)
            .await?;
        if answer.status.is_success() {
            accepted += 1;
        } else {
            refused += 1;
        }
        // One line an event for a few; for many only what went wrong first, and the sum.
        if args.count <= 10 || (!answer.status.is_success() && refused <= 10) {
            console.line(told(console, &id, &answer))?;
        } else {
            console.progress(format_args!(
                "{number}/{} sent, {refused} refused",
                args.count
            ));
        }
    }
    if args.count > 1 {
        console.progress("");
        let seconds = started.elapsed().as_secs_f64();
        console.line(format_args!(
            "{accepted} accepted, {refused} refused in {seconds:.1} s"
        ))?;
    }
    if refused == 0 {
        Ok(())
    } else {
        Err(CliError::Told)
    }
}

fn event(args: &Args, clock: &Clock) -> Result<Outgoing, CliError> {
    let mut builder = EventBuilderV10::new()
        .id("-")
        .ty(&args.kind)
        .source(&args.source);
    if let Some(subject) = &args.subject {
        builder = builder.subject(subject);
    }
    let timed = args.attributes.iter().any(|(name, _)| name == "time");
    if !timed {
        builder = builder.extension("time", clock.now().rfc3339());
    }
    for (name, value) in &args.attributes {
        builder = builder.extension(name, value.clone());
    }
    let event = builder
        .build()
        .map_err(|error| CliError::Usage(format!("the event is not one: {error}")))?;
    let data = args.data.as_deref().map(read_data).transpose()?;
    let media = data.is_some().then(|| args.content_type.clone());
    Ok(Outgoing::new(event, media, data))
}

fn read_data(text: &str) -> Result<Bytes, CliError> {
    let unreadable = |what: &Path, error| {
        CliError::Failed(format!(
            "cannot read the data from {}: {error}",
            what.display()
        ))
    };
    if text == "-" {
        let mut data = Vec::new();
        std::io::stdin()
            .read_to_end(&mut data)
            .map_err(|error| unreadable(Path::new("standard input"), error))?;
        return Ok(data.into());
    }
    match text.strip_prefix('@') {
        Some(path) => std::fs::read(path)
            .map(Bytes::from)
            .map_err(|error| unreadable(Path::new(path), error)),
        None => Ok(Bytes::copy_from_slice(text.as_bytes())),
    }
}

fn id(given: Option<&str>, number: u64, count: u64) -> String {
    match given {
        Some(id) if count == 1 => id.to_owned(),
        Some(id) => format!("{id}-{number}"),
        None => uuid::Uuid::new_v4().to_string(),
    }
}

fn told(console: &Console, id: &str, answer: &Answer) -> String {
    let status = answer.status;
    if status.is_success() {
        return format!("{} {id}", console.paint(Tone::Good, status));
    }
    let mut text = format!("{} {id}", console.paint(Tone::Bad, status));
    let explanation = answer.explanation();
    if !explanation.is_empty() {
        text.push_str(&format!(": {explanation}"));
    }
    let retry = answer.headers.get(http::header::RETRY_AFTER);
    if let Some(after) = retry.and_then(|value| value.to_str().ok()) {
        text.push_str(&format!(" (try again in {after} s)"));
    }
    text
}
