//! `levada purge`: deletes what a channel or a subscription that is gone left in the log.
//!
//! Taking a resource out of the manifests stops it and deletes nothing; this is the other half.
//! It works on the log itself, and only on what nobody declares any more. The group goes first:
//! Kafka refuses to delete one that has members, so a broker that is still at work anywhere is
//! noticed before any event is lost.

mod belongings;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use self::belongings::{Belongings, Found};
use super::api::AdminPort;
use super::flags::{LogFlags, OptionFlags};
use super::{CliError, Console, Tone, confirm, serve};
use crate::app;
use crate::channel::ResourceName;
use crate::clock::Clock;
use crate::config::Config;
use crate::log::{EventLog, GroupId, LogError};
use crate::manifest::{self, ResourceKey, ResourceType};
use crate::registry::{self, Templates};

/// How long a static member that ended may be kept in its group, and a little more.
const GROUP_EMPTIES: Duration = Duration::from_secs(12);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Arguments of `purge`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levada purge subscription billing --channel orders
      Asks, then deletes what waits for a retry, the dead letters and the group.

  levada purge channel prod/orders --manifests ./manifests --bootstrap-servers kafka:9092 --yes
      Deletes the channel's events, unless the manifests declare it.")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Delete a channel's topic with all its events.
    Channel(ChannelArgs),
    /// Delete a subscription's retry topic, dead-letter topic and group.
    Subscription(SubscriptionArgs),
}

#[derive(Debug, clap::Args)]
struct ChannelArgs {
    /// Which one, as NAME or NAMESPACE/NAME.
    name: ResourceName,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct SubscriptionArgs {
    /// Which one, as NAME or NAMESPACE/NAME.
    name: ResourceName,
    /// The channel it read, in the same namespace.
    #[arg(long, value_name = "NAME")]
    channel: String,
    /// Its metadata.uid, if it had one.
    #[arg(long)]
    uid: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Delete without asking.
    #[arg(long, short)]
    yes: bool,
    /// File with options, in TOML.
    #[arg(long, value_name = "FILE", env = "LEVADA_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    port: AdminPort,
    #[command(flatten)]
    options: LogFlags,
}

pub(super) async fn run(args: Args, console: &Console) -> Result<(), CliError> {
    let (what, common) = args.what.split();
    let LogFlags(flags) = common.options;
    let config = configuration(common.config, flags, console)?;
    let key = what.key();
    refuse_declared(&config, &key)?;
    refuse_served(&common.port, &key).await?;
    let templates = Templates::try_new(&config.names.channel_topic, &config.names.group)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let belongings = what.belongings(&templates)?;
    let place = place(&config)?;
    let log = app::open_log(&config, &Clock::system())
        .map_err(|error| CliError::Failed(error.to_string()))?;
    let question = "Delete all of it? It cannot be undone.";
    let ask = async || confirm::sure(common.yes, question, console).await;
    let result = purge(&*log, &key, belongings, &place, ask, console).await;
    let closed = log.close(Duration::from_secs(5)).await;
    result.and(closed.map_err(|error| failed(&error)))
}

/// What to purge, by its names.
enum Target {
    Channel(ResourceName),
    Subscription {
        name: ResourceName,
        channel: String,
        uid: Option<String>,
    },
}

impl What {
    fn split(self) -> (Target, Common) {
        match self {
            Self::Channel(args) => (Target::Channel(args.name), args.common),
            Self::Subscription(args) => {
                let target = Target::Subscription {
                    name: args.name,
                    channel: args.channel,
                    uid: args.uid,
                };
                (target, args.common)
            }
        }
    }
}

impl Target {
    fn key(&self) -> ResourceKey {
        let (resource, name) = match self {
            Self::Channel(name) => (ResourceType::Channel, name),
            Self::Subscription { name, .. } => (ResourceType::Subscription, name),
        };
        ResourceKey {
            resource,
            name: name.clone(),
        }
    }

    fn belongings(&self, templates: &Templates) -> Result<Belongings, CliError> {
        match self {
            Self::Channel(name) => Belongings::of_channel(templates, name),
            Self::Subscription { name, channel, uid } => {
                Belongings::of_subscription(templates, name, channel, uid.as_deref())
            }
        }
        .map_err(CliError::Usage)
    }
}

fn configuration(
    file: Option<PathBuf>,
    flags: OptionFlags,
    console: &Console,
) -> Result<Config, CliError> {
    let loaded = serve::load(file, flags)?;
    for warning in &loaded.warnings {
        console.warn(warning);
    }
    Ok(loaded.config)
}

/// Refuses what the manifests declare. Manifests that cannot be understood may declare anything.
fn refuse_declared(config: &Config, key: &ResourceKey) -> Result<(), CliError> {
    let sources = registry::sources(&config.manifests).map_err(|error| {
        CliError::Failed(format!("cannot tell what the manifests declare: {error}"))
    })?;
    let report = manifest::check(&sources, &[]);
    if let Some(document) = report.documents.iter().find(|found| found.key == *key) {
        return Err(CliError::Failed(format!(
            "{key} is declared in {}:{}: take it out first",
            document.file, document.line
        )));
    }
    match report.problems.first() {
        None => Ok(()),
        Some(problem) => Err(CliError::Failed(format!(
            "cannot tell what the manifests declare: {problem}"
        ))),
    }
}

/// Refuses what a broker serves. That none is there is fine.
async fn refuse_served(port: &AdminPort, key: &ResourceKey) -> Result<(), CliError> {
    let list = match key.resource {
        ResourceType::Subscription => "subscriptions",
        ResourceType::Channel | ResourceType::Sink => "channels",
    };
    let path = format!("/v1/{list}/{}", key.name);
    match port.find(&path).await? {
        None => Ok(()),
        Some(_) => Err(CliError::Failed(format!(
            "{key} is served by the broker at {port}: take it out of its manifests first"
        ))),
    }
}

/// Which log it is, for people.
fn place(config: &Config) -> Result<String, CliError> {
    match app::embedded_dir(config) {
        None => Ok(format!("Kafka at {}", config.bootstrap_servers.join(","))),
        // Opening the log would make it.
        Some(dir) if !dir.is_dir() => Err(CliError::Failed(format!(
            "there is no log in {}: say with --data-dir where it is, or with \
             --bootstrap-servers where Kafka is",
            dir.display()
        ))),
        Some(dir) => Ok(format!("the embedded log in {}", dir.display())),
    }
}

/// Shows what there is, asks, and deletes it.
async fn purge(
    log: &dyn EventLog,
    key: &ResourceKey,
    belongings: Belongings,
    place: &str,
    sure: impl AsyncFnOnce() -> Result<bool, CliError>,
    console: &Console,
) -> Result<(), CliError> {
    let found = belongings.look(log).await.map_err(|error| failed(&error))?;
    if found.is_empty() {
        return Err(CliError::Failed(format!(
            "{place} has nothing of {key}; looked for {}",
            found.names()
        )));
    }
    console.line(format_args!("{key} has in {place}:"))?;
    console.text(&found.rendered())?;
    if !sure().await? {
        return Err(CliError::Failed("nothing was deleted".into()));
    }
    delete(log, &found, console).await?;
    console.line(console.paint(Tone::Good, format_args!("{key} is purged")))
}

async fn delete(log: &dyn EventLog, found: &Found, console: &Console) -> Result<(), CliError> {
    if let Some(group) = &found.group {
        delete_group(log, &group.id, console).await?;
        console.line(format_args!("deleted group {}", group.id))?;
    }
    for topic in found.topics.iter().filter(|topic| topic.size.is_some()) {
        log.delete_topic(&topic.name)
            .await
            .map_err(|error| failed(&error))?;
        console.line(format_args!("deleted topic {}", topic.name))?;
    }
    Ok(())
}

/// Deletes a group, waiting a little for members that ended without giving up their place.
async fn delete_group(
    log: &dyn EventLog,
    group: &GroupId,
    console: &Console,
) -> Result<(), CliError> {
    let deadline = Instant::now() + GROUP_EMPTIES;
    loop {
        match log.delete_group(group).await {
            Ok(()) => return Ok(()),
            Err(LogError::Refused(_)) if Instant::now() < deadline => {
                console.progress(format_args!("waiting for group {group} to be left"));
                sleep(ASK_AGAIN).await;
            }
            Err(error @ LogError::Refused(_)) => {
                return Err(CliError::Failed(format!(
                    "{error}; a broker may still be reading as this group: stop it first. \
                     Nothing was deleted"
                )));
            }
            Err(error) => return Err(failed(&error)),
        }
    }
}

fn failed(error: &LogError) -> CliError {
    CliError::Failed(error.to_string())
}
