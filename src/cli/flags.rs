//! The flags of `serve`: one for each option, made from the table of options.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{Config, OPTIONS, OptionDef, Raw};

/// The options given as flags.
#[derive(Clone, Debug, Default)]
pub(super) struct OptionFlags(pub(super) Vec<(&'static str, Raw)>);

/// Those that say where the log is and what is declared; the others are no flags of the command.
#[derive(Clone, Debug, Default)]
pub(super) struct LogFlags(pub(super) OptionFlags);

const LOG_FLAGS: [&str; 6] = [
    "bootstrap-servers",
    "data-dir",
    "manifests",
    "kafka.properties",
    "names.channel-topic",
    "names.group",
];

impl clap::FromArgMatches for OptionFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for option in OPTIONS {
            // An option may be no flag of this command.
            let values = matches.try_get_many::<String>(option.key);
            if let Some(values) = values.ok().flatten() {
                let values: Vec<_> = values.cloned().collect();
                let raw = if takes_many(option) {
                    Raw::List(values)
                } else {
                    Raw::Text(values.into_iter().next_back().unwrap_or_default())
                };
                self.0.push((option.key, raw));
            }
        }
        Ok(())
    }
}

impl clap::Args for OptionFlags {
    fn augment_args(command: Command) -> Command {
        OPTIONS
            .iter()
            .fold(command, |command, option| command.arg(flag(option)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for LogFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        OptionFlags::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl clap::Args for LogFlags {
    fn augment_args(command: Command) -> Command {
        OPTIONS
            .iter()
            .filter(|option| LOG_FLAGS.contains(&option.key))
            .fold(command, |command, option| command.arg(flag(option)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn takes_many(option: &OptionDef) -> bool {
    let default = (option.show)(&Config::default());
    matches!(default, Raw::List(_) | Raw::Table(_))
}

fn flag(option: &'static OptionDef) -> Arg {
    let default = match (option.show)(&Config::default()) {
        Raw::Bool(value) => value.to_string(),
        Raw::Number(number) => number.to_string(),
        Raw::Text(text) => text,
        Raw::List(items) => items.join(","),
        Raw::Table(_) => String::new(),
    };
    let end = if default.is_empty() {
        String::new()
    } else {
        format!(" [default: {default}]")
    };
    let arg = Arg::new(option.key)
        .long(option.flag())
        .value_name(option.value)
        .help(format!(
            "{}{end} [env: {}]",
            option.help(),
            option.variable()
        ))
        .help_heading("Options, also settable in the file and the environment")
        .allow_hyphen_values(true);
    let arg = if takes_many(option) {
        arg.action(ArgAction::Append)
    } else {
        arg.action(ArgAction::Set)
    };
    // `--leave` alone means `--leave=true`; a value needs the sign, so that nothing is swallowed.
    if matches!((option.show)(&Config::default()), Raw::Bool(_)) {
        arg.num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
    } else {
        arg
    }
}
