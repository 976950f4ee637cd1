//! Which dead letters are meant.

use serde::{Deserialize, Serialize};

use super::letter::DeadLetter;
use crate::clock::UnixMillis;

/// Which dead letters are meant; everything that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Not older than this.
    pub since: Option<UnixMillis>,
    /// Older than this.
    pub until: Option<UnixMillis>,
    /// The event's type, exactly.
    pub event_type: Option<String>,
    /// The event's id, exactly.
    pub event_id: Option<String>,
    /// The status code of the last answer.
    pub error_code: Option<u16>,
    /// Why it was given up: one of these reasons. Empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

impl Filter {
    /// Whether every dead letter is meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn matches(&self, letter: &DeadLetter) -> bool {
        let is = |wanted: &Option<String>, name: &str| {
            wanted
                .as_deref()
                .is_none_or(|wanted| letter.attribute(name) == Some(wanted))
        };
        self.since.is_none_or(|since| letter.inserted_at >= since)
            && self.until.is_none_or(|until| letter.inserted_at < until)
            && self.error_code.is_none_or(|code| letter.code == Some(code))
            && (self.reasons.is_empty() || self.reasons.contains(&letter.outcome))
            && is(&self.event_type, "type")
            && is(&self.event_id, "id")
    }
}
