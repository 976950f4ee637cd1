//! Reading a mapping field by field, with every problem collected.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Problem;
use super::secrets::Secrets;
use super::yaml::{Entry, Node, Value};
use crate::duration;
use crate::spelling::{self, likeness};

/// What one file's documents are read with, and what was found wrong so far.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) file: Arc<str>,
    pub(super) secrets: &'a dyn Secrets,
    problems: Vec<Problem>,
    /// How many problems there were, those not kept included.
    found: usize,
    /// Files whose content went into the documents.
    pub(super) secret_files: Vec<PathBuf>,
}

/// How many problems of one file are kept: enough for people, and a bound.
const MAX_PROBLEMS: usize = 1_000;

impl<'a> Context<'a> {
    pub(super) fn new(file: &str, secrets: &'a dyn Secrets) -> Self {
        Self {
            file: file.into(),
            secrets,
            problems: Vec::new(),
            found: 0,
            secret_files: Vec::new(),
        }
    }

    /// How many problems were found so far.
    pub(super) fn found(&self) -> usize {
        self.found
    }

    /// The problems, by line.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.line);
        self.problems
    }

    pub(super) fn problem(&mut self, line: usize, field: &str, message: impl Into<String>) {
        self.problem_with(line, || (field.to_owned(), message.into()));
    }

    /// Reports a field and a message that are made only if they are kept.
    fn problem_with(&mut self, line: usize, make: impl FnOnce() -> (String, String)) {
        self.found += 1;
        if self.problems.len() == MAX_PROBLEMS {
            return;
        }
        let (field, message) = make();
        self.problems.push(Problem {
            file: Arc::clone(&self.file),
            line,
            field,
            message,
        });
    }
}

/// The fields of one mapping.
#[derive(Debug)]
pub(super) struct Fields<'n> {
    pub(super) path: String,
    pub(super) line: usize,
    entries: &'n [Entry],
}

/// What a mapping may hold besides the fields it is read for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Others {
    /// Nothing: an unknown field is a problem.
    Refused,
    /// Anything.
    Ignored,
}

impl<'n> Fields<'n> {
    /// Opens `node`, reporting repeated keys, and unknown ones unless they are ignored. `None`,
    /// reported, when it is no mapping.
    pub(super) fn open(
        node: &'n Node,
        path: &str,
        known: &[&str],
        others: Others,
        cx: &mut Context<'_>,
    ) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            cx.problem(
                node.line,
                path,
                format!("must be a mapping, not {}", node.kind()),
            );
            return None;
        };
        let fields = Self {
            path: path.to_owned(),
            line: node.line,
            entries,
        };
        let mut first = HashMap::with_capacity(entries.len());
        for entry in entries {
            let key = entry.key.as_str();
            if let Some(line) = first.get(key) {
                let message = format!("given twice, first in line {line}");
                cx.problem(entry.line, &fields.path_of(key), message);
                continue;
            }
            first.insert(key, entry.line);
            if matches!(others, Others::Refused) && !known.contains(&key) {
                cx.problem_with(entry.line, || (fields.path_of(key), unknown(key, known)));
            }
        }
        Some(fields)
    }

    /// The full path of a field of this mapping.
    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// A field's value; null counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entry(name).map(|entry| &entry.value)
    }

    fn entry(&self, name: &str) -> Option<&'n Entry> {
        self.entries
            .iter()
            .find(|entry| entry.key == name && !entry.value.is_null())
    }

    /// The line of a field, else that of the mapping.
    pub(super) fn line_of(&self, name: &str) -> usize {
        self.entry(name).map_or(self.line, |entry| entry.line)
    }

    /// Reports a problem with a field.
    pub(super) fn problem(&self, name: &str, message: impl Into<String>, cx: &mut Context<'_>) {
        cx.problem(self.line_of(name), &self.path_of(name), message);
    }

    pub(super) fn text(&self, name: &str, cx: &mut Context<'_>) -> Option<&'n str> {
        let node = self.get(name)?;
        if let Value::Text(text) = &node.value {
            return Some(text);
        }
        let hint = match node.value {
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => " (put it in quotes)",
            _ => "",
        };
        let message = format!("must be a string, not {}{hint}", node.kind());
        self.problem(name, message, cx);
        None
    }

    /// A string that must be there and must not be empty.
    pub(super) fn required_text(&self, name: &str, cx: &mut Context<'_>) -> Option<&'n str> {
        if self.get(name).is_none() {
            self.problem(name, "missing field", cx);
            return None;
        }
        let text = self.text(name, cx)?;
        if text.is_empty() {
            self.problem(name, "missing field: it is empty", cx);
            return None;
        }
        Some(text)
    }

    pub(super) fn flag(&self, name: &str, cx: &mut Context<'_>) -> Option<bool> {
        let node = self.get(name)?;
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        let message = format!("must be true or false, not {}", node.kind());
        self.problem(name, message, cx);
        None
    }

    /// An integer within `range`, in the type it is wanted in.
    pub(super) fn int<T: TryFrom<i64>>(
        &self,
        name: &str,
        range: RangeInclusive<i64>,
        cx: &mut Context<'_>,
    ) -> Option<T> {
        let node = self.get(name)?;
        let (low, high) = (range.start(), range.end());
        let Value::Int(value) = node.value else {
            let what = match node.value {
                Value::Float(_) => "a number with a fraction or out of range",
                _ => node.kind(),
            };
            let message = format!("must be an integer from {low} to {high}, not {what}");
            self.problem(name, message, cx);
            return None;
        };
        if !range.contains(&value) {
            let message = format!("invalid value {value}: must be from {low} to {high}");
            self.problem(name, message, cx);
            return None;
        }
        T::try_from(value).ok()
    }

    /// A number, integer or not, for which `fits` holds.
    pub(super) fn number(
        &self,
        name: &str,
        wanted: &str,
        fits: impl Fn(f64) -> bool,
        cx: &mut Context<'_>,
    ) -> Option<f64> {
        let node = self.get(name)?;
        let value = match node.value {
            Value::Int(value) => i32::try_from(value).ok().map(f64::from),
            Value::Float(value) => Some(value),
            _ => None,
        };
        if let Some(value) = value.filter(|value| fits(*value)) {
            return Some(value);
        }
        self.problem(name, format!("must be a number {wanted}"), cx);
        None
    }

    /// An ISO 8601 duration; never negative.
    pub(super) fn duration(&self, name: &str, cx: &mut Context<'_>) -> Option<Duration> {
        let node = self.get(name)?;
        let Value::Text(text) = &node.value else {
            let message = format!(
                "must be an ISO 8601 duration such as PT0.5S, not {}",
                node.kind()
            );
            self.problem(name, message, cx);
            return None;
        };
        duration::parse(text)
            .map_err(|error| self.problem(name, format!("invalid value {text:?}: {error}"), cx))
            .ok()
    }

    pub(super) fn positive_duration(&self, name: &str, cx: &mut Context<'_>) -> Option<Duration> {
        let duration = self.duration(name, cx)?;
        if duration.is_zero() {
            self.problem(name, "must be greater than zero", cx);
            return None;
        }
        Some(duration)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &str,
        choices: &[(&str, T)],
        cx: &mut Context<'_>,
    ) -> Option<T> {
        let text = self.text(name, cx)?;
        let found = choices.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            let message = format!("invalid value {text:?}: must be {}", words.join(" or "));
            self.problem(name, message, cx);
        }
        found.map(|(_, value)| *value)
    }

    /// Every key with its value, repeated ones included.
    pub(super) fn entries(&self) -> &'n [Entry] {
        self.entries
    }
}

/// "unknown field", with the nearest known one.
pub(super) fn unknown(key: &str, known: &[&str]) -> String {
    let nearest = spelling::nearest(known.iter().map(|name| (likeness(key, name), *name)));
    match nearest {
        Some(name) => format!("unknown field, did you mean {name}?"),
        None => format!("unknown field; known here: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_field_is_named() {
        let known = [
            "retry",
            "timeout",
            "backoffDelay",
            "backoffPolicy",
            "deadLetterSink",
        ];
        for (key, name) in [
            ("retries", "retry"),
            ("backOffDelay", "backoffDelay"),
            ("backoff", "backoffDelay"),
            ("deadLetter", "deadLetterSink"),
            ("time_out", "timeout"),
        ] {
            let message = unknown(key, &known);
            assert!(
                message.contains(&format!("did you mean {name}?")),
                "{key}: {message}"
            );
        }
        assert!(unknown("colour", &known).contains("known here: retry, timeout"));
        assert!(unknown(&"x".repeat(10_000), &known).contains("known here"));
    }
}
