//! What a run showed, held against what is promised.
//!
//! **Lost**: an accepted event that a subscriber did not take and that is not among its dead
//! letters. **Order**: by subscription `partition` the first attempt on an event comes after every
//! event before it in its partition was settled (taken, refused for good, or tried `retry + 1`
//! times); by subscription `key` likewise among the events of a key. The order is that of the
//! log, and of an event that stands there twice its first copy counts.
//!
//! **Over**: a message has at most `retry + 1` attempts for each copy of the event in the log (a
//! producer that got no answer posts again), and one more for each attempt that nobody can know
//! of, which is one that
//! - was in flight or answered less than [`UNCOMMITTED`] before its process was killed or frozen,
//!   or made by a process within [`DETECTED`] after it was frozen (it does not know yet that its
//!   partitions are another's);
//! - was answered less than [`UNCOMMITTED`] before Kafka went away, or made from then until
//!   [`DETECTED`] after it told commits again: nothing could be committed, and members that were
//!   thrown out, or come from elsewhere, first have to agree anew;
//! - was cut off, as when a membership ends: the next one came before it was over;
//! - was never committed, as Kafka's own records show: no two commits of its partition were stored
//!   (the first may have been made up before) until the group shared its partitions anew, or
//!   another process made the next one.
//!
//! Drains and rebalances excuse nothing: they commit, and no answer here takes longer than they
//! wait. **Early**: a dead letter with fewer than `retry + 1` attempts, none refused for good.
//!
//! **Repeated** after a `kill -9` of a dispatcher: messages that it had got a 200 for and that
//! another process sent again. Guarantee 5 allows what was in flight plus 0.2 s of its throughput;
//! kills while Kafka was away are left out.

use std::collections::{BTreeMap, HashMap};

use crate::ledger::{Attempt, Fault, Kind, Ledger, LifeId, Moment, Outcome};
use crate::log::{self, Stored};
use crate::plan::Plan;
use crate::producers::Producers;
use crate::script::{ORDERINGS, Ordering, RETRY, Script, TIMEOUT};

const MS: Moment = 1_000_000;
/// Commits are 100 ms apart; the rest is for a commit to get through on a busy machine.
const UNCOMMITTED: Moment = 1_000 * MS;
/// How long it takes until members are back at work, or know that they are none any more.
const DETECTED: Moment = 3_000 * MS;
/// Findings of a kind that are told in full.
const TOLD: usize = 5;

/// Everything that is known after a run.
pub(crate) struct Facts {
    script: Script,
    accepted: Vec<bool>,
    /// By subscription and event, in order of time.
    attempts: [Vec<Vec<Attempt>>; 3],
    faults: Vec<Fault>,
    lives: Vec<String>,
    stored: Stored,
    /// The partition of each event that is in the log.
    places: HashMap<u32, i32>,
    odd: usize,
}

impl Facts {
    pub(crate) fn gather(
        plan: &Plan,
        script: Script,
        ledger: &Ledger,
        producers: &Producers,
        stored: Stored,
    ) -> Self {
        let attempts = ORDERINGS.map(|ordering| {
            let mut by_event = vec![Vec::new(); plan.events as usize];
            for attempt in ledger.attempts(ordering) {
                by_event[attempt.number as usize].push(attempt);
            }
            by_event
        });
        let odd = ledger.odd.load(std::sync::atomic::Ordering::Relaxed) + stored.odd;
        let places = (0..)
            .zip(&stored.order)
            .flat_map(|(partition, order)| order.iter().map(move |(n, _)| (*n, partition)))
            .collect();
        Self {
            script,
            places,
            accepted: (0..plan.events).map(|n| producers.is_accepted(n)).collect(),
            attempts,
            faults: ledger.faults(),
            lives: ledger.lives(),
            stored,
            odd,
        }
    }

    fn of(&self, ordering: Ordering, number: u32) -> &[Attempt] {
        &self.attempts[ordering.index()][number as usize]
    }

    fn copies(&self, number: u32) -> usize {
        usize::from(self.stored.copies[number as usize]).max(1)
    }

    fn numbers(&self) -> impl Iterator<Item = u32> + use<> {
        0..u32::try_from(self.accepted.len()).unwrap_or(u32::MAX)
    }

    fn messages(&self) -> impl Iterator<Item = (Ordering, u32)> + '_ {
        ORDERINGS
            .into_iter()
            .flat_map(|ordering| self.numbers().map(move |number| (ordering, number)))
    }

    fn is_taken(&self, ordering: Ordering, number: u32) -> bool {
        let taken = |attempt: &Attempt| attempt.outcome == Outcome::Taken;
        self.of(ordering, number).iter().any(taken)
    }

    fn is_kept(&self, ordering: Ordering, number: u32) -> bool {
        self.stored.letters[ordering.index()].contains(&number)
    }

    /// Messages that are nowhere.
    pub(crate) fn missing(&self) -> Vec<(Ordering, u32)> {
        let missing = |&(ordering, number): &(Ordering, u32)| {
            self.accepted[number as usize]
                && !self.is_taken(ordering, number)
                && !self.is_kept(ordering, number)
        };
        self.messages().filter(missing).collect()
    }

    /// Messages tried too often.
    fn over(&self) -> Vec<(Ordering, u32)> {
        let over = |&(ordering, number): &(Ordering, u32)| {
            let made = self.of(ordering, number);
            let granted = (usize::from(RETRY) + 1) * self.copies(number);
            let before_next = |at: usize| {
                made.get(at + 1).is_some_and(|next| {
                    is_cut(&made[at], next) || self.is_uncommitted(ordering, &made[at], next)
                })
            };
            let excused =
                (0..made.len()).filter(|at| self.is_forgettable(&made[*at]) || before_next(*at));
            made.len() > granted && made.len() > granted + excused.count()
        };
        self.messages().filter(over).collect()
    }

    /// Whether Kafka took no word of the attempt until its partition was read anew.
    fn is_uncommitted(&self, ordering: Ordering, one: &Attempt, next: &Attempt) -> bool {
        let Some(partition) = self.places.get(&one.number) else {
            return false;
        };
        let group = log::group(ordering).0.to_string();
        let topic = log::topic("").as_str().to_owned();
        let of = (group, topic, *partition);
        let history = &self.stored.history;
        let few = |until| history.commits_within(&of, one.answered, until) < 2;
        if one.life != next.life {
            return few(next.arrived);
        }
        let mut shared = history.generations_within(&of.0, one.answered, next.arrived);
        shared.any(few)
    }

    /// Whether nobody may know of the attempt.
    fn is_forgettable(&self, attempt: &Attempt) -> bool {
        let since = |fault: &Fault| attempt.answered.saturating_add(UNCOMMITTED) >= fault.from;
        let before_detected = |fault: &Fault| attempt.arrived <= fault.until + DETECTED;
        self.faults.iter().any(|fault| match fault.kind {
            Kind::Kill(life) => attempt.life == life && since(fault),
            Kind::Freeze(life) => attempt.life == life && since(fault) && before_detected(fault),
            Kind::Log => since(fault) && before_detected(fault),
            Kind::Drain(_) | Kind::Rebalance | Kind::Cut => false,
        })
    }

    /// Dead letters that had not all their attempts.
    fn early(&self) -> Vec<(Ordering, u32)> {
        let early = |&(ordering, number): &(Ordering, u32)| {
            let made = self.of(ordering, number);
            let for_good = |one: &Attempt| one.outcome == Outcome::ForGood;
            self.is_kept(ordering, number)
                && made.len() <= usize::from(RETRY)
                && !made.iter().any(for_good)
        };
        self.messages().filter(early).collect()
    }

    /// Messages that were tried before one ahead of them in their lane was settled.
    fn out_of_order(&self) -> Vec<(Ordering, u32)> {
        let mut found = Vec::new();
        for ordering in [Ordering::Key, Ordering::Partition] {
            for partition in &self.stored.order {
                let mut lanes: HashMap<Option<u64>, Moment> = HashMap::new();
                // Copies of an event without a key may be in several partitions.
                let placed = |number| self.copies(number) == 1 || self.script.key(number).is_some();
                for (number, _) in partition.iter().filter(|(number, _)| placed(*number)) {
                    let lane = match ordering {
                        Ordering::None => continue,
                        Ordering::Partition => None,
                        Ordering::Key => match self.script.key(*number) {
                            Some(key) => Some(key),
                            None => continue,
                        },
                    };
                    let made = self.of(ordering, *number);
                    let before = lanes.entry(lane).or_default();
                    if made.first().is_some_and(|first| first.arrived < *before) {
                        found.push((ordering, *number));
                    }
                    *before = settled(made).unwrap_or(0).max(*before);
                }
            }
        }
        found
    }

    /// 200s beyond one for each copy.
    fn duplicates(&self) -> usize {
        let beyond = |(ordering, number)| {
            let taken = |one: &&Attempt| one.outcome == Outcome::Taken;
            let taken = self.of(ordering, number).iter().filter(taken).count();
            taken.saturating_sub(self.copies(number))
        };
        self.messages().map(beyond).sum()
    }

    /// Every 200 after another, and why: what befell the process that got the first, or everybody.
    fn repeats(&self) -> Vec<(&'static str, (Ordering, u32))> {
        let mut repeats = Vec::new();
        for (ordering, number) in self.messages().filter(|(_, n)| self.copies(*n) == 1) {
            let taken = |one: &&Attempt| one.outcome == Outcome::Taken;
            let taken: Vec<_> = self.of(ordering, number).iter().filter(taken).collect();
            let why = |pair: &[&Attempt]| (self.cause(pair[0], pair[1]), (ordering, number));
            repeats.extend(taken.windows(2).map(why));
        }
        repeats
    }

    fn cause(&self, first: &Attempt, second: &Attempt) -> &'static str {
        let between = |fault: &&Fault| {
            fault.from <= second.arrived && first.answered <= fault.until + DETECTED
        };
        let lives = [first.life, second.life];
        let cause = |fault: &Fault| match fault.kind {
            Kind::Kill(life) if life == first.life => Some((0, "kill")),
            Kind::Freeze(life) if lives.contains(&life) => Some((1, "freeze")),
            Kind::Log => Some((2, "kafka")),
            Kind::Drain(life) if life == first.life => Some((3, "drain")),
            Kind::Rebalance => Some((4, "rebalance")),
            _ => None,
        };
        let faults = self.faults.iter().filter(between);
        faults.filter_map(cause).min().map_or("other", |it| it.1)
    }

    /// What each kill of a dispatcher cost.
    fn kills(&self) -> Vec<KillCost> {
        let kills = self.faults.iter().filter_map(|fault| match fault.kind {
            Kind::Kill(life) => Some((life, fault.from)),
            _ => None,
        });
        let undisturbed = |at: Moment| {
            let hits = |fault: &&Fault| {
                fault.kind == Kind::Log
                    && fault.from < at + UNCOMMITTED
                    && at < fault.until + DETECTED
            };
            !self.faults.iter().any(|fault| hits(&fault))
        };
        kills
            .filter(|(_, at)| undisturbed(*at))
            .map(|(life, at)| self.kill_cost(life, at))
            .filter(|cost| cost.made > 0)
            .collect()
    }

    fn kill_cost(&self, life: LifeId, at: Moment) -> KillCost {
        let mut cost = KillCost::default();
        let before = |time: Moment| at.saturating_sub(time * MS);
        let (mut in_flight, mut in_a_second, mut lately) = (0, 0, 0);
        for (ordering, number) in self.messages() {
            let made = self.of(ordering, number);
            let mut taken = false;
            for own in made.iter().filter(|one| one.life == life) {
                cost.made += 1;
                in_flight += usize::from(own.arrived <= at && own.answered > at);
                if own.outcome == Outcome::Taken && own.answered <= at {
                    taken = true;
                    in_a_second += usize::from(own.answered > before(1_000));
                    lately += usize::from(own.answered > before(200));
                }
            }
            let again = |one: &Attempt| one.life != life && one.arrived > at;
            if taken && self.copies(number) == 1 && made.iter().any(again) {
                cost.repeated += 1;
            }
        }
        cost.allowed = in_flight + lately.max(in_a_second / 5);
        cost
    }

    /// The story of a message.
    fn story(&self, (ordering, number): (Ordering, u32)) -> String {
        let place = self
            .stored
            .order
            .iter()
            .enumerate()
            .find_map(|(at, order)| {
                let found = order.iter().find(|(found, _)| *found == number)?;
                Some((at, found.1, self.stored.commits[ordering.index()][at]))
            });
        let mut text = format!("{} event {number}", ordering.name());
        match place {
            Some((at, offset, commit)) => text.push_str(&format!(
                ", {} in the log, the first at {at}/{offset} (commit {commit:?}){}",
                self.copies(number),
                if self.is_kept(ordering, number) {
                    ", a dead letter"
                } else {
                    ""
                }
            )),
            None => text.push_str(", not in the log"),
        }
        for one in self.of(ordering, number) {
            let seconds = |moment: Moment| moment as f64 / 1e9;
            text.push_str(&format!(
                "\n      {:8.3} to {:8.3} s {:?} {}.{}{}",
                seconds(one.arrived),
                seconds(one.answered.min(one.arrived.saturating_add(1_000_000 * MS))),
                one.outcome,
                self.lives
                    .get(usize::from(one.life))
                    .map_or("?", String::as_str),
                one.life,
                if self.is_forgettable(one) {
                    " (may be forgotten)"
                } else {
                    ""
                }
            ));
        }
        text
    }
}

/// Whether an attempt was cut off: the next one on the message came before it had an answer and
/// before its time was over.
fn is_cut(one: &Attempt, next: &Attempt) -> bool {
    let timeout = Moment::try_from(TIMEOUT.as_nanos()).unwrap_or(Moment::MAX);
    next.arrived < one.answered && next.arrived < one.arrived + timeout
}

/// When a message was settled, or a little earlier.
fn settled(made: &[Attempt]) -> Option<Moment> {
    let ended = made
        .iter()
        .filter(|one| matches!(one.outcome, Outcome::Taken | Outcome::ForGood))
        .map(|one| one.answered);
    let exhausted = made.get(usize::from(RETRY)).map(|last| last.arrived);
    ended.chain(exhausted).min()
}

/// What a kill cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KillCost {
    /// Attempts of the process.
    made: usize,
    pub(crate) repeated: usize,
    pub(crate) allowed: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    broken_off: bool,
    pub(crate) accepted: usize,
    pub(crate) delivered: usize,
    pub(crate) letters: usize,
    pub(crate) lost: usize,
    pub(crate) order: usize,
    pub(crate) over: usize,
    pub(crate) early: usize,
    /// Requests or records that are nobody's.
    pub(crate) odd: usize,
    pub(crate) duplicates: usize,
    pub(crate) causes: BTreeMap<&'static str, usize>,
    pub(crate) kills: Vec<KillCost>,
    pub(crate) faults: Vec<Fault>,
    /// The first findings of each kind.
    pub(crate) stories: Vec<String>,
}

impl Verdict {
    pub(crate) fn of(facts: &Facts) -> Self {
        let mut stories = Vec::new();
        let mut found = |kind: &str, messages: Vec<(Ordering, u32)>| {
            let told = messages.iter().take(TOLD);
            stories.extend(told.map(|one| format!("{kind}: {}", facts.story(*one))));
            messages.len()
        };
        let (lost, order) = (
            found("lost", facts.missing()),
            found("out of order", facts.out_of_order()),
        );
        let (over, early) = (
            found("too many attempts", facts.over()),
            found("too few attempts", facts.early()),
        );
        let mut causes = BTreeMap::new();
        let mut without = Vec::new();
        for (cause, message) in facts.repeats() {
            *causes.entry(cause).or_default() += 1;
            if cause == "other" {
                without.push(message);
            }
        }
        found("repeated without a fault", without);
        let taken = facts.messages().filter(|(o, n)| facts.is_taken(*o, *n));
        Self {
            broken_off: false,
            accepted: facts.accepted.iter().filter(|yes| **yes).count(),
            delivered: taken.count(),
            letters: facts
                .stored
                .letters
                .iter()
                .map(|letters| letters.len())
                .sum(),
            lost,
            order,
            over,
            early,
            odd: facts.odd,
            duplicates: facts.duplicates(),
            causes,
            kills: facts.kills(),
            faults: facts.faults.clone(),
            stories,
        }
    }

    /// Of a run that could not be carried through.
    pub(crate) fn broken_off() -> Self {
        Self {
            broken_off: true,
            ..Self::default()
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        !self.broken_off && self.lost + self.order + self.over + self.early + self.odd == 0
    }

    /// Kills that repeated more than guarantee 5 allows.
    pub(crate) fn dear_kills(&self) -> usize {
        let dear = |cost: &&KillCost| cost.repeated > cost.allowed;
        self.kills.iter().filter(dear).count()
    }
}
