//! Where commands write for people: standard output, or a test's buffer.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::CliError;

/// What a piece of text means; shown as a colour where there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// As it should not be.
    Bad,
    /// Worth a look.
    Notice,
    /// Of less weight.
    Dim,
}

/// Takes lines of text; cheap to clone.
#[derive(Clone)]
pub struct Console {
    out: Arc<Mutex<dyn Write + Send>>,
    colours: bool,
    /// Whether a person watches, so that progress makes sense.
    live: bool,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

impl Console {
    /// Standard output, with colours if it is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self {
            out: Arc::new(Mutex::new(std::io::stdout())),
            colours: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            live: std::io::stderr().is_terminal(),
        }
    }

    /// Plain text to `out`.
    pub fn plain(out: impl Write + Send + 'static) -> Self {
        Self {
            out: Arc::new(Mutex::new(out)),
            colours: false,
            live: false,
        }
    }

    /// Writes a line and flushes it.
    ///
    /// # Errors
    /// [`CliError::Closed`] when nobody reads any more.
    pub fn line(&self, text: impl Display) -> Result<(), CliError> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }

    /// Writes text that has its line ends already.
    ///
    /// # Errors
    /// As [`Console::line`].
    pub fn text(&self, text: &str) -> Result<(), CliError> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// `text` in the colour of `tone`, if there are colours.
    #[must_use]
    pub fn paint(&self, tone: Tone, text: impl Display) -> String {
        if !self.colours {
            return text.to_string();
        }
        let code = match tone {
            Tone::Good => 32,
            Tone::Bad => 31,
            Tone::Notice => 33,
            Tone::Dim => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Shows `text` in place of the last progress, on standard error, if a person watches.
    pub fn progress(&self, text: impl Display) {
        if self.live {
            let _ = write!(std::io::stderr(), "\r{text}\x1b[K");
        }
    }

    /// Says on standard error why the command failed.
    pub fn complain(&self, error: &CliError) {
        let _ = writeln!(std::io::stderr(), "error: {error}");
    }

    /// Says something on standard error that stops nothing.
    pub fn warn(&self, text: impl Display) {
        let _ = writeln!(std::io::stderr(), "warning: {text}");
    }
}

/// A console whose text can be read back.
#[cfg(test)]
pub(super) fn captured() -> (Console, impl Fn() -> String) {
    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);
    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let buffer = Buffer::default();
    let console = Console::plain(buffer.clone());
    let read = move || String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
    (console, read)
}
