//! One run: everything is started, loaded, broken by plan, stopped and judged.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::kafka::Kafka;
use crate::ledger::{Kind, Ledger};
use crate::log;
use crate::nodes::{Node, World, free_port};
use crate::plan::{FROZEN, LogKind, Plan, Step};
use crate::producers::Producers;
use crate::report::Progress;
use crate::script::{ORDERINGS, Script};
use crate::subscriber::Subscriber;
use crate::verdict::{Facts, Verdict};

/// Nothing more comes for so long: what is missing then will not come.
const STUCK: Duration = Duration::from_secs(30);

/// The processes and what can be done to them.
struct Stage {
    ledger: Arc<Ledger>,
    subscriber: Subscriber,
    producers: Arc<Producers>,
    kafka: Option<Arc<Kafka>>,
    receiver: Node,
    dispatchers: Vec<Node>,
    guest: Node,
}

/// Runs a plan in an empty directory.
pub(crate) async fn run(plan: &Plan, directory: &Path, progress: &mut Progress) -> Verdict {
    let ledger = Arc::new(Ledger::new(plan.events));
    let script = Script {
        seed: plan.seed,
        last_doomed: plan.events / 10 * 9,
    };
    let mut stage = set_up(plan, directory, script, &ledger).await;
    progress.say("all is up");

    let producers = Arc::clone(&stage.producers);
    let mut posting = tokio::spawn(Arc::clone(&producers).run());
    let kafka_track = plan.tracks.get(1).cloned().unwrap_or_default();
    let breaking = break_kafka(stage.kafka.clone(), kafka_track);
    let breaking = async { tokio::join!(breaking, stage.break_nodes(&plan.tracks[0])) };
    tokio::select! {
        ((), ()) = breaking => progress.say("no more faults"),
        () = watch(&producers, &ledger, progress) => panic!("nothing is accepted any more"),
    }
    tokio::select! {
        posted = &mut posting => posted.unwrap(),
        () = watch(&producers, &ledger, progress) => panic!("nothing is accepted any more"),
    }
    let facts = stage.settle(plan, directory, script, progress).await;
    Verdict::of(&facts)
}

async fn set_up(plan: &Plan, directory: &Path, script: Script, ledger: &Arc<Ledger>) -> Stage {
    let subscriber = Subscriber::start(script, Arc::clone(ledger)).await;
    let kafka = match plan.log {
        LogKind::Kafka => Some(Kafka::start(directory, Arc::clone(ledger)).await),
        LogKind::Embedded => None,
    };
    let world = Arc::new(World {
        directory: directory.to_owned(),
        servers: kafka.as_ref().map(|kafka| kafka.servers()),
        ledger: Arc::clone(ledger),
    });
    world.declare(subscriber.address, plan.partitions);
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let dispatcher = ["--roles", "dispatcher"];
    let (mut receiver, mut dispatchers) = if kafka.is_some() {
        let receiver = world.node("receiver", &["--roles", "receiver", "--listen", &listen]);
        let names = ["dispatcher-0", "dispatcher-1"];
        (
            receiver,
            names.map(|name| world.node(name, &dispatcher)).into(),
        )
    } else {
        (world.node("node", &["--listen", &listen]), Vec::new())
    };
    receiver.start().await;
    for dispatcher in &mut dispatchers {
        dispatcher.start().await;
    }
    receiver.ready(dispatchers.is_empty()).await;
    for dispatcher in &dispatchers {
        dispatcher.ready(true).await;
    }
    let address = ([127, 0, 0, 1], port).into();
    Stage {
        ledger: Arc::clone(ledger),
        subscriber,
        producers: Producers::new(address, script, plan.events, plan.rate),
        kafka,
        receiver,
        dispatchers,
        guest: world.node("guest", &["--roles", "dispatcher", "--leave"]),
    }
}

async fn break_kafka(kafka: Option<Arc<Kafka>>, track: Vec<(Duration, Step)>) {
    let Some(kafka) = kafka else { return };
    for (pause, step) in track {
        sleep(pause).await;
        match step {
            Step::KillKafka(away) => kafka.kill_and_start(away).await,
            Step::FreezeKafka => kafka.freeze(FROZEN).await,
            Step::CutKafka => kafka.cut(),
            other => unreachable!("{other:?} is no fault of Kafka"),
        }
    }
}

/// Tells how it goes, every few seconds; ends when nothing was accepted for too long.
async fn watch(producers: &Producers, ledger: &Ledger, progress: &mut Progress) {
    let (mut before, mut same) = (0, 0);
    while same < 20 || before == producers.events {
        sleep(Duration::from_secs(5)).await;
        let (accepted, settled) = (producers.accepted(), ledger.settled());
        progress.say(&format!(
            "{accepted} of {} accepted, {settled} of {} messages settled, {} faults",
            producers.events,
            accepted as usize * ORDERINGS.len(),
            ledger.faults().len(),
        ));
        same = if accepted == before { same + 1 } else { 0 };
        before = accepted;
    }
}

impl Stage {
    async fn break_nodes(&mut self, track: &[(Duration, Step)]) {
        for (pause, step) in track {
            sleep(*pause).await;
            match *step {
                Step::KillReceiver => {
                    self.receiver.kill();
                    self.receiver.start().await;
                }
                Step::KillDispatcher(which, away) => {
                    self.dispatchers[which].kill();
                    sleep(away).await;
                    self.dispatchers[which].start().await;
                }
                Step::DrainDispatcher(which) => {
                    // Without Kafka one node has all roles.
                    let node = self
                        .dispatchers
                        .get_mut(which)
                        .unwrap_or(&mut self.receiver);
                    node.drain().await;
                    node.start().await;
                }
                Step::FreezeDispatcher(which) => self.dispatchers[which].freeze(FROZEN).await,
                Step::Guest(stay) => self.visit(stay).await,
                Step::CutSubscriber => {
                    let from = self.ledger.now();
                    self.subscriber.cut();
                    let what = "connections to the subscriber cut";
                    self.ledger.fault(Kind::Cut, what, from);
                }
                Step::CutProducers => {
                    let from = self.ledger.now();
                    self.producers.cut_off().await;
                    self.ledger.fault(Kind::Cut, "requests cut off", from);
                }
                Step::KillKafka(_) | Step::FreezeKafka | Step::CutKafka => {
                    unreachable!("{step:?} is no fault of a node")
                }
            }
        }
    }

    /// A third dispatcher joins, works for a while, and leaves its groups.
    async fn visit(&mut self, stay: Duration) {
        let from = self.ledger.now();
        self.guest.start().await;
        // Kafka may be away just now; then it has not joined when it leaves.
        let deadline = Instant::now() + Duration::from_secs(15);
        let groups = f64::from(3_u8);
        while self.guest.metric("levada_rebalances_total").await < groups
            && Instant::now() < deadline
        {
            sleep(Duration::from_millis(100)).await;
        }
        self.ledger.fault(Kind::Rebalance, "a guest joins", from);
        sleep(stay).await;
        let from = self.ledger.now();
        self.guest.drain().await;
        self.ledger.fault(Kind::Rebalance, "the guest leaves", from);
    }

    /// Waits until every message is settled, ends the processes, and reads what the log has.
    /// What is missing then gets another chance: it may still wait in the log.
    async fn settle(
        mut self,
        plan: &Plan,
        directory: &Path,
        script: Script,
        progress: &mut Progress,
    ) -> Facts {
        self.producers.stop();
        for chance in 0.. {
            self.wait_until_settled(progress).await;
            // A dead letter is written after the last attempt.
            sleep(Duration::from_millis(300)).await;
            self.receiver.drain().await;
            for dispatcher in &mut self.dispatchers {
                dispatcher.drain().await;
            }
            let servers = self.kafka.as_ref().map(|kafka| kafka.servers());
            let began = self.ledger.began_at;
            let log = log::read(servers.as_deref(), &directory.join("node"), plan, began).await;
            let facts = Facts::gather(plan, script, &self.ledger, &self.producers, log);
            let missing = facts.missing();
            if missing.is_empty() || chance == 2 {
                return facts;
            }
            progress.say(&format!("{} messages are not there yet", missing.len()));
            self.receiver.start().await;
            for dispatcher in &mut self.dispatchers {
                dispatcher.start().await;
            }
            sleep(Duration::from_secs(3)).await;
        }
        unreachable!("the chances end")
    }

    async fn wait_until_settled(&self, progress: &mut Progress) {
        let wanted = self.producers.accepted() as usize * ORDERINGS.len();
        let (mut settled, mut last, mut told) = (0, Instant::now(), Instant::now());
        while last.elapsed() < STUCK {
            let now = self.ledger.settled();
            if now >= wanted {
                return;
            }
            if now > settled {
                (settled, last) = (now, Instant::now());
            }
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                progress.say(&format!("{settled} of {wanted} messages settled"));
            }
            sleep(Duration::from_millis(50)).await;
        }
        progress.say(&format!("{} messages do not come", wanted - settled));
    }
}
