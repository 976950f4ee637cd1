//! Which files there are, and whether one changed.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::state::Read;
use crate::manifest::{MAX_FILE_BYTES, ProcessSecrets, Source, parse};

/// What tells one state of a file from another without reading it. Links are followed, so that
/// a directory of links whose target is exchanged counts as changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    length: u64,
    modified: Option<SystemTime>,
    identity: Identity,
}

/// Device, inode and change time: another file under the same name differs in them.
type Identity = (u64, u64, i64, i64);

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (
        metadata.dev(),
        metadata.ino(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Identity {
    (0, 0, 0, 0)
}

impl Signature {
    fn of(metadata: &Metadata) -> Self {
        Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            identity: identity(metadata),
        }
    }
}

/// The manifests there are at one moment, and the files whose content goes into them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    entries: Vec<Entry>,
    secrets: Vec<Option<Signature>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    File(PathBuf, Signature),
    Missing(PathBuf),
    Unreadable(PathBuf, String),
    UnreadableDirectory(PathBuf, String),
}

impl Listing {
    /// Looks at `paths` in order, a directory's files by name.
    pub(super) fn take(paths: &[PathBuf], secrets: &BTreeSet<PathBuf>) -> Self {
        let mut seen = BTreeSet::new();
        let mut entries = Vec::new();
        for path in paths {
            match fs::metadata(path) {
                Ok(metadata) if metadata.is_dir() => match directory(path) {
                    Ok(files) => entries.extend(files),
                    Err(error) => {
                        let message = format!("the directory cannot be read: {error}");
                        entries.push(Entry::UnreadableDirectory(path.clone(), message));
                    }
                },
                Ok(metadata) => entries.push(Entry::new(path.clone(), &metadata)),
                Err(error) => entries.push(missing(path, &error)),
            }
        }
        // The same file may be named twice, by itself and by its directory.
        entries.retain(|entry| {
            let path = entry.path();
            seen.insert(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
        });
        let secrets = secrets.iter().map(|path| fs::metadata(path).ok());
        Self {
            entries,
            secrets: secrets
                .map(|metadata| metadata.as_ref().map(Signature::of))
                .collect(),
        }
    }

    /// Reads the files. Also returns the files that secrets were read from.
    pub(super) fn read(&self) -> (Vec<Read>, BTreeSet<PathBuf>) {
        let mut secrets = BTreeSet::new();
        let reads = self.entries.iter().filter_map(|entry| match entry {
            Entry::File(path, _) => {
                let name: Arc<str> = path.display().to_string().into();
                match read_bounded(path) {
                    Ok(bytes) => {
                        let mut parsed = parse(&name, &bytes, &ProcessSecrets);
                        secrets.extend(std::mem::take(&mut parsed.secret_files));
                        Some(Read::File(name, parsed))
                    }
                    // Deleted since it was listed: the next listing will not have it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => {
                        let message = format!("the file cannot be read: {error}");
                        Some(Read::UnreadableFile(name, message))
                    }
                }
            }
            Entry::Missing(path) => Some(Read::MissingFile(path.display().to_string().into())),
            Entry::Unreadable(path, message) => {
                let name = path.display().to_string().into();
                Some(Read::UnreadableFile(name, message.clone()))
            }
            Entry::UnreadableDirectory(path, message) => {
                Some(Read::UnreadableDirectory(path.clone(), message.clone()))
            }
        });
        (reads.collect(), secrets)
    }
}

/// The manifests in `paths`, chosen as the registry chooses them, for [`crate::manifest::check()`].
///
/// # Errors
/// The first path that cannot be read, with the reason.
pub fn sources(paths: &[PathBuf]) -> io::Result<Vec<Source>> {
    let named =
        |path: &Path, message: &str| io::Error::other(format!("{}: {message}", path.display()));
    let listing = Listing::take(paths, &BTreeSet::new());
    let sources = listing.entries.iter().map(|entry| match entry {
        Entry::File(path, _) => Ok(Source {
            name: path.display().to_string(),
            content: read_bounded(path).map_err(|error| named(path, &error.to_string()))?,
        }),
        Entry::Missing(path) => Err(named(path, "the file does not exist")),
        Entry::Unreadable(path, message) | Entry::UnreadableDirectory(path, message) => {
            Err(named(path, message))
        }
    });
    sources.collect()
}

impl Entry {
    fn new(path: PathBuf, metadata: &Metadata) -> Self {
        if metadata.is_file() {
            let signature = Signature::of(metadata);
            Self::File(path, signature)
        } else {
            // Reading a pipe or a device might never end.
            Self::Unreadable(path, "neither a file nor a directory".to_owned())
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::File(path, _)
            | Self::Missing(path)
            | Self::Unreadable(path, _)
            | Self::UnreadableDirectory(path, _) => path,
        }
    }
}

/// A path that cannot be looked at. Whether it was to be a file or a directory shows only in its
/// name.
fn missing(path: &Path, error: &io::Error) -> Entry {
    if error.kind() == io::ErrorKind::NotFound && is_manifest(path) {
        Entry::Missing(path.to_owned())
    } else if error.kind() == io::ErrorKind::NotFound {
        let message = "the directory does not exist (it is read as soon as it does)".to_owned();
        Entry::UnreadableDirectory(path.to_owned(), message)
    } else {
        Entry::UnreadableDirectory(path.to_owned(), format!("cannot be read: {error}"))
    }
}

fn directory(path: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if !is_manifest(&path) {
            continue;
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(metadata) => entries.push(Entry::new(path, &metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Deleted this moment, or a link that leads nowhere.
                if fs::symlink_metadata(&path).is_ok() {
                    let message = "the link leads nowhere".to_owned();
                    entries.push(Entry::Unreadable(path, message));
                }
            }
            Err(error) => entries.push(Entry::Unreadable(path, error.to_string())),
        }
    }
    entries.sort_by(|a, b| a.path().cmp(b.path()));
    Ok(entries)
}

/// `*.yaml`, `*.yml` and `*.json`, without hidden files and what editors leave beside a file.
fn is_manifest(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("");
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json")) && !name.starts_with(['.', '#', '~'])
}

/// One byte more than is taken at most, so that the parser can say that it is too much.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES as u64 + 1;
    fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_manifests_are_read() {
        for name in ["a.yaml", "a.b.yml", "a.json"] {
            assert!(is_manifest(Path::new(name)), "{name}");
        }
        for name in [
            ".a.yaml",
            "#a.yaml",
            "~a.yaml",
            "a.yaml~",
            "a.yaml.swp",
            "a.YAML.tmp",
            "a",
            "yaml",
        ] {
            assert!(!is_manifest(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_named_twice_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, "").unwrap();
        let paths = [directory.path().to_owned(), file];
        assert_eq!(sources(&paths).unwrap().len(), 1);
        let missing = directory.path().join("b.yaml");
        let error = sources(&[missing]).unwrap_err().to_string();
        assert!(
            error.ends_with("b.yaml: the file does not exist"),
            "{error}"
        );
    }
}
