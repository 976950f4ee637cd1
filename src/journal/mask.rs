//! Headers as they may be stored: secrets masked.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::EventFacts;
use crate::event::Event;

/// What stands in place of a secret.
pub(super) const MASK: &str = "***";

/// Header names whose answer is remembered.
const REMEMBERED: usize = 1_000;

/// Knows which headers are secrets: those whose names say so, and those that a manifest took from
/// the environment or a file, which are marked as sensitive.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// Names that were looked at: the same few come with every message.
    known: HashMap<HeaderName, bool>,
    state: RandomState,
}

impl Secrets {
    fn holds(&mut self, name: &HeaderName, value: &HeaderValue) -> bool {
        if value.is_sensitive() {
            return true;
        }
        if let Some(known) = self.known.get(name) {
            return *known;
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let is_secret = says_secret(name);
        self.known.insert(name.clone(), is_secret);
        is_secret
    }

    /// What stands for these headers, secrets masked: equal headers have equal keys.
    pub(super) fn key(&mut self, headers: &HeaderMap, event: Option<&Event>) -> u64 {
        let mut hasher = self.state.build_hasher();
        for (name, value) in headers {
            name.hash(&mut hasher);
            match self.shown(name, value, event) {
                Shown::Value(value) => value.hash(&mut hasher),
                Shown::Masked => 1_u8.hash(&mut hasher),
                Shown::Attribute => 2_u8.hash(&mut hasher),
            }
        }
        hasher.finish()
    }

    /// A JSON array of pairs, secrets masked. Bytes that are no text are shown as U+FFFD. `null`
    /// stands for what is an attribute of the event, where one is given: see [`from_json`].
    pub(super) fn json(&mut self, headers: &HeaderMap, event: Option<&Event>) -> String {
        let shown: Vec<(&str, Option<Cow<'_, str>>)> = headers
            .iter()
            .map(|(name, value)| {
                let text = match self.shown(name, value, event) {
                    Shown::Value(value) => Some(String::from_utf8_lossy(value)),
                    Shown::Masked => Some(MASK.into()),
                    Shown::Attribute => None,
                };
                (name.as_str(), text)
            })
            .collect();
        // Pairs of texts always are JSON.
        serde_json::to_string(&shown).unwrap_or_default()
    }

    fn shown<'v>(
        &mut self,
        name: &HeaderName,
        value: &'v HeaderValue,
        event: Option<&Event>,
    ) -> Shown<'v> {
        if self.holds(name, value) {
            return Shown::Masked;
        }
        let is_attribute = || {
            let known = ATTRIBUTES
                .iter()
                .find(|(header, _)| *header == name.as_str())?;
            let text = event?.attribute(known.1)?;
            Some(text.as_bytes() == value.as_bytes())
        };
        if is_attribute() == Some(true) {
            return Shown::Attribute;
        }
        Shown::Value(value.as_bytes())
    }
}

/// Headers that repeat what the journal has of every event.
const ATTRIBUTES: [(&str, &str); 5] = [
    ("ce-id", "id"),
    ("ce-source", "source"),
    ("ce-type", "type"),
    ("ce-subject", "subject"),
    ("ce-time", "time"),
];

enum Shown<'v> {
    Value(&'v [u8]),
    Masked,
    /// As the event has it.
    Attribute,
}

fn says_secret(name: &HeaderName) -> bool {
    const PARTS: [&str; 6] = [
        "token",
        "secret",
        "password",
        "signature",
        "api-key",
        "apikey",
    ];
    let known = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE];
    known.contains(name) || PARTS.iter().any(|part| name.as_str().contains(part))
}

/// Undoes [`Secrets::json`]; `event` says what the attributes were.
pub(super) fn from_json(text: &str, event: &EventFacts) -> Vec<(String, String)> {
    let pairs: Vec<(String, Option<String>)> = serde_json::from_str(text).unwrap_or_default();
    let attribute = |name: &str| {
        Some(match name {
            "ce-id" => event.id.clone(),
            "ce-source" => event.source.clone(),
            "ce-type" => event.r#type.clone(),
            "ce-subject" => event.subject.clone()?,
            "ce-time" => event.time.clone()?,
            _ => return None,
        })
    };
    pairs
        .into_iter()
        .map(|(name, value)| {
            let value = value.or_else(|| attribute(&name)).unwrap_or_default();
            (name, value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Headers, Record};

    #[test]
    fn secrets_are_masked_and_the_rest_comes_back() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer x"));
        headers.insert("x-api-key", HeaderValue::from_static("k"));
        headers.append("set-cookie", HeaderValue::from_static("a=b"));
        headers.insert("x-plain", HeaderValue::from_static("1"));
        let mut configured = HeaderValue::from_static("from a file");
        configured.set_sensitive(true);
        headers.insert("x-configured", configured);
        headers.insert("x-bytes", HeaderValue::from_bytes(b"\xff").unwrap());
        let mut secrets = Secrets::default();
        let shown = from_json(&secrets.json(&headers, None), &EventFacts::default());
        let value = |name: &str| {
            let found = shown.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        for secret in ["authorization", "x-api-key", "set-cookie", "x-configured"] {
            assert_eq!(value(secret), Some(MASK), "{secret}");
        }
        assert_eq!(value("x-plain"), Some("1"));
        assert_eq!(value("x-bytes"), Some("\u{fffd}"));
    }

    #[test]
    fn what_the_event_tells_is_left_out_and_comes_back() {
        let record = |id: &str| {
            let mut headers = Headers::builder(4, 64);
            for (name, value) in [
                ("ce_specversion", "1.0"),
                ("ce_id", id),
                ("ce_source", "/s"),
                ("ce_type", "t"),
            ] {
                headers.push(name.as_bytes(), value.as_bytes());
            }
            Event::from_record(Record {
                key: None,
                value: None,
                headers: headers.finish(),
            })
            .unwrap()
        };
        let mut secrets = Secrets::default();
        let events = [record("1"), record("2")];
        let headers = events.each_ref().map(|event| event.to_http_binary().0);
        let told = [0, 1].map(|at| secrets.json(&headers[at], Some(&events[at])));
        assert_eq!(told[0], told[1]);
        let keys = [0, 1].map(|at| secrets.key(&headers[at], Some(&events[at])));
        assert_eq!(keys[0], keys[1]);
        // Of another event they are told in full.
        assert!(
            secrets
                .json(&headers[0], Some(&events[1]))
                .contains("\"1\"")
        );
        assert_ne!(secrets.key(&headers[0], Some(&events[1])), keys[0]);
        let facts = EventFacts {
            id: "1".into(),
            source: "/s".into(),
            r#type: "t".into(),
            ..EventFacts::default()
        };
        let shown = from_json(&told[0], &facts);
        let whole = from_json(&secrets.json(&headers[0], None), &EventFacts::default());
        assert_eq!(shown, whole);
    }
}
