//! The writer thread: the only one that changes anything.

mod round;
mod topics;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use self::round::Round;
use super::catalog::{Topic, TopicId};
use super::groups::MemberId;
use super::store::{Change, Store, WriteError};
use super::{Settings, Shared, StoreState};
use crate::clock::Clock;
use crate::log::{Commits, GroupId, LogError, Partition, Position};

/// How long a store that failed is left alone before it is opened anew.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

type Answer<T> = oneshot::Sender<Result<T, LogError>>;

/// What the writer is asked to do.
pub(super) enum Command {
    Append(Append),
    Commit(GroupCommit),
    /// Anything else. It finds everything written that was asked for before.
    Job(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// A record whose partition is chosen.
pub(super) struct Append {
    pub(super) topic: Arc<Topic>,
    pub(super) partition: Partition,
    /// Encoded, without its time.
    pub(super) record: Vec<u8>,
    pub(super) answer: Answer<Position>,
}

/// A group's commits.
pub(super) struct GroupCommit {
    pub(super) group: GroupId,
    pub(super) by: CommitAs,
    pub(super) commits: Commits,
    pub(super) answer: Answer<()>,
}

/// Who commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitAs {
    Member(MemberId),
    /// Somebody from outside; the group must have no member.
    Nobody,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Append(_) => "Append",
            Self::Commit(_) => "Commit",
            Self::Job(_) => "Job",
        })
    }
}

/// The writer thread's own.
pub(super) struct Writer {
    shared: Arc<Shared>,
    settings: Settings,
    clock: Clock,
    /// Partitions with records below their low watermark.
    purges: VecDeque<(Arc<Topic>, Partition)>,
    last_topic_id: TopicId,
    next_expiry: Instant,
    pub(super) repair: Repair,
}

/// What is to be done about a store that failed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Repair {
    /// Nothing, it works.
    Unneeded,
    /// Open it anew.
    At(Instant),
    /// Wait for a restart: what the disk holds cannot be told from what the system holds of it.
    Never,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, settings: Settings, clock: Clock) -> Self {
        Self {
            shared,
            settings,
            clock,
            purges: VecDeque::new(),
            last_topic_id: TopicId(0),
            next_expiry: Instant::now(),
            repair: Repair::Unneeded,
        }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.shared));
        let mut commands = Vec::new();
        let mut open = true;
        while open {
            open = self.shared.queue.take(&mut commands, self.patience());
            self.serve(&mut commands);
            self.mend();
            self.expire();
            self.purge_some();
        }
    }

    /// How long there is nothing to do but to wait for commands.
    fn patience(&self) -> Duration {
        match self.repair {
            Repair::At(time) => time.saturating_duration_since(Instant::now()),
            Repair::Unneeded if !self.purges.is_empty() => Duration::ZERO,
            Repair::Unneeded | Repair::Never => {
                self.next_expiry.saturating_duration_since(Instant::now())
            }
        }
    }

    fn serve(&mut self, commands: &mut Vec<Command>) {
        let now = self.clock.now();
        let mut round = Round::default();
        for command in commands.drain(..) {
            match command {
                Command::Append(append) => round.append(append, now),
                Command::Commit(commit) => round.commit(commit, &self.shared),
                Command::Job(job) => {
                    self.finish(std::mem::take(&mut round));
                    job(self);
                }
            }
        }
        self.finish(round);
    }

    fn finish(&mut self, mut round: Round) {
        if !round.is_empty() {
            let written = self.write(round.take_changes());
            round.answer(written);
        }
    }

    /// Writes `changes` to disk, all or nothing.
    fn write(&mut self, changes: Vec<Change>) -> Result<(), LogError> {
        self.with_store(|store| store.write(changes))
    }

    fn with_store<T>(
        &mut self,
        work: impl FnOnce(&Store) -> Result<T, WriteError>,
    ) -> Result<T, LogError> {
        let done = match &**self.shared.store.load() {
            StoreState::Open(store) => work(store),
            StoreState::Down(reason) => return Err(LogError::Unavailable(reason.clone())),
        };
        done.map_err(|error| self.fail(error))
    }

    /// Takes the store out of use after a failed write.
    pub(super) fn fail(&mut self, error: WriteError) -> LogError {
        let (repair, advice) = match &error {
            WriteError::Failed(_) => (Repair::At(Instant::now() + REOPEN_AFTER), ""),
            WriteError::Unconfirmed(_) => {
                let advice = "; the disk failed to confirm it: check the disk, then restart";
                (Repair::Never, advice)
            }
        };
        let dir = self.settings.dir.display();
        let reason = format!("writing to {dir} failed: {}{advice}", error.into_inner());
        tracing::error!(
            reason,
            "the embedded log stores nothing until this is mended"
        );
        self.repair = repair;
        self.shared
            .store
            .store(Arc::new(StoreState::Down(reason.clone())));
        LogError::Unavailable(reason)
    }

    /// Opens a store that failed anew, when it is time to.
    pub(super) fn mend(&mut self) {
        match self.repair {
            Repair::At(time) if time <= Instant::now() => match self.open_store() {
                Ok(()) => tracing::info!("the embedded log stores again"),
                Err(error) => {
                    let reason = format!("{} {error}", self.settings.dir.display());
                    tracing::debug!(reason, "the embedded log is still out of use");
                    self.repair = Repair::At(Instant::now() + REOPEN_AFTER);
                }
            },
            Repair::At(_) | Repair::Unneeded | Repair::Never => {}
        }
    }

    /// Opens the store and takes over what it says.
    pub(super) fn open_store(&mut self) -> Result<(), LogError> {
        let store = Store::open(&self.settings.dir, self.settings.cache_bytes)?;
        self.adopt(store.load()?, store.last_topic_id()?);
        self.repair = Repair::Unneeded;
        self.shared.store.store(Arc::new(StoreState::Open(store)));
        for topic in self.shared.catalog.all() {
            topic.wake_watchers();
        }
        Ok(())
    }

    /// Whether writing works.
    pub(super) fn probe(&mut self) -> Result<(), LogError> {
        self.with_store(|store| store.check_alive().map_err(WriteError::Failed))
    }
}

/// Leaves nobody waiting, also when the thread panics.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.queue.close();
        let mut unanswered = Vec::new();
        self.0.queue.take(&mut unanswered, Duration::ZERO);
        let down = StoreState::Down("the log is closed".to_owned());
        self.0.store.store(Arc::new(down));
    }
}
