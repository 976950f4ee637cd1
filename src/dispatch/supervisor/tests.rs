//! Subscriptions that come, change and go.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::time::Instant;

use super::*;
use crate::channel::{Channel, Ordering};
use crate::clock::UnixMillis;
use crate::dispatch::testing::{Answer, Happening, World, at, event, http, subscription};
use crate::log::{EventLog, LogError};
use crate::registry::{Manifest, Reason, SubscriptionEntry};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

struct Running {
    world: World,
    board: Board,
    tasks: Tasks,
    snapshots: watch::Sender<Arc<Snapshot>>,
}

fn manifest() -> Arc<Manifest> {
    Arc::new(Manifest {
        file: "test.yaml".into(),
        line: 1,
        created: UnixMillis(0),
        spec: Value::Null,
    })
}

fn channel() -> Channel {
    let sub = subscription("any");
    Channel {
        name: sub.channel,
        generation: 1,
        partitions: 2,
        replicas: 1,
        retention: 3600 * SECOND,
        topic: sub.topic,
        dead_letter: None,
    }
}

fn snapshot(subscriptions: &[&Subscription]) -> Arc<Snapshot> {
    let mut snapshot = Snapshot {
        loaded_once: true,
        ..Snapshot::default()
    };
    let channel = Arc::new(channel());
    snapshot.channels.insert(channel.name.clone(), channel);
    for subscription in subscriptions {
        let entry = SubscriptionEntry {
            channel: subscription.channel.clone(),
            uid: subscription.uid.clone(),
            generation: subscription.generation,
            delivery: subscription.delivery.clone(),
            resolution: Resolution::Resolved(Arc::new((*subscription).clone())),
            manifest: manifest(),
        };
        snapshot
            .subscriptions
            .insert(subscription.name.clone(), entry);
    }
    Arc::new(snapshot)
}

impl Running {
    fn start(subscriptions: &[&Subscription]) -> Self {
        let world = World::new();
        let board = Board::new(world.clock.clone());
        let tasks = Tasks::new();
        let (snapshots, receiver) = watch::channel(snapshot(subscriptions));
        let supervisor = Supervisor::new(
            Arc::clone(&world.tools),
            Topics::new(world.log.clone(), 1 << 20),
            Duties {
                dispatch: true,
                instance: None,
            },
            world.metrics.clone(),
            board.clone(),
            &tasks,
        );
        tasks.spawn("supervisor", supervisor.run(receiver, tasks.stop_signal()));
        Self {
            world,
            board,
            tasks,
            snapshots,
        }
    }

    fn set(&self, subscriptions: &[&Subscription]) {
        self.snapshots.send_replace(snapshot(subscriptions));
    }

    /// Conditions `Ready` by subscription name.
    fn is_ready(&self, name: &str) -> bool {
        let all = self.board.subscriptions();
        let found = all.iter().find(|s| s["metadata"]["name"] == name);
        let conditions = found.and_then(|s| s["status"]["conditions"].as_array());
        conditions.is_some_and(|all| {
            all.iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True")
        })
    }

    async fn ready(&self, name: &str) {
        for _ in 0..1000 {
            if self.is_ready(name) {
                return;
            }
            self.world.pass(10 * MS).await;
        }
        panic!("{name} is never ready");
    }

    fn put(&self, ids: impl Iterator<Item = usize>) {
        for n in ids {
            let (partition, key) = (i32::try_from(n % 2).unwrap(), (n % 5).to_string());
            let record = event(&n.to_string(), Some(&key), 0);
            self.world.log.put(&at(partition), record);
        }
    }

    async fn committed(&self, subscription: &Subscription, count: i64) {
        let (log, group) = (&self.world.log, &subscription.group);
        let sum = || {
            (0..2)
                .map(|p| log.offset_of(group, &at(p)).unwrap_or(0))
                .sum::<i64>()
        };
        let done = || count == sum();
        let what = format!("{count} events are committed");
        self.world.story.until(&what, done).await;
    }

    async fn stop(self) {
        self.tasks.drain(60 * SECOND).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn every_subscription_gets_every_event_by_itself() {
    let (a, b) = (subscription("a"), subscription("b"));
    let running = Running::start(&[&a, &b]);
    running.world.sinks.answer(|call| match &*call.url {
        "http://a.test/" => Answer::Hang,
        _ => Answer::NOW,
    });
    running.ready("a").await;
    running.ready("b").await;
    running.put(0..100);
    let before = Instant::now();
    running.committed(&b, 100).await;
    assert!(Instant::now() - before <= SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_and_added_back_goes_on_at_its_commits() {
    let sub = subscription("a");
    let running = Running::start(&[&sub]);
    running.ready("a").await;
    running.put(0..10);
    running.committed(&sub, 10).await;
    running.set(&[]);
    let left = |h: &Happening| matches!(h, Happening::Left { .. });
    let story = running.world.story.clone();
    story.until("it left", || story.place(left).is_some()).await;
    running.put(10..20);
    running.world.pass(SECOND).await;
    assert_eq!(story.began().len(), 10);
    assert!(!running.is_ready("a"));

    // The channel too may have gone meanwhile.
    running.snapshots.send_replace(Arc::default());
    running.world.pass(SECOND).await;
    running.set(&[&sub]);
    running.committed(&sub, 20).await;
    assert_eq!(story.began().len(), 20);
    let ids: BTreeSet<String> = story.began().into_iter().collect();
    assert_eq!(ids.len(), 20);
    running.ready("a").await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_ordering_takes_force_without_losing_or_repeating_anything() {
    let mut sub = subscription("a");
    let running = Running::start(&[&sub]);
    running
        .world
        .sinks
        .answer(|_| Answer::Ok(Duration::from_millis(7)));
    running.ready("a").await;
    running.put(0..300);
    for ordering in [Ordering::Key, Ordering::Partition, Ordering::None] {
        running.world.pass(20 * MS).await;
        sub.delivery.ordering = ordering;
        sub.generation += 1;
        running.set(&[&sub]);
    }
    running.committed(&sub, 300).await;
    for n in 0..300 {
        let id = n.to_string();
        assert_eq!(running.world.story.attempts(&id), 1, "{id}");
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_successor_waits_for_its_predecessor_and_only_for_its_bound() {
    let mut sub = subscription("a");
    let running = Running::start(&[&sub]);
    running.world.sinks.answer(|call| match call.number {
        1 => Answer::Hang,
        _ => Answer::NOW,
    });
    running.ready("a").await;
    running.put(0..1);
    let story = running.world.story.clone();
    story.until("it hangs", || story.attempts("0") == 1).await;
    let before = Instant::now();
    // Twice, so that there is one that waits and one that waits for the one that waits. The log
    // in memory refuses a second member of a group.
    for ordering in [Ordering::Key, Ordering::Partition] {
        sub.delivery.ordering = ordering;
        sub.generation += 1;
        running.set(&[&sub]);
        running.world.pass(SECOND).await;
    }
    running.committed(&sub, 1).await;
    let took = Instant::now() - before;
    assert!(took >= 20 * SECOND && took < 22 * SECOND, "{took:?}");
    assert_eq!(story.attempts("0"), 2);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_is_changed_without_leaving_the_group() {
    let mut sub = subscription("a");
    let running = Running::start(&[&sub]);
    running.ready("a").await;
    running.put(0..10);
    running.committed(&sub, 10).await;
    sub.subscriber = http("http://new.test/");
    sub.generation += 1;
    running.set(&[&sub]);
    running.world.pass(MS).await;
    let (sender, mut urls) = tokio::sync::mpsc::channel(100);
    running.world.sinks.answer(move |call| {
        sender.try_send(call.url.clone()).unwrap();
        Answer::NOW
    });
    running.put(10..20);
    running.committed(&sub, 20).await;
    for _ in 0..10 {
        assert_eq!(urls.try_recv().as_deref(), Ok("http://new.test/"));
    }
    let joined = |_, h: &Happening| matches!(h, Happening::Joined(_)).then_some(());
    assert_eq!(running.world.story.pick(joined).len(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_resolves_no_more_stops() {
    let sub = subscription("a");
    let running = Running::start(&[&sub]);
    running.ready("a").await;
    let mut broken = Snapshot::clone(&snapshot(&[&sub]));
    let entry = broken.subscriptions.get_mut(&sub.name).unwrap();
    entry.resolution = Resolution::Unresolved {
        reason: Reason::SubscriberResolveFailed,
        message: "it leads nowhere".into(),
    };
    running.snapshots.send_replace(Arc::new(broken));
    running.world.pass(SECOND).await;
    running.put(0..5);
    running.world.pass(SECOND).await;
    assert!(running.world.story.began().is_empty());
    assert!(!running.is_ready("a"));
    running.set(&[&sub]);
    running.committed(&sub, 5).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_drains_all_at_the_same_time() {
    let subs: Vec<_> = ["a", "b", "c"].map(subscription).into();
    let all: Vec<&Subscription> = subs.iter().collect();
    let running = Running::start(&all);
    running.world.sinks.answer(|_| Answer::Ok(3 * SECOND));
    for name in ["a", "b", "c"] {
        running.ready(name).await;
    }
    running.put(0..2);
    let story = running.world.story.clone();
    let begun = || story.began().len() == 6;
    story.until("all are tried", begun).await;
    let before = Instant::now();
    let log = Arc::clone(&running.world.log);
    running.stop().await;
    assert_eq!(Instant::now() - before, 3 * SECOND);
    for sub in &subs {
        assert_eq!(log.offset_of(&sub.group, &at(0)), Some(1));
        assert_eq!(log.offset_of(&sub.group, &at(1)), Some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_log_that_does_not_answer() {
    let sub = subscription("a");
    let running = Running::start(&[&sub]);
    running.world.log.hold(true);
    running.world.pass(SECOND).await;
    let before = Instant::now();
    running.stop().await;
    assert_eq!(Instant::now(), before);
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_made_as_soon_as_the_log_can() {
    let sub = subscription("a");
    let running = Running::start(&[&sub]);
    let down = LogError::Unavailable("down".into());
    running.world.log.fail(Some(down));
    running.world.pass(30 * SECOND).await;
    assert!(!running.is_ready("a"));
    running.world.log.fail(None);
    running.ready("a").await;
    let found = running.world.log.describe_topic(&sub.topic).await;
    assert_eq!(found.unwrap().map(|topic| topic.partitions), Some(2));
    running.stop().await;
}
