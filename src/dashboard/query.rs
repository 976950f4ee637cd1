//! The query part of addresses and the bodies of forms.

use std::fmt::Write as _;

/// Names with their values, in order; a name may come again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`. What is not UTF-8 is replaced; nothing is an error.
    pub(super) fn parse(query: &str) -> Self {
        let parts = query.split('&').filter(|part| !part.is_empty());
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name), decode(value))
        };
        Self(parts.map(pair).collect())
    }

    /// The first value that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.0.iter();
        let found = all.find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// All values that are not empty.
    pub(super) fn all<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        let of = move |(known, value): &'q (String, String)| {
            (known == name && !value.is_empty()).then_some(value.as_str())
        };
        self.0.iter().filter_map(of)
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter().filter(|(_, value)| !value.is_empty());
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The same without the pairs for which `drop` holds.
    pub(super) fn without(&self, drop: impl Fn(&str, &str) -> bool) -> Self {
        let mut pairs = self.0.clone();
        pairs.retain(|(name, value)| !value.is_empty() && !drop(name, value));
        Self(pairs)
    }

    /// The same with one pair more.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.into(), value.into()));
        self
    }

    /// `path?a=b&c=d`, everything encoded.
    pub(super) fn at(&self, path: &str) -> String {
        let mut address = path.to_owned();
        let mut mark = '?';
        for (name, value) in self.pairs() {
            address.push(mark);
            address.push_str(&encode(name));
            address.push('=');
            address.push_str(&encode(value));
            mark = '&';
        }
        address
    }
}

/// Percent-encodes all but letters, digits and `-._~`.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let digits = tail
            .get(..2)
            .filter(|two| two.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_come_back() {
        let query = Query::parse("status=queued&status=sent&x=&event_id=a%2F%22+%3C%26");
        assert_eq!(query.all("status").collect::<Vec<_>>(), ["queued", "sent"]);
        assert_eq!(query.get("x"), None);
        assert_eq!(query.get("event_id"), Some("a/\" <&"));
        let rest = query.without(|name, value| name == "status" && value == "queued");
        assert_eq!(rest.at("/m"), "/m?status=sent&event_id=a%2F%22%20%3C%26");
        assert_eq!(Query::parse(&rest.at("")[1..]), rest);
        assert_eq!(Query::default().with("a", "ü").at("/"), "/?a=%C3%BC");
        assert_eq!(Query::parse("a=%zz%").get("a"), Some("%zz%"));
    }
}
