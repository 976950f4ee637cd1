//! How each subscription is doing, in one word with its reason: for the API and the page.
//!
//! [`judge`] is pure. [`Watch`] keeps what it needs in memory, taken from the node's own metrics
//! once a second, and has one [`Report`] for everybody who looks.

mod figures;
mod report;
mod watch;

use std::time::Duration;

pub use figures::{Counts, LatencyCounts};
pub use report::{ChannelReport, IngressReport, MinuteCounts, Report, SubscriptionReport};
pub use watch::Watch;

/// How a subscription is doing; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Its condition `Ready` is not true: nothing is delivered.
    NotReady,
    /// Most attempts fail, or events end as dead letters.
    Failing,
    /// Some attempts fail, or events wait.
    Degraded,
    /// Attempts take much longer than they did.
    Slow,
    /// Nobody knows: the node does not deliver, or was not heard of.
    Unknown,
    /// All is well.
    Healthy,
    /// All is well and nothing happens.
    Idle,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NotReady,
        Self::Failing,
        Self::Degraded,
        Self::Slow,
        Self::Unknown,
        Self::Healthy,
        Self::Idle,
    ];

    /// As the API writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::Failing => "failing",
            Self::Degraded => "degraded",
            Self::Slow => "slow",
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Idle => "idle",
        }
    }

    /// As people read it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NotReady => "Not ready",
            Self::Failing => "Failing",
            Self::Degraded => "Degraded",
            Self::Slow => "Slow",
            Self::Unknown => "Unknown",
            Self::Healthy => "Healthy",
            Self::Idle => "Idle",
        }
    }

    /// Whether somebody should look.
    #[must_use]
    pub fn needs_attention(self) -> bool {
        !matches!(self, Self::Healthy | Self::Idle)
    }
}

/// What the condition `Ready` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    /// It is served.
    #[default]
    True,
    /// It is not, with the condition's reason and message.
    False(String, String),
    /// It is not known (yet), with the condition's reason and message.
    Unknown(String, String),
}

/// What is known of a subscription.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// The condition.
    pub ready: Ready,
    /// Attempts of the last 5 minutes.
    pub recent: Counts,
    /// Most frequent failure of the last 5 minutes: a status code, or none for no answer.
    pub worst: Option<Option<u16>>,
    /// How long an event that was not tried yet waits.
    pub untried_for: Option<Duration>,
    /// Partitions that take nothing because their window is full.
    pub paused: u64,
    /// 95 % of the attempts of the last 5 minutes took no longer.
    pub p95: Option<Duration>,
    /// Half the attempts of the last hour took no longer.
    pub hour_median: Option<Duration>,
    /// Since when nothing happened.
    pub quiet_for: Duration,
    /// Events that are not finished; `None`: not known.
    pub lag: Option<u64>,
    /// How long its node was not heard of.
    pub silent_for: Duration,
}

/// Where one state ends and the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Attempts in 5 minutes from which a share of failures says something.
    pub attempts: usize,
    /// Attempts in 5 minutes from which it says something that all of them failed.
    pub attempts_all_failed: usize,
    /// A smaller share of successes, in per cent, is `Failing`.
    pub failing_below: usize,
    /// A smaller share of successes, in per cent, is `Degraded`.
    pub degraded_below: usize,
    /// An event that waits longer for its first attempt is `Degraded`.
    pub untried: Duration,
    /// p95 so many times the hour's median is `Slow`,
    pub slow_factor: usize,
    /// if it is longer than this as well.
    pub slow: Duration,
    /// Nothing happened for so long: `Idle`.
    pub idle: Duration,
    /// Not heard of for so long: `Unknown`.
    pub silent: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            attempts: 20,
            attempts_all_failed: 3,
            failing_below: 50,
            degraded_below: 99,
            untried: Duration::from_secs(60),
            slow_factor: 5,
            slow: Duration::from_secs(1),
            idle: Duration::from_secs(15 * 60),
            silent: Duration::from_secs(15),
        }
    }
}

/// A state and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The state.
    pub state: State,
    /// Why, in words; empty where the state says it all.
    pub reason: String,
}

/// The first rule that holds.
#[must_use]
pub fn judge(figures: &Figures, thresholds: &Thresholds) -> Verdict {
    let verdict = |state, reason: String| Verdict { state, reason };
    if figures.silent_for >= thresholds.silent {
        let seconds = figures.silent_for.as_secs();
        return verdict(
            State::Unknown,
            format!("its node is silent for {seconds} s"),
        );
    }
    match &figures.ready {
        Ready::True => {}
        Ready::False(reason, message) => {
            return verdict(State::NotReady, said(reason, message));
        }
        Ready::Unknown(reason, message) if reason == "NotDispatched" => {
            return verdict(State::Unknown, said(reason, message));
        }
        Ready::Unknown(reason, message) => {
            return verdict(State::NotReady, said(reason, message));
        }
    }
    failing(figures, thresholds)
        .map(|reason| verdict(State::Failing, reason))
        .or_else(|| degraded(figures, thresholds).map(|why| verdict(State::Degraded, why)))
        .or_else(|| slow(figures, thresholds).map(|why| verdict(State::Slow, why)))
        .unwrap_or_else(|| {
            let waiting = figures.lag.is_some_and(|lag| lag > 0);
            if figures.quiet_for >= thresholds.idle && !waiting {
                verdict(State::Idle, String::new())
            } else {
                verdict(State::Healthy, String::new())
            }
        })
}

fn said(reason: &str, message: &str) -> String {
    match (reason, message) {
        (reason, "") => reason.to_owned(),
        (_, message) => message.to_owned(),
    }
}

/// What the subscriber mostly did, in words.
fn cause(figures: &Figures) -> String {
    match figures.worst {
        Some(Some(code)) => format!("{code} from the subscriber"),
        Some(None) => "no answer from the subscriber".into(),
        None => "attempts fail".into(),
    }
}

/// Whether fewer attempts succeeded than so many in a hundred.
fn is_below(counts: &Counts, percent: usize) -> bool {
    let all = u128::from(counts.attempts());
    u128::from(counts.ok) * 100 < all * percent as u128
}

fn failing(figures: &Figures, thresholds: &Thresholds) -> Option<String> {
    let recent = &figures.recent;
    let all_failed = recent.ok == 0 && recent.attempts() >= thresholds.attempts_all_failed as u64;
    let most_failed = recent.attempts() >= thresholds.attempts as u64
        && is_below(recent, thresholds.failing_below);
    if all_failed || most_failed {
        return Some(cause(figures));
    }
    match recent.dead_letters {
        0 => None,
        1 => Some("1 new dead letter".into()),
        many => Some(format!("{many} new dead letters")),
    }
}

fn degraded(figures: &Figures, thresholds: &Thresholds) -> Option<String> {
    if figures.paused > 0 {
        let which = if figures.paused == 1 {
            "partition waits"
        } else {
            "partitions wait"
        };
        return Some(format!("{} {which}: the window is full", figures.paused));
    }
    if let Some(waits) = figures
        .untried_for
        .filter(|waits| *waits > thresholds.untried)
    {
        return Some(format!(
            "an event waits {} s for its first attempt",
            waits.as_secs()
        ));
    }
    is_below(&figures.recent, thresholds.degraded_below).then(|| cause(figures))
}

fn slow(figures: &Figures, thresholds: &Thresholds) -> Option<String> {
    let (p95, median) = (figures.p95?, figures.hour_median?);
    let factor = u32::try_from(thresholds.slow_factor).unwrap_or(u32::MAX);
    let limit = median.saturating_mul(factor);
    if p95 <= thresholds.slow || p95 <= limit {
        return None;
    }
    let times = p95.as_secs_f64() / median.as_secs_f64().max(1e-6);
    Some(format!("p95 is {times:.0} times the hour's median"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ok: u64, failed: u64, dead_letters: u64) -> Counts {
        Counts {
            ok,
            retryable: failed,
            dead_letters,
            ..Counts::default()
        }
    }

    fn of(figures: &Figures) -> (State, String) {
        let Verdict { state, reason } = judge(figures, &Thresholds::default());
        (state, reason)
    }

    #[test]
    fn the_first_rule_that_holds_decides() {
        let second = Duration::from_secs(1);
        let base = Figures {
            worst: Some(Some(503)),
            lag: Some(0),
            ..Figures::default()
        };
        let with = |change: &dyn Fn(&mut Figures)| {
            let mut figures = base.clone();
            change(&mut figures);
            of(&figures)
        };
        let recent = |ok, failed, dead| with(&|f| f.recent = counts(ok, failed, dead));
        for (got, state, word) in [
            (with(&|_| ()), State::Healthy, ""),
            (recent(0, 2, 0), State::Degraded, "503"),
            (recent(0, 3, 0), State::Failing, "503"),
            (recent(9, 11, 0), State::Failing, "503"),
            (recent(9, 10, 0), State::Degraded, "503"),
            (recent(10, 10, 0), State::Degraded, "503"),
            (recent(990, 10, 0), State::Healthy, ""),
            (recent(989, 11, 0), State::Degraded, "503"),
            (recent(1000, 0, 1), State::Failing, "1 new dead letter"),
            (with(&|f| f.paused = 1), State::Degraded, "window"),
            (
                with(&|f| f.untried_for = Some(second * 60)),
                State::Healthy,
                "",
            ),
            (
                with(&|f| f.untried_for = Some(second * 61)),
                State::Degraded,
                "61 s",
            ),
            (with(&|f| f.quiet_for = second * 900), State::Idle, ""),
            (
                with(&|f| f.silent_for = second * 15),
                State::Unknown,
                "silent",
            ),
            (
                with(&|f| (f.quiet_for, f.lag) = (second * 900, Some(1))),
                State::Healthy,
                "",
            ),
            (
                with(&|f| (f.p95, f.hour_median) = (Some(second * 6), Some(second))),
                State::Slow,
                "6 times",
            ),
            (
                with(&|f| (f.p95, f.hour_median) = (Some(second), Some(second / 100))),
                State::Healthy,
                "",
            ),
            (
                with(&|f| {
                    f.ready = Ready::False("TopicNotReady".into(), "no brokers".into());
                    f.recent = counts(0, 9, 0);
                }),
                State::NotReady,
                "no brokers",
            ),
            (
                with(&|f| f.ready = Ready::Unknown("NotDispatched".into(), String::new())),
                State::Unknown,
                "NotDispatched",
            ),
        ] {
            assert_eq!(got.0, state, "{got:?}");
            assert!(got.1.contains(word), "{got:?}");
            assert_eq!(got.1.is_empty(), word.is_empty(), "{got:?}");
        }
    }

    #[test]
    fn no_answer_is_said_so() {
        let figures = Figures {
            recent: counts(0, 5, 0),
            worst: Some(None),
            ..Figures::default()
        };
        assert_eq!(of(&figures).1, "no answer from the subscriber");
    }

    #[test]
    fn the_worst_comes_first() {
        let mut states = [
            State::Idle,
            State::Healthy,
            State::Slow,
            State::NotReady,
            State::Failing,
        ];
        states.sort();
        assert_eq!(states[0], State::NotReady);
        assert_eq!(states[4], State::Idle);
        assert!(State::Unknown.needs_attention() && !State::Idle.needs_attention());
    }
}
