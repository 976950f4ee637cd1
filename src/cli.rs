//! The commands. Each one writes to a [`Console`] and ends with an exit code: 0 it worked, 1 it
//! did not, 2 it was asked wrongly.

mod api;
mod check;
mod completions;
mod confirm;
mod console;
mod dead_letters;
mod describe;
mod event;
mod flags;
mod get;
mod http;
mod listen;
mod messages;
mod purge;
mod quickstart;
mod send;
mod serve;
mod signals;
mod table;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use console::{Console, Tone};

/// An event channel broker on Apache Kafka: CloudEvents in over HTTP, stored, delivered to every
/// subscriber.
#[derive(Debug, Parser)]
#[command(
    name = "levada",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(after_help = "\
Try it:
  levada quickstart                          see it work
  levada listen                              a subscriber on http://127.0.0.1:9000
  levada serve --manifests ./manifests       the broker, without Kafka
  levada send --channel orders --data '{}'   an event
  levada get subscriptions                   what became of it")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker.
    Serve(serve::Args),
    /// See it work: a broker, a subscriber and some events, told as it happens.
    Quickstart(quickstart::Args),
    /// Check manifests, and show when the retries of each subscription come.
    Check(check::Args),
    /// Send an event to a channel.
    Send(send::Args),
    /// Run a subscriber that prints what it gets.
    Listen(listen::Args),
    /// List channels or subscriptions with their state.
    Get(get::Args),
    /// Show one channel or subscription with its conditions.
    Describe(describe::Args),
    /// List messages, and show what became of one.
    Messages(messages::Args),
    /// Look at dead letters, and send them round again.
    DeadLetters(dead_letters::Args),
    /// Delete what a channel or subscription that is gone left in the log.
    Purge(purge::Args),
    /// Write shell completions to standard output.
    Completions(completions::CompletionArgs),
    /// Write the manual page.
    Man(completions::ManArgs),
    /// Write the OpenAPI document of the admin port to standard output.
    #[command(after_help = "Examples:\n  levada openapi > openapi.json")]
    Openapi,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// It was asked wrongly.
    #[error("{0}")]
    Usage(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
    /// It failed, and has said so itself.
    #[error("failed")]
    Told,
    /// Nobody reads what it writes any more.
    #[error("the output was closed")]
    Closed,
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(format!("cannot write the output: {error}")),
        }
    }
}

/// Runs the command that `args` name, the program's name first.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and go to standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let console = Console::stdout();
    let code = match cli.command.run(&console) {
        Ok(()) | Err(CliError::Closed) => 0,
        Err(CliError::Told) => 1,
        Err(error) => {
            console.complain(&error);
            match error {
                CliError::Usage(_) => 2,
                CliError::Failed(_) | CliError::Told | CliError::Closed => 1,
            }
        }
    };
    ExitCode::from(code)
}

impl Command {
    fn run(self, console: &Console) -> Result<(), CliError> {
        match self {
            Self::Serve(args) => serve::run(args, console),
            Self::Quickstart(args) => serve::block_on(0, quickstart::run(args, console)),
            Self::Check(args) => check::run(&args, console),
            Self::Send(args) => block_on(send::run(args, console)),
            Self::Listen(args) => block_on(listen::run(args, console)),
            Self::Get(args) => block_on(get::run(args, console)),
            Self::Describe(args) => block_on(describe::run(args, console)),
            Self::Messages(args) => block_on(messages::run(args, console)),
            Self::DeadLetters(args) => block_on(dead_letters::run(args, console)),
            Self::Purge(args) => block_on(purge::run(args, console)),
            Self::Completions(args) => completions::completions(&args, console),
            Self::Man(args) => completions::man(&args, console),
            Self::Openapi => console.text(crate::admin::document()),
        }
    }
}

/// Runs a command's work on this thread.
fn block_on(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(format!("cannot start: {error}")))?
        .block_on(work)
}

#[cfg(test)]
mod tests;
