//! From an HTTP answer to an outcome: what is read of the body, and what its headers say.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::{Answer, ERROR_BODY_BYTES, Failure, Reason, Success};
use crate::channel::RetryCodes;
use crate::clock::UnixMillis;

/// An attribute from a `kne-` header is cut off here; an event holds more than one of them.
const ATTRIBUTE_BYTES: usize = 4096;

/// How much of a body to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes that are kept.
    pub(super) keep: usize,
    /// Bytes that are read at most, so that the connection can be used again.
    pub(super) read: usize,
}

/// How reading a body ended.
#[derive(Debug)]
pub(super) enum End {
    /// All of it was read.
    Complete,
    /// It is longer than the bound; the rest was left and the connection with it.
    Bound,
    /// It broke off.
    Broken(hyper::Error),
}

/// Reads into `kept` what the bounds allow. Cancelling it leaves in `kept` what had come.
pub(super) async fn read_body(body: &mut Incoming, bounds: Bounds, kept: &mut BytesMut) -> End {
    let announced = body.size_hint().lower();
    // What cannot be read to its end is read only as far as it is of use.
    let limit = if announced > bounds.read as u64 {
        bounds.keep
    } else {
        bounds.read
    };
    let mut count = 0;
    loop {
        match body.frame().await {
            None => return End::Complete,
            Some(Err(error)) => return End::Broken(error),
            Some(Ok(frame)) => {
                let Some(data) = frame.data_ref() else {
                    continue;
                };
                count += data.len();
                let room = bounds.keep - kept.len();
                kept.extend_from_slice(&data[..data.len().min(room)]);
                if count >= limit && !body.is_end_stream() {
                    return End::Bound;
                }
            }
        }
    }
}

/// The failure that an answer which is no success means.
pub(super) fn refused(answer: &Answer, codes: &RetryCodes, now: UnixMillis) -> Failure {
    let body = answer.body.slice(..answer.body.len().min(ERROR_BODY_BYTES));
    let status = StatusCode::from_u16(answer.code).ok();
    let phrase = status.and_then(|status| status.canonical_reason());
    Failure {
        reason: Reason::Http(answer.code),
        code: Some(answer.code),
        body,
        retryable: codes.contains(answer.code),
        retry_after: match answer.code {
            429 | 503 => retry_after(&answer.headers, now),
            _ => None,
        },
        attributes: error_attributes(&answer.headers),
        detail: format!("the sink answered {} {}", answer.code, phrase.unwrap_or(""))
            .trim_end()
            .to_owned(),
    }
}

/// `Retry-After` as seconds or an HTTP date; anything else, and what is past, says nothing.
pub(super) fn retry_after(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are still a long time; the cap is the caller's.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let date = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    let date = UnixMillis(i64::try_from(date.as_millis()).ok()?);
    Some(date.since(now)).filter(|wait| !wait.is_zero())
}

/// The attributes in `kne-<name>` headers. One that cannot be an attribute is left out.
pub(super) fn error_attributes(headers: &HeaderMap) -> Vec<(String, String)> {
    let attribute = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        let name = name.as_str().strip_prefix("kne-")?;
        let value = std::str::from_utf8(value.as_bytes()).ok()?;
        let fits = is_extension_name(name) && is_attribute_value(value);
        fits.then(|| (name.to_owned(), value.to_owned()))
    };
    let mut attributes: Vec<(String, String)> = Vec::new();
    for (name, value) in headers.iter().filter_map(attribute) {
        if attributes.iter().all(|(other, _)| *other != name) {
            attributes.push((name, value));
        }
    }
    attributes
}

/// Whether an answer may set an attribute of that name: an extension, and none of ours.
fn is_extension_name(name: &str) -> bool {
    const TAKEN: [&str; 13] = [
        "id",
        "source",
        "specversion",
        "type",
        "subject",
        "time",
        "data",
        "datacontenttype",
        "dataschema",
        "partitionkey",
        "knativeerrordest",
        "knativeerrorcode",
        "knativeerrordata",
    ];
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=64).contains(&name.len()) && name.bytes().all(legal) && !TAKEN.contains(&name)
}

/// Whether text may be an attribute's value: no control characters or noncharacters.
fn is_attribute_value(value: &str) -> bool {
    let noncharacter = |c: char| {
        let code = u32::from(c);
        (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
    };
    value.len() <= ATTRIBUTE_BYTES && !value.chars().any(|c| c.is_control() || noncharacter(c))
}

/// Whether the headers of a 200 announce an event in it.
pub(super) fn announces_event(headers: &HeaderMap) -> bool {
    if headers.contains_key("ce-specversion") {
        return true;
    }
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let is = |name: &str| essence.eq_ignore_ascii_case(name);
    is("application/cloudevents+json") || is("application/cloudevents")
}

/// Puts the event of a 200 into `success`, where there is a valid one.
pub(super) fn take_reply(headers: &HeaderMap, body: Bytes, success: &mut Success) {
    let _ = (headers, body, success);
}

/// The answer as it is reported.
pub(super) fn report(
    code: u16,
    headers: HeaderMap,
    body: Bytes,
    keep: usize,
    whole: bool,
) -> Answer {
    let truncated = !whole || body.len() > keep;
    Answer {
        code,
        headers,
        body: body.slice(..body.len().min(keep)),
        truncated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_522_900_584_000); // 2018-04-05T03:56:24Z

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_to_come() {
        for (text, expected) in [
            ("0", Some(0)),
            ("30", Some(30)),
            (" 7 ", Some(7)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Thu, 05 Apr 2018 03:57:24 GMT", Some(60)),
            ("Thu, 05 Apr 2018 03:56:24 GMT", None),
            ("Thu, 05 Apr 2018 03:55:24 GMT", None),
            ("Thu, 01 Jan 1970 00:00:00 GMT", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
        ] {
            let found = retry_after(&headers(&[("retry-after", text)]), NOW);
            assert_eq!(found, expected.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), NOW), None);
    }

    #[test]
    fn only_a_429_or_503_says_when_to_come_again() {
        for (code, expected) in [(429, Some(9)), (503, Some(9)), (500, None), (400, None)] {
            let answer = report(
                code,
                headers(&[("retry-after", "9")]),
                Bytes::new(),
                9,
                true,
            );
            let failure = refused(&answer, &RetryCodes::Standard, NOW);
            assert_eq!(
                failure.retry_after,
                expected.map(Duration::from_secs),
                "{code}"
            );
            assert_eq!(failure.retryable, code != 400);
            assert_eq!(failure.reason, Reason::Http(code));
        }
    }

    #[test]
    fn the_list_of_a_subscription_replaces_the_standard_codes() {
        let codes = RetryCodes::Listed([(301, 301), (410, 418)].into());
        for (code, expected) in [(301, true), (302, false), (413, true), (503, false)] {
            let answer = report(code, HeaderMap::new(), Bytes::new(), 9, true);
            assert_eq!(refused(&answer, &codes, NOW).retryable, expected, "{code}");
        }
    }

    #[test]
    fn an_error_keeps_the_first_1024_bytes() {
        let answer = report(422, HeaderMap::new(), vec![b'x'; 4096].into(), 4096, true);
        assert_eq!(
            refused(&answer, &RetryCodes::Standard, NOW).body.len(),
            1024
        );
    }

    #[test]
    fn error_attributes_are_extensions_with_valid_names_and_values() {
        let map = headers(&[
            ("kne-reason", "full"),
            ("kne-reason", "again"),
            ("kne-zone9", "b"),
            ("kne-", "x"),
            ("kne-not_valid", "x"),
            ("kne-not-valid", "x"),
            ("kne-id", "stolen"),
            ("kne-knativeerrorcode", "200"),
            ("kne-tab", "a\tb"),
            ("ce-reason", "x"),
            ("x-kne-reason", "x"),
        ]);
        let expected = [("reason", "full"), ("zone9", "b")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(error_attributes(&map), expected);
        let mut map = HeaderMap::new();
        map.append(
            "kne-bytes",
            header::HeaderValue::from_bytes(b"\xff").unwrap(),
        );
        assert_eq!(error_attributes(&map), []);
    }

    #[test]
    fn an_event_is_announced_by_its_headers() {
        let announced = |name, value| announces_event(&headers(&[(name, value)]));
        assert!(announced("ce-specversion", "1.0"));
        assert!(announced(
            "content-type",
            "Application/CloudEvents+JSON; charset=utf-8"
        ));
        assert!(!announced(
            "content-type",
            "application/cloudevents-batch+json"
        ));
        assert!(!announced("content-type", "application/json"));
        assert!(!announced("ce-id", "1"));
    }
}
