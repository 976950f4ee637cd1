//! Style and script, under addresses that change with them.

use std::fmt::Write as _;
use std::sync::LazyLock;

use uuid::Uuid;

/// A file that is part of the program.
#[derive(Debug)]
pub(super) struct Asset {
    path: LazyLock<String>,
    pub(super) media: &'static str,
    pub(super) bytes: &'static [u8],
}

pub(super) static STYLE: Asset = Asset {
    path: LazyLock::new(|| path("levada", "css", STYLE_BYTES)),
    media: "text/css; charset=utf-8",
    bytes: STYLE_BYTES,
};

pub(super) static SCRIPT: Asset = Asset {
    path: LazyLock::new(|| path("levada", "js", SCRIPT_BYTES)),
    media: "text/javascript; charset=utf-8",
    bytes: SCRIPT_BYTES,
};

const STYLE_BYTES: &[u8] = include_bytes!("assets/levada.css");
const SCRIPT_BYTES: &[u8] = include_bytes!("assets/levada.js");

impl Asset {
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

fn path(name: &str, extension: &str, bytes: &[u8]) -> String {
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, bytes);
    let mut path = format!("/assets/{name}.");
    for byte in &hash.as_bytes()[..6] {
        // Writing to a string does not fail.
        let _ = write!(path, "{byte:02x}");
    }
    path + "." + extension
}

/// The asset at this address.
pub(super) fn find(path: &str) -> Option<&'static Asset> {
    [&STYLE, &SCRIPT]
        .into_iter()
        .find(|asset| asset.path() == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assets_are_small_and_found() {
        assert!(STYLE.bytes.len() <= 16 << 10, "{}", STYLE.bytes.len());
        assert!(SCRIPT.bytes.len() <= 14 << 10, "{}", SCRIPT.bytes.len());
        assert_eq!(find(STYLE.path()).unwrap().bytes, STYLE.bytes);
        assert!(find("/assets/levada.css").is_none());
    }
}
