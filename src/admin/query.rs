//! The query part of an address.

use super::table::{Kind, Parameter};
use crate::clock::UnixMillis;
use crate::spelling::{likeness, nearest};

/// Parameters with their values decoded.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`; every name must be one of `known`, once unless it may be repeated.
    pub(super) fn parse(query: Option<&str>, known: &[Parameter]) -> Result<Self, String> {
        let mut all: Vec<(String, String)> = Vec::new();
        let query = query.unwrap_or_default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            let Some(parameter) = known.iter().find(|one| one.name == name) else {
                return Err(unknown(&name, known));
            };
            let again = all.iter().any(|(other, _)| *other == name);
            if again && !parameter.repeated {
                return Err(format!("{name} is there twice"));
            }
            all.push((name, value));
        }
        Ok(Self(all))
    }

    /// A parameter that is a time.
    pub(super) fn time(&self, name: &str) -> Result<Option<UnixMillis>, String> {
        self.get(name).map(|text| time(name, text)).transpose()
    }

    /// A parameter that is a whole number, with the bounds that the table has for it.
    pub(super) fn number<N: TryFrom<u32>>(
        &self,
        name: &str,
        known: &[Parameter],
    ) -> Result<Option<N>, String> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let bounds = known.iter().find_map(|one| match one.kind {
            Kind::Number(from, to) if one.name == name => Some((from, to)),
            _ => None,
        });
        let (from, to) = bounds.unwrap_or((0, u32::MAX));
        let fits = |number: &u32| (from..=to).contains(number);
        let number = text.parse().ok().filter(fits);
        let number = number.and_then(|number| N::try_from(number).ok());
        let wrong = || format!("{name} must be a whole number from {from} to {to}, not {text:?}");
        number.map(Some).ok_or_else(wrong)
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

fn unknown(name: &str, known: &[Parameter]) -> String {
    let alike = nearest(known.iter().map(|one| (likeness(name, one.name), one.name)));
    if let Some(meant) = alike {
        return format!("there is no parameter {name:?} here; {meant} is the nearest");
    }
    let names: Vec<_> = known.iter().map(|one| one.name).collect();
    match names[..] {
        [] => format!("there is no parameter {name:?} here, nor any other"),
        _ => format!(
            "there is no parameter {name:?} here; there are {}",
            names.join(", ")
        ),
    }
}

/// A time as it is written; `name` is for the error.
pub(super) fn time(name: &str, text: &str) -> Result<UnixMillis, String> {
    let time: Result<jiff::Timestamp, _> = text.parse();
    time.map(|time| UnixMillis(time.as_millisecond()))
        .map_err(|_| format!("{name} must be a time such as 2026-01-31T12:00:00Z, not {text:?}"))
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

    const KNOWN: &[Parameter] = &[
        Parameter {
            name: "a",
            doc: "",
            kind: Kind::Text,
            repeated: false,
        },
        Parameter {
            name: "page_size",
            doc: "",
            kind: Kind::Number(1, 9),
            repeated: false,
        },
        Parameter {
            name: "status",
            doc: "",
            kind: Kind::Status,
            repeated: true,
        },
    ];

    #[test]
    fn parameters_are_decoded_and_unknown_ones_refused() {
        let query = Query::parse(Some("a=1%2F2+%C3%BC&&status=x&status"), KNOWN).unwrap();
        assert_eq!(query.get("a"), Some("1/2 ü"));
        assert_eq!(query.all("status").collect::<Vec<_>>(), ["x", ""]);
        assert_eq!(query.get("page_size"), None);
        for bad in ["d=1", "a=1&a=2", "a=%", "a=%2", "a=%zz", "a=%+1", "a=%ff"] {
            assert!(Query::parse(Some(bad), KNOWN).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let said = |query| Query::parse(Some(query), KNOWN).unwrap_err();
        assert_eq!(
            said("pagesize=1"),
            "there is no parameter \"pagesize\" here; page_size is the nearest"
        );
        assert!(said("colour=red").ends_with("there are a, page_size, status"));
        let number = |query: &str| {
            Query::parse(Some(query), KNOWN)
                .unwrap()
                .number::<usize>("page_size", KNOWN)
        };
        assert_eq!(number("page_size=9"), Ok(Some(9)));
        assert_eq!(number(""), Ok(None));
        for bad in ["0", "10", "-1", "", "x", "99999999999"] {
            let said = number(&format!("page_size={bad}")).unwrap_err();
            assert!(
                said.contains("page_size") && said.contains("from 1 to 9"),
                "{said}"
            );
        }
    }
}
