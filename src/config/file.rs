//! Reads the file: TOML, flattened to keys with the line each one stands on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::ConfigError;
use super::load::Source;
use super::options;
use super::value::Raw;

/// One value of the file.
pub(super) struct Entry {
    pub(super) key: String,
    /// The value, or why it cannot be one of any option.
    pub(super) raw: Result<Raw, String>,
    pub(super) source: Source,
}

/// Reads `path`.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, ConfigError> {
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let mut walk = Walk {
        path: path.to_owned(),
        text,
        entries: Vec::new(),
    };
    walk.table("", table.get_ref());
    // Tables are sorted by name; errors read better in the order of the file.
    walk.entries.sort_by_key(|entry| match &entry.source {
        Source::File { line, .. } => *line,
        Source::Default | Source::Variable(_) | Source::Flag(_) => 0,
    });
    Ok(walk.entries)
}

struct Walk<'a> {
    path: PathBuf,
    text: &'a str,
    entries: Vec<Entry>,
}

impl Walk<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            // `data_dir` is what many people write for `data-dir`.
            let key = format!("{prefix}{}", name.get_ref().replace('_', "-"));
            let source = self.source(name);
            match value.get_ref() {
                DeValue::Table(inner) if options::find(&key).is_none() => {
                    self.section(&key, inner, source);
                }
                DeValue::Table(inner) => self.entries_of(&key, inner),
                _ => {
                    let raw = raw(value);
                    self.entries.push(Entry { key, raw, source });
                }
            }
        }
    }

    fn source(&self, name: &Spanned<DeString<'_>>) -> Source {
        Source::File {
            path: self.path.clone(),
            line: line_of(self.text, name.span().start),
        }
    }

    /// The entries of a table option one by one, so that each keeps its line.
    fn entries_of(&mut self, key: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let raw = entry_text(value.get_ref())
                .map(|text| Raw::Table([(name.get_ref().to_string(), text)].into()))
                .map_err(|problem| format!("{}: {problem}", name.get_ref()));
            self.entries.push(Entry {
                key: key.to_owned(),
                raw,
                source: self.source(name),
            });
        }
    }

    fn section(&mut self, key: &str, inner: &DeTable<'_>, source: Source) {
        let prefix = format!("{key}.");
        let known = options::OPTIONS
            .iter()
            .any(|option| option.key.starts_with(&prefix));
        if known {
            self.table(&prefix, inner);
        } else {
            self.entries.push(Entry {
                key: key.to_owned(),
                raw: Ok(Raw::Table(BTreeMap::new())),
                source,
            });
        }
    }
}

fn raw(value: &Spanned<DeValue<'_>>) -> Result<Raw, String> {
    match value.get_ref() {
        DeValue::String(text) => Ok(Raw::Text(text.to_string())),
        DeValue::Boolean(value) => Ok(Raw::Bool(*value)),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            i64::from_str_radix(digits, number.radix())
                .map(Raw::Number)
                .map_err(|_| format!("{digits} is too large"))
        }
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                other => Err(format!(
                    "expected texts in the list, not {}",
                    other.type_str()
                )),
            });
            texts.collect::<Result<_, _>>().map(Raw::List)
        }
        other @ (DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_)) => {
            Err(format!("a {} fits no option", other.type_str()))
        }
    }
}

/// librdkafka takes every property as text; numbers and booleans read better bare.
fn entry_text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.as_str().to_owned()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Table(_) => Err("names with dots need quotes, as in \"sasl.username\"".to_owned()),
        DeValue::Datetime(_) | DeValue::Array(_) => {
            Err(format!("expected text, not {}", value.type_str()))
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}
