//! Records of the retry topic: a message that waits, with all that its next owner has to know;
//! and checkpoints of what is finished there.

use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::dead_letter::{Cause, Origin, story};
use super::parked::OriginKey;
use crate::channel::Format;
use crate::clock::UnixMillis;
use crate::delivery::Reason;
use crate::event::{Decoded, Event, EventError};
use crate::log::{Headers, Offset, Partition, Record, TopicName, TopicPartition};

/// Whose turn it is when the message is due.
#[derive(Clone, Debug)]
pub(crate) enum ParkedPhase {
    /// The subscriber's.
    Subscriber,
    /// The reply sink's, for this reply.
    Reply(Arc<Event>),
    /// The provider's, which is asked at this address what became of the message.
    Check(Arc<str>),
    /// The dead-letter sink's; the event of the record is the letter.
    DeadLetter(Cause),
}

/// A message that waits in the retry topic.
#[derive(Clone, Debug)]
pub(crate) struct Parked {
    pub(crate) origin: Origin,
    pub(crate) event: Arc<Event>,
    pub(crate) phase: ParkedPhase,
    /// Attempts made in this phase.
    pub(crate) attempts: u32,
    /// When the first of them ended; `None` before it, in a new round.
    pub(crate) first_attempt: Option<UnixMillis>,
    pub(crate) due: UnixMillis,
    /// Why it waits.
    pub(crate) reason: Reason,
}

/// A record of the retry topic that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RetryRecordError {
    #[error("header {0} is missing or has no valid value")]
    Header(&'static str),
    #[error(transparent)]
    Event(#[from] EventError),
}

const KIND: &str = "levada-kind";
const PHASE: &str = "levada-phase";
const TOPIC: &str = "levada-origin-topic";
const PARTITION: &str = "levada-origin-partition";
const OFFSET: &str = "levada-origin-offset";
const TIME: &str = "levada-origin-time";
const FIRST: &str = "levada-first-attempt";
const ATTEMPTS: &str = "levada-attempts";
const DUE: &str = "levada-due";
const OUTCOME: &str = "levada-outcome";
const REDRIVEN: &str = "levada-redriven";
const REPLY: &str = "levada-reply";
/// How the subscriber sent the reply, if as JSON; the reply is kept as JSON in any case.
const REPLY_MODE: &str = "levada-reply-mode";
/// Where a status is told.
const CHECK: &str = "levada-check-url";
const DEST: &str = "levada-error-dest";
const CODE: &str = "levada-error-code";
const DATA: &str = "levada-error-data";

/// What the index needs of a record, read without touching the event.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) origin: Origin,
    pub(crate) phase: u8,
    pub(crate) attempts: u32,
    pub(crate) due: UnixMillis,
    /// Whether somebody wished the message to begin anew.
    pub(crate) redrive: bool,
}

/// What a record of the retry topic is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A message that waits.
    Waiting(Entry),
    /// Offsets of this partition that are finished.
    Checkpoint(Vec<Range<Offset>>),
    /// Somebody wants the attempt that a message waits for made at once.
    Wish(OriginKey),
}

impl Parked {
    /// The record to append.
    pub(crate) fn to_record(&self) -> Record {
        let record = self.event.to_record();
        let headers = story(&record.headers, &self.origin, |push| {
            let check = matches!(self.phase, ParkedPhase::Check(_));
            push(KIND, if check { b"check" } else { b"retry" });
            push(ATTEMPTS, self.attempts.to_string().as_bytes());
            if let Some(first) = self.first_attempt {
                push(FIRST, first.0.to_string().as_bytes());
            }
            push(DUE, self.due.0.to_string().as_bytes());
            push(OUTCOME, self.reason.to_string().as_bytes());
            match &self.phase {
                ParkedPhase::Subscriber => push(PHASE, b"subscriber"),
                ParkedPhase::Reply(reply) => {
                    push(PHASE, b"reply");
                    push(REPLY, &reply.to_structured_json());
                    if reply.received_as() == Format::Json {
                        push(REPLY_MODE, b"structured");
                    }
                }
                ParkedPhase::Check(url) => {
                    push(PHASE, b"check");
                    push(CHECK, url.as_bytes());
                }
                ParkedPhase::DeadLetter(cause) => {
                    push(PHASE, b"dead-letter");
                    push(DEST, cause.dest.as_bytes());
                    if let Some(code) = cause.code {
                        push(CODE, code.to_string().as_bytes());
                    }
                    push(DATA, STANDARD.encode(&cause.data).as_bytes());
                }
            }
        });
        // The value and the key stay; the key decides the lane of nothing here, but a redriven
        // event finds its own again.
        Record { headers, ..record }
    }

    /// The message that a record holds.
    ///
    /// # Errors
    /// [`RetryRecordError`] when a header is missing or the event is none.
    pub(crate) fn from_record(record: Record) -> Result<Self, RetryRecordError> {
        let headers = record.headers.clone();
        let entry = entry(&headers)?;
        let phase = match entry.phase {
            0 => ParkedPhase::Subscriber,
            1 => ParkedPhase::Reply(Arc::new(reply(&headers)?)),
            3 => ParkedPhase::Check(text(&headers, CHECK)?.into()),
            _ => ParkedPhase::DeadLetter(cause(&headers)?),
        };
        Ok(Self {
            first_attempt: optional(&headers, FIRST)?.map(UnixMillis),
            reason: text(&headers, OUTCOME)?
                .parse()
                .map_err(|_| RetryRecordError::Header(OUTCOME))?,
            origin: entry.origin,
            phase,
            attempts: entry.attempts,
            due: entry.due,
            event: Arc::new(Event::from_record(record)?),
        })
    }
}

/// The record that sends a dead letter round again: its event with all its attempts before it.
/// `reason` is why it became a dead letter.
pub(crate) fn redrive(event: &Event, origin: &Origin, reason: Reason, due: UnixMillis) -> Record {
    let record = event.to_record();
    let headers = story(&record.headers, origin, |push| {
        push(KIND, b"redrive");
        push(PHASE, b"subscriber");
        push(ATTEMPTS, b"0");
        push(DUE, due.0.to_string().as_bytes());
        push(OUTCOME, reason.to_string().as_bytes());
    });
    Record { headers, ..record }
}

/// The record that has a message which waits be tried at once.
pub(crate) fn wish(origin: &Origin) -> Record {
    let headers = story(&Headers::default(), origin, |push| push(KIND, b"wish"));
    Record {
        key: None,
        value: None,
        headers,
    }
}

/// What a record of the retry topic says to the index.
///
/// # Errors
/// [`RetryRecordError::Header`] when it is none of ours.
pub(crate) fn kind(record: &Record) -> Result<Kind, RetryRecordError> {
    match text(&record.headers, KIND)? {
        "retry" | "redrive" | "check" => entry(&record.headers).map(Kind::Waiting),
        "checkpoint" => Ok(Kind::Checkpoint(ranges(
            record.value.as_deref().unwrap_or_default(),
        ))),
        "wish" => Ok(Kind::Wish(OriginKey {
            partition: Partition(number(&record.headers, PARTITION)?),
            offset: Offset(number(&record.headers, OFFSET)?),
        })),
        _ => Err(RetryRecordError::Header(KIND)),
    }
}

fn entry(headers: &Headers) -> Result<Entry, RetryRecordError> {
    let phase = match text(headers, PHASE)? {
        "subscriber" => 0,
        "reply" => 1,
        "dead-letter" => 2,
        "check" => 3,
        _ => return Err(RetryRecordError::Header(PHASE)),
    };
    let topic =
        TopicName::try_new(text(headers, TOPIC)?).map_err(|_| RetryRecordError::Header(TOPIC))?;
    let partition = Partition(number(headers, PARTITION)?);
    Ok(Entry {
        origin: Origin {
            at: TopicPartition { topic, partition },
            offset: Offset(number(headers, OFFSET)?),
            time: UnixMillis(number(headers, TIME)?),
            redriven: optional(headers, REDRIVEN)?.unwrap_or(0),
        },
        phase,
        attempts: number(headers, ATTEMPTS)?,
        due: UnixMillis(number(headers, DUE)?),
        redrive: text(headers, KIND)? == "redrive",
    })
}

fn reply(headers: &Headers) -> Result<Event, RetryRecordError> {
    let body = headers
        .get(REPLY.as_bytes())
        .ok_or(RetryRecordError::Header(REPLY))?;
    let mut structured = http::HeaderMap::new();
    structured.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/cloudevents+json"),
    );
    let mode = match headers.get(REPLY_MODE.as_bytes()) {
        Some(_) => Format::Json,
        None => Format::Binary,
    };
    match Event::from_http(&structured, Bytes::copy_from_slice(body))? {
        Decoded::One(event) => Ok(event.as_received(mode)),
        Decoded::Batch(_) => Err(RetryRecordError::Header(REPLY)),
    }
}

fn cause(headers: &Headers) -> Result<Cause, RetryRecordError> {
    let code = optional(headers, CODE)?;
    let data = STANDARD
        .decode(text(headers, DATA)?)
        .map_err(|_| RetryRecordError::Header(DATA))?;
    Ok(Cause {
        dest: text(headers, DEST)?.to_owned(),
        code,
        data: data.into(),
        attributes: Vec::new(),
        reason: code.map_or(Reason::PipelineError, Reason::Http),
    })
}

fn text<'h>(headers: &'h Headers, name: &'static str) -> Result<&'h str, RetryRecordError> {
    let value = headers
        .get(name.as_bytes())
        .ok_or(RetryRecordError::Header(name))?;
    std::str::from_utf8(value).map_err(|_| RetryRecordError::Header(name))
}

fn number<N: FromStr>(headers: &Headers, name: &'static str) -> Result<N, RetryRecordError> {
    text(headers, name)?
        .parse()
        .map_err(|_| RetryRecordError::Header(name))
}

fn optional<N: FromStr>(
    headers: &Headers,
    name: &'static str,
) -> Result<Option<N>, RetryRecordError> {
    headers
        .get(name.as_bytes())
        .map(|_| number(headers, name))
        .transpose()
}

/// A checkpoint record that says that `done` is finished.
pub(crate) fn checkpoint(done: &[Range<Offset>]) -> Record {
    let mut headers = Headers::builder(1, 32);
    headers.push(KIND.as_bytes(), b"checkpoint");
    let mut value = Vec::with_capacity(done.len() * 16);
    for range in done {
        value.extend_from_slice(&range.start.0.to_le_bytes());
        value.extend_from_slice(&range.end.0.to_le_bytes());
    }
    Record {
        key: None,
        value: Some(value.into()),
        headers: headers.finish(),
    }
}

fn ranges(value: &[u8]) -> Vec<Range<Offset>> {
    let number = |bytes: &[u8]| Some(Offset(i64::from_le_bytes(bytes.try_into().ok()?)));
    value
        .chunks_exact(16)
        .filter_map(|pair| Some(number(&pair[..8])?..number(&pair[8..])?))
        .filter(|range| range.start < range.end)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> Arc<Event> {
        let mut headers = Headers::builder(5, 64);
        headers.push(b"ce_specversion", b"1.0");
        headers.push(b"ce_id", id.as_bytes());
        headers.push(b"ce_type", b"t");
        headers.push(b"ce_source", b"/s");
        headers.push(b"content-type", b"text/plain");
        let value = Some(Bytes::from_static(b"data"));
        Arc::new(
            Event::from_record(Record {
                key: None,
                value,
                headers: headers.finish(),
            })
            .unwrap(),
        )
    }

    fn parked(phase: ParkedPhase) -> Parked {
        let topic = TopicName::try_new("ch").unwrap();
        let at = TopicPartition {
            topic,
            partition: Partition(3),
        };
        Parked {
            origin: Origin {
                at,
                offset: Offset(42),
                time: UnixMillis(1_000),
                redriven: 2,
            },
            event: event("e"),
            phase,
            attempts: 2,
            first_attempt: Some(UnixMillis(1_500)),
            due: UnixMillis(9_000),
            reason: Reason::Http(503),
        }
    }

    #[test]
    fn what_is_parked_comes_back() {
        let cause = Cause {
            dest: "http://s/".into(),
            code: Some(422),
            data: Bytes::from_static(b"no"),
            attributes: Vec::new(),
            reason: Reason::Http(422),
        };
        let json = Event::clone(&event("r")).as_received(Format::Json);
        let phases = [
            ParkedPhase::Subscriber,
            ParkedPhase::Reply(event("r")),
            ParkedPhase::Reply(Arc::new(json)),
            ParkedPhase::DeadLetter(cause),
            ParkedPhase::Check("http://mail.test/status/1".into()),
        ];
        for (number, phase) in [0, 1, 1, 2].into_iter().zip(phases) {
            let before = parked(phase);
            let record = before.to_record();
            let Kind::Waiting(entry) = kind(&record).unwrap() else {
                panic!("{record:?}")
            };
            assert_eq!(entry.phase, number);
            assert_eq!((entry.attempts, entry.due), (2, UnixMillis(9_000)));
            let after = Parked::from_record(record).unwrap();
            assert_eq!(after.origin.offset, Offset(42));
            assert_eq!(after.origin.at, before.origin.at);
            assert_eq!(after.origin.time, UnixMillis(1_000));
            assert_eq!(after.origin.redriven, 2);
            assert_eq!(after.first_attempt, Some(UnixMillis(1_500)));
            assert_eq!(after.reason, Reason::Http(503));
            assert_eq!(after.event, before.event);
            match (before.phase, after.phase) {
                (ParkedPhase::Subscriber, ParkedPhase::Subscriber) => {}
                (ParkedPhase::Check(a), ParkedPhase::Check(b)) => assert_eq!(a, b),
                (ParkedPhase::Reply(a), ParkedPhase::Reply(b)) => {
                    assert_eq!(a.attribute("id"), b.attribute("id"));
                    assert_eq!(a.data(), b.data());
                    assert_eq!(a.received_as(), b.received_as());
                }
                (ParkedPhase::DeadLetter(a), ParkedPhase::DeadLetter(b)) => {
                    assert_eq!((a.dest, a.code, a.data), (b.dest, b.code, b.data));
                }
                phases => panic!("{phases:?}"),
            }
        }
    }

    #[test]
    fn a_redriven_message_begins_anew_and_keeps_its_past() {
        let origin = parked(ParkedPhase::Subscriber).origin;
        let record = redrive(&event("e"), &origin, Reason::Dns, UnixMillis(5));
        let Kind::Waiting(entry) = kind(&record).unwrap() else {
            panic!("{record:?}")
        };
        assert!(entry.redrive);
        let after = Parked::from_record(record).unwrap();
        assert_eq!((after.attempts, after.first_attempt), (0, None));
        assert_eq!((after.due, after.origin.redriven), (UnixMillis(5), 2));
        assert_eq!(after.event, event("e"));
    }

    #[test]
    fn what_is_not_ours_is_an_error_that_names_the_header() {
        let record = event("e").to_record();
        assert!(matches!(kind(&record), Err(RetryRecordError::Header(KIND))));
        let mut headers = Headers::builder(1, 32);
        headers.push(KIND.as_bytes(), b"retry");
        let record = Record {
            headers: headers.finish(),
            ..Record::default()
        };
        assert!(matches!(
            kind(&record),
            Err(RetryRecordError::Header(PHASE))
        ));
    }

    #[test]
    fn checkpoints_come_back_and_damage_says_nothing() {
        let done = [Offset(1)..Offset(5), Offset(9)..Offset(10)];
        let Kind::Checkpoint(found) = kind(&checkpoint(&done)).unwrap() else {
            panic!()
        };
        assert_eq!(found, done);
        assert_eq!(ranges(&[1, 2, 3]), []);
        let backwards = checkpoint(&[Offset(5)..Offset(1)]);
        assert!(matches!(kind(&backwards), Ok(Kind::Checkpoint(found)) if found.is_empty()));
    }
}
