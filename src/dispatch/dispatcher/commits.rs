//! Commits, one at a time, and the trimming of the retry topic behind them.

use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;

use super::group::LastCommit;
use super::{Dispatcher, TRIM_INTERVAL};
use crate::delivery::Deliver;
use crate::dispatch::engine::SlotId;
use crate::log::{Commits, LogError, LogFuture, Offset, Partition, TopicPartition};

/// A commit on its way.
pub(super) struct Committing {
    pub(super) slots: Vec<SlotId>,
    pub(super) commits: Commits,
    pub(super) step: Step,
}

/// How far a commit is.
pub(super) enum Step {
    /// What it rests on is being journalled.
    Storing(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// It was sent.
    Sent(LogFuture<'static, ()>),
}

/// What a commit came to.
pub(super) enum Stepped {
    /// It may be sent.
    Stored,
    /// It was answered.
    Answered(Result<(), LogError>),
}

/// How far one partition of the retry topic is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trim {
    pub(super) committed: Offset,
    pub(super) trimmed: Offset,
}

pub(super) type Trimming = (Vec<(Partition, Offset)>, LogFuture<'static, ()>);

impl<D: Deliver> Dispatcher<D> {
    pub(super) fn begin_commit(&mut self, now: Instant) {
        if self.committing.is_none() && now >= self.next_commit && self.engine.is_dirty() {
            let slots = self.engine.live_slots();
            self.commit(&slots);
        }
    }

    /// Sends what changed on `slots`; whether there was anything.
    pub(super) fn commit(&mut self, slots: &[SlotId]) -> bool {
        let changed = self.engine.commits(slots);
        self.next_commit = Instant::now() + self.tools.settings.commit_interval;
        if changed.is_empty() {
            return false;
        }
        let slots: Vec<SlotId> = changed.iter().map(|(slot, _)| *slot).collect();
        let commits: Commits = changed
            .into_iter()
            .map(|(slot, commit)| (self.engine.partition(slot).clone(), commit))
            .collect();
        self.tell();
        let step = if self.tools.journal.is_on() {
            Step::Storing(Box::pin(self.tools.journal.stored(self.told)))
        } else {
            Step::Sent(self.membership.commit(commits.clone()))
        };
        self.committing = Some(Committing {
            slots,
            commits,
            step,
        });
        true
    }

    /// A commit came a step further.
    pub(super) fn commit_stepped(&mut self, stepped: Stepped) {
        match (stepped, &mut self.committing) {
            (Stepped::Stored, Some(committing)) => {
                committing.step = Step::Sent(self.membership.commit(committing.commits.clone()));
            }
            (Stepped::Stored, None) => {}
            (Stepped::Answered(result), _) => self.commit_ended(result),
        }
    }

    pub(super) fn commit_ended(&mut self, result: Result<(), LogError>) {
        let Some(Committing {
            slots, mut commits, ..
        }) = self.committing.take()
        else {
            return;
        };
        self.next_commit = Instant::now() + self.tools.settings.commit_interval;
        match result {
            Ok(()) => {
                for (at, commit) in &commits {
                    self.note_commit(at, commit.offset);
                }
            }
            Err(LogError::MetadataRefused(why))
                if commits.iter().any(|c| !c.1.metadata.is_empty()) =>
            {
                self.metrics.metadata_refused();
                tracing::warn!(
                    subscription = %self.subscription.name, why,
                    "the commit's metadata was refused: it is repeated without"
                );
                for (_, commit) in &mut commits {
                    commit.metadata.clear();
                }
                let result = self.membership.commit(commits.clone());
                self.committing = Some(Committing {
                    slots,
                    commits,
                    step: Step::Sent(result),
                });
            }
            Err(error) => {
                tracing::debug!(subscription = %self.subscription.name, %error, "a commit failed");
                for slot in slots {
                    self.engine.commit_failed(slot);
                }
                for revocation in &mut self.revocations {
                    // Another try, as long as there is time.
                    if Instant::now() < revocation.deadline {
                        revocation.last_commit = LastCommit::Due(self.next_commit);
                    }
                }
                if let LogError::MembershipLost(_) = error {
                    self.lost.get_or_insert(error);
                }
            }
        }
    }

    pub(super) fn note_commit(&mut self, at: &TopicPartition, offset: Offset) {
        if at.topic == self.subscription.retry_topic {
            let trim = Trim {
                committed: offset,
                trimmed: offset,
            };
            self.trims.entry(at.partition).or_insert(trim).committed = offset;
        } else {
            self.progress.committed(at, offset);
        }
    }

    /// Nothing in the retry topic expires: what is behind the commits is deleted, now and then.
    pub(super) fn begin_trim(&mut self, now: Instant) {
        if self.trimming.is_some() || now < self.next_trim {
            return;
        }
        self.next_trim = now + TRIM_INTERVAL;
        let behind = |(partition, trim): (&Partition, &Trim)| {
            (trim.committed > trim.trimmed).then_some((*partition, trim.committed))
        };
        let before: Vec<(Partition, Offset)> = self.trims.iter().filter_map(behind).collect();
        if before.is_empty() {
            return;
        }
        let (log, topic) = (
            Arc::clone(&self.tools.log),
            self.subscription.retry_topic.clone(),
        );
        let what = before.clone();
        let trimming = Box::pin(async move { log.trim(&topic, &what).await });
        self.trimming = Some((before, trimming));
    }

    pub(super) fn trim_ended(&mut self, result: Result<(), LogError>) {
        let Some((before, _)) = self.trimming.take() else {
            return;
        };
        if let Err(error) = result {
            tracing::warn!(
                subscription = %self.subscription.name, %error,
                "the retry topic cannot be trimmed: it grows until it can"
            );
        }
        for (partition, offset) in before {
            if let Some(trim) = self.trims.get_mut(&partition) {
                trim.trimmed = offset;
            }
        }
    }
}

/// The next step of the commit on its way; never, when there is none.
pub(super) async fn step_of(committing: &mut Option<Committing>) -> Stepped {
    match committing.as_mut().map(|committing| &mut committing.step) {
        Some(Step::Storing(stored)) => {
            stored.await;
            Stepped::Stored
        }
        Some(Step::Sent(answer)) => Stepped::Answered(answer.await),
        None => std::future::pending().await,
    }
}

pub(super) async fn trimmed(trimming: &mut Option<Trimming>) -> Result<(), LogError> {
    match trimming {
        Some((_, result)) => result.await,
        None => std::future::pending().await,
    }
}
