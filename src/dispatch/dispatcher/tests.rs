//! The loop in time, seen through its seams: what is read, attempted, committed and given up.

mod changes;
mod commits;
mod drain;
mod group;
mod limits;

use tokio::sync::oneshot;

use super::*;
use crate::dispatch::Settings;
use crate::dispatch::engine::Budgets;
use crate::dispatch::testing::{Answer, AppendAnswer, CommitAnswer, Ended, Happening, World};
use crate::dispatch::testing::{at, budgets, event, http, subscription};
use crate::shutdown::Tasks;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A dispatcher in a task of its own.
struct Running {
    stop: CancellationToken,
    changes: watch::Sender<Arc<Subscription>>,
    progress: Progress,
    end: oneshot::Receiver<End>,
}

impl Running {
    fn start(world: &World, subscription: &Subscription) -> Self {
        Self::within(world, subscription, &budgets(world))
    }

    fn within(world: &World, subscription: &Subscription, budgets: &Budgets) -> Self {
        Self::as_instance(world, subscription, budgets, None)
    }

    /// As the static member with that name.
    fn as_instance(
        world: &World,
        subscription: &Subscription,
        budgets: &Budgets,
        instance: Option<&str>,
    ) -> Self {
        let subscription = Arc::new(subscription.clone());
        let metrics = world.metrics.subscription(&subscription.name);
        let progress = Progress::default();
        let engine = Engine::new(
            Arc::clone(&subscription),
            world.tools.settings.clone(),
            metrics.clone(),
            budgets.clone(),
            7,
        );
        let dispatcher = Dispatcher::join(
            Arc::clone(&world.tools),
            Arc::clone(&subscription),
            instance.map(str::to_owned),
            metrics,
            progress.clone(),
            engine,
        );
        let (changes, receiver) = watch::channel(subscription);
        let stop = CancellationToken::new();
        let running = dispatcher.unwrap().run(stop.clone(), receiver);
        let (ended, end) = oneshot::channel();
        Tasks::new().spawn("dispatcher", async move {
            ended.send(running.await).ok();
        });
        Self {
            stop,
            changes,
            progress,
            end,
        }
    }

    async fn stop(self) -> End {
        self.stop.cancel();
        self.end.await.unwrap()
    }
}

/// A world with a channel of so many partitions whose group begins at 0.
fn world(partitions: usize) -> World {
    with(Settings::default(), partitions)
}

fn with(settings: Settings, partitions: usize) -> World {
    let world = World::with(settings);
    let sub = subscription("sub");
    world.log.topic(&sub.topic, partitions);
    world.log.topic(&sub.retry_topic, partitions);
    world.log.topic(&sub.dead_letter_topic, partitions);
    for partition in 0..i32::try_from(partitions).unwrap() {
        let partition = Partition(partition);
        for topic in [&sub.topic, &sub.retry_topic].map(Clone::clone) {
            let at = TopicPartition { topic, partition };
            world.log.set_commit(&sub.group, &at, 0);
        }
    }
    world
}

/// Stores events named `<partition>.<offset>`.
fn put(world: &World, partition: i32, count: usize) {
    for n in 0..count {
        world
            .log
            .put(&at(partition), event(&format!("{partition}.{n}"), None, 0));
    }
}

impl World {
    fn offset(&self, partition: i32) -> i64 {
        let group = subscription("sub").group;
        self.log
            .offset_of(&group, &at(partition))
            .unwrap_or_default()
    }

    async fn committed(&self, partition: i32, offset: i64) {
        let what = format!("partition {partition} is committed up to {offset}");
        self.story
            .until(&what, || self.offset(partition) == offset)
            .await;
    }

    async fn begun(&self, id: &str, times: usize) {
        let what = format!("attempt {times} of {id}");
        self.story
            .until(&what, || self.story.attempts(id) >= times)
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_record_is_delivered_once_and_committed() {
    let (world, sub) = (world(3), subscription("sub"));
    for partition in 0..3 {
        put(&world, partition, 100);
    }
    let running = Running::start(&world, &sub);
    for partition in 0..3 {
        world.committed(partition, 100).await;
        for n in 0..100 {
            assert_eq!(world.story.attempts(&format!("{partition}.{n}")), 1);
        }
    }
    assert!(matches!(running.stop().await, End::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_partition_begins_at_its_commit_else_at_the_earliest_record() {
    let (world, sub) = (world(5), subscription("sub"));
    for partition in 0..5 {
        put(&world, partition, 8);
        world.log.cut(&at(partition), 3);
    }
    world.log.set_commit(&sub.group, &at(0), 6);
    world.log.set_commit(&sub.group, &at(1), 1);
    world.log.set_commit(&sub.group, &at(2), 9);
    world.log.set_commit(&sub.group, &at(3), 8);
    world.log.forget_commit(&sub.group, &at(4));
    let running = Running::start(&world, &sub);
    for partition in 0..5 {
        world.committed(partition, 8).await;
    }
    let starts = world.story.pick(|_, happening| match happening {
        Happening::Started(at, from) if at.topic == sub.topic => Some((at.partition.0, from.0)),
        _ => None,
    });
    assert_eq!(starts, [(0, 6), (1, 3), (2, 3), (3, 8), (4, 3)]);
    assert_eq!(world.metric("levada_expired_total"), 2.0);
    assert_eq!(running.progress.expired_records(), 2);
    assert_eq!(world.story.attempts("1.3"), 1);
    assert_eq!(world.story.attempts("0.5"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_start_without_a_commit_is_committed_although_nothing_comes() {
    let (world, sub) = (world(1), subscription("sub"));
    put(&world, 0, 4);
    world.log.cut(&at(0), 4);
    world.log.forget_commit(&sub.group, &at(0));
    let _running = Running::start(&world, &sub);
    world.committed(0, 4).await;
}
