//! What can be wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

use super::load::Source;

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: not TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// There is no such option.
    #[error("{source_}: there is no option {key}{}", hint(*nearest))]
    UnknownKey {
        /// Where it stands.
        source_: Source,
        /// What is written there.
        key: String,
        /// What was meant, perhaps.
        nearest: Option<&'static str>,
    },
    /// An option stands twice in the file, once with `-` and once with `_`.
    #[error("{source_}: {key} is given twice")]
    Twice {
        /// Where the second one stands.
        source_: Source,
        /// The option.
        key: String,
    },
    /// The value is not one of this option's.
    #[error("{source_}: {key}: {problem}")]
    Value {
        /// Where it comes from.
        source_: Source,
        /// The option.
        key: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Options that do not fit together.
    #[error("{0}")]
    Conflict(String),
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean {key}?"))
}

/// Everything that is wrong, at least one thing.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
