//! Headers as they may be stored: secrets masked.

use std::borrow::Cow;
use std::collections::HashMap;

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

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

    /// A JSON array of pairs, secrets masked. Bytes that are no text are shown as U+FFFD.
    pub(super) fn json(&mut self, headers: &HeaderMap) -> String {
        let shown: Vec<(&str, Cow<'_, str>)> = headers
            .iter()
            .map(|(name, value)| {
                let text = if self.holds(name, value) {
                    MASK.into()
                } else {
                    String::from_utf8_lossy(value.as_bytes())
                };
                (name.as_str(), text)
            })
            .collect();
        // Pairs of texts always are JSON.
        serde_json::to_string(&shown).unwrap_or_default()
    }
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

/// Undoes [`Secrets::json`].
pub(super) fn from_json(text: &str) -> Vec<(String, String)> {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let shown = from_json(&Secrets::default().json(&headers));
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
}
