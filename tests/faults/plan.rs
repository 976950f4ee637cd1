//! What a run is to do: its size and, from its seed, which faults come when.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// On which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogKind {
    Kafka,
    Embedded,
}

/// How large a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// Half a minute, part of every test run.
    Short,
    /// 100,000 events at 2,000/s.
    Full,
    /// So many minutes.
    Long(u32),
}

/// One fault; none begins before the one ahead of it in its track is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    KillReceiver,
    /// Which, and how long it stays away. For longer than the session timeout: the others take
    /// over. Else its successor does.
    KillDispatcher(usize, Duration),
    DrainDispatcher(usize),
    /// For longer than the session timeout: it believes to own what others have taken over.
    FreezeDispatcher(usize),
    /// A third dispatcher comes, stays for so long, and leaves for good.
    Guest(Duration),
    /// Connections from the dispatchers to the subscriber.
    CutSubscriber,
    /// Requests that end amid their body.
    CutProducers,
    KillKafka(Duration),
    /// For longer than the session timeout.
    FreezeKafka,
    CutKafka,
}

/// Longer than the session timeout of 6 s.
pub(crate) const FROZEN: Duration = Duration::from_millis(7_500);

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) log: LogKind,
    pub(crate) seed: u64,
    pub(crate) events: u32,
    pub(crate) rate: u32,
    pub(crate) partitions: u32,
    /// Faults run side by side, those of a track one after the other, each after its pause.
    pub(crate) tracks: Vec<Vec<(Duration, Step)>>,
}

impl Plan {
    pub(crate) fn new(log: LogKind, size: Size, seed: u64) -> Self {
        let (events, rate) = match size {
            Size::Short => (8_000, 1_000),
            Size::Full => (100_000, 2_000),
            Size::Long(minutes) => (minutes * 60 * 1_000, 1_000),
        };
        let rounds = match size {
            Size::Short | Size::Full => 1,
            // A round takes about a minute.
            Size::Long(minutes) => minutes.max(1),
        };
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut tracks: Vec<Vec<(Duration, Step)>> = Vec::new();
        for _ in 0..rounds {
            let round = match (log, size) {
                (LogKind::Kafka, Size::Short) => vec![short_nodes(&mut rng), short_kafka()],
                (LogKind::Embedded, Size::Short) => vec![short_embedded()],
                (LogKind::Kafka, _) => vec![nodes(&mut rng), kafka(&mut rng)],
                (LogKind::Embedded, _) => vec![embedded()],
            };
            tracks.resize(round.len(), Vec::new());
            for (track, mut steps) in tracks.iter_mut().zip(round) {
                steps.shuffle(&mut rng);
                let pauses = match (log, size) {
                    (_, Size::Short) => 300..900,
                    (LogKind::Kafka, _) => 300..1_500,
                    (LogKind::Embedded, _) => 1_500..3_500,
                };
                let pause = |step| {
                    let pause = Duration::from_millis(rng.random_range(pauses.clone()));
                    // It takes a moment until everybody is back at work after a fault of Kafka.
                    let more = matches!(step, Step::KillKafka(_) | Step::FreezeKafka);
                    (pause + Duration::from_secs(2 * u64::from(more)), step)
                };
                track.extend(steps.into_iter().map(pause));
            }
        }
        Self {
            log,
            seed,
            events,
            rate,
            partitions: if size == Size::Short { 4 } else { 16 },
            tracks,
        }
    }
}

fn away(rng: &mut SmallRng) -> Duration {
    Duration::from_millis(rng.random_range(0..1_000))
}

/// Five kills each of receiver and dispatchers, six rebalances by a guest and more by members
/// that stay away, and the rest.
fn nodes(rng: &mut SmallRng) -> Vec<Step> {
    let mut steps = vec![Step::KillReceiver; 5];
    for kill in 0..5 {
        let away = if kill == 0 { FROZEN } else { away(rng) };
        steps.push(Step::KillDispatcher(rng.random_range(0..2), away));
    }
    for _ in 0..3 {
        let stay = Duration::from_millis(rng.random_range(500..2_000));
        steps.push(Step::Guest(stay));
    }
    steps.push(Step::DrainDispatcher(rng.random_range(0..2)));
    steps.push(Step::FreezeDispatcher(rng.random_range(0..2)));
    steps.extend([Step::CutSubscriber, Step::CutSubscriber, Step::CutProducers]);
    steps
}

fn kafka(rng: &mut SmallRng) -> Vec<Step> {
    let mut steps: Vec<Step> = (0..5).map(|_| Step::KillKafka(away(rng))).collect();
    steps.extend([Step::FreezeKafka, Step::CutKafka, Step::CutKafka]);
    steps
}

/// One process has all roles, so a kill is one of everything.
fn embedded() -> Vec<Step> {
    let mut steps = vec![Step::KillReceiver; 10];
    steps.extend([Step::DrainDispatcher(0); 3]);
    steps.extend([Step::CutSubscriber; 3]);
    steps.push(Step::CutProducers);
    steps
}

fn short_nodes(rng: &mut SmallRng) -> Vec<Step> {
    vec![
        Step::KillReceiver,
        Step::KillDispatcher(0, away(rng)),
        Step::KillDispatcher(1, away(rng)),
        Step::Guest(Duration::from_millis(500)),
        Step::CutSubscriber,
        Step::CutProducers,
    ]
}

fn short_kafka() -> Vec<Step> {
    vec![Step::KillKafka(Duration::ZERO), Step::CutKafka]
}

fn short_embedded() -> Vec<Step> {
    let mut steps = vec![Step::KillReceiver; 4];
    steps.extend([
        Step::DrainDispatcher(0),
        Step::CutSubscriber,
        Step::CutProducers,
    ]);
    steps
}
