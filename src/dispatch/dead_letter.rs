//! What a dead letter looks like: at a sink, and in the dead-letter topic.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::clock::UnixMillis;
use crate::delivery::{Failure, Reason};
use crate::event::{Event, is_note};
use crate::log::{Headers, HeadersBuilder, Offset, Record, TopicPartition};

/// Why the last attempt failed.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    /// The address of the call that failed.
    pub(crate) dest: String,
    /// The status code; `None`: there was no answer.
    pub(crate) code: Option<u16>,
    /// The answer's body, cut at 1,024 bytes.
    pub(crate) data: Bytes,
    /// Attributes that the answer asked for by `kne-` headers.
    pub(crate) attributes: Vec<(String, String)>,
    /// The cause as API, metrics and page name it.
    pub(crate) reason: Reason,
}

impl Cause {
    pub(crate) fn new(dest: String, failure: Failure) -> Self {
        Self {
            dest,
            code: failure.code,
            data: failure.body,
            attributes: failure.attributes,
            reason: failure.reason,
        }
    }
}

/// Where a message comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) at: TopicPartition,
    pub(crate) offset: Offset,
    /// When the channel topic took the event.
    pub(crate) time: UnixMillis,
    /// How often it was a dead letter that was sent round again.
    pub(crate) redriven: u32,
}

/// The event as a dead-letter sink gets it: unchanged but for the error attributes, whose older
/// values are replaced (requirements C-20, C-21, C-27).
pub(crate) fn letter(event: &Event, cause: &Cause) -> Event {
    let code = cause.code.map(|code| code.to_string()).unwrap_or_default();
    let data = STANDARD.encode(&cause.data);
    // An empty value takes the attribute away.
    let own = [
        ("knativeerrordest", cause.dest.as_str()),
        ("knativeerrorcode", code.as_str()),
        ("knativeerrordata", data.as_str()),
    ];
    let asked = cause
        .attributes
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let all: Vec<(&str, &str)> = asked.chain(own).collect();
    // What a failing subscriber asks for may not make an invalid event; the event itself goes on
    // in any case.
    event
        .with_attributes(&all)
        .or_else(|_| event.with_attributes(&own))
        .unwrap_or_else(|_| event.clone())
}

/// A dead letter as the topic keeps it: the letter, and headers that tell its story.
pub(crate) fn record(
    letter: &Event,
    origin: &Origin,
    cause: &Cause,
    phase: &str,
    (attempts, first_attempt): (u32, Option<UnixMillis>),
) -> Record {
    let record = letter.to_record();
    let headers = story(&record.headers, origin, |push| {
        push("levada-phase", phase.as_bytes());
        push("levada-attempts", attempts.to_string().as_bytes());
        if let Some(first) = first_attempt {
            push("levada-first-attempt", first.0.to_string().as_bytes());
        }
        push("levada-outcome", cause.reason.to_string().as_bytes());
        push("levada-error-dest", cause.dest.as_bytes());
        if let Some(code) = cause.code {
            push("levada-error-code", code.to_string().as_bytes());
        }
        if !cause.data.is_empty() {
            push("levada-error-data", STANDARD.encode(&cause.data).as_bytes());
        }
    });
    Record { headers, ..record }
}

/// A record that is no event, as the topic keeps it: as it was, with the reason.
pub(crate) fn undecodable(
    record: &Record,
    origin: &Origin,
    error: &dyn std::error::Error,
) -> Record {
    let headers = story(&record.headers, origin, |push| {
        push("levada-outcome", b"invalid_event");
        push(
            "levada-error-data",
            STANDARD.encode(error.to_string()).as_bytes(),
        );
    });
    Record {
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
    }
}

pub(crate) fn story(
    headers: &Headers,
    origin: &Origin,
    more: impl FnOnce(&mut dyn FnMut(&str, &[u8])),
) -> Headers {
    let mut builder: HeadersBuilder =
        Headers::builder(headers.len() + 10, headers.byte_len() + 512);
    // A producer's own `levada-` headers would be taken for ours.
    for (name, value) in headers.iter().filter(|(name, _)| !is_note(name)) {
        builder.push(name, value);
    }
    let mut push = |name: &str, value: &[u8]| builder.push(name.as_bytes(), value);
    push("levada-origin-topic", origin.at.topic.as_str().as_bytes());
    push(
        "levada-origin-partition",
        origin.at.partition.0.to_string().as_bytes(),
    );
    push(
        "levada-origin-offset",
        origin.offset.0.to_string().as_bytes(),
    );
    push("levada-origin-time", origin.time.0.to_string().as_bytes());
    if origin.redriven > 0 {
        push("levada-redriven", origin.redriven.to_string().as_bytes());
    }
    more(&mut push);
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Format;
    use crate::log::{Partition, TopicName};

    fn origin() -> Origin {
        Origin {
            at: TopicPartition {
                topic: TopicName::try_new("t").unwrap(),
                partition: Partition(0),
            },
            offset: Offset(7),
            time: UnixMillis(8),
            redriven: 0,
        }
    }

    #[test]
    fn a_producers_notes_are_dropped_and_the_mode_it_sent_in_is_kept() {
        let mut headers = Headers::builder(4, 64);
        for (name, value) in [
            ("ce_id", "1"),
            ("levada-kind", "redrive"),
            ("levada-mode", "structured"),
            ("levada-attempts", "99"),
        ] {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        let record = Record {
            headers: headers.finish(),
            ..Record::default()
        };
        let error = Event::from_record(record.clone()).unwrap_err();
        let kept = undecodable(&record, &origin(), &error).headers;
        assert_eq!(kept.get(b"levada-kind"), None);
        assert_eq!(kept.get(b"levada-attempts"), None);
        assert_eq!(kept.get(b"levada-mode"), Some(&b"structured"[..]));
        assert_eq!(kept.get(b"levada-origin-offset"), Some(&b"7"[..]));
    }

    #[test]
    fn a_dead_letter_goes_out_in_the_mode_its_event_came_in() {
        let json = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":[1, 2]}"#;
        let mut headers = Headers::builder(1, 64);
        headers.push(b"content-type", b"application/cloudevents+json");
        let event = Event::from_record(Record {
            key: None,
            value: Some(Bytes::from_static(json.as_bytes())),
            headers: headers.finish(),
        });
        let failure = Failure::without_answer(Reason::Http(500), "refused");
        let cause = Cause::new("http://s/".into(), failure);
        let letter = letter(&event.unwrap(), &cause);
        assert_eq!(letter.received_as(), Format::Json);
        let kept = record(&letter, &origin(), &cause, "subscriber", (1, None));
        let again = Event::from_record(kept).unwrap();
        assert_eq!(again, letter, "the story is no part of the event");
        assert_eq!(again.received_as(), Format::Json);
    }
}
