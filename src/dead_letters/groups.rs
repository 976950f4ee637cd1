//! The open dead letters of a subscription, counted by reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::filter::Filter;
use super::letter::DeadLetter;
use super::scan::Direction;
use super::service::{DeadLetters, Error};
use crate::channel::ResourceName;
use crate::clock::UnixMillis;

/// Dead letters that one count looks at, the newest.
const SEARCHED: u64 = 20_000;
/// Types of events that a group names.
const TYPES: usize = 3;
/// Bytes of a sample.
const SAMPLE: usize = 160;

/// Open dead letters with the same reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The reason.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// Types of their events, at most three.
    pub types: BTreeSet<String>,
    /// Whether there are more types.
    pub more_types: bool,
    /// When the oldest became one.
    pub first: UnixMillis,
    /// When the newest did.
    pub last: UnixMillis,
    /// The beginning of the answer to the newest; empty when there was none.
    pub sample: String,
}

/// The open dead letters of a subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// By reason, the most frequent first.
    pub groups: Vec<Group>,
    /// How many are open.
    pub open: u64,
    /// How many were sent again and are still kept.
    pub sent_again: u64,
    /// Whether older ones were not looked at.
    pub cut: bool,
    /// When the oldest kept one became one.
    pub oldest: Option<UnixMillis>,
    /// What the log held when they were counted.
    stamp: Stamp,
}

/// Offsets of the dead-letter topic, and the end of the redrive topic.
type Stamp = (Vec<(i64, i64)>, i64);

impl DeadLetters {
    /// Counts the open dead letters; `known` again if nothing changed since.
    ///
    /// # Errors
    /// [`Error`] when there is no such subscription, or the log fails.
    pub async fn groups(
        &self,
        name: &ResourceName,
        known: Option<&Arc<Groups>>,
    ) -> Result<Arc<Groups>, Error> {
        let shared = self.shared();
        let subscription = shared.find(name)?;
        let ledger = shared.ledger(name).await?;
        let all = Filter::default();
        let ranges = shared.ranges(&subscription, &all, None).await?;
        let spans = ranges.iter().map(|range| (range.start, range.end));
        let stamp = (spans.collect(), ledger.end());
        if let Some(known) = known.filter(|known| known.stamp == stamp) {
            return Ok(Arc::clone(known));
        }
        let mut scan = shared.scan(&subscription, Direction::NewestFirst, ranges);
        let mut counted = Groups {
            stamp,
            ..Groups::default()
        };
        let mut groups = BTreeMap::new();
        let mut searched = 0;
        while let Some((partition, stored)) = scan.next().await? {
            let Some(letter) = DeadLetter::read(&subscription, partition, stored) else {
                continue;
            };
            counted.oldest = Some(letter.inserted_at);
            if ledger.has_sent(&letter) {
                counted.sent_again += 1;
            } else {
                counted.open += 1;
                count(&mut groups, &letter);
            }
            searched += 1;
            if searched >= SEARCHED {
                counted.cut = !scan.is_at_end();
                break;
            }
        }
        counted.groups = groups.into_values().collect();
        counted
            .groups
            .sort_by_key(|group| std::cmp::Reverse(group.count));
        Ok(Arc::new(counted))
    }
}

/// Adds a letter that is older than those before.
fn count(groups: &mut BTreeMap<String, Group>, letter: &DeadLetter) {
    let group = groups
        .entry(letter.outcome.clone())
        .or_insert_with(|| Group {
            reason: letter.outcome.clone(),
            last: letter.inserted_at,
            sample: sample(letter),
            ..Group::default()
        });
    group.count += 1;
    group.first = letter.inserted_at;
    if let Some(kind) = letter.attribute("type") {
        if group.types.len() < TYPES || group.types.contains(kind) {
            group.types.insert(kind.to_owned());
        } else {
            group.more_types = true;
        }
    }
}

fn sample(letter: &DeadLetter) -> String {
    let data = letter.data.as_deref().unwrap_or_default();
    let bytes = STANDARD.decode(data).unwrap_or_default();
    let beginning = bytes.get(..SAMPLE).unwrap_or(&bytes);
    String::from_utf8_lossy(beginning).into_owned()
}
