//! `levada serve`: the broker.

use std::path::PathBuf;
use std::time::Duration;

use super::flags::OptionFlags;
use super::signals::Signals;
use super::{CliError, Console};
use crate::app::App;
use crate::config::{self, Config, Inputs, Loaded};
use crate::telemetry;

/// How long the end waits for calls that nobody waits for any more.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levada serve --manifests ./manifests
      Everything in one process, on the embedded log in ./levada-data.

  levada serve --manifests ./manifests --bootstrap-servers kafka-1:9092,kafka-2:9092
      The same on Kafka.

  LEVADA_LOG_FORMAT=json levada serve --config levada.toml --print-config
      What would be in force, and where each value comes from.")]
pub(super) struct Args {
    /// File with options, in TOML.
    #[arg(long, value_name = "FILE", env = "LEVADA_CONFIG")]
    config: Option<PathBuf>,
    /// Show the configuration in force and where each value comes from, and end.
    #[arg(long)]
    print_config: bool,
    /// Write a file with every option at its default, and end.
    #[arg(long)]
    print_default_config: bool,
    #[command(flatten)]
    options: OptionFlags,
}

pub(super) fn run(args: Args, console: &Console) -> Result<(), CliError> {
    if args.print_default_config {
        return console.text(&config::default_file());
    }
    let loaded = load(args.config, args.options)?;
    for warning in &loaded.warnings {
        console.warn(warning);
    }
    if args.print_config {
        return console.text(&config::in_force(&loaded));
    }
    let config = loaded.config;
    telemetry::init(&config.log).map_err(|error| CliError::Usage(error.to_string()))?;
    block_on(config.worker_threads, serve(config))
}

/// The configuration from flags, environment and file.
pub(super) fn load(file: Option<PathBuf>, flags: OptionFlags) -> Result<Loaded, CliError> {
    let ours = |name: &str| name.starts_with("LEVADA_");
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| ours(name))
        .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
        .collect();
    config::load(Inputs {
        file,
        variables,
        flags: flags.0,
    })
    .map_err(|errors| CliError::Usage(errors.to_string()))
}

/// Runs `work` on a runtime with `threads` threads; 0: one a core.
pub(super) fn block_on(
    threads: usize,
    work: impl Future<Output = Result<(), CliError>>,
) -> Result<(), CliError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if threads > 0 {
        builder.worker_threads(threads);
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(format!("cannot start threads: {error}")))?;
    let ended = runtime.block_on(work);
    // Everything was drained within its limits. What still runs is a Kafka client's call that
    // waits for a broker that is gone; the end of the process ends it.
    runtime.shutdown_timeout(LEFT_BEHIND);
    ended
}

async fn serve(config: Config) -> Result<(), CliError> {
    let mut signals = Signals::listen()?;
    let app = App::build(config)
        .await
        .map_err(|error| CliError::Failed(format!("cannot start: {error}")))?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = app.run(async {
        let _ = stopped.await;
    });
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = signals.next() => {
            tracing::info!("stopping; a second signal ends without draining");
            drop(stop);
            tokio::select! {
                ended = &mut running => ended,
                () = signals.next() => {
                    return Err(CliError::Failed("ended without draining".into()));
                }
            }
        }
    };
    ended.map_err(|error| CliError::Failed(error.to_string()))
}

#[cfg(test)]
impl Args {
    pub(super) fn load_for_test(self) -> Config {
        load(self.config, self.options).unwrap().config
    }
}
