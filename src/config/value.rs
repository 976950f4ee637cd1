//! Values of options: how each type is read from and shown as text or TOML.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::JournalStore;
use crate::duration;
use crate::log::kafka::GroupProtocol;

/// A value as it is written, before its option makes sense of it.
///
/// Text is understood by every option, since the environment and flags have nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// `true` or `false`
    Bool(bool),
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
    /// Texts.
    List(Vec<String>),
    /// Names with texts.
    Table(BTreeMap<String, String>),
}

impl Raw {
    fn what(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    fn unlike(&self, wanted: &str) -> String {
        format!("expected {wanted}, not {}", self.what())
    }
}

/// A type that an option can have.
pub trait Value {
    /// Takes `raw` over. A table keeps the entries that `raw` does not name; all else is replaced.
    ///
    /// # Errors
    /// What is wrong with `raw` and what would be right.
    fn take(&mut self, raw: Raw) -> Result<(), String>;

    /// As it is written in a file. Secrets are masked.
    fn show(&self) -> Raw;
}

impl Value for bool {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        *self = match raw {
            Raw::Bool(value) => value,
            Raw::Text(text) => match text.as_str() {
                "true" => true,
                "false" => false,
                _ => return Err(format!("{text:?} is neither true nor false")),
            },
            raw => return Err(raw.unlike("true or false")),
        };
        Ok(())
    }

    fn show(&self) -> Raw {
        Raw::Bool(*self)
    }
}

impl Value for usize {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        *self = match raw {
            Raw::Number(number) => {
                Self::try_from(number).map_err(|_| format!("{number} is less than zero"))?
            }
            Raw::Text(text) => count(&text).ok_or_else(|| {
                format!("{text:?} is not a number such as 1000, 64KiB, 16MiB or 1GiB")
            })?,
            raw => return Err(raw.unlike("a number")),
        };
        Ok(())
    }

    fn show(&self) -> Raw {
        Raw::Number(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

/// A number, with `KiB`, `MiB` or `GiB` after it or not.
fn count(text: &str) -> Option<usize> {
    let units = [("KiB", 10_u32), ("MiB", 20), ("GiB", 30)];
    let unit = units.iter().find(|(unit, _)| text.ends_with(unit));
    let (digits, shift) = unit.map_or((text, 0), |(unit, shift)| {
        (text[..text.len() - unit.len()].trim_end(), *shift)
    });
    digits.parse::<usize>().ok()?.checked_mul(1 << shift)
}

impl Value for Duration {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        *self = match raw {
            Raw::Text(text) => {
                duration::parse(&text).map_err(|error| format!("{text:?}: {error}"))?
            }
            raw => return Err(raw.unlike("an ISO 8601 duration in quotes, such as \"PT20S\"")),
        };
        Ok(())
    }

    fn show(&self) -> Raw {
        Raw::Text(duration::iso(*self))
    }
}

impl Value for SocketAddr {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        let text = text(raw)?;
        *self = text.parse().map_err(|_| {
            format!("{text:?} is not an address with a port, such as 127.0.0.1:8080 or [::]:8080")
        })?;
        Ok(())
    }

    fn show(&self) -> Raw {
        Raw::Text(self.to_string())
    }
}

impl Value for PathBuf {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        let text = text(raw)?;
        if text.is_empty() {
            return Err("the path is empty".into());
        }
        *self = text.into();
        Ok(())
    }

    fn show(&self) -> Raw {
        Raw::Text(self.display().to_string())
    }
}

impl Value for String {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        *self = text(raw)?;
        Ok(())
    }

    fn show(&self) -> Raw {
        Raw::Text(self.clone())
    }
}

impl Value for Vec<PathBuf> {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        *self = list(raw)?.into_iter().map(PathBuf::from).collect();
        Ok(())
    }

    fn show(&self) -> Raw {
        Raw::List(self.iter().map(|path| path.display().to_string()).collect())
    }
}

impl Value for Vec<String> {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        *self = list(raw)?;
        Ok(())
    }

    fn show(&self) -> Raw {
        Raw::List(self.clone())
    }
}

impl Value for BTreeMap<String, String> {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        let lines = match raw {
            Raw::Table(table) => {
                self.extend(table);
                return Ok(());
            }
            Raw::Text(text) => text.lines().map(str::to_owned).collect(),
            Raw::List(lines) => lines,
            raw => return Err(raw.unlike("a table")),
        };
        for line in lines
            .iter()
            .map(|line| line.trim())
            .filter(|line| !line.is_empty())
        {
            let Some((name, value)) = line.split_once('=') else {
                return Err("an entry is not NAME=VALUE".into());
            };
            self.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        Ok(())
    }

    fn show(&self) -> Raw {
        Raw::Table(
            self.iter()
                .map(|(name, value)| (name.clone(), mask(name, value)))
                .collect(),
        )
    }
}

/// Shown in place of a secret.
const MASK: &str = "********";

fn mask(name: &str, value: &str) -> String {
    let secret = ["password", "secret", "token", "pem", "key"];
    let masked = secret.iter().any(|word| name.contains(word)) && !name.ends_with("location");
    if masked {
        MASK.into()
    } else {
        value.to_owned()
    }
}

fn text(raw: Raw) -> Result<String, String> {
    match raw {
        Raw::Text(text) => Ok(text),
        raw => Err(raw.unlike("text in quotes")),
    }
}

fn list(raw: Raw) -> Result<Vec<String>, String> {
    let parts = match raw {
        Raw::List(items) => items,
        Raw::Text(text) => vec![text],
        raw => return Err(raw.unlike("a list of texts")),
    };
    Ok(parts
        .iter()
        .flat_map(|part| part.split(','))
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect())
}

/// Text that must not be seen: `Debug` and `--print-config` mask it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { MASK })
    }
}

impl Value for Secret {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        self.0 = text(raw)?;
        Ok(())
    }

    fn show(&self) -> Raw {
        Raw::Text(if self.is_empty() { "" } else { MASK }.into())
    }
}

/// Takes a name of a fixed set over.
pub(crate) fn take_name<T: Copy>(
    target: &mut T,
    raw: Raw,
    names: &[(&str, T)],
) -> Result<(), String> {
    let text = text(raw)?;
    match names.iter().find(|(name, _)| *name == text) {
        Some((_, value)) => {
            *target = *value;
            Ok(())
        }
        None => {
            let all: Vec<_> = names.iter().map(|(name, _)| *name).collect();
            Err(format!("{text:?} is not one of {}", all.join(", ")))
        }
    }
}

const PROTOCOLS: [(&str, GroupProtocol); 2] = [
    ("classic", GroupProtocol::Classic),
    ("consumer", GroupProtocol::Consumer),
];

impl Value for GroupProtocol {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        take_name(self, raw, &PROTOCOLS)
    }

    fn show(&self) -> Raw {
        let name = match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        };
        Raw::Text(name.into())
    }
}

const STORES: [(&str, JournalStore); 3] = [
    ("sqlite", JournalStore::Sqlite),
    ("postgres", JournalStore::Postgres),
    ("off", JournalStore::Off),
];

impl Value for JournalStore {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        take_name(self, raw, &STORES)
    }

    fn show(&self) -> Raw {
        let name = match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Off => "off",
        };
        Raw::Text(name.into())
    }
}

/// A thing that a node can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Takes events from producers.
    Receiver,
    /// Delivers events to subscribers.
    Dispatcher,
    /// Answers the API.
    Admin,
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "receiver" => Ok(Self::Receiver),
            "dispatcher" => Ok(Self::Dispatcher),
            "admin" => Ok(Self::Admin),
            _ => Err(format!(
                "{text:?} is not one of receiver, dispatcher, admin"
            )),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receiver => "receiver",
            Self::Dispatcher => "dispatcher",
            Self::Admin => "admin",
        })
    }
}

/// What a node does: at least one role, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles(Vec<Role>);

impl Roles {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![Role::Receiver, Role::Dispatcher, Role::Admin])
    }

    /// Whether `role` is the only one.
    #[must_use]
    pub fn is_only(&self, role: Role) -> bool {
        self.0 == [role]
    }

    /// Whether `role` is among them.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }
}

impl Default for Roles {
    fn default() -> Self {
        Self::all()
    }
}

impl Value for Roles {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        let names = list(raw)?;
        let mut roles: Vec<Role> = names
            .iter()
            .map(|name| name.parse())
            .collect::<Result<_, _>>()?;
        roles.sort_unstable();
        roles.dedup();
        if roles.is_empty() {
            return Err("at least one of receiver, dispatcher, admin is needed".into());
        }
        self.0 = roles;
        Ok(())
    }

    fn show(&self) -> Raw {
        Raw::List(self.0.iter().map(Role::to_string).collect())
    }
}
