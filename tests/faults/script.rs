//! What the subscriber answers: a function of the seed, the subscription, the event and how often
//! it came, so that a run can be repeated.

use std::time::Duration;

/// Retries of every subscription: `retry: 3` means three.
pub(crate) const RETRY: u16 = 3;
/// How long an attempt may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);
/// How many keys there are.
const KEYS: u64 = 5_000;

/// A subscription, by the order that it promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ordering {
    None,
    Key,
    Partition,
}

pub(crate) const ORDERINGS: [Ordering; 3] = [Ordering::None, Ordering::Key, Ordering::Partition];

impl Ordering {
    /// The subscription's name, and the word in its manifest.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Key => "key",
            Self::Partition => "partition",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        ORDERINGS
            .into_iter()
            .find(|ordering| ordering.name() == name)
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Self::None => 0,
            Self::Key => 1,
            Self::Partition => 2,
        }
    }

    /// `spec.delivery`. Where a failure holds up nobody or a key, retries come after 0.7, 1.4 and
    /// 2.8 s, on both sides of `inlineRetryMax`; where it holds up a partition, after 5 ms, since
    /// the load could not be carried otherwise (a few ask for a second by `Retry-After`).
    pub(crate) fn delivery(self) -> String {
        let backoff = match self {
            Self::None | Self::Key => "backoffPolicy: exponential, backoffDelay: PT0.35S",
            Self::Partition => "backoffPolicy: linear, backoffDelay: PT0.005S",
        };
        format!(
            "{{ordering: {}, retry: {RETRY}, {backoff}, timeout: PT{}S, maxInFlight: 200, \
             headers: {{x-life: \"${{env:{}}}\"}}}}",
            self.name(),
            TIMEOUT.as_secs(),
            super::nodes::LIFE
        )
    }
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 200, after so long.
    Take(Duration),
    /// A code that is retried, with `Retry-After` in seconds.
    Refuse(u16, Option<u8>),
    /// 400: for good.
    RefuseForGood,
    /// RST in place of an answer.
    Reset,
    /// The connection ends in place of an answer.
    Close,
    /// Nothing for longer than an attempt may take.
    Hang(Duration),
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    /// No event from this one on fails for ever, so that the end of a run is not awaited long.
    pub(crate) last_doomed: u32,
}

impl Script {
    /// Eight in ten events have a key.
    pub(crate) fn key(self, number: u32) -> Option<u64> {
        let draw = mix(self.seed ^ mix(u64::from(number)));
        (draw % 10 < 8).then_some((draw >> 8) % KEYS)
    }

    /// What the `nth` attempt is answered.
    pub(crate) fn answer(self, ordering: Ordering, number: u32, nth: u16) -> Answer {
        let stream = u64::from(number) * 4 + ordering.index() as u64 + 1;
        let draw = mix(self
            .seed
            .wrapping_add(stream.wrapping_mul(0x2545_f491_4f6c_dd1d)));
        let (fate, rest) = (draw % 1000, draw >> 10);
        if fate < 2 && number < self.last_doomed {
            return Answer::RefuseForGood;
        }
        let times = match rest % 100 {
            _ if fate < 5 && number < self.last_doomed => u16::MAX,
            0..70 if fate < 205 => 1,
            70..95 if fate < 205 => 2,
            _ if fate < 205 => 3,
            _ => 0,
        };
        if nth <= times {
            failure(ordering, mix(draw ^ u64::from(nth)))
        } else {
            Answer::Take(slowness(ordering, rest >> 8))
        }
    }
}

fn failure(ordering: Ordering, draw: u64) -> Answer {
    let spaced = ordering != Ordering::Partition;
    match draw % 1000 {
        0..5 if spaced => Answer::Hang(TIMEOUT + Duration::from_millis(500)),
        5..8 => Answer::Refuse(503, Some(1)),
        8..40 if spaced => Answer::Refuse(429, Some(1 + (draw >> 32 & 1) as u8)),
        40..140 => Answer::Reset,
        140..240 => Answer::Close,
        240..500 => Answer::Refuse(500, None),
        _ => Answer::Refuse(503, None),
    }
}

fn slowness(ordering: Ordering, draw: u64) -> Duration {
    match (ordering, draw % 1000) {
        (Ordering::None | Ordering::Key, 0..10) => Duration::from_millis(50 + draw / 1000 % 250),
        (Ordering::Partition, 0..2) => Duration::from_millis(20),
        _ => Duration::ZERO,
    }
}

/// SplitMix64: every input bit changes every output bit.
pub(crate) fn mix(value: u64) -> u64 {
    let mut value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
