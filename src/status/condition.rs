//! Conditions as Knative has them: parts, and a summary `Ready`.

use serde_json::{Value, json};

use crate::clock::UnixMillis;

/// What a condition says. A condition that is not true has a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    /// With a reason in one word and a message for people.
    False(&'static str, String),
    Unknown(&'static str, String),
}

pub(super) fn is_true(truth: &Truth) -> bool {
    *truth == Truth::True
}

impl Truth {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False(..) => "False",
            Self::Unknown(..) => "Unknown",
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::True => "",
            Self::False(reason, _) | Self::Unknown(reason, _) => reason,
        }
    }

    pub(super) fn message(&self) -> &str {
        match self {
            Self::True => "",
            Self::False(_, message) | Self::Unknown(_, message) => message,
        }
    }
}

/// The conditions of one resource with the time of each one's last transition.
#[derive(Debug, Default)]
pub(super) struct Conditions(Vec<Condition>);

#[derive(Debug)]
struct Condition {
    kind: &'static str,
    truth: Truth,
    since: UnixMillis,
}

impl Conditions {
    /// Puts the parts into force, and `Ready` over them.
    pub(super) fn set(&mut self, parts: &[(&'static str, Truth)], now: UnixMillis) {
        self.put("Ready", summary(parts), now);
        for (kind, truth) in parts {
            self.put(kind, truth.clone(), now);
        }
    }

    fn put(&mut self, kind: &'static str, truth: Truth, now: UnixMillis) {
        match self.0.iter_mut().find(|condition| condition.kind == kind) {
            Some(condition) => {
                // Another message is no transition.
                if condition.truth.name() != truth.name() {
                    condition.since = now;
                }
                condition.truth = truth;
            }
            None => self.0.push(Condition {
                kind,
                truth,
                since: now,
            }),
        }
    }

    /// The summary.
    pub(super) fn ready(&self) -> Truth {
        let ready = self.0.iter().find(|condition| condition.kind == "Ready");
        ready.map_or(Truth::Unknown("", String::new()), |condition| {
            condition.truth.clone()
        })
    }

    pub(super) fn to_json(&self) -> Value {
        self.0
            .iter()
            .map(|condition| {
                json!({
                    "type": condition.kind,
                    "status": condition.truth.name(),
                    "reason": condition.truth.reason(),
                    "message": condition.truth.message(),
                    "lastTransitionTime": condition.since.rfc3339(),
                })
            })
            .collect()
    }
}

/// False as soon as one part is, else unknown as soon as one is, else true.
fn summary(parts: &[(&'static str, Truth)]) -> Truth {
    let of = |wanted: &str| {
        parts
            .iter()
            .map(|(_, truth)| truth)
            .find(|t| t.name() == wanted)
    };
    of("False")
        .or_else(|| of("Unknown"))
        .cloned()
        .unwrap_or(Truth::True)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_sums_up_and_transitions_are_stamped() {
        let no = Truth::False("Because", "it is so".into());
        let maybe = Truth::Unknown("Pending", String::new());
        let mut conditions = Conditions::default();
        conditions.set(&[("A", Truth::True), ("B", maybe.clone())], UnixMillis(1));
        assert_eq!(conditions.ready(), maybe);
        conditions.set(&[("A", no.clone()), ("B", maybe)], UnixMillis(2));
        assert_eq!(conditions.ready(), no);
        conditions.set(&[("A", Truth::True), ("B", Truth::True)], UnixMillis(3));
        assert!(is_true(&conditions.ready()));
        conditions.set(&[("A", Truth::True), ("B", Truth::True)], UnixMillis(4));
        let json = conditions.to_json();
        assert_eq!(json[0]["type"], "Ready");
        assert_eq!(json[0]["lastTransitionTime"], "1970-01-01T00:00:00.003Z");
        assert_eq!(json[1]["status"], "True");
        assert_eq!(json[1]["reason"], "");
    }
}
