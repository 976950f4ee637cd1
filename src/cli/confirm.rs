//! Asks before something is done that cannot be taken back.

use std::io::{BufRead, IsTerminal};

use super::{CliError, Console};

/// Asks `question` at the terminal, unless the answer was given along with `--yes`.
pub(super) async fn sure(yes: bool, question: &str, console: &Console) -> Result<bool, CliError> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        let said = "there is no terminal to ask at: say --yes to go on without being asked";
        return Err(CliError::Usage(said.into()));
    }
    console.text(&format!("{question} [y/N] "))?;
    let read = || answer(&mut std::io::stdin().lock());
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| CliError::Failed(error.to_string()))
}

/// Whether a line says yes; anything else, and nothing, is no.
pub(super) fn answer(input: &mut impl BufRead) -> bool {
    let mut line = String::new();
    input.read_line(&mut line).is_ok()
        && matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
