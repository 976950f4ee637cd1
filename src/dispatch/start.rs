//! Where reading begins: pure decisions about start offsets (design of groups, in words).
//!
//! A new subscription starts at the end of its channel: before its retry topic is made, the end
//! of every partition is committed for its group. So a retry topic that exists says that the
//! starts are fixed, and any commit that is missing later (a partition that was added, offsets
//! that expired, a topic made anew) means records that nobody has tried: reading begins at the
//! earliest of them.

use crate::log::{Commit, Offset, Watermarks};

/// Where to begin a partition, and why when it is not the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The first record to take.
    pub(crate) offset: Offset,
    /// What the commit was worth.
    pub(crate) basis: Basis,
}

/// What a start rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// The commit, as it stands.
    Commit,
    /// There was no commit.
    Missing,
    /// So many records were deleted before they were finished.
    Expired(u64),
    /// The commit lies beyond the end: the topic was made anew.
    Beyond,
}

/// Decides where the owner of a partition begins to read.
pub(crate) fn start(commit: Option<&Commit>, marks: Watermarks) -> Start {
    let earliest = |basis| Start {
        offset: marks.low,
        basis,
    };
    match commit {
        None => earliest(Basis::Missing),
        Some(commit) if commit.offset < marks.low => {
            earliest(Basis::Expired(marks.low.0.abs_diff(commit.offset.0)))
        }
        Some(commit) if commit.offset > marks.high => earliest(Basis::Beyond),
        Some(commit) => Start {
            offset: commit.offset,
            basis: Basis::Commit,
        },
    }
}

/// Whether the ends of all partitions are to be committed for a group that has no retry topic
/// yet: only when it never committed anything.
pub(crate) fn is_new(commits: &[Option<Commit>]) -> bool {
    commits.iter().all(Option::is_none)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(low: i64, high: i64) -> Watermarks {
        Watermarks {
            low: Offset(low),
            high: Offset(high),
        }
    }

    fn commit(offset: i64) -> Commit {
        Commit {
            offset: Offset(offset),
            metadata: String::new(),
        }
    }

    #[test]
    fn a_commit_in_range_is_followed_anything_else_means_the_earliest_record() {
        let cases = [
            (Some(5), marks(0, 9), 5, Basis::Commit),
            (Some(0), marks(0, 0), 0, Basis::Commit),
            (Some(9), marks(9, 9), 9, Basis::Commit),
            (None, marks(3, 9), 3, Basis::Missing),
            (Some(2), marks(3, 9), 3, Basis::Expired(1)),
            (Some(10), marks(0, 9), 0, Basis::Beyond),
        ];
        for (offset, marks, expected, basis) in cases {
            let start = start(offset.map(commit).as_ref(), marks);
            assert_eq!(
                start,
                Start {
                    offset: Offset(expected),
                    basis
                },
                "{offset:?} {marks:?}"
            );
        }
    }

    #[test]
    fn a_group_is_new_only_without_any_commit() {
        assert!(is_new(&[None, None]));
        assert!(!is_new(&[None, Some(commit(0))]));
    }
}
