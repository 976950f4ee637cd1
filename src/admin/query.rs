//! The query part of an address.

/// Parameters with their values decoded.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`; every name must be one of `known`, once.
    pub(super) fn parse(query: &str, known: &[&str]) -> Result<Self, String> {
        Self::parse_repeated(query, known, &[])
    }

    /// The same, where some may be there several times.
    pub(super) fn parse_repeated(
        query: &str,
        known: &[&str],
        repeated: &[&str],
    ) -> Result<Self, String> {
        let mut all: Vec<(String, String)> = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if !known.contains(&name.as_str()) {
                let known = known.join(", ");
                return Err(format!(
                    "there is no parameter {name:?} here; there are {known}"
                ));
            }
            let again = all.iter().any(|(other, _)| *other == name);
            if again && !repeated.contains(&name.as_str()) {
                return Err(format!("{name} is there twice"));
            }
            all.push((name, value));
        }
        Ok(Self(all))
    }

    /// Every value of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let its = self.0.iter().filter(move |(known, _)| known == name);
        its.map(|(_, value)| value.as_str())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Undoes percent-encoding, and `+` for a blank.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let digits = tail
                    .get(..2)
                    .filter(|two| two.iter().all(u8::is_ascii_hexdigit));
                let digits = digits.and_then(|two| std::str::from_utf8(two).ok());
                let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
                rest = tail.get(2..).unwrap_or_default();
                byte.ok_or_else(|| format!("{text:?} has a % without two hex digits"))?
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).map_err(|_| format!("{text:?} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_unknown_ones_refused() {
        let query = Query::parse("a=1%2F2+%C3%BC&&b", &["a", "b", "c"]).unwrap();
        assert_eq!(query.get("a"), Some("1/2 ü"));
        assert_eq!(query.get("b"), Some(""));
        assert_eq!(query.get("c"), None);
        for bad in ["d=1", "a=1&a=2", "a=%", "a=%2", "a=%zz", "a=%+1", "a=%ff"] {
            assert!(Query::parse(bad, &["a", "b"]).is_err(), "{bad}");
        }
    }
}
