//! Status checks: a provider that took a message is asked what became of it.
//!
//! Pure: what to ask ([`address`]), what an answer says ([`read`]), what follows ([`next`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::Full;
use serde_json::Value;

use super::{Answer, Failure, Reason};
use crate::channel::{HttpSink, ReceiptFrom, Sink, StatusCheck, StatusUrl};
use crate::clock::UnixMillis;
use crate::manifest::HttpUrl;

/// So often a provider is asked.
pub const CHECKS: u32 = 10;
/// Not longer after the first attempt than this.
const WINDOW: Duration = Duration::from_secs(30 * 60);
/// Doubled before each check: 1.75 s before the first, 896 s before the last, 1,790 s in all.
const DELAY: Duration = Duration::from_millis(875);
/// A delay is multiplied by a random factor from one minus this to one.
const JITTER: f64 = 0.5;

/// What a check found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The recipient has it.
    Delivered,
    /// It came back.
    Bounced,
    /// The provider gave up.
    Undelivered,
    /// Nothing yet, or nobody could be asked; another check may tell.
    NotYet {
        /// Why, for a check that failed.
        reason: Option<Reason>,
        /// What the provider asked to wait.
        retry_after: Option<Duration>,
    },
    /// The provider says that it will never tell.
    Never(Reason),
}

/// What follows a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another one, so much later.
    Again(Duration),
    /// None.
    End,
}

/// Where to ask about a message that `sink` answered like this.
///
/// # Errors
/// What is missing in the answer, in words.
pub fn address(
    check: &StatusCheck,
    sink: &Sink,
    answer: Option<&Answer>,
) -> Result<String, String> {
    let answer = answer.ok_or("the answer was not kept")?;
    let text = match &check.url {
        StatusUrl::Template(template) => {
            let receipt = match &check.receipt {
                Some(from) => receipt(from, answer)?,
                None => String::new(),
            };
            template.replace("{receipt}", &encoded(&receipt))
        }
        StatusUrl::Location => {
            let location = answer.headers.get(header::LOCATION);
            let location = location.and_then(|value| value.to_str().ok());
            location
                .ok_or("the answer has no Location header")?
                .to_owned()
        }
    };
    let base = HttpUrl::try_new(&sink.url())?;
    let url = HttpUrl::try_new(&text).or_else(|_| base.join(&text))?;
    Ok(url.text.to_string())
}

fn receipt(from: &ReceiptFrom, answer: &Answer) -> Result<String, String> {
    let found = match from {
        ReceiptFrom::Header(name) => {
            let value = answer
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok());
            value
                .map(str::to_owned)
                .ok_or_else(|| format!("the answer has no header {name}"))?
        }
        ReceiptFrom::Pointer(pointer) => {
            let body: Value = serde_json::from_slice(&answer.body)
                .map_err(|error| format!("the answer is no JSON: {error}"))?;
            text_at(&body, pointer)
                .ok_or_else(|| format!("the answer has no receipt at {pointer}"))?
        }
    };
    if found.is_empty() {
        return Err("the receipt is empty".into());
    }
    Ok(found)
}

fn text_at(body: &Value, pointer: &str) -> Option<String> {
    match body.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A receipt as a part of a path or query.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Who is asked at an address. The configured headers, which may be secrets, go where the manifest
/// says, and where a `Location` leads only if that is the provider itself.
#[must_use]
pub fn asked(check: &StatusCheck, subscriber: &Sink, url: HttpUrl) -> HttpSink {
    let (own, ca_certs) = match subscriber {
        Sink::Http(sink) => (Some(&sink.uri), sink.ca_certs.clone()),
        Sink::Channel { .. } => (None, None),
    };
    let is_own = own.is_some_and(|own| {
        own.scheme() == url.uri.scheme() && own.authority() == url.uri.authority()
    });
    let trusted = is_own || matches!(check.url, StatusUrl::Template(_));
    HttpSink {
        url: url.text,
        uri: url.uri,
        headers: if trusted {
            Arc::clone(&check.headers)
        } else {
            Arc::from([])
        },
        ca_certs,
    }
}

/// The request of a check.
#[must_use]
pub fn request(sink: &HttpSink) -> Request<Full<Bytes>> {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, super::request::USER_AGENT);
    headers.insert(
        header::ACCEPT,
        header::HeaderValue::from_static("application/json"),
    );
    for (name, value) in &*sink.headers {
        headers.insert(name.clone(), value.clone());
    }
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = sink.uri.clone();
    *request.headers_mut() = headers;
    request
}

/// What the answer to a check says.
#[must_use]
pub fn read(check: &StatusCheck, answer: Option<&Answer>, failure: Option<&Failure>) -> Found {
    if let Some(failure) = failure {
        // Who answers another code than 2xx tells nothing of the message.
        let temporary = failure
            .code
            .is_none_or(|code| matches!(code, 408 | 425 | 429 | 500..=599));
        return if temporary {
            Found::NotYet {
                reason: Some(failure.reason),
                retry_after: failure.retry_after,
            }
        } else {
            Found::Never(failure.reason)
        };
    }
    let body = answer.and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
    let status = body.and_then(|body| text_at(&body, &check.status));
    let is_in = |list: &[String]| status.as_ref().is_some_and(|status| list.contains(status));
    if is_in(&check.delivered) {
        Found::Delivered
    } else if is_in(&check.bounced) {
        Found::Bounced
    } else if is_in(&check.undelivered) {
        Found::Undelivered
    } else {
        Found::NotYet {
            reason: None,
            retry_after: None,
        }
    }
}

/// How long to wait before check number `number` (from 1), without what a provider asks for.
/// `draw` is a random number in `[0, 1)`.
#[must_use]
pub fn delay(number: u32, draw: f64) -> Duration {
    let full = DELAY.saturating_mul(2_u32.saturating_pow(number));
    full.mul_f64((1.0 - JITTER * draw).clamp(1.0 - JITTER, 1.0))
}

/// What follows check number `made`, which told nothing; the message was sent at `sent`.
#[must_use]
pub fn next(
    made: u32,
    sent: UnixMillis,
    now: UnixMillis,
    retry_after: Option<Duration>,
    draw: f64,
) -> Next {
    if made >= CHECKS {
        return Next::End;
    }
    let delay = delay(made + 1, draw).max(retry_after.unwrap_or_default());
    if now.since(sent).saturating_add(delay) > WINDOW {
        Next::End
    } else {
        Next::Again(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: StatusUrl, receipt: Option<ReceiptFrom>) -> StatusCheck {
        StatusCheck {
            url,
            receipt,
            headers: Arc::from([]),
            status: "/message/status".into(),
            delivered: vec!["delivered".into()],
            bounced: vec!["bounced".into(), "rejected".into()],
            undelivered: vec!["expired".into()],
        }
    }

    fn sink() -> Sink {
        let url = "http://mail.test/v1/send?x=1";
        Sink::Http(HttpSink {
            url: url.into(),
            uri: url.parse().unwrap(),
            headers: Arc::from([]),
            ca_certs: None,
        })
    }

    fn answer(code: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, header::HeaderValue::from_static(value));
        }
        Answer {
            code,
            headers: map,
            body: Bytes::from_static(body.as_bytes()),
            truncated: false,
        }
    }

    #[test]
    fn the_address_comes_from_body_header_or_location() {
        let template = || StatusUrl::Template("http://mail.test/v1/status/{receipt}".into());
        let pointer = Some(ReceiptFrom::Pointer("/id".into()));
        let by_body = check(template(), pointer);
        let header = check(
            template(),
            Some(ReceiptFrom::Header("x-receipt".parse().unwrap())),
        );
        let location = check(StatusUrl::Location, None);
        for (check, answer, wanted) in [
            (
                &by_body,
                answer(202, &[], r#"{"id":"a b/c"}"#),
                "http://mail.test/v1/status/a%20b%2Fc",
            ),
            (
                &by_body,
                answer(202, &[], r#"{"id":17}"#),
                "http://mail.test/v1/status/17",
            ),
            (
                &header,
                answer(202, &[("x-receipt", "r1")], ""),
                "http://mail.test/v1/status/r1",
            ),
            (
                &location,
                answer(202, &[("location", "/v1/m/7")], ""),
                "http://mail.test/v1/m/7",
            ),
            (
                &location,
                answer(202, &[("location", "https://b.test/x")], ""),
                "https://b.test/x",
            ),
        ] {
            assert_eq!(
                address(check, &sink(), Some(&answer)).as_deref(),
                Ok(wanted)
            );
        }
        for (check, answer) in [
            (&by_body, answer(202, &[], "no json")),
            (&by_body, answer(202, &[], r#"{"id":{}}"#)),
            (&by_body, answer(202, &[], r#"{"id":""}"#)),
            (&header, answer(202, &[], "")),
            (&location, answer(202, &[], "")),
            (&location, answer(202, &[("location", "ftp://x/")], "")),
        ] {
            assert!(
                address(check, &sink(), Some(&answer)).is_err(),
                "{answer:?}"
            );
        }
    }

    #[test]
    fn secrets_go_to_the_provider_and_to_nobody_else() {
        let headers = [(
            header::AUTHORIZATION,
            header::HeaderValue::from_static("secret"),
        )];
        let with = |url| StatusCheck {
            headers: Arc::from(headers.clone()),
            ..check(url, None)
        };
        let sent = |check: &StatusCheck, url: &str| {
            let sink = asked(check, &sink(), HttpUrl::try_new(url).unwrap());
            request(&sink).headers().contains_key(header::AUTHORIZATION)
        };
        let location = with(StatusUrl::Location);
        assert!(sent(&location, "http://mail.test/v1/m/7"));
        for other in [
            "http://evil.test/",
            "https://mail.test/",
            "http://mail.test:81/",
        ] {
            assert!(!sent(&location, other), "{other}");
        }
        let template = with(StatusUrl::Template("http://status.test/{receipt}".into()));
        assert!(sent(&template, "http://status.test/7"));
    }

    #[test]
    fn an_answer_says_what_became_of_the_message() {
        let check = check(StatusUrl::Location, None);
        let said = |body| read(&check, Some(&answer(200, &[], body)), None);
        assert_eq!(
            said(r#"{"message":{"status":"delivered"}}"#),
            Found::Delivered
        );
        assert_eq!(said(r#"{"message":{"status":"rejected"}}"#), Found::Bounced);
        assert_eq!(
            said(r#"{"message":{"status":"expired"}}"#),
            Found::Undelivered
        );
        let nothing = Found::NotYet {
            reason: None,
            retry_after: None,
        };
        for body in [
            "",
            "x",
            "{}",
            r#"{"message":{"status":"sending"}}"#,
            r#"{"message":{"status":null}}"#,
        ] {
            assert_eq!(said(body), nothing, "{body}");
        }
        let failed = |code: u16| {
            let failure = Failure {
                code: Some(code),
                ..Failure::without_answer(Reason::Http(code), "")
            };
            read(&check, None, Some(&failure))
        };
        for code in [408, 425, 429, 500, 503] {
            assert!(
                matches!(
                    failed(code),
                    Found::NotYet {
                        reason: Some(_),
                        ..
                    }
                ),
                "{code}"
            );
        }
        for code in [301, 400, 401, 404, 410] {
            assert_eq!(failed(code), Found::Never(Reason::Http(code)));
        }
        let reset = Failure::without_answer(Reason::ConnectionReset, "");
        assert!(matches!(
            read(&check, None, Some(&reset)),
            Found::NotYet {
                reason: Some(_),
                ..
            }
        ));
    }

    #[test]
    fn ten_checks_within_thirty_minutes() {
        let full: Duration = (1..=CHECKS).map(|number| delay(number, 0.0)).sum();
        assert_eq!(full, Duration::from_millis(1_790_250));
        assert_eq!(delay(1, 0.0), Duration::from_millis(1750));
        assert!(delay(3, 0.999) >= delay(3, 0.0) / 2);
        let sent = UnixMillis(0);
        assert_eq!(
            next(1, sent, sent, None, 0.0),
            Next::Again(Duration::from_millis(3500))
        );
        let asked = Some(Duration::from_secs(60));
        assert_eq!(
            next(1, sent, sent, asked, 0.0),
            Next::Again(Duration::from_secs(60))
        );
        assert_eq!(next(10, sent, sent, None, 0.0), Next::End);
        let late = UnixMillis(29 * 60_000);
        assert_eq!(next(6, sent, late, None, 0.0), Next::End);
    }
}
