//! The work of a dispatcher: attempts, appends, reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::engine::{AttemptWork, MessageId, SlotId, Store, Work};
use super::parked::OriginKey;
use super::tools::Tools;
use crate::channel::{Sink, Subscription, channel_url};
use crate::delivery::check;
use crate::delivery::{Attempt, AttemptReport, Deliver, Failure, Reason, Success};
use crate::journal::LogRequest;
use crate::log::{
    EventLog, LogError, Offset, Partition, Record, StoredRecord, Target, TopicName, TopicPartition,
};
use crate::manifest::HttpUrl;

/// Offsets that lie closer together are read in one go.
const NEAR: i64 = 64;

/// Work that is done, and what came of it.
pub(super) enum Done {
    Attempted(MessageId, AttemptReport, Option<LogRequest>),
    Checked(MessageId, AttemptReport, Option<LogRequest>),
    Kept(MessageId, Result<(), LogError>),
    Parked(MessageId, Result<(), LogError>),
    Fetched(
        SlotId,
        Vec<(OriginKey, Offset)>,
        Result<Vec<StoredRecord>, LogError>,
    ),
    Checkpointed(SlotId, Result<(), LogError>),
}

/// Does what the engine asks for.
pub(super) async fn perform<D: Deliver>(
    tools: Arc<Tools<D>>,
    subscription: Arc<Subscription>,
    partition: Option<TopicPartition>,
    work: Work,
) -> Done {
    let log = &*tools.log;
    match work {
        Work::Attempt(work) => {
            let id = work.id;
            let (report, request) = attempt(&tools, &subscription, work).await;
            Done::Attempted(id, report, request)
        }
        Work::Check { id, url } => {
            let (report, request) = ask(&tools, &subscription, &url).await;
            Done::Checked(id, report, request)
        }
        Work::Keep(Store {
            id,
            partition,
            record,
        }) => Done::Kept(
            id,
            store(log, &subscription.dead_letter_topic, partition, record).await,
        ),
        Work::Park(Store {
            id,
            partition,
            record,
        }) => Done::Parked(
            id,
            store(log, &subscription.retry_topic, partition, record).await,
        ),
        Work::Fetch { slot, wanted } => {
            let records = match partition {
                Some(at) => fetch(log, &at, &wanted).await,
                None => Ok(Vec::new()),
            };
            Done::Fetched(slot, wanted, records)
        }
        Work::Checkpoint {
            slot,
            partition,
            record,
        } => {
            let stored = store(log, &subscription.retry_topic, partition, record).await;
            Done::Checkpointed(slot, stored)
        }
    }
}

/// Asks a provider what became of a message.
async fn ask<D: Deliver>(
    tools: &Tools<D>,
    subscription: &Subscription,
    url: &Arc<str>,
) -> (AttemptReport, Option<LogRequest>) {
    let delivery = &subscription.delivery;
    let (Some(check), Ok(parsed)) = (&delivery.status_check, HttpUrl::try_new(url)) else {
        let detail = "the subscription has no status check any more, or its address is broken";
        let report = AttemptReport {
            started: tools.clock.now(),
            duration: Duration::ZERO,
            request: None,
            answer: None,
            result: Err(Failure::without_answer(Reason::PipelineError, detail)),
        };
        return (report, None);
    };
    let sink = check::asked(check, &subscription.subscriber, parsed);
    let mut report = tools.deliver.ask(sink, delivery.timeout).await;
    let headers = report.request.take().unwrap_or_default();
    let request = tools.journal.is_on().then(|| LogRequest {
        method: "GET",
        url: Arc::clone(url),
        headers,
    });
    (report, request)
}

async fn store(
    log: &dyn EventLog,
    topic: &TopicName,
    partition: Partition,
    record: Record,
) -> Result<(), LogError> {
    log.append(topic, Target::Partition(partition), record)
        .await
        .map(|_| ())
}

/// Reads the wanted records, which are in the order of their offsets, in sweeps.
async fn fetch(
    log: &dyn EventLog,
    at: &TopicPartition,
    wanted: &[(OriginKey, Offset)],
) -> Result<Vec<StoredRecord>, LogError> {
    let mut found = BTreeMap::new();
    for sweep in wanted.chunk_by(|(_, a), (_, b)| b.0 - a.0 <= NEAR) {
        let (Some((_, first)), Some((_, last))) = (sweep.first(), sweep.last()) else {
            continue;
        };
        let mut next = *first;
        while next <= *last {
            let count = usize::try_from(last.0 - next.0 + 1).unwrap_or(1);
            let records = log.read(at, next, count).await?;
            let Some(end) = records.last().map(|record| record.offset) else {
                break;
            };
            next = Offset(end.0 + 1);
            let wanted = |record: &StoredRecord| {
                sweep
                    .binary_search_by_key(&record.offset, |(_, offset)| *offset)
                    .is_ok()
            };
            found.extend(
                records
                    .into_iter()
                    .filter(wanted)
                    .map(|record| (record.offset, record)),
            );
        }
    }
    Ok(found.into_values().collect())
}

async fn attempt<D: Deliver>(
    tools: &Tools<D>,
    subscription: &Subscription,
    work: AttemptWork,
) -> (AttemptReport, Option<LogRequest>) {
    let told = tools.journal.is_on();
    let delivery = &subscription.delivery;
    match work.sink {
        Sink::Http(sink) => {
            let attempt = Attempt {
                sink,
                format: delivery.format.unwrap_or(work.event.received_as()),
                event: work.event,
                timeout: delivery.timeout,
                retry_codes: delivery.retry_codes.clone(),
                take_reply: work.take_reply,
                pass_through: Vec::new(),
                tell_request: told,
            };
            let url = told.then(|| Arc::clone(&attempt.sink.url));
            let mut report = tools.deliver.attempt(attempt).await;
            let headers = report.request.take().unwrap_or_default();
            let request = url.map(|url| LogRequest {
                method: "POST",
                url,
                headers,
            });
            (report, request)
        }
        Sink::Channel { topic, name } => {
            let request = told.then(|| LogRequest {
                method: "APPEND",
                url: channel_url(&name).into(),
                headers: http::HeaderMap::new(),
            });
            let (began, started) = (Instant::now(), tools.clock.now());
            let record = work.event.to_record();
            let appending = tools.log.append(&topic, Target::ByKey, record);
            let result = match timeout(delivery.timeout, appending).await {
                Ok(Ok(_)) => Ok(Success {
                    code: 202,
                    reply: None,
                }),
                Ok(Err(error)) => {
                    let failure = Failure::without_answer(Reason::PipelineError, error.to_string());
                    Err(Failure {
                        retryable: error.is_retryable(),
                        ..failure
                    })
                }
                Err(_) => Err(Failure::without_answer(
                    Reason::AttemptTimeout,
                    format!("the log did not answer within {:?}", delivery.timeout),
                )),
            };
            let report = AttemptReport {
                started,
                duration: began.elapsed(),
                request: None,
                answer: None,
                result,
            };
            (report, request)
        }
    }
}
