//! `levada completions` and `levada man`.

use std::path::PathBuf;

use clap::CommandFactory as _;

use super::{Cli, CliError, Console};

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levada completions bash > /etc/bash_completion.d/levada
  levada completions zsh > ~/.zfunc/_levada
  levada completions fish > ~/.config/fish/completions/levada.fish")]
pub(super) struct CompletionArgs {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Write a page for each command into this directory instead of the main page to standard
    /// output.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionArgs, console: &Console) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "levada", &mut script);
    console.text(&String::from_utf8_lossy(&script))
}

pub(super) fn man(args: &ManArgs, console: &Console) -> Result<(), CliError> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return console.text(&String::from_utf8_lossy(&page));
    };
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .map_err(|error| CliError::Failed(format!("cannot write to {}: {error}", dir.display())))
}
