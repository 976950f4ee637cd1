//! `levada quickstart`: a broker, a subscriber and some events in one process, told as it happens.

mod story;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::listen::{self, Delivery, MAX_WAITING, Script};
use super::signals::Signals;
use super::{CliError, Console};
use crate::app::App;
use crate::config::Config;
use crate::shutdown::Tasks;
use crate::telemetry;
use story::{Places, Story};

/// Arguments of `quickstart`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levada quickstart
  levada quickstart --data-dir ./try    keeps what it stores")]
pub(super) struct Args {
    /// Where to store events and the manifest; a temporary directory if not given.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Ports to try first; 0: any.
#[derive(Clone, Copy, Debug)]
struct Ports {
    listen: u16,
    admin: u16,
    subscriber: u16,
}

const DEFAULT_PORTS: Ports = Ports {
    listen: 8080,
    admin: 8081,
    subscriber: 9000,
};

pub(super) async fn run(args: Args, console: &Console) -> Result<(), CliError> {
    let mut signals = Signals::listen()?;
    let settings = telemetry::Settings {
        level: "warn".into(),
        ..telemetry::Settings::default()
    };
    telemetry::init(&settings).map_err(|error| CliError::Failed(error.to_string()))?;
    let dir = Dir::open(args.data_dir)?;
    play(&dir.path, DEFAULT_PORTS, console, async {
        signals.next().await;
    })
    .await
}

/// A directory that is removed at the end if it is temporary.
#[derive(Debug)]
struct Dir {
    path: PathBuf,
    temporary: bool,
}

impl Dir {
    fn open(wanted: Option<PathBuf>) -> Result<Self, CliError> {
        let temporary = wanted.is_none();
        let name = format!("levada-quickstart-{}", uuid::Uuid::new_v4());
        let path = wanted.unwrap_or_else(|| std::env::temp_dir().join(name));
        match std::fs::create_dir_all(&path) {
            Ok(()) => Ok(Self { path, temporary }),
            Err(error) => Err(unusable(&path, &error)),
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed is left to the system, as all of its temporary files are.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::Failed(format!("{} cannot be used: {error}", path.display()))
}

/// Runs everything until `shutdown`.
async fn play(
    dir: &Path,
    ports: Ports,
    console: &Console,
    shutdown: impl Future<Output = ()>,
) -> Result<(), CliError> {
    let tasks = Tasks::new();
    let flaky = [("order.flaky", "503,503,200"), ("order.broken", "500")];
    let subscriber = subscriber(ports.subscriber, &flaky, &tasks).await?;
    let dead_letters = self::subscriber(0, &[], &tasks).await?;
    let manifest = manifest(dir, subscriber.address, dead_letters.address)?;
    let config = Config {
        listen: free(ports.listen).await,
        admin: crate::admin::Settings {
            listen: free(ports.admin).await,
            ..crate::admin::Settings::default()
        },
        data_dir: dir.join("data"),
        manifests: vec![manifest.clone()],
        drain_timeout: Duration::from_secs(5),
        ..Config::default()
    };
    let app = App::build(config)
        .await
        .map_err(|error| CliError::Failed(format!("cannot start: {error}")))?;
    let (Some(ingress), Some(admin)) = (app.ingress_address(), app.admin_address()) else {
        return Err(CliError::Failed("a listener has no address".into()));
    };
    let places = Places {
        ingress,
        admin,
        subscriber: subscriber.address,
        manifest,
    };
    let story = Story::new(places, console.clone())?;
    let (stop, stopped) = oneshot::channel::<()>();
    let running = app.run(async {
        let _ = stopped.await;
    });
    tokio::pin!(running);
    let told = tokio::select! {
        told = story.tell(subscriber.deliveries, dead_letters.deliveries) => told,
        () = shutdown => Ok(()),
        ended = &mut running => {
            return Err(CliError::Failed(ended.map_or_else(
                |error| error.to_string(),
                |()| "the broker ended by itself".into(),
            )));
        }
    };
    drop(stop);
    let ended = running
        .await
        .map_err(|error| CliError::Failed(error.to_string()));
    let _ = tasks.drain(Duration::from_secs(1)).await;
    told.and(ended)
}

struct Subscriber {
    address: SocketAddr,
    deliveries: mpsc::Receiver<Delivery>,
}

async fn subscriber(
    port: u16,
    answers: &[(&str, &str)],
    tasks: &Tasks,
) -> Result<Subscriber, CliError> {
    let script = Script::by_type(answers).map_err(CliError::Usage)?;
    let listener = TcpListener::bind(free(port).await)
        .await
        .map_err(|error| CliError::Failed(format!("no port for the subscriber: {error}")))?;
    let address = listener.local_addr()?;
    let (told, deliveries) = mpsc::channel(MAX_WAITING);
    listen::serve(listener, script, told, tasks);
    Ok(Subscriber {
        address,
        deliveries,
    })
}

/// `port` of this machine if it is free, else any.
async fn free(port: u16) -> SocketAddr {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(wanted).await {
        Ok(_) => wanted,
        Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    }
}

/// Writes the manifest and says where it is.
fn manifest(
    dir: &Path,
    subscriber: SocketAddr,
    dead_letters: SocketAddr,
) -> Result<PathBuf, CliError> {
    let text = format!(
        "\
apiVersion: messaging.knative.dev/v1beta1
kind: KafkaChannel
metadata:
  name: orders
spec:
  numPartitions: 1
  replicationFactor: 1
---
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata:
  name: billing
spec:
  channel:
    apiVersion: messaging.knative.dev/v1beta1
    kind: KafkaChannel
    name: orders
  subscriber:
    uri: http://{subscriber}/
  delivery:
    retry: 3
    backoffPolicy: linear
    backoffDelay: PT0.5S
    deadLetterSink:
      uri: http://{dead_letters}/
"
    );
    let path = dir.join("quickstart.yaml");
    std::fs::write(&path, text).map_err(|error| unusable(&path, &error))?;
    Ok(path)
}

#[cfg(test)]
mod tests;
