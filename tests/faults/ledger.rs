//! What happened: every attempt that reached the subscriber, and every fault.

use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::script::{Ordering, RETRY};

/// Nanoseconds since the run began.
pub(crate) type Moment = u64;

/// Which process made an attempt: an index into [`Ledger::lives`].
pub(crate) type LifeId = u16;

/// How an attempt ended, as the subscriber saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Open,
    Taken,
    Failed,
    ForGood,
}

/// One attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) number: u32,
    pub(crate) life: LifeId,
    pub(crate) outcome: Outcome,
    pub(crate) arrived: Moment,
    /// Just before the answer was sent.
    pub(crate) answered: Moment,
}

/// What a fault was, and whom it concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `kill -9` of this process.
    Kill(LifeId),
    /// SIGTERM, until it had ended.
    Drain(LifeId),
    /// SIGSTOP until SIGCONT, of this process.
    Freeze(LifeId),
    /// Kafka was not there, or did not answer, for everybody.
    Log,
    /// A member joined, or left.
    Rebalance,
    /// Connections to the subscriber were cut.
    Cut,
}

/// A fault and how long it lasted.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) what: String,
    pub(crate) from: Moment,
    pub(crate) until: Moment,
}

/// The attempts of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    pub(crate) attempts: Vec<Attempt>,
    events: Vec<Event>,
    settled: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Event {
    made: u16,
    settled: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    began: Instant,
    /// The same on the clock that others have, too.
    pub(crate) began_at: SystemTime,
    sheets: [Mutex<Sheet>; 3],
    faults: Mutex<Vec<Fault>>,
    lives: Mutex<Vec<String>>,
    /// Requests that are no event of ours, or not as it was sent.
    pub(crate) odd: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    pub(crate) fn new(events: u32) -> Self {
        let sheet = || Sheet {
            events: vec![Event::default(); events as usize],
            ..Sheet::default()
        };
        Self {
            began: Instant::now(),
            began_at: SystemTime::now(),
            sheets: [sheet(), sheet(), sheet()].map(Mutex::new),
            faults: Mutex::default(),
            lives: Mutex::default(),
            odd: AtomicUsize::new(0),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A request came: its place in the sheet, and the how manieth of its event it is.
    pub(crate) fn arrived(
        &self,
        ordering: Ordering,
        number: u32,
        life: LifeId,
    ) -> Option<(usize, u16)> {
        let mut sheet = lock(&self.sheets[ordering.index()]);
        let event = sheet.events.get_mut(number as usize)?;
        event.made = event.made.saturating_add(1);
        let nth = event.made;
        // Within the lock: the order in the sheet is the order in time.
        let arrived = self.now();
        sheet.attempts.push(Attempt {
            number,
            life,
            outcome: Outcome::Open,
            arrived,
            answered: Moment::MAX,
        });
        Some((sheet.attempts.len() - 1, nth))
    }

    /// The answer goes out now.
    pub(crate) fn answered(&self, ordering: Ordering, place: usize, outcome: Outcome) {
        let mut sheet = lock(&self.sheets[ordering.index()]);
        let sheet = &mut *sheet;
        let attempt = &mut sheet.attempts[place];
        attempt.outcome = outcome;
        attempt.answered = self.now();
        let event = &mut sheet.events[attempt.number as usize];
        let last = outcome != Outcome::Failed || event.made > RETRY;
        if last && !event.settled {
            event.settled = true;
            sheet.settled += 1;
        }
    }

    /// Events that were taken, or will not be tried again, over all subscriptions.
    pub(crate) fn settled(&self) -> usize {
        self.sheets.iter().map(|sheet| lock(sheet).settled).sum()
    }

    pub(crate) fn attempts(&self, ordering: Ordering) -> Vec<Attempt> {
        lock(&self.sheets[ordering.index()]).attempts.clone()
    }

    pub(crate) fn is_odd(&self) {
        self.odd.fetch_add(1, Atomic::Relaxed);
    }

    /// A process begins: its id.
    pub(crate) fn life(&self, name: &str) -> LifeId {
        let mut lives = lock(&self.lives);
        lives.push(name.to_owned());
        LifeId::try_from(lives.len() - 1).unwrap_or(LifeId::MAX)
    }

    pub(crate) fn lives(&self) -> Vec<String> {
        lock(&self.lives).clone()
    }

    /// Notes a fault that lasted since `from`.
    pub(crate) fn fault(&self, kind: Kind, what: impl Into<String>, from: Moment) {
        let until = self.now();
        let what = what.into();
        if std::env::var_os("FAULTS_VERBOSE").is_some() {
            let seconds = |moment: Moment| Duration::from_nanos(moment).as_secs_f64();
            eprintln!(
                "  {:6.2} to {:6.2} s  {what}",
                seconds(from),
                seconds(until)
            );
        }
        lock(&self.faults).push(Fault {
            kind,
            what,
            from,
            until,
        });
    }

    pub(crate) fn faults(&self) -> Vec<Fault> {
        lock(&self.faults).clone()
    }
}
