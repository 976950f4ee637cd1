//! The engine against a simulated world: random outcomes, delays, crashes, in every ordering.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use rand::RngExt;

use super::*;
use crate::channel::{
    Backoff, BackoffPolicy, DeliverySpec, HttpSink, Ordering, ResourceName, RetryCodes, Sink,
};
use crate::delivery::{Failure, Reason, Success};
use crate::dispatch::DispatchMetrics;
use crate::dispatch::dead_letter::Origin;
use crate::dispatch::offsets::METADATA_LIMIT;
use crate::dispatch::retry_record::{self, Parked, ParkedPhase};
use crate::log::{GroupId, Headers, LogError, Partition, Record, TopicName};

fn topic(name: &str) -> TopicName {
    TopicName::try_new(name).unwrap()
}

fn http(url: &str) -> Sink {
    let headers = Arc::from([]);
    Sink::Http(HttpSink {
        url: url.into(),
        uri: url.parse().unwrap(),
        headers,
        ca_certs: None,
    })
}

fn subscription(ordering: Ordering, retry: u32) -> Subscription {
    Subscription {
        name: ResourceName::try_new("ns", "sub").unwrap(),
        uid: "ns.sub".into(),
        generation: 1,
        channel: ResourceName::try_new("ns", "ch").unwrap(),
        topic: topic("ch"),
        retry_topic: topic("ch.sub.retry"),
        dead_letter_topic: topic("ch.sub.dead-letter"),
        group: GroupId("g".into()),
        subscriber: http("http://subscriber.test/"),
        reply: None,
        dead_letter: None,
        delivery: DeliverySpec {
            retry,
            backoff: Backoff {
                policy: BackoffPolicy::Linear,
                delay: Duration::from_millis(100),
                max: None,
                jitter: 0.0,
            },
            retry_window: None,
            timeout: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(600),
            retry_codes: RetryCodes::Standard,
            format: None,
            ordering,
            max_in_flight: 4,
            max_window: 16,
            dead_letter_topic: true,
            rate_limit: None,
            accepted: crate::channel::Accepted::Delivered,
            sandbox: false,
            status_check: None,
        },
    }
}

fn engine(subscription: &Subscription) -> Engine {
    let metrics = DispatchMetrics::register(&prometheus::Registry::new()).unwrap();
    let metrics = metrics.subscription(&subscription.name);
    let budgets = Budgets {
        events: Budget::new(1 << 20),
        parked: Budget::new(1 << 20),
    };
    let subscription = Arc::new(subscription.clone());
    Engine::new(subscription, Settings::default(), metrics, budgets, 7)
}

fn at() -> TopicPartition {
    TopicPartition {
        topic: topic("ch"),
        partition: Partition(0),
    }
}

fn stored(offset: i64, key: Option<&str>) -> StoredRecord {
    let mut headers = Headers::builder(5, 64);
    headers.push(b"ce_specversion", b"1.0");
    headers.push(b"ce_id", offset.to_string().as_bytes());
    headers.push(b"ce_type", b"t");
    headers.push(b"ce_source", b"/s");
    if let Some(key) = key {
        headers.push(b"ce_partitionkey", key.as_bytes());
    }
    let key = key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
    let record = Record {
        key,
        value: None,
        headers: headers.finish(),
    };
    StoredRecord {
        offset: Offset(offset),
        time: UnixMillis(0),
        record,
    }
}

fn ok() -> Result<Success, Failure> {
    Ok(Success {
        code: 200,
        reply: None,
    })
}

fn failure(retryable: bool) -> Result<Success, Failure> {
    Err(Failure {
        retryable,
        ..Failure::without_answer(Reason::ConnectionReset, "test")
    })
}

/// A clock whose two faces move together.
#[derive(Clone, Copy)]
struct Time {
    began: Instant,
    ms: u64,
}

impl Time {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            ms: 0,
        }
    }

    fn now(&self) -> Now {
        let ms = i64::try_from(self.ms).unwrap();
        Now {
            wall: UnixMillis(ms),
            mono: self.began + Duration::from_millis(self.ms),
        }
    }

    fn advance_to(&mut self, due: Instant) {
        let ms = due.saturating_duration_since(self.began).as_millis();
        self.ms = self.ms.max(u64::try_from(ms).unwrap());
    }
}

fn id_of(work: &AttemptWork) -> i64 {
    work.event.attribute("id").unwrap().parse().unwrap()
}

fn attempt(engine: &mut Engine, time: &Time) -> Option<AttemptWork> {
    engine.next_work(time.now()).map(|work| match work {
        Work::Attempt(work) => work,
        other => panic!("no attempt: {other:?}"),
    })
}

#[test]
fn guarantee_6_with_keys_only_events_of_the_failing_key_wait() {
    let subscription = subscription(Ordering::Key, 3);
    let (mut engine, mut time) = (engine(&subscription), Time::new());
    let slot = engine.open(at(), Offset(0), Offset(0), None);
    for (offset, key) in [Some("a"), Some("a"), Some("b"), None]
        .into_iter()
        .enumerate()
    {
        engine.record(
            slot,
            stored(i64::try_from(offset).unwrap(), key),
            time.now(),
        );
    }
    let begun: Vec<_> = std::iter::from_fn(|| attempt(&mut engine, &time)).collect();
    assert_eq!(
        begun.iter().map(id_of).collect::<Vec<_>>(),
        [0, 2, 3],
        "1 waits behind 0"
    );
    engine.attempted(begun[0].id, failure(true), time.now());
    engine.attempted(begun[1].id, ok(), time.now());
    engine.attempted(begun[2].id, ok(), time.now());
    assert!(
        attempt(&mut engine, &time).is_none(),
        "0 waits for its retry, 1 behind it"
    );
    time.advance_to(engine.next_due().unwrap());
    let again = attempt(&mut engine, &time).unwrap();
    assert_eq!(id_of(&again), 0);
    engine.attempted(again.id, ok(), time.now());
    let next = attempt(&mut engine, &time).unwrap();
    assert_eq!(id_of(&next), 1);
    engine.attempted(next.id, ok(), time.now());
    let commits = engine.commits(&[slot]);
    assert_eq!(
        commits[0].1,
        Commit {
            offset: Offset(4),
            metadata: String::new()
        }
    );
}

#[test]
fn guarantee_4_a_new_owner_goes_on_where_the_last_commit_says() {
    let subscription = subscription(Ordering::Key, 2);
    let (mut first, mut time) = (engine(&subscription), Time::new());
    let slot = first.open(at(), Offset(0), Offset(0), None);
    for offset in 0..3 {
        first.record(
            slot,
            stored(
                offset,
                Some(["a", "b", "c"][usize::try_from(offset).unwrap()]),
            ),
            time.now(),
        );
    }
    let begun: Vec<_> = std::iter::from_fn(|| attempt(&mut first, &time)).collect();
    first.attempted(begun[0].id, failure(true), time.now());
    first.attempted(begun[2].id, ok(), time.now());
    let commit = first.commits(&[slot]).remove(0).1;
    assert_eq!(commit.offset, Offset(0));

    let mut second = engine(&subscription);
    let slot = second.open(at(), Offset(0), Offset(0), Some(commit));
    for offset in 0..3 {
        second.record(
            slot,
            stored(
                offset,
                Some(["a", "b", "c"][usize::try_from(offset).unwrap()]),
            ),
            time.now(),
        );
    }
    let begun = attempt(&mut second, &time).unwrap();
    assert_eq!(id_of(&begun), 1, "0 is not due yet, 2 is finished");
    assert!(attempt(&mut second, &time).is_none());
    second.attempted(begun.id, ok(), time.now());
    // One of three attempts was made before: two are left.
    for last in [false, true] {
        time.advance_to(second.next_due().unwrap());
        let again = attempt(&mut second, &time).unwrap();
        assert_eq!(id_of(&again), 0);
        second.attempted(again.id, failure(true), time.now());
        assert_eq!(second.next_due().is_none(), last);
    }
    assert!(matches!(
        second.next_work(time.now()),
        Some(Work::Keep { .. })
    ));
}

#[test]
fn guarantee_5_what_was_finished_beyond_a_gap_is_not_repeated_after_a_kill() {
    let subscription = subscription(Ordering::None, 3);
    let time = Time::new();
    let mut first = engine(&subscription);
    let slot = first.open(at(), Offset(0), Offset(0), None);
    for offset in 0..4 {
        first.record(slot, stored(offset, None), time.now());
    }
    let begun: Vec<_> = std::iter::from_fn(|| attempt(&mut first, &time)).collect();
    for work in &begun[1..] {
        first.attempted(work.id, ok(), time.now());
    }
    let commit = first.commits(&[slot]).remove(0).1;
    assert_eq!(commit.offset, Offset(0), "its attempt is in flight");

    let mut second = engine(&subscription);
    let slot = second.open(at(), Offset(0), Offset(0), Some(commit));
    for offset in 0..4 {
        second.record(slot, stored(offset, None), time.now());
    }
    let again: Vec<_> = std::iter::from_fn(|| attempt(&mut second, &time)).collect();
    assert_eq!(again.iter().map(id_of).collect::<Vec<_>>(), [0]);
}

#[test]
fn guarantee_3_a_dead_letter_says_what_failed_and_frees_the_offset_only_when_it_is_stored() {
    let subscription = subscription(Ordering::Partition, 0);
    let (mut engine, mut time) = (engine(&subscription), Time::new());
    let slot = engine.open(at(), Offset(5), Offset(5), None);
    engine.record(slot, stored(5, None), time.now());
    let work = attempt(&mut engine, &time).unwrap();
    let answer = Failure {
        code: Some(503),
        body: Bytes::from_static(b"no"),
        ..Failure::without_answer(Reason::Http(503), "busy")
    };
    engine.attempted(work.id, Err(answer), time.now());
    let Some(Work::Keep(Store {
        id,
        record,
        partition,
    })) = engine.next_work(time.now())
    else {
        panic!("the event is to be kept");
    };
    assert_eq!(partition, Partition(0));
    let header = |name: &str| {
        String::from_utf8(record.headers.get(name.as_bytes()).unwrap_or(b"-").to_vec()).unwrap()
    };
    assert_eq!(header("ce_knativeerrordest"), "http://subscriber.test/");
    assert_eq!(header("ce_knativeerrorcode"), "503");
    assert_eq!(header("ce_knativeerrordata"), "bm8=");
    assert_eq!(header("levada-origin-offset"), "5");
    assert_eq!(header("levada-attempts"), "1");
    engine.commits(&[slot]);
    engine.kept(id, Err(LogError::Unavailable("down".into())), time.now());
    assert!(
        engine
            .commits(&[slot])
            .iter()
            .all(|(_, commit)| commit.offset == Offset(5))
    );
    time.advance_to(engine.next_due().unwrap());
    let Some(Work::Keep(Store { id, .. })) = engine.next_work(time.now()) else {
        panic!("it is tried again");
    };
    engine.kept(id, Ok(()), time.now());
    assert_eq!(engine.commits(&[slot])[0].1.offset, Offset(6));
}

#[test]
fn a_closing_partition_begins_nothing_and_keeps_what_was_attempted() {
    let subscription = subscription(Ordering::None, 5);
    let (mut engine, time) = (engine(&subscription), Time::new());
    let slot = engine.open(at(), Offset(0), Offset(0), None);
    for offset in 0..8 {
        engine.record(slot, stored(offset, None), time.now());
    }
    let begun: Vec<_> = std::iter::from_fn(|| attempt(&mut engine, &time)).collect();
    engine.attempted(begun[0].id, failure(true), time.now());
    engine.close(slot);
    assert!(engine.next_work(time.now()).is_none());
    assert!(!engine.is_quiet(slot));
    engine.attempted(begun[1].id, ok(), time.now());
    engine.attempted(begun[2].id, failure(true), time.now());
    engine.attempted(begun[3].id, ok(), time.now());
    assert!(engine.is_quiet(slot));
    let commit = engine.commits(&[slot]).remove(0).1;
    let metadata = Metadata::decode(commit.offset, &commit.metadata);
    assert_eq!(commit.offset, Offset(0));
    let waiting: Vec<_> = metadata
        .waiting
        .iter()
        .map(|w| (w.offset.0, w.attempts_made))
        .collect();
    assert_eq!(waiting, [(0, 1), (2, 1)]);
    engine.drop_slot(slot);
    assert_eq!(engine.bytes, 0);
    assert!(engine.messages.is_empty());
}

#[test]
fn what_returns_late_to_a_partition_that_was_given_up_means_nothing() {
    let subscription = subscription(Ordering::Key, 5);
    let (mut engine, time) = (engine(&subscription), Time::new());
    let before = engine.open(at(), Offset(0), Offset(0), None);
    engine.record(before, stored(0, Some("k")), time.now());
    engine.record(before, stored(1, Some("k")), time.now());
    let late = attempt(&mut engine, &time).unwrap();
    engine.drop_slot(before);
    let after = engine.open(at(), Offset(0), Offset(0), None);
    engine.record(after, stored(0, Some("k")), time.now());
    engine.attempted(late.id, ok(), time.now());
    let again = attempt(&mut engine, &time).unwrap();
    assert_eq!(id_of(&again), 0);
    assert_eq!(engine.commits(&[after])[0].1.offset, Offset(0));
    engine.attempted(again.id, ok(), time.now());
    assert_eq!(engine.commits(&[after])[0].1.offset, Offset(1));
    assert!(engine.messages.is_empty());
}

#[test]
fn guarantee_8_a_full_window_takes_nothing_until_its_first_event_is_finished() {
    let mut subscription = subscription(Ordering::None, 5);
    subscription.delivery.max_window = 3;
    let (mut engine, time) = (engine(&subscription), Time::new());
    let slot = engine.open(at(), Offset(0), Offset(0), None);
    for offset in 0..3 {
        assert!(engine.credit(slot) > 0);
        engine.record(slot, stored(offset, None), time.now());
    }
    assert_eq!(engine.credit(slot), 0);
    assert!(engine.window_is_full(slot));
    let work = attempt(&mut engine, &time).unwrap();
    engine.attempted(work.id, ok(), time.now());
    assert_eq!(engine.credit(slot), 1);
}

/// A partition as the log has it.
#[derive(Default)]
struct Stored {
    records: Vec<StoredRecord>,
    commit: Option<Commit>,
}

impl Stored {
    fn append(&mut self, record: Record, time: UnixMillis) {
        let offset = Offset(i64::try_from(self.records.len()).unwrap());
        self.records.push(StoredRecord {
            offset,
            time,
            record,
        });
    }

    fn end(&self) -> Offset {
        Offset(i64::try_from(self.records.len()).unwrap())
    }

    fn start(&self) -> Offset {
        self.commit
            .as_ref()
            .map_or(Offset(0), |commit| commit.offset)
    }

    fn get(&self, offset: Offset) -> StoredRecord {
        self.records[usize::try_from(offset.0).unwrap()].clone()
    }
}

/// The world around an engine: a log, attempts that are made, commits that are stored.
struct World {
    subscription: Subscription,
    keys: Vec<Option<u8>>,
    rng: SmallRng,
    time: Time,
    channel: Stored,
    retry: Stored,
    delivered: BTreeMap<i64, usize>,
    kept: BTreeSet<i64>,
    attempts: BTreeMap<i64, u32>,
    /// Attempts that a crash may have made the engine forget.
    forgotten: BTreeMap<i64, u32>,
    since_commit: BTreeMap<i64, u32>,
    finished: HashSet<i64>,
    crashes: u32,
    /// A crash comes once in so many steps.
    crash_odds: u32,
    /// First deliveries in the order they came, by lane.
    ends: BTreeMap<Option<u8>, Vec<i64>>,
}

/// One life of an engine, between two crashes.
struct Living {
    engine: Engine,
    channel: SlotId,
    retry: SlotId,
    /// The next records to read.
    next: [Offset; 2],
    working: Vec<Work>,
}

impl World {
    fn new(subscription: Subscription, keys: Vec<Option<u8>>, seed: u64) -> Self {
        let mut channel = Stored::default();
        for (offset, key) in keys.iter().enumerate() {
            let key = key.map(|key| key.to_string());
            let record = stored(i64::try_from(offset).unwrap(), key.as_deref()).record;
            channel.append(record, UnixMillis(0));
        }
        Self {
            subscription,
            keys,
            rng: SmallRng::seed_from_u64(seed),
            time: Time::new(),
            channel,
            retry: Stored::default(),
            delivered: BTreeMap::new(),
            kept: BTreeSet::new(),
            attempts: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            since_commit: BTreeMap::new(),
            finished: HashSet::new(),
            crashes: 0,
            crash_odds: 60,
            ends: BTreeMap::new(),
        }
    }

    fn begin(&self) -> Living {
        let mut engine = engine(&self.subscription);
        let next = [self.channel.start(), self.retry.start()];
        let commit = self.channel.commit.clone();
        let channel = engine.open(at(), next[0], self.channel.end(), commit);
        let commit = self.retry.commit.clone();
        let retry = engine.open(retry_at(), next[1], self.retry.end(), commit);
        Living {
            engine,
            channel,
            retry,
            next,
            working: Vec::new(),
        }
    }

    /// Runs an engine until it crashes, or until everything is finished.
    fn live(&mut self, crash: bool) {
        let mut living = self.begin();
        for step in 0.. {
            assert!(step < 2_000_000, "no end in sight");
            if crash && self.rng.random_ratio(1, self.crash_odds) {
                return self.crash(living);
            }
            self.feed(&mut living);
            if self.rng.random()
                && let Some(work) = living.engine.next_work(self.time.now())
            {
                if let Work::Attempt(work) = &work {
                    *self.attempts.entry(id_of(work)).or_default() += 1;
                }
                living.working.push(work);
            }
            if !living.working.is_empty() && self.rng.random() {
                let one = self.rng.random_range(0..living.working.len());
                let work = living.working.swap_remove(one);
                self.result(&mut living.engine, work);
            }
            if self.rng.random_ratio(1, 5) {
                self.store_commits(&mut living);
            }
            if living.working.is_empty()
                && let Some(due) = living.engine.next_due()
            {
                self.time.advance_to(due);
            }
            if self.is_over(&mut living) {
                return;
            }
        }
    }

    fn feed(&mut self, living: &mut Living) {
        let now = self.time.now();
        for (index, slot) in [living.channel, living.retry].into_iter().enumerate() {
            let log = if index == 0 {
                &self.channel
            } else {
                &self.retry
            };
            let next = &mut living.next[index];
            if *next < log.end() && living.engine.credit(slot) > 0 && self.rng.random() {
                living.engine.record(slot, log.get(*next), now);
                next.0 += 1;
            }
        }
    }

    fn is_over(&mut self, living: &mut Living) -> bool {
        let read = living.next == [self.channel.end(), self.retry.end()];
        let idle = living.working.is_empty() && living.engine.messages.is_empty();
        let parked: usize = living.engine.parked_entries();
        if self.finished.len() < self.keys.len() || !read || !idle || parked > 0 {
            return false;
        }
        self.store_commits(living);
        let done = living.next == [self.channel.start(), self.retry.start()];
        if done {
            assert_eq!(living.engine.bytes, 0);
            assert!(!living.engine.budgets.parked.is_used());
        }
        done
    }

    fn crash(&mut self, living: Living) {
        self.crashes += 1;
        for (id, made) in std::mem::take(&mut self.since_commit) {
            *self.forgotten.entry(id).or_default() += made;
        }
        // An attempt that was under way was made as well, and nobody knows of it.
        for work in living.working {
            if let Work::Attempt(work) = work {
                *self.forgotten.entry(id_of(&work)).or_default() += 1;
            }
        }
    }

    fn result(&mut self, engine: &mut Engine, work: Work) {
        let now = self.time.now();
        match work {
            Work::Attempt(work) => {
                let id = id_of(&work);
                *self.since_commit.entry(id).or_default() += 1;
                let result = match self.rng.random_range(0..10) {
                    0..=4 => ok(),
                    5..=8 => failure(true),
                    _ => failure(false),
                };
                if result.is_ok() {
                    self.deliver(id);
                }
                engine.attempted(work.id, result, now);
            }
            Work::Check { .. } => panic!("nothing is to be checked"),
            Work::Keep(Store { id, record, .. }) => {
                let stored = self.rng.random_ratio(3, 4);
                if stored {
                    let event = std::str::from_utf8(record.headers.get(b"ce_id").unwrap());
                    let event = event.unwrap().parse().unwrap();
                    self.kept.insert(event);
                    self.finished.insert(event);
                }
                engine.kept(id, outcome(stored), now);
            }
            Work::Park(Store { id, record, .. }) => {
                let stored = self.append_retry(record);
                engine.parked(id, outcome(stored), now);
            }
            Work::Checkpoint { slot, record, .. } => {
                let stored = self.append_retry(record);
                engine.checkpointed(slot, stored);
            }
            Work::Fetch { slot, wanted } => {
                let records = wanted
                    .iter()
                    .map(|(_, offset)| self.retry.get(*offset))
                    .collect();
                let read = self.rng.random_ratio(3, 4);
                let result = if read {
                    Ok(records)
                } else {
                    Err(LogError::Overloaded)
                };
                engine.fetched(slot, wanted, result, now);
            }
        }
    }

    fn append_retry(&mut self, record: Record) -> bool {
        let stored = self.rng.random_ratio(3, 4);
        if stored {
            self.retry.append(record, self.time.now().wall);
        }
        stored
    }

    fn deliver(&mut self, id: i64) {
        *self.delivered.entry(id).or_default() += 1;
        if self.finished.insert(id) {
            let key = match self.subscription.delivery.ordering {
                Ordering::Key => self.keys[usize::try_from(id).unwrap()],
                Ordering::Partition | Ordering::None => None,
            };
            self.ends.entry(key).or_default().push(id);
        }
    }

    fn store_commits(&mut self, living: &mut Living) {
        let slots = [living.channel, living.retry];
        for (slot, commit) in living.engine.commits(&slots) {
            assert!(commit.metadata.len() <= METADATA_LIMIT);
            if slot == living.channel {
                self.check_commit(&commit);
                self.channel.commit = Some(commit);
            } else {
                self.retry.commit = Some(commit);
            }
        }
        self.since_commit.clear();
    }

    /// What is committed is delivered, or kept, or waits in the retry topic.
    fn check_commit(&self, commit: &Commit) {
        for offset in 0..commit.offset.0 {
            let parked = |record: &StoredRecord| {
                record.offset >= self.retry.start()
                    && record.record.headers.get(b"ce_id") == Some(offset.to_string().as_bytes())
            };
            let somewhere =
                self.finished.contains(&offset) || self.retry.records.iter().any(parked);
            assert!(somewhere, "{offset} is committed and nowhere");
        }
    }

    fn check(&self) {
        for id in 0..i64::try_from(self.keys.len()).unwrap() {
            let delivered = self.delivered.get(&id).copied().unwrap_or(0);
            assert!(delivered > 0 || self.kept.contains(&id), "{id} is nowhere");
            let forgotten = self.forgotten.get(&id).copied().unwrap_or(0);
            // Who came to an end is remembered in memory only: of a message that was parked twice,
            // by two owners that did not live to commit it, one record may end and the other go
            // on after yet another crash. One attempt too many for each such pair of crashes.
            let pairs = self.crashes.saturating_sub(1);
            let allowed = self.subscription.delivery.retry + 1 + forgotten + pairs;
            let made = self.attempts.get(&id).copied().unwrap_or(0);
            assert!(made <= allowed, "{id}: {made} attempts, {allowed} allowed");
        }
        let ordered = |ids: &Vec<i64>| ids.is_sorted();
        match self.subscription.delivery.ordering {
            Ordering::Partition => assert!(self.ends.values().all(ordered)),
            Ordering::Key => {
                let keyed = |(key, _): &(&Option<u8>, &Vec<i64>)| key.is_some();
                assert!(self.ends.iter().filter(keyed).all(|(_, ids)| ordered(ids)));
            }
            Ordering::None => {}
        }
    }
}

/// So many that neither waiting nor finished ones fit into the commits.
#[test]
fn guarantee_2_nothing_is_lost_among_many() {
    for (seed, delay) in [(1, 100), (2, 5_000)] {
        let mut subscription = subscription(Ordering::None, 3);
        subscription.delivery.backoff.delay = Duration::from_millis(delay);
        subscription.delivery.max_in_flight = 1_500;
        subscription.delivery.max_window = 4_000;
        let mut world = World::new(subscription, vec![None; 1_000], seed);
        world.crash_odds = 6_000;
        for _ in 0..3 {
            world.live(true);
        }
        world.live(false);
        world.check();
    }
}

fn retry_at() -> TopicPartition {
    TopicPartition {
        topic: topic("ch.sub.retry"),
        partition: Partition(0),
    }
}

fn outcome(stored: bool) -> Result<(), LogError> {
    if stored {
        Ok(())
    } else {
        Err(LogError::Overloaded)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_reordered_or_tried_too_often(
        keys in prop::collection::vec(prop::option::weighted(0.7, 0u8..4), 1..40),
        ordering in prop::sample::select(vec![Ordering::Key, Ordering::Partition, Ordering::None]),
        retry in 0u32..4,
        delay in prop::sample::select(vec![100u64, 5_000]),
        crashes in 0usize..5,
        seed: u64,
    ) {
        let mut subscription = subscription(ordering, retry);
        subscription.delivery.backoff.delay = Duration::from_millis(delay);
        let mut world = World::new(subscription, keys, seed);
        for _ in 0..crashes {
            world.live(true);
        }
        world.live(false);
        world.check();
    }
}

#[test]
fn guarantee_7_a_million_parked_in_minutes_do_not_delay_one_due_in_a_second() {
    let subscription = subscription(Ordering::None, 5);
    let (mut engine, mut time) = (engine(&subscription), Time::new());
    engine.budgets.parked = Budget::new(usize::MAX);
    engine.settings.max_subscription_bytes = 100_000;
    let (many, last) = (20_000, 20_000);
    let slot = engine.open(retry_at(), Offset(0), Offset(last + 1), None);
    for offset in 0..many {
        engine.record(slot, parked(offset, 600_000), time.now());
    }
    assert!(engine.next_work(time.now()).is_none());
    engine.record(slot, parked(last, 1_000), time.now());
    time.ms = 700;
    let Some(Work::Fetch { slot, wanted }) = engine.next_work(time.now()) else {
        panic!("the payload is too much to be kept, it is read again");
    };
    assert_eq!(
        wanted
            .iter()
            .map(|(_, offset)| offset.0)
            .collect::<Vec<_>>(),
        [last]
    );
    engine.fetched(slot, wanted, Ok(vec![parked(last, 1_000)]), time.now());
    assert!(engine.next_work(time.now()).is_none(), "it is not due yet");
    time.advance_to(engine.next_due().unwrap());
    assert_eq!(time.ms, 1_000);
    assert_eq!(id_of(&attempt(&mut engine, &time).unwrap()), last);
}

#[test]
fn what_is_due_soon_is_not_parked_again() {
    let subscription = subscription(Ordering::None, 5);
    let (mut engine, mut time) = (engine(&subscription), Time::new());
    engine.budgets.parked = Budget::new(1 << 30);
    let many = 2_000;
    let slot = engine.open(retry_at(), Offset(0), Offset(many), None);
    for offset in 0..many {
        engine.record(slot, parked(offset, 1_000), time.now());
    }
    time.ms = 900;
    assert!(engine.next_work(time.now()).is_none());
    engine.commits(&[slot]);
    assert!(engine.next_work(time.now()).is_none());
    time.ms = 1_000;
    let mut delivered = BTreeSet::new();
    while let Some(work) = attempt(&mut engine, &time) {
        assert!(delivered.insert(id_of(&work)));
        engine.attempted(work.id, ok(), time.now());
        engine.commits(&[slot]);
    }
    assert_eq!(delivered.len(), usize::try_from(many).unwrap());
    assert_eq!(engine.commits(&[slot]).len(), 0);
}

#[test]
fn a_record_of_the_retry_topic_that_cannot_be_used_is_nobody_elses() {
    let subscription = subscription(Ordering::None, 5);
    let (mut engine, mut time) = (engine(&subscription), Time::new());
    let slot = engine.open(retry_at(), Offset(0), Offset(2), None);
    // It stands where the event of the other record stood in the channel topic.
    engine.record(slot, stored(0, None), time.now());
    let other = StoredRecord {
        offset: Offset(1),
        ..parked(0, 1_000)
    };
    engine.record(slot, other, time.now());
    let Some(Work::Keep(Store { id, .. })) = engine.next_work(time.now()) else {
        panic!("it is kept in the dead-letter topic");
    };
    engine.kept(id, Ok(()), time.now());
    time.ms = 1_000;
    assert_eq!(id_of(&attempt(&mut engine, &time).unwrap()), 0);
    assert_eq!(engine.commits(&[slot])[0].1.offset, Offset(1));
}

#[test]
fn guarantee_7_nothing_parked_is_tried_before_the_index_is_rebuilt() {
    let subscription = subscription(Ordering::None, 5);
    let (mut engine, mut time) = (engine(&subscription), Time::new());
    time.ms = 10_000;
    let slot = engine.open(retry_at(), Offset(0), Offset(2), None);
    engine.record(slot, parked(0, 1_000), time.now());
    assert!(engine.next_work(time.now()).is_none());
    engine.record(slot, parked(1, 1_000), time.now());
    assert!(engine.next_work(time.now()).is_some());
}

/// An event that an earlier owner parked, without living to commit that, is one with its record,
/// whichever is read first and wherever the event is by then.
#[test]
fn guarantee_4_an_event_that_was_parked_before_a_kill_does_not_go_on_in_two_places() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum When {
        BeforeTheEvent,
        BeforeTheAttempt,
        AmidTheAttempt,
        AfterTheEnd,
    }
    use When::{AfterTheEnd, AmidTheAttempt, BeforeTheAttempt, BeforeTheEvent};
    for when in [
        BeforeTheEvent,
        BeforeTheAttempt,
        AmidTheAttempt,
        AfterTheEnd,
    ] {
        let subscription = subscription(Ordering::None, 3);
        let (mut engine, mut time) = (engine(&subscription), Time::new());
        let channel = engine.open(at(), Offset(0), Offset(1), None);
        let retry = engine.open(retry_at(), Offset(0), Offset(1), None);
        let mut made = 1;
        if when == BeforeTheEvent {
            engine.record(retry, parked(0, 700), time.now());
        }
        engine.record(channel, stored(0, None), time.now());
        if when == BeforeTheAttempt {
            engine.record(retry, parked(0, 700), time.now());
            assert!(attempt(&mut engine, &time).is_none(), "it is not due");
        }
        if matches!(when, AmidTheAttempt | AfterTheEnd) {
            let work = attempt(&mut engine, &time).unwrap();
            if when == AmidTheAttempt {
                engine.record(retry, parked(0, 700), time.now());
            }
            made += 1;
            let result = if when == AfterTheEnd {
                ok()
            } else {
                failure(true)
            };
            engine.attempted(work.id, result, time.now());
            if when == AfterTheEnd {
                engine.record(retry, parked(0, 700), time.now());
            }
        }
        while let Some(due) = engine.next_due() {
            time.advance_to(due);
            while let Some(work) = engine.next_work(time.now()) {
                match work {
                    Work::Attempt(work) => {
                        made += 1;
                        engine.attempted(work.id, failure(true), time.now());
                    }
                    Work::Keep(work) => engine.kept(work.id, Ok(()), time.now()),
                    other => panic!("{when:?}: {other:?}"),
                }
            }
        }
        assert_eq!(made, if when == AfterTheEnd { 2 } else { 4 }, "{when:?}");
        let commits = engine.commits(&[channel, retry]);
        assert!(commits.iter().all(|(_, commit)| commit.offset == Offset(1)));
    }
}

#[test]
fn guarantee_7_a_short_delay_waits_in_memory_while_the_index_is_rebuilt() {
    let mut subscription = subscription(Ordering::None, 5);
    subscription.delivery.backoff.delay = Duration::from_secs(1);
    let (mut engine, mut time) = (engine(&subscription), Time::new());
    let channel = engine.open(at(), Offset(50), Offset(50), None);
    let retry = engine.open(retry_at(), Offset(0), Offset(2), None);
    engine.record(retry, parked(0, 600_000), time.now());
    engine.record(channel, stored(50, None), time.now());
    let work = attempt(&mut engine, &time).unwrap();
    engine.attempted(work.id, failure(true), time.now());
    assert!(engine.next_work(time.now()).is_none(), "it is not parked");
    let commits = engine.commits(&[channel]);
    let told = Metadata::decode(Offset(50), &commits[0].1.metadata).waiting;
    assert_eq!(told[0].attempts_made, 1);
    time.advance_to(engine.next_due().unwrap());
    assert_eq!(time.ms, 1_000);
    let work = attempt(&mut engine, &time).unwrap();
    engine.record(retry, parked(1, 600_000), time.now());
    engine.attempted(work.id, failure(true), time.now());
    let work = engine.next_work(time.now());
    assert!(matches!(work, Some(Work::Park(_))), "the index is rebuilt");
}

#[test]
fn a_message_that_waits_is_tried_at_once_by_wish_and_only_once() {
    let mut subscription = subscription(Ordering::Partition, 5);
    subscription.delivery.backoff.delay = Duration::from_secs(600);
    let (mut engine, mut time) = (engine(&subscription), Time::new());
    let wish = |offset: i64, of: i64| StoredRecord {
        offset: Offset(offset),
        time: UnixMillis(0),
        record: retry_record::wish(&Origin {
            at: at(),
            offset: Offset(of),
            time: UnixMillis(0),
            redriven: 0,
        }),
    };
    // One that waits in the retry topic.
    let retry = engine.open(retry_at(), Offset(0), Offset(0), None);
    engine.record(retry, parked(0, 600_000), time.now());
    assert!(engine.next_work(time.now()).is_none());
    engine.record(retry, wish(1, 0), time.now());
    let work = attempt(&mut engine, &time).unwrap();
    // Nothing waits any more: this one changes nothing.
    engine.record(retry, wish(2, 0), time.now());
    assert!(attempt(&mut engine, &time).is_none());
    engine.attempted(work.id, ok(), time.now());
    assert_eq!(engine.commits(&[retry])[0].1.offset, Offset(3));
    time.ms = 700_000;
    assert!(engine.next_work(time.now()).is_none());
    // One that waits in memory, since its order forbids to park it.
    let channel = engine.open(at(), Offset(50), Offset(50), None);
    engine.record(channel, stored(50, None), time.now());
    let work = attempt(&mut engine, &time).unwrap();
    engine.attempted(work.id, failure(true), time.now());
    assert!(engine.next_work(time.now()).is_none());
    engine.record(retry, wish(3, 50), time.now());
    let work = attempt(&mut engine, &time).unwrap();
    assert_eq!(id_of(&work), 50);
    engine.attempted(work.id, ok(), time.now());
    time.ms = 2_000_000;
    assert!(attempt(&mut engine, &time).is_none());
    assert_eq!(engine.commits(&[channel])[0].1.offset, Offset(51));
}

#[test]
fn guarantee_4_a_message_that_stands_twice_in_the_retry_topic_is_one() {
    let subscription = subscription(Ordering::None, 5);
    let (mut engine, mut time) = (engine(&subscription), Time::new());
    time.ms = 10_000;
    let slot = engine.open(retry_at(), Offset(0), Offset(2), None);
    let again = StoredRecord {
        offset: Offset(1),
        ..parked(0, 1_000)
    };
    engine.record(slot, parked(0, 1_000), time.now());
    engine.record(slot, again, time.now());
    let work = attempt(&mut engine, &time).unwrap();
    assert!(attempt(&mut engine, &time).is_none());
    engine.attempted(work.id, ok(), time.now());
    assert_eq!(engine.commits(&[slot])[0].1.offset, Offset(2));
}

/// A record of the retry topic for the event of this offset in the channel topic.
fn parked(offset: i64, due: i64) -> StoredRecord {
    let origin = Origin {
        at: at(),
        offset: Offset(offset),
        time: UnixMillis(0),
        redriven: 0,
    };
    let event = Event::from_record(stored(offset, None).record).unwrap();
    let parked = Parked {
        origin,
        event: Arc::new(event),
        phase: ParkedPhase::Subscriber,
        attempts: 1,
        first_attempt: Some(UnixMillis(0)),
        due: UnixMillis(due),
        reason: Reason::Http(503),
    };
    StoredRecord {
        offset: Offset(offset),
        time: UnixMillis(0),
        record: parked.to_record(),
    }
}
