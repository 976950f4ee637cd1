//! A subscription's life on a node: ready, failed, and again.

use super::*;
use crate::channel::Ordering;
use crate::dispatch::testing::{
    Answer, CommitAnswer, Ended, Happening, World, at, budgets, event, subscription,
};
use crate::log::{GroupEvent, Offset};
use crate::shutdown::Tasks;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

struct Running {
    tasks: Tasks,
    channel: watch::Sender<TopicState>,
    state: watch::Receiver<SubscriptionState>,
    _changes: watch::Sender<Arc<Subscription>>,
}

fn topic_state(partitions: u32) -> TopicState {
    TopicState::Ready {
        topic: TopicDescription {
            partitions,
            replicas: 1,
            retention: None,
            max_record_bytes: 1 << 20,
            min_in_sync: 1,
        },
        notes: Vec::new(),
    }
}

impl Running {
    fn start(world: &World, subscription: &Subscription) -> Self {
        let (changes, receiver) = watch::channel(Arc::new(subscription.clone()));
        let (channel, channel_state) = watch::channel(TopicState::Pending);
        let (sender, state) = watch::channel(SubscriptionState::WaitingForChannel);
        let member = Member {
            tools: Arc::clone(&world.tools),
            topics: Topics::new(world.log.clone(), 1 << 20),
            changes: receiver,
            channel: channel_state,
            state: sender,
            metrics: world.metrics.subscription(&subscription.name),
            progress: Progress::default(),
            budgets: budgets(world),
            instance: None,
        };
        let tasks = Tasks::new();
        tasks.spawn("member", member.run(tasks.stop_signal()));
        Self {
            tasks,
            channel,
            state,
            _changes: changes,
        }
    }

    async fn reaches(&mut self, wanted: impl Fn(&SubscriptionState) -> bool) {
        let reached = self.state.wait_for(wanted);
        let reached = tokio::time::timeout(3600 * SECOND, reached).await;
        drop(reached.expect("the state is reached").unwrap());
    }

    async fn ready(&mut self) {
        self.reaches(|state| *state == SubscriptionState::Ready)
            .await;
    }
}

/// A world whose channel has a topic of so many partitions.
fn world(partitions: usize) -> (World, Subscription) {
    let (world, sub) = (World::new(), subscription("sub"));
    world.log.topic(&sub.topic, partitions);
    (world, sub)
}

fn joins(world: &World) -> Vec<Instant> {
    let joined =
        |at, happening: &Happening| matches!(happening, Happening::Joined(_)).then_some(at);
    world.story.pick(joined)
}

#[tokio::test(start_paused = true)]
async fn a_new_subscription_gets_what_comes_after_it_is_ready_and_nothing_before() {
    let (world, sub) = world(2);
    world.log.put(&at(0), event("old", None, 0));
    let mut running = Running::start(&world, &sub);
    world.pass(SECOND).await;
    assert_eq!(
        *running.state.borrow(),
        SubscriptionState::WaitingForChannel
    );
    running.channel.send_replace(topic_state(2));
    running.ready().await;
    world.log.put(&at(0), event("new", None, 0));
    world.log.put(&at(1), event("newer", None, 0));
    let done = || world.story.deliveries("new") + world.story.deliveries("newer") == 2;
    world.story.until("both are delivered", done).await;
    assert_eq!(world.story.attempts("old"), 0);
    running.tasks.drain(60 * SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_fixed_before_stays() {
    let (world, sub) = world(1);
    world.log.topic(&sub.retry_topic, 1);
    world.log.put(&at(0), event("unseen", None, 0));
    let mut running = Running::start(&world, &sub);
    running.channel.send_replace(topic_state(1));
    let done = || world.story.deliveries("unseen") == 1;
    world.story.until("it is delivered", done).await;
    running.ready().await;
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_only_when_every_partition_has_a_commit() {
    let (world, sub) = world(2);
    world.log.topic(&sub.retry_topic, 2);
    world.log.set_commit(&sub.group, &at(0), 0);
    let no = || CommitAnswer::Fail(LogError::Unavailable("no".into()));
    world
        .log
        .answer_commits(std::iter::repeat_with(no).take(50));
    let mut running = Running::start(&world, &sub);
    running.channel.send_replace(topic_state(2));
    world.pass(3 * SECOND).await;
    assert_eq!(*running.state.borrow(), SubscriptionState::Preparing);
    running.ready().await;
    assert!(world.log.commit_of(&sub.group, &at(1)).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_keeps_it_from_being_ready_holds_up_no_delivery() {
    let (world, sub) = world(2);
    world.log.topic(&sub.retry_topic, 2);
    world.log.set_commit(&sub.group, &at(0), 0);
    world.log.by_hand();
    let mut running = Running::start(&world, &sub);
    running.channel.send_replace(topic_state(2));
    let joined = || !joins(&world).is_empty();
    world.story.until("it joins", joined).await;
    world.log.assign(&sub.group, &[at(0)]);
    let started = |h: &Happening| matches!(h, Happening::Started(..));
    let started = || world.story.place(started).is_some();
    world.story.until("it reads", started).await;
    // No answer to the question whether it is ready.
    world.log.hold(true);
    world.pass(SECOND).await;
    for n in 0..5 {
        let id = n.to_string();
        world.log.put(&at(0), event(&id, None, 0));
        let before = Instant::now();
        let done = || world.story.deliveries(&id) == 1;
        world.story.until("it is delivered", done).await;
        assert_eq!(Instant::now(), before);
        world.pass(SECOND).await;
    }
    assert_eq!(world.log.offset_of(&sub.group, &at(0)), Some(5));
    world.log.hold(false);
    assert_eq!(*running.state.borrow(), SubscriptionState::Preparing);
    world.log.assign(&sub.group, &[at(1)]);
    running.ready().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_membership_is_followed_by_another_ever_less_often_and_then_as_before() {
    let (world, sub) = world(1);
    let mut running = Running::start(&world, &sub);
    running.channel.send_replace(topic_state(1));
    for round in 1..=8 {
        let joined = || joins(&world).len() == round && world.log.member(&sub.group).is_some();
        world.story.until("it joins again", joined).await;
        let fenced = LogError::MembershipLost("fenced".into());
        world.log.tell(&sub.group, GroupEvent::Failed(fenced));
        let failed = |state: &SubscriptionState| matches!(state, SubscriptionState::Failed(_));
        running.reaches(failed).await;
    }
    world.log.put(&at(0), event("after", None, 0));
    let done = || world.story.deliveries("after") == 1;
    world.story.until("it goes on", done).await;
    let gaps = |world: &World| -> Vec<Duration> {
        let times = joins(world);
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    };
    let waits = gaps(&world);
    assert!(waits.is_sorted(), "{waits:?}");
    assert!(waits[0] <= 200 * MS && *waits.last().unwrap() == 5 * SECOND);

    // After a good while one failure is the first again.
    world.pass(600 * SECOND).await;
    let fenced = LogError::MembershipLost("fenced".into());
    world.log.tell(&sub.group, GroupEvent::Failed(fenced));
    let before = Instant::now();
    let joined = || joins(&world).len() == 10;
    world.story.until("it joins again", joined).await;
    assert!(Instant::now() - before <= 200 * MS);
    running.ready().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_down_is_waited_for_and_a_stop_is_not() {
    let (world, sub) = world(1);
    let down = LogError::Unavailable("down".into());
    world.log.fail(Some(down.clone()));
    let mut running = Running::start(&world, &sub);
    running.channel.send_replace(topic_state(1));
    running
        .reaches(|state| *state == SubscriptionState::Failed(down.clone()))
        .await;
    world.pass(60 * SECOND).await;
    assert!(joins(&world).is_empty());
    world.log.fail(None);
    running.ready().await;

    world.log.hold(true);
    let second = Running::start(&world, &subscription("second"));
    second.channel.send_replace(topic_state(1));
    world.pass(SECOND).await;
    let before = Instant::now();
    second.tasks.drain(60 * SECOND).await.unwrap();
    assert_eq!(Instant::now(), before);
}

#[tokio::test(start_paused = true)]
async fn attempts_that_were_cut_with_the_membership_are_made_again_by_the_next() {
    let (world, mut sub) = world(1);
    sub.delivery.ordering = Ordering::Partition;
    sub.delivery.retry = 0;
    world.sinks.answer(|call| match call.number {
        1 => Answer::Hang,
        _ => Answer::NOW,
    });
    let mut running = Running::start(&world, &sub);
    running.channel.send_replace(topic_state(1));
    running.ready().await;
    world.log.put(&at(0), event("cut", None, 0));
    let begun = || world.story.attempts("cut") == 1;
    world.story.until("it is tried", begun).await;
    let fenced = LogError::MembershipLost("fenced".into());
    world.log.tell(&sub.group, GroupEvent::Failed(fenced));
    let done = || world.story.deliveries("cut") == 1;
    world.story.until("it is delivered", done).await;
    let cut = Happening::Ended("cut".into(), Ended::Cut);
    assert!(world.story.place(|h| *h == cut).is_some());
    let starts = world.story.pick(|_, happening| match happening {
        Happening::Started(at, from) if at.topic.as_str() == "ch" => Some(*from),
        _ => None,
    });
    assert_eq!(starts, [Offset(0), Offset(0)]);
}
