//! Writes configurations down: the default file, and what is in force.

use std::fmt::Write as _;

use super::load::{Loaded, Source};
use super::options::{OPTIONS, OptionDef};
use super::{Config, Raw};

const HEAD: &str = "\
# The configuration of Levada, with every option at its default.
#
# A value is taken from the first place that has it: flag, environment variable, this file,
# default. `listen` under [admin] is --admin-listen and LEVADA_ADMIN_LISTEN; all others likewise.
# Durations are ISO 8601 (PT20S, PT1H30M); sizes are bytes, or text such as \"64MiB\".
# `levada serve --print-config` shows what is in force and where each value came from.
";

/// The file with every option at its default, and what it does.
#[must_use]
pub fn default_file() -> String {
    let config = Config::default();
    let mut text = HEAD.to_owned();
    write_options(&mut text, |text, option| {
        text.push('\n');
        for line in option.doc {
            let _ = writeln!(text, "#{line}");
        }
        let (_, name) = option.place();
        match (option.show)(&config) {
            Raw::Table(_) => {
                let _ = writeln!(text, "[{}]", option.key);
                let _ = writeln!(text, "# \"security.protocol\" = \"SASL_SSL\"");
            }
            raw => {
                let _ = writeln!(text, "{name} = {}", toml_text(&raw));
            }
        }
    });
    text
}

/// What is in force, as TOML, with the origin of every value. Secrets are masked.
#[must_use]
pub fn in_force(loaded: &Loaded) -> String {
    let mut text = String::new();
    write_options(&mut text, |text, option| {
        let (_, name) = option.place();
        match (option.show)(&loaded.config) {
            Raw::Table(table) => {
                let _ = writeln!(text, "\n[{}]", option.key);
                for (name, value) in table {
                    let origin = loaded.origin(&format!("{}.{name}", option.key));
                    let quoted = toml_text(&Raw::Text(name));
                    write_value(text, &quoted, &Raw::Text(value), &origin);
                }
            }
            raw => write_value(text, name, &raw, &loaded.origin(option.key)),
        }
    });
    text
}

fn write_value(text: &mut String, name: &str, raw: &Raw, origin: &Source) {
    let value = format!("{name} = {}", toml_text(raw));
    let _ = writeln!(text, "{value:<50} # {origin}");
}

fn write_options(text: &mut String, mut write: impl FnMut(&mut String, &OptionDef)) {
    let mut section = None;
    for option in OPTIONS {
        let (wanted, _) = option.place();
        // A table is a section of its own.
        let table = matches!((option.show)(&Config::default()), Raw::Table(_));
        if wanted != section && !table {
            let _ = writeln!(text, "\n[{}]", wanted.unwrap_or_default());
        }
        section = if table { None } else { wanted };
        write(text, option);
    }
}

fn toml_text(raw: &Raw) -> String {
    let quoted = |text: &String| toml::Value::String(text.clone()).to_string();
    match raw {
        Raw::Bool(value) => value.to_string(),
        Raw::Number(number) => number.to_string(),
        Raw::Text(text) => quoted(text),
        Raw::List(items) => {
            let items: Vec<_> = items.iter().map(quoted).collect();
            format!("[{}]", items.join(", "))
        }
        Raw::Table(_) => String::new(),
    }
}
