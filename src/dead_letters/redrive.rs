//! Sends dead letters round again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::ledger::{self, Entry, Ledger, Redrive, State, Terms};
use super::letter::DeadLetter;
use super::outcomes::{Fate, Outcomes, PATIENCE};
use super::scan::{Direction, Scan};
use super::shared::Shared;
use crate::channel::{ResourceName, Subscription};
use crate::log::{LogError, Offset, Partition, Record, Target, TopicName};

/// Dead letters that are sent before that is written down: so many may be sent twice around a
/// crash.
const BATCH: u64 = 100;
/// How long to wait after the log failed.
const AGAIN: Duration = Duration::from_millis(500);

/// How long to wait before it is looked again at what became of what was sent.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Messages that are asked about at one look.
const ASKED: usize = 50;

/// The name of a redrive: `<namespace>.<subscription>.<random>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RedriveId {
    /// Whose dead letters.
    pub subscription: ResourceName,
    random: Box<str>,
}

/// Text that is no [`RedriveId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id of a redrive: NAMESPACE.SUBSCRIPTION.ID")]
pub struct RedriveIdError(String);

impl RedriveId {
    pub(super) fn random(subscription: &ResourceName) -> Self {
        Self {
            subscription: subscription.clone(),
            random: format!("{:012x}", rand::random::<u64>() >> 16).into(),
        }
    }
}

impl fmt::Display for RedriveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = (self.subscription.namespace(), self.subscription.name());
        write!(f, "{namespace}.{name}.{}", self.random)
    }
}

impl FromStr for RedriveId {
    type Err = RedriveIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let mut parts = text.splitn(3, '.');
            let subscription = ResourceName::try_new(parts.next()?, parts.next()?).ok()?;
            let random = parts.next()?;
            let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            (random.len() == 12 && random.bytes().all(hex)).then(|| Self {
                subscription,
                random: random.into(),
            })
        };
        read().ok_or_else(|| RedriveIdError(text.to_owned()))
    }
}

/// What somebody wants of a redrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Go on.
    Resume,
    /// Wait.
    Pause,
    /// Come to an end.
    Cancel,
}

impl Command {
    /// How the redrive stands after it.
    #[must_use]
    pub fn state(self) -> State {
        match self {
            Self::Resume => State::Running,
            Self::Pause => State::Paused,
            Self::Cancel => State::Cancelled,
        }
    }
}

/// Why a round of work ended.
enum End {
    /// Everything is sent.
    Done,
    /// The process stops, or the redrive was cancelled.
    Left,
}

/// One redrive at work.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) redrive: Redrive,
    /// What was sent before, by this redrive and earlier ones.
    pub(super) ledger: Arc<Ledger>,
    pub(super) commands: watch::Receiver<Command>,
    pub(super) outcomes: Outcomes,
    pub(super) stop: CancellationToken,
}

impl Worker {
    /// Works until it is done, cancelled, or the process stops.
    pub(super) async fn run(mut self) {
        let id = self.redrive.id.clone();
        loop {
            match self.work().await {
                Ok(End::Left) => break,
                Ok(End::Done) => {
                    tracing::info!(redrive = %id, sent = self.redrive.sent, failed = self.redrive.failed, "the redrive is done");
                    break;
                }
                Err(error) => {
                    tracing::warn!(redrive = %id, %error, "the redrive stands still, trying again");
                }
            }
            if self.is_left(AGAIN).await {
                break;
            }
            // What this round sent is in the ledger.
            if let Ok(ledger) = self.shared.ledger(&id.subscription).await {
                if let Some(redrive) = ledger.get(&id) {
                    self.redrive = redrive.clone();
                }
                self.ledger = ledger;
            }
        }
        self.shared.forget_worker(&id);
    }

    async fn work(&mut self) -> Result<End, LogError> {
        let shared = Arc::clone(&self.shared);
        let log = &*shared.log;
        let Some(subscription) = shared.subscription(&self.redrive.id.subscription) else {
            return Err(LogError::Unavailable(
                "the subscription is not in force".into(),
            ));
        };
        let topic = ledger::topic(&subscription.dead_letter_topic);
        let terms = &self.redrive.terms;
        let ranges = shared
            .ranges(&subscription, &terms.filter, Some(&terms.ends))
            .await?;
        let mut scan = Scan::new(
            log,
            &subscription.dead_letter_topic,
            Direction::OldestFirst,
            ranges,
        );
        loop {
            if self.is_left(Duration::ZERO).await {
                return Ok(End::Left);
            }
            if self.look(&topic).await? {
                continue;
            }
            let size = self.batch_size().min(self.outcomes.room());
            let letters = self.gather(&mut scan, &subscription, size).await?;
            if letters.is_empty() && self.stop.is_cancelled() {
                return Ok(End::Left);
            }
            if letters.is_empty() {
                let (state, why) = (State::Done, None);
                ledger::write(log, &topic, &self.redrive.id, Entry::State { state, why }).await?;
                return Ok(End::Done);
            }
            let rounds = letters
                .iter()
                .map(|letter| (letter.id, letter.redriven() + 2));
            self.outcomes.sent(rounds);
            let (sent, failed) = self.send(&subscription, letters).await?;
            self.redrive.sent += sent.len() as u64;
            self.redrive.failed += failed;
            ledger::write(log, &topic, &self.redrive.id, Entry::sent(&sent, failed)).await?;
            if let Some(rate) = self.redrive.terms.rate {
                #[expect(clippy::cast_precision_loss, reason = "a small number")]
                let pause = Duration::from_secs_f64((sent.len() as f64 / rate).min(3600.0));
                if self.is_left(pause).await {
                    return Ok(End::Left);
                }
            }
        }
    }

    /// Looks at what became of what was sent, until some more may be; whether none may, because it
    /// paused or is to end.
    async fn look(&mut self, topic: &TopicName) -> Result<bool, LogError> {
        let begun = Instant::now();
        loop {
            self.observe().await;
            if let Some(why) = self.outcomes.verdict() {
                self.pause(topic, why).await?;
                return Ok(true);
            }
            if self.outcomes.room() > 0 {
                return Ok(false);
            }
            if begun.elapsed() >= PATIENCE {
                self.outcomes.trust();
            }
            if self.is_left(LOOK_AGAIN).await {
                // The caller asks the same, and ends.
                return Ok(true);
            }
        }
    }

    /// Asks the journal about the oldest of those whose outcome is not known.
    async fn observe(&mut self) {
        let Some(journal) = self.shared.journal.clone() else {
            return;
        };
        for (id, round) in self.outcomes.open(ASKED) {
            // A journal that does not answer is asked again the next time.
            let Ok(message) = journal.message(&id.to_string()).await else {
                return;
            };
            self.outcomes.note(id, Fate::of(message.as_ref(), round));
        }
    }

    /// Pauses for a reason of its own. What follows once somebody resumes it counts anew.
    async fn pause(&mut self, topic: &TopicName, why: String) -> Result<(), LogError> {
        let id = &self.redrive.id;
        tracing::warn!(redrive = %id, why, "the redrive pauses: the subscriber still fails");
        let entry = Entry::State {
            state: State::Paused,
            why: Some(why),
        };
        ledger::write(&*self.shared.log, topic, id, entry).await?;
        self.shared.pause(id);
        self.outcomes = Outcomes::default();
        Ok(())
    }

    /// Some four batches a second when the rate is limited.
    fn batch_size(&self) -> u64 {
        let terms = &self.redrive.terms;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is clamped"
        )]
        let paced = |rate: f64| (rate / 4.0).clamp(1.0, BATCH as f64) as u64;
        let size = terms.rate.map_or(BATCH, paced);
        let left = terms
            .limit
            .map(|limit| limit.saturating_sub(self.redrive.sent));
        left.map_or(size, |left| left.min(size))
    }

    /// The next dead letters that are meant.
    async fn gather(
        &self,
        scan: &mut Scan<'_>,
        subscription: &Subscription,
        size: u64,
    ) -> Result<Vec<DeadLetter>, LogError> {
        let mut letters = Vec::new();
        while (letters.len() as u64) < size && !self.stop.is_cancelled() {
            let Some((partition, stored)) = scan.next().await? else {
                break;
            };
            let letter = DeadLetter::read(subscription, partition, stored);
            let Some(letter) = letter else { continue };
            if is_meant(
                &letter,
                subscription,
                &self.redrive.terms,
                Some(&self.redrive),
                &self.ledger,
            ) {
                letters.push(letter);
            }
        }
        Ok(letters)
    }

    /// Writes the dead letters to the retry topic; what is refused for good is counted.
    async fn send(
        &self,
        subscription: &Subscription,
        letters: Vec<DeadLetter>,
    ) -> Result<(Vec<(Partition, Offset)>, u64), LogError> {
        let log = &self.shared.log;
        let now = self.shared.clock.now();
        let mut left: Vec<(&DeadLetter, Partition, Record)> = letters
            .iter()
            .filter_map(|letter| {
                let (partition, record) = letter.redrive(now)?;
                Some((letter, partition, record))
            })
            .collect();
        let (mut sent, mut failed) = (Vec::new(), 0);
        while !left.is_empty() {
            let appending = left.iter().map(|(_, partition, record)| {
                let target = Target::Partition(*partition);
                log.append(&subscription.retry_topic, target, record.clone())
            });
            let results = join_all(appending).await;
            let mut again = Vec::new();
            for (one, result) in left.into_iter().zip(results) {
                match result {
                    Ok(_) => sent.push((one.0.position.partition, one.0.position.offset)),
                    Err(error) if error.is_retryable() => {
                        tracing::debug!(message = %one.0.id, %error, "a dead letter is to be sent again");
                        again.push(one);
                    }
                    Err(error) => {
                        tracing::warn!(message = %one.0.id, %error, "a dead letter cannot be sent round again");
                        failed += 1;
                    }
                }
            }
            left = again;
            // What is sent has to be written down, so a stop does not wait for the rest.
            if !left.is_empty() && self.is_stopping(AGAIN).await {
                break;
            }
        }
        sent.sort_unstable();
        Ok((sent, failed))
    }

    async fn is_stopping(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => true,
            () = sleep(pause) => *self.commands.borrow() == Command::Cancel,
        }
    }

    /// Waits for so long, and while it is paused; whether it is to end.
    async fn is_left(&mut self, pause: Duration) -> bool {
        if !pause.is_zero() {
            tokio::select! {
                () = self.stop.cancelled() => return true,
                () = sleep(pause) => {}
            }
        }
        let command = tokio::select! {
            () = self.stop.cancelled() => return true,
            command = self.commands.wait_for(|command| *command != Command::Pause) => command,
        };
        command.is_ok_and(|command| *command == Command::Cancel)
    }
}

/// Whether a redrive on these terms is to send a dead letter; `own` is what it sent already.
pub(super) fn is_meant(
    letter: &DeadLetter,
    subscription: &Subscription,
    terms: &Terms,
    own: Option<&Redrive>,
    ledger: &Ledger,
) -> bool {
    let is_sent = own.is_some_and(|redrive| redrive.has_sent(letter))
        || (!terms.again && ledger.has_sent(letter));
    !is_sent && terms.filter.matches(letter) && letter.is_redrivable(subscription)
}
