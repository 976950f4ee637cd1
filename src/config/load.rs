//! Puts the configuration together and remembers where each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::error::{ConfigError, ConfigErrors};
use super::options::{self, OPTIONS, OptionDef};
use super::{Config, Raw, file};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag, without its dashes.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// What a configuration is put together from, besides the defaults.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment; variables without `LEVADA_` are passed over.
    pub variables: Vec<(String, String)>,
    /// Flags: the option's key with its value.
    pub flags: Vec<(&'static str, Raw)>,
}

/// A configuration with its origins.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The configuration in force.
    pub config: Config,
    /// What should be told, but stops nothing.
    pub warnings: Vec<String>,
    origins: BTreeMap<String, Source>,
}

impl Loaded {
    /// Where the value under `key` came from; `key` may also be an entry of a table.
    #[must_use]
    pub fn origin(&self, key: &str) -> Source {
        self.origins.get(key).cloned().unwrap_or(Source::Default)
    }
}

/// Variables that belong to commands, not to the configuration.
const OTHER_VARIABLES: [&str; 3] = ["LEVADA_CONFIG", "LEVADA_URL", "LEVADA_ADMIN_URL"];

/// Puts a configuration together: flag before variable before file before default.
///
/// # Errors
/// [`ConfigErrors`] with everything that is wrong, not only the first.
pub fn load(inputs: Inputs) -> Result<Loaded, ConfigErrors> {
    let mut loading = Loading::default();
    if let Some(path) = inputs.file {
        match file::read(&path) {
            Ok(entries) => {
                for entry in entries {
                    loading.file_entry(entry);
                }
            }
            Err(error) => loading.errors.push(error),
        }
    }
    loading.variables(&inputs.variables);
    for (key, raw) in inputs.flags {
        if let Some(option) = options::find(key) {
            loading.take(option, raw, Source::Flag(option.flag()));
        }
    }
    let Loading {
        loaded, mut errors, ..
    } = loading;
    if errors.is_empty() {
        let conflicts = loaded.config.problems();
        errors.extend(conflicts.into_iter().map(ConfigError::Conflict));
    }
    if errors.is_empty() {
        Ok(loaded)
    } else {
        Err(ConfigErrors(errors))
    }
}

#[derive(Default)]
struct Loading {
    loaded: Loaded,
    errors: Vec<ConfigError>,
}

impl Loading {
    fn file_entry(&mut self, entry: file::Entry) {
        let file::Entry { key, raw, source } = entry;
        let Some(option) = options::find(&key) else {
            self.errors.push(ConfigError::UnknownKey {
                nearest: options::nearest(&key),
                source_: source,
                key,
            });
            return;
        };
        match raw {
            Ok(_) if !is_table(option) && self.loaded.origins.contains_key(&key) => {
                self.errors.push(ConfigError::Twice {
                    source_: source,
                    key,
                });
            }
            Ok(raw) => self.take(option, raw, source),
            Err(problem) => self.errors.push(ConfigError::Value {
                source_: source,
                key,
                problem,
            }),
        }
    }

    fn variables(&mut self, variables: &[(String, String)]) {
        for option in OPTIONS {
            let name = option.variable();
            if let Some((_, value)) = variables.iter().find(|(found, _)| *found == name) {
                self.take(option, Raw::Text(value.clone()), Source::Variable(name));
            }
        }
        for (name, _) in variables {
            let ours = OPTIONS.iter().any(|option| option.variable() == *name);
            let known = ours || OTHER_VARIABLES.contains(&name.as_str());
            if name.starts_with("LEVADA_") && !known && !is_service_link(name) {
                self.loaded.warnings.push(format!(
                    "the variable {name} is set, but there is no such option"
                ));
            }
        }
    }

    fn take(&mut self, option: &OptionDef, raw: Raw, source: Source) {
        if let Err(problem) = (option.take)(&mut self.loaded.config, raw.clone()) {
            self.errors.push(ConfigError::Value {
                source_: source,
                key: option.key.to_owned(),
                problem,
            });
            return;
        }
        if is_table(option) {
            for name in entry_names(&raw) {
                let key = format!("{}.{name}", option.key);
                self.loaded.origins.insert(key, source.clone());
            }
        }
        self.loaded.origins.insert(option.key.to_owned(), source);
    }
}

fn is_table(option: &OptionDef) -> bool {
    matches!((option.show)(&Config::default()), Raw::Table(_))
}

/// The names of the table entries that `raw` sets.
fn entry_names(raw: &Raw) -> Vec<String> {
    let name = |line: &str| line.split_once('=').map(|(name, _)| name.trim().to_owned());
    match raw {
        Raw::Table(table) => table.keys().cloned().collect(),
        Raw::Text(text) => text.lines().filter_map(name).collect(),
        Raw::List(lines) => lines.iter().filter_map(|line| name(line)).collect(),
        Raw::Bool(_) | Raw::Number(_) => Vec::new(),
    }
}

/// Kubernetes sets these for a Service that is called `levada`.
fn is_service_link(name: &str) -> bool {
    let rest = name.trim_start_matches("LEVADA_");
    rest.starts_with("SERVICE_HOST") || rest.starts_with("SERVICE_PORT") || rest.starts_with("PORT")
}
