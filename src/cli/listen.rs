//! `levada listen`: a subscriber that prints what it gets and answers as it is told.

mod script;
mod subscriber;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub(crate) use script::Script;
pub(crate) use subscriber::{Delivery, MAX_WAITING, serve};

use super::signals::Signals;
use super::{CliError, Console, Tone};
use crate::clock::Clock;
use crate::duration;
use crate::shutdown::Tasks;
use script::{Answers, parse_answers, parse_by_type};

/// Arguments of `listen`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levada listen
      Answers 200 to everything on http://127.0.0.1:9000, whatever the path.

  levada listen --answer 503,503,200 --delay PT0.2S
      Every event fails twice and is taken the third time.

  levada listen --fail-type order.broken=500 --verbose
      Events of one type always fail; everything that came is shown.")]
pub(super) struct Args {
    /// Where to listen.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Answers to the attempts of each event, in order; the last one goes on.
    #[arg(long, value_name = "CODE,...", default_value = "200", value_parser = parse_answers)]
    answer: Answers,
    /// Other answers for the events of a type. Several times.
    #[arg(long = "fail-type", value_name = "TYPE=CODE,...", value_parser = parse_by_type)]
    fail_types: Vec<(String, Answers)>,
    /// Wait so long before each answer.
    #[arg(long, value_name = "DURATION", default_value = "PT0S", value_parser = duration::parse)]
    delay: Duration,
    /// Reply to what is taken with an event of this type and the same data.
    #[arg(long, value_name = "TYPE")]
    reply: Option<String>,
    /// End after so many requests.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Show all attributes, headers and the data.
    #[arg(long, short)]
    verbose: bool,
}

pub(super) async fn run(args: Args, console: &Console) -> Result<(), CliError> {
    let mut signals = Signals::listen()?;
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        let address = args.listen;
        CliError::Failed(format!(
            "cannot listen on {address}: {error}; choose another with --listen"
        ))
    })?;
    let address = listener.local_addr()?;
    console.line(format_args!(
        "listening on http://{address}, end with Ctrl-C"
    ))?;
    let tasks = Tasks::new();
    let (told, mut deliveries) = mpsc::channel(MAX_WAITING);
    let script = Script::new(args.answer, args.fail_types, args.delay, args.reply);
    serve(listener, script, told, &tasks);
    let clock = Clock::system();
    let mut seen = 0;
    let result = loop {
        let delivery = tokio::select! {
            () = signals.next() => break Ok(()),
            delivery = deliveries.recv() => delivery,
        };
        let Some(delivery) = delivery else {
            break Ok(());
        };
        let shown = show(&delivery, &clock, console, args.verbose);
        if let Err(error) = console.text(&shown) {
            break Err(error);
        }
        seen += 1;
        if args.count.is_some_and(|count| seen >= count) {
            break Ok(());
        }
    };
    deliveries.close();
    // What was taken is still answered.
    let _ = tasks.drain(args.delay + Duration::from_secs(1)).await;
    result
}

/// One line, and everything else below it if `verbose`.
fn show(delivery: &Delivery, clock: &Clock, console: &Console, verbose: bool) -> String {
    let event = &delivery.event;
    let time = clock.now().rfc3339();
    let time = time.get(11..23).unwrap_or(&time);
    let tone = if delivery.answer < 300 {
        Tone::Good
    } else {
        Tone::Bad
    };
    let answer = console.paint(tone, delivery.answer);
    let mut text = format!("{} {answer}", console.paint(Tone::Dim, time));
    if delivery.attempt > 1 {
        text.push_str(&format!(" attempt {}", delivery.attempt));
    }
    for (label, name) in [
        ("", "type"),
        ("id=", "id"),
        ("source=", "source"),
        ("subject=", "subject"),
    ] {
        let value = event.attribute(name);
        if !value.is_empty() {
            text.push_str(&format!("  {label}{}", printable(value)));
        }
    }
    if event.attributes.is_empty() {
        text.push_str(&format!(
            "  {} {}, not an event",
            delivery.method, delivery.path
        ));
    }
    if !event.attribute("knativeerrordest").is_empty() {
        let code = event.attribute("knativeerrorcode");
        text.push_str(&console.paint(
            Tone::Notice,
            format_args!("  dead letter, last answer {code}"),
        ));
    }
    if verbose {
        text.push_str(&details(delivery));
    } else if !event.data.is_empty() {
        text.push_str(&format!("  {}", preview(&event.data)));
    }
    text.push('\n');
    text
}

fn details(delivery: &Delivery) -> String {
    let mut lines = vec![format!("{} {}", delivery.method, delivery.path)];
    for (name, value) in &delivery.event.attributes {
        lines.push(format!("{name}: {}", printable(value)));
    }
    for (name, value) in &delivery.headers {
        let ours = name.as_str().starts_with("ce-");
        if !ours {
            let value = String::from_utf8_lossy(value.as_bytes());
            lines.push(format!("({name}: {})", printable(&value)));
        }
    }
    let data = String::from_utf8_lossy(&delivery.event.data);
    lines.extend(data.lines().map(printable));
    lines.iter().map(|line| format!("\n    {line}")).collect()
}

/// The beginning of the data, on one line.
fn preview(data: &[u8]) -> String {
    const LENGTH: usize = 80;
    let Ok(text) = std::str::from_utf8(data) else {
        return format!("{} bytes", data.len());
    };
    let text = printable(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    match text.char_indices().nth(LENGTH) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// What a sender wrote must not move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests;
