//! Manifests: YAML documents that declare channels, subscriptions and sinks.
//!
//! [`parse`] turns the text of one file into typed [`Document`]s and reports every problem with
//! its line and field; one bad document does not keep the others from being read. [`check()`] looks
//! at several files together. What references mean and which resources are in force is decided
//! by [`crate::registry`].

mod check;
mod delivery;
mod destination;
mod document;
mod fields;
mod graph;
mod headers;
mod read;
mod secrets;
mod status_check;
#[cfg(test)]
mod tests;
mod timeline;
mod yaml;

use std::fmt;
use std::sync::Arc;

pub use check::{Report, Source, check};
pub(crate) use check::{circle_message, duplicate, problem};
pub use delivery::{DeliveryOptions, effective};
pub use destination::{Destination, HttpUrl, RefKind, Reference, Target};
pub use document::{
    ChannelKind, ChannelRef, ChannelSpec, Document, ResourceKey, ResourceType, SinkSpec, Spec,
    SubscriptionSpec, immutable_change,
};
pub use graph::Loops;
pub use read::{Parsed, parse};
pub use secrets::{NoSecrets, ProcessSecrets, SecretRef, Secrets};
pub use timeline::{RetryStep, check_timeline, retry_timeline};
pub use yaml::MAX_BYTES as MAX_FILE_BYTES;

/// Something wrong in a manifest. Shown as `file:line: field: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named.
    pub file: Arc<str>,
    /// The line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// The path of the field, such as `spec.delivery.backoffDelay`; empty when the text is no
    /// YAML or no object, `apiVersion/kind` when the kind is not known.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}
