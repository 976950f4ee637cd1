//! The one place where the parts are joined: built from a configuration, run until told to stop,
//! drained in order.

mod lag;
mod probe;
mod start;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admin::{self, AdminState, AdminView, Messages, ReadinessCheck};
use crate::channel::ResourceName;
use crate::clock::Clock;
use crate::config::{Config, Role};
use crate::dashboard::{self, Dashboard};
use crate::dead_letters::DeadLetters;
use crate::delivery::Client;
use crate::dispatch::{self, DispatchMetrics, Duties, Supervisor, Tools};
use crate::health::Watch;
use crate::ingress::{self, Ingress, RouteTable};
use crate::log::{EventLog, Offset, Partition};
use crate::registry::{Registry, Snapshot};
use crate::shutdown::Tasks;
use crate::status::{Board, Lag};
use crate::topics::Topics;

use probe::LogProbe;
pub use start::StartError;
pub(crate) use start::{embedded_dir, open_log};

/// How long the journal gets to write what is queued.
const JOURNAL_CLOSE: Duration = Duration::from_secs(5);
/// How long the ingress gets to answer what it has taken, beyond the time of an append.
const INGRESS_GRACE: Duration = Duration::from_secs(2);

/// A node: listeners bound, parts made, nothing running yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    clock: Clock,
    log: Arc<dyn EventLog>,
    node: start::Node,
    ingress: Option<TcpListener>,
    admin: TcpListener,
}

/// Something did not end in time, or a task panicked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A part could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A task panicked; the rest was drained.
    #[error("a task panicked (see the log above); everything else was drained")]
    Panicked,
}

impl App {
    /// Binds the listeners and opens the log.
    ///
    /// # Errors
    /// [`StartError`] when an address is taken, the data directory cannot be used or is another
    /// process's, or a setting is refused.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        let clock = Clock::system();
        let node = start::Node::open(&config.data_dir)?;
        let admin = start::bind("admin.listen", config.admin.listen).await?;
        let ingress = if config.roles.has(Role::Receiver) {
            Some(start::bind("listen", config.listen).await?)
        } else {
            None
        };
        let log = open_log(&config, &clock)?;
        Ok(Self {
            config,
            clock,
            log,
            node,
            ingress,
            admin,
        })
    }

    /// Where producers post; `None` on a node without the receiver's role.
    #[must_use]
    pub fn ingress_address(&self) -> Option<SocketAddr> {
        self.ingress
            .as_ref()
            .and_then(|listener| listener.local_addr().ok())
    }

    /// Where the admin port listens.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.local_addr().ok()
    }

    /// Runs until `shutdown`, then drains: no new events, no new deliveries, what is in flight
    /// finished or left for the next owner, commits made, the log closed.
    ///
    /// # Errors
    /// [`RunError`] when a part cannot be started, or a task panicked.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let (ingress_address, admin_address) = (self.ingress_address(), self.admin_address());
        let tasks = Tasks::new();
        let receiving = tasks.child();
        let watching = tasks.child();
        let serving = tasks.child();
        let metrics = start::metrics()?;
        let start::Journal {
            recorder,
            reader,
            writer,
        } = start::journal(&self.config, self.node.id(), &self.clock, &metrics)?;
        let board = Board::new(self.clock.clone());
        let probe = LogProbe::new(Arc::clone(&self.log));
        let snapshots = Registry::load_and_watch(
            start::registry_settings(&self.config)?,
            self.clock.clone(),
            &watching,
        )
        .subscribe();

        let view = View {
            board: board.clone(),
            probe: probe.clone(),
            snapshots: snapshots.clone(),
        };
        let redriving = tasks.child();
        let dead_letters = DeadLetters::new(
            Arc::clone(&self.log),
            reader.clone(),
            self.clock.clone(),
            snapshots.clone(),
            self.node.id().to_owned(),
            &redriving,
        );
        redriving.spawn("redrives", dead_letters.clone().resume());
        let view: Arc<dyn AdminView> = Arc::new(view);
        let health = Watch::new(metrics.clone(), Arc::clone(&view), self.clock.clone())
            .with_thresholds(self.config.health);
        watching.spawn("health", health.clone().run(watching.stop_signal()));
        let messages = Messages {
            reader: reader.clone(),
            log: Arc::clone(&self.log),
            snapshots: snapshots.clone(),
            watch: health.clone(),
            view: Arc::clone(&view),
            dead_letters: Some(dead_letters.clone()),
            clock: self.clock.clone(),
        };
        let dashboard = Dashboard::new(dashboard::Parts {
            view: Arc::clone(&view),
            watch: health,
            snapshots: snapshots.clone(),
            journal: reader,
            dead_letters: Some(dead_letters.clone()),
            log: Some(Arc::clone(&self.log)),
            actions: Some(Arc::new(messages.clone())),
            read_only: self.config.admin.read_only,
            clock: self.clock.clone(),
            node: self.node.id().to_owned(),
        });
        watching.spawn("dashboard", dashboard.clone().run(watching.stop_signal()));
        let state = AdminState::new(view, metrics.clone(), self.config.admin.clone())
            .with_dead_letters(dead_letters)
            .with_dashboard(dashboard)
            .with_messages(messages);
        admin::serve(self.admin, state, &serving).map_err(StartError::from)?;
        if let Some(listener) = self.ingress {
            let routes = Arc::new(ArcSwap::from_pointee(routes(&snapshots.borrow())));
            let ingress = Arc::new(Ingress::new(
                Arc::clone(&self.log),
                Arc::clone(&routes),
                start::ingress_settings(&self.config),
                ingress::Metrics::register(&metrics).map_err(StartError::from)?,
            ));
            ingress.serve(listener, &receiving);
            watching.spawn(
                "routes",
                follow_routes(snapshots.clone(), routes, watching.clone()),
            );
        }
        let settings = start::dispatch_settings(&self.config);
        let dispatch_metrics = DispatchMetrics::register(&metrics).map_err(StartError::from)?;
        let supervisor = Supervisor::new(
            Arc::new(Tools {
                log: Arc::clone(&self.log),
                deliver: Client::new(start::delivery_settings(&self.config), self.clock.clone()),
                clock: self.clock.clone(),
                journal: recorder.clone(),
                settings: settings.clone(),
            }),
            Topics::new(Arc::clone(&self.log), start::max_event_bytes(&self.config)),
            Duties {
                dispatch: self.config.roles.has(Role::Dispatcher),
                instance: start::instance(&self.config, &self.node),
            },
            dispatch_metrics.clone(),
            board.clone(),
            &tasks,
        );
        let dispatching = tasks.child();
        let stop = dispatching.stop_signal();
        dispatching.spawn("supervisor", supervisor.run(snapshots, stop));
        watching.spawn("log probe", probe.run(watching.stop_signal()));
        let lag = lag::Watcher {
            log: Arc::clone(&self.log),
            board,
            metrics: dispatch_metrics,
            clock: self.clock.clone(),
        };
        watching.spawn("lag", lag.run(watching.stop_signal()));
        self.node.tell(ingress_address, admin_address)?;

        let panicked = tokio::select! {
            () = shutdown => false,
            () = tasks.failure() => true,
        };
        tracing::info!("stopping");
        let append = self.config.ingress.append_timeout + INGRESS_GRACE;
        drain(&receiving, append, "ingress").await;
        drain(&redriving, Duration::from_secs(5), "redrives").await;
        drain(&dispatching, drain_limit(&settings), "dispatch").await;
        if let Some(writer) = writer {
            recorder.close(writer, JOURNAL_CLOSE).await;
        }
        drain(&watching, Duration::from_secs(5), "watchers").await;
        if let Err(error) = self.log.close(Duration::from_secs(5)).await {
            tracing::warn!(%error, "the log did not close in order");
        }
        drain(&serving, Duration::from_secs(2), "admin").await;
        tracing::info!("stopped");
        if panicked {
            Err(RunError::Panicked)
        } else {
            Ok(())
        }
    }
}

async fn drain(tasks: &Tasks, limit: Duration, part: &'static str) {
    if let Err(error) = tasks.drain(limit).await {
        tracing::warn!(part, %error, "the drain took too long");
    }
}

/// A member's own bounds come first; these are for one that does not keep them.
fn drain_limit(settings: &dispatch::Settings) -> Duration {
    settings.drain_timeout + settings.leave_timeout + Duration::from_secs(20)
}

fn routes(snapshot: &Snapshot) -> RouteTable {
    let channels = snapshot.channels.values();
    channels
        .map(|channel| (channel.name.clone(), channel.topic.clone()))
        .collect()
}

async fn follow_routes(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    table: Arc<ArcSwap<RouteTable>>,
    tasks: Tasks,
) {
    let stop = tasks.stop_signal();
    loop {
        table.store(Arc::new(routes(&snapshots.borrow_and_update())));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
        }
    }
}

/// What the admin port shows.
#[derive(Debug)]
struct View {
    board: Board,
    probe: LogProbe,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl AdminView for View {
    fn channels(&self) -> Vec<Value> {
        self.board.channels()
    }

    fn subscriptions(&self) -> Vec<Value> {
        self.board.subscriptions()
    }

    fn lag(&self, subscription: &ResourceName) -> Option<Lag> {
        self.board.lag_of(subscription)
    }

    fn committed(&self, subscription: &ResourceName, partition: Partition) -> Option<Offset> {
        self.board.committed(subscription, partition)
    }

    fn problems(&self) -> Vec<Value> {
        self.board.problems()
    }

    fn readiness(&self) -> Vec<ReadinessCheck> {
        // The listeners are bound before anything runs: whoever is answered knows.
        let loaded = self.snapshots.borrow().loaded_once;
        let manifests = ReadinessCheck {
            name: "manifests".into(),
            ok: loaded,
            message: if loaded { "read" } else { "not read yet" }.into(),
        };
        vec![manifests, self.probe.check()]
    }
}
