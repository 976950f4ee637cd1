//! `${env:NAME}` and `${file:PATH}` in header values.

use std::fmt;
use std::path::{Path, PathBuf};

/// What a header value refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file; a relative path begins at the manifest's directory.
    File(PathBuf),
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// Where secrets come from.
pub trait Secrets: fmt::Debug {
    /// The value of `secret`.
    ///
    /// # Errors
    /// Why there is none; the text must not hold the value.
    fn resolve(&self, secret: &SecretRef) -> Result<String, String>;
}

/// The environment and files of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessSecrets;

/// The most that is read of a secret's file, in bytes.
const MAX_SECRET: u64 = 64 << 10;

impl Secrets for ProcessSecrets {
    fn resolve(&self, secret: &SecretRef) -> Result<String, String> {
        match secret {
            SecretRef::Env(name) => std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => "it is not set".to_owned(),
                std::env::VarError::NotUnicode(_) => "it is not UTF-8".to_owned(),
            }),
            SecretRef::File(path) => read_file(path),
        }
    }
}

/// A file's text without the line end that editors add.
fn read_file(path: &Path) -> Result<String, String> {
    use std::io::Read;

    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_SECRET + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_SECRET {
        return Err(format!("it has more than {MAX_SECRET} bytes"));
    }
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    Ok(text)
}

/// Knows every secret, as the same placeholder: for looking at manifests away from where they
/// are used.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn resolve(&self, _: &SecretRef) -> Result<String, String> {
        Ok("secret".to_owned())
    }
}

/// A piece of a header value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    Text(&'t str),
    Secret(SecretRef),
}

/// Splits a header value; `${` begins a reference.
pub(super) fn pieces<'t>(mut text: &'t str, directory: &Path) -> Result<Vec<Piece<'t>>, String> {
    let mut pieces = Vec::new();
    while let Some((before, rest)) = text.split_once("${") {
        let (reference, after) = rest
            .split_once('}')
            .ok_or("a ${ without }: write ${env:NAME} or ${file:PATH}")?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Secret(match reference.split_once(':') {
            Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0']) => {
                SecretRef::Env(name.to_owned())
            }
            Some(("file", path)) if !path.is_empty() => SecretRef::File(directory.join(path)),
            _ => {
                return Err(format!(
                    "${{{reference}}} is not known: write ${{env:NAME}} or ${{file:PATH}}"
                ));
            }
        }));
        text = after;
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_split_at_their_references() {
        let split = |text| pieces(text, Path::new("/m"));
        assert_eq!(
            split("plain $x {y}").unwrap(),
            [Piece::Text("plain $x {y}")]
        );
        assert_eq!(
            split("Bearer ${env:TOKEN}${file:s/key}!").unwrap(),
            [
                Piece::Text("Bearer "),
                Piece::Secret(SecretRef::Env("TOKEN".to_owned())),
                Piece::Secret(SecretRef::File("/m/s/key".into())),
                Piece::Text("!"),
            ]
        );
        assert_eq!(
            split("${file:/run/key}").unwrap(),
            [Piece::Secret(SecretRef::File("/run/key".into()))]
        );
        for bad in [
            "${env:A",
            "${env:}",
            "${A}",
            "${vault:x}",
            "${file:}",
            "${}",
            "${env:A=B}",
        ] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_read_without_its_last_line_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "a b\n").unwrap();
        let secret = SecretRef::File(path);
        assert_eq!(ProcessSecrets.resolve(&secret).unwrap(), "a b");
        let missing = SecretRef::File(directory.path().join("none"));
        assert!(ProcessSecrets.resolve(&missing).is_err());
        let unset = SecretRef::Env("LEVADA_TEST_NEVER_SET".to_owned());
        assert_eq!(ProcessSecrets.resolve(&unset).unwrap_err(), "it is not set");
    }
}
