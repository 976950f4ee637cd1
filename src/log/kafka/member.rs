//! A group member's callbacks: what librdkafka tells it, kept until its owner asks.
//!
//! Callbacks run on a poll thread that serves other consumers too, so they never wait: a
//! rebalance is put into the mailbox and answered later by the owner, from whatever thread. The
//! group waits for that answer, so one must come, also when the member is closed without it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::Notify;

use super::convert;
use super::error;
use super::poller::Pollable;
use super::report::Reporter;
use crate::log::{GroupEvent, GroupId, LogError, TopicName, TopicPartition};

/// Failures that wait to be looked at; further ones are only traced.
const FAILURES: usize = 16;

/// The consumer of a group member.
pub(super) type Consumption = BaseConsumer<Callbacks>;

/// What a member was told and has not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    Assigned,
    Revoked,
}

/// Where librdkafka's callbacks of one member arrive.
pub(super) struct Callbacks {
    report: Reporter,
    group: GroupId,
    /// Topics whose partitions go where those of the subscribed topic go.
    followers: Vec<TopicName>,
    wake: Arc<Notify>,
    mailbox: Mutex<Mailbox>,
    /// A callback ran: a poll that returned nothing may have more behind it.
    served: AtomicBool,
    /// The owner is gone: answer for it.
    closing: AtomicBool,
}

#[derive(Default)]
struct Mailbox {
    events: VecDeque<GroupEvent>,
    failures: usize,
    unanswered: VecDeque<Unanswered>,
    /// What the last error said, for the event made of it.
    reason: String,
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl Callbacks {
    pub(super) fn new(group: GroupId, followers: Vec<TopicName>, report: Reporter) -> Self {
        Self {
            report,
            group,
            followers,
            wake: Arc::new(Notify::new()),
            mailbox: Mutex::default(),
            served: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self) -> &Arc<Notify> {
        &self.wake
    }

    pub(super) fn next_event(&self) -> Option<GroupEvent> {
        let mut mailbox = self.lock();
        let event = mailbox.events.pop_front();
        if matches!(event, Some(GroupEvent::Failed(_))) {
            mailbox.failures -= 1;
        }
        event
    }

    /// Notes that the oldest rebalance that waits for an answer of this kind has it.
    pub(super) fn answered(&self, kind: Unanswered) {
        let unanswered = &mut self.lock().unanswered;
        if let Some(at) = unanswered.iter().position(|waiting| *waiting == kind) {
            unanswered.remove(at);
        }
    }

    /// From now on rebalances are answered here. Returns those that still wait.
    pub(super) fn begin_closing(&self) -> VecDeque<Unanswered> {
        self.closing.store(true, Ordering::Release);
        std::mem::take(&mut self.lock().unanswered)
    }

    /// The group that it is a member of.
    pub(super) fn group(&self) -> &GroupId {
        &self.group
    }

    /// Whether the member is about to end.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn push(&self, event: GroupEvent, answer: Option<Unanswered>) {
        let mut mailbox = self.lock();
        mailbox.unanswered.extend(answer);
        mailbox.events.push_back(event);
        drop(mailbox);
        self.wake.notify_one();
    }

    fn push_failure(&self, failure: LogError) {
        let mut mailbox = self.lock();
        let ends = matches!(failure, LogError::MembershipLost(_));
        if mailbox.failures >= FAILURES && !ends {
            return;
        }
        mailbox.failures += 1;
        mailbox.events.push_back(GroupEvent::Failed(failure));
        drop(mailbox);
        self.wake.notify_one();
    }

    /// What a poll of the main queue returned as an error.
    fn failed(&self, failure: &KafkaError) {
        use RDKafkaErrorCode as Code;
        let code = error::code(failure);
        let reason = std::mem::take(&mut self.lock().reason);
        match failure {
            KafkaError::MessageConsumptionFatal(_) => {
                self.push_failure(LogError::MembershipLost(format!("{code}: {reason}")));
            }
            _ => match code {
                // The client goes on by itself; the reporter has told it.
                Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::PollExceeded
                | Code::PartitionEOF
                | Code::RequestTimedOut
                | Code::NotCoordinator
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress => {}
                Code::Fatal | Code::FencedInstanceId | Code::UnreleasedInstanceId => {
                    self.push_failure(LogError::MembershipLost(format!("{code}: {reason}")));
                }
                code => {
                    let about = format!("group {}: {reason}", self.group);
                    self.push_failure(error::call(code, about));
                }
            },
        }
    }

    /// The group knows the subscribed topic alone; to us the partitions of the others belong to
    /// the one with the same number.
    fn with_followers(&self, shared: Vec<TopicPartition>) -> Vec<TopicPartition> {
        let follow = |at: &TopicPartition| {
            let partition = at.partition;
            let follower = move |topic: &TopicName| TopicPartition {
                topic: topic.clone(),
                partition,
            };
            self.followers.iter().map(follower).collect::<Vec<_>>()
        };
        let followers: Vec<_> = shared.iter().flat_map(follow).collect();
        shared.into_iter().chain(followers).collect()
    }

    /// Answers a rebalance in the place of an owner that is gone.
    fn answer(consumer: &Consumption, assigned: bool) {
        let answer = if assigned {
            consumer.incremental_assign(&TopicPartitionList::new())
        } else {
            let held = consumer.assignment().unwrap_or_default();
            consumer.incremental_unassign(&held)
        };
        // A client that is terminating takes any answer as the end of all.
        if answer.is_err() {
            drop(consumer.unassign());
        }
    }
}

impl rdkafka::ClientContext for Callbacks {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, line: &str) {
        self.served.store(true, Ordering::Release);
        self.report.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.report.error(&error, reason);
        reason.clone_into(&mut self.lock().reason);
    }

    fn stats_raw(&self, _: &[u8]) {
        self.served.store(true, Ordering::Release);
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        self.served.store(true, Ordering::Release);
        let assigned = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            return Self::answer(consumer, assigned);
        }
        let partitions = self.with_followers(convert::partitions(list));
        if assigned {
            let event = GroupEvent::Assigned(partitions);
            self.push(event, Some(Unanswered::Assigned));
        } else {
            let lost = consumer.assignment_lost();
            let event = GroupEvent::Revoked { partitions, lost };
            self.push(event, Some(Unanswered::Revoked));
        }
    }
}

impl Pollable for Consumption {
    fn poll_main(&self) {
        let callbacks = self.context();
        if callbacks.closing.load(Ordering::Acquire) {
            // Who closes it polls it.
            return;
        }
        poll_until_empty(self);
    }
}

/// Serves the main queue until it is surely empty.
pub(super) fn poll_until_empty(consumer: &Consumption) {
    let callbacks = consumer.context();
    let mut empty = 0;
    while empty < 2 {
        match consumer.poll(Duration::ZERO) {
            None if callbacks.served.swap(false, Ordering::AcqRel) => empty = 0,
            None => empty += 1,
            Some(Err(failure)) => callbacks.failed(&failure),
            Some(Ok(_)) => {
                // Every partition is split off before it is assigned. A record here has passed
                // its source, so this membership would skip it: end it rather.
                let text = "a record came outside its partition's queue";
                callbacks.push_failure(LogError::MembershipLost(text.into()));
            }
        }
    }
}
