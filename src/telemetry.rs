//! Diagnostics on standard error, as text or JSON.
//!
//! What is filtered out costs an atomic load at its call site: the filter is fixed at the start,
//! so disabled sites are found disabled once and for all.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{Raw, Value, take_name};

/// How diagnostics are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// For people or for machines.
    pub format: Format,
    /// What is told: a level, or levels by target.
    pub level: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            format: Format::Text,
            level: "info".into(),
        }
    }
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Value for Format {
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        take_name(self, raw, &[("text", Self::Text), ("json", Self::Json)])
    }

    fn show(&self) -> Raw {
        let name = match self {
            Self::Text => "text",
            Self::Json => "json",
        };
        Raw::Text(name.into())
    }
}

/// Diagnostics cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error(
        "log.level: {level:?} is not a filter such as info or info,levada::delivery=debug: {source}"
    )]
    Filter {
        /// What was given.
        level: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// It was done before.
    #[error("diagnostics are set up already")]
    Twice,
}

/// Libraries that tell more than an operator needs: librdkafka warns of every idle connection that
/// a broker closes, which is no fault.
const TAMED: &str =
    "librdkafka=error,rdkafka=warn,hyper=warn,h2=warn,rustls=warn,fjall=warn,lsm_tree=warn";

/// The filter: what `level` says, and the libraries quieter unless it names them.
///
/// # Errors
/// [`TelemetryError::Filter`]
pub fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    // A later directive for the same target takes the place of an earlier one.
    EnvFilter::builder()
        .parse(format!("{TAMED},{level}"))
        .map_err(|source| TelemetryError::Filter {
            level: level.to_owned(),
            source,
        })
}

/// Sets diagnostics up for the process.
///
/// # Errors
/// [`TelemetryError`]
pub fn init(settings: &Settings) -> Result<(), TelemetryError> {
    let filter = filter(&settings.level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match settings.format {
        Format::Text => builder.with_ansi(colours).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|_| TelemetryError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_they_are_named() {
        let shown = filter("info").unwrap().to_string();
        assert!(shown.contains("librdkafka=error"), "{shown}");
        let shown = filter("info,librdkafka=debug").unwrap().to_string();
        assert!(shown.contains("librdkafka=debug"), "{shown}");
        assert!(!shown.contains("librdkafka=error"), "{shown}");
        assert!(filter("levada=loud").is_err());
    }
}
