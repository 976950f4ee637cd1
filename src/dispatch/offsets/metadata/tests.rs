//! Samples, bounds, and any input.

use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_790_000_000_000;

fn waiting(offset: i64, attempts_made: u32, first: i64, due: i64) -> Waiting {
    Waiting {
        offset: Offset(offset),
        attempts_made,
        first_attempt: UnixMillis(first),
        due: UnixMillis(due),
    }
}

fn done(ranges: &[(i64, i64)]) -> Vec<Range<Offset>> {
    let range = |(start, end): &(i64, i64)| Offset(*start)..Offset(*end);
    ranges.iter().map(range).collect()
}

fn round_trip(metadata: &Metadata, commit: i64) -> (String, Fit) {
    let (text, fit) = metadata.encode(Offset(commit), METADATA_LIMIT);
    if fit == Fit::All {
        assert_eq!(Metadata::decode(Offset(commit), &text), *metadata, "{text}");
    }
    (text, fit)
}

/// What is stored stays readable: these texts are never changed, only added to.
#[test]
fn stored_samples_are_written_and_read() {
    for (commit, metadata, expected) in [
        (7, Metadata::default(), ""),
        (
            1000,
            Metadata {
                done: done(&[(1002, 1003), (1005, 1105)]),
                waiting: Vec::new(),
            },
            "lv1:zcTGLgABAgABYw",
        ),
        (
            1000,
            Metadata {
                done: (501..540)
                    .flat_map(|at| done(&[(2 * at, 2 * at + 1)]))
                    .collect(),
                waiting: vec![
                    waiting(1000, 1, NOW, NOW + 200),
                    waiting(1003, 2, NOW - 5, NOW + 400),
                ],
            },
            "lv1:_LgMrQEBgLCDxZhokAMDAgmqBgACVFVVVVVVVVVVVQ",
        ),
    ] {
        let (text, fit) = round_trip(&metadata, commit);
        assert_eq!((text.as_str(), fit), (expected, Fit::All));
    }
}

#[test]
fn what_is_not_ours_or_damaged_or_for_another_commit_says_nothing() {
    let metadata = Metadata {
        done: done(&[(12, 20), (30, 31)]),
        waiting: vec![waiting(10, 1, NOW, NOW + 500)],
    };
    let (text, _) = metadata.encode(Offset(10), METADATA_LIMIT);
    let nothing = Metadata::default();
    assert_eq!(Metadata::decode(Offset(11), &text), nothing);
    for unknown in [
        "",
        "lv1",
        "lv1:",
        "lv1:AAAA",
        "lv1:!",
        "lv2:AAAAAAAA",
        "{\"a\":1}",
        "é",
    ] {
        assert_eq!(Metadata::decode(Offset(10), unknown), nothing, "{unknown}");
    }
    for place in 0..text.len() {
        let mut damaged = text.clone().into_bytes();
        damaged[place] = if damaged[place] == b'A' { b'B' } else { b'A' };
        let damaged = String::from_utf8(damaged).unwrap();
        assert_eq!(Metadata::decode(Offset(10), &damaged), nothing, "{damaged}");
        assert_eq!(Metadata::decode(Offset(10), &text[..place]), nothing);
    }
}

#[test]
fn what_the_documentation_promises_fits() {
    let sparse = |count: i64, step: i64| Metadata {
        done: (1..=count)
            .flat_map(|n| done(&[(n * step, n * step + 1)]))
            .collect(),
        waiting: Vec::new(),
    };
    assert_eq!(round_trip(&sparse(1500, 128), 0).1, Fit::All);
    assert_eq!(round_trip(&sparse(12_000, 2), 0).1, Fit::All);
    let (text, fit) = round_trip(&sparse(5_000, 2), 0);
    assert!(fit == Fit::All && text.len() <= 1700, "{}", text.len());

    let typical = |n: i64| waiting(n * 3, 1, NOW + n * 7, NOW + n * 7 + 900);
    let metadata = Metadata {
        done: Vec::new(),
        waiting: (0..380).map(typical).collect(),
    };
    assert_eq!(round_trip(&metadata, 0).1, Fit::All);
}

#[test]
fn what_waits_comes_first_and_then_what_is_near() {
    let metadata = Metadata {
        done: (1..100)
            .flat_map(|n| done(&[(n * 1000, n * 1000 + 1)]))
            .collect(),
        waiting: (0..20).map(|n| waiting(n * 5, 3, NOW, NOW + 300)).collect(),
    };
    let at = Offset(0);
    let (text, fit) = metadata.encode(at, 200);
    let Fit::Truncated { waiting, done_from } = fit else {
        panic!("{text} holds everything");
    };
    assert_eq!(waiting, []);
    let read = Metadata::decode(at, &text);
    assert_eq!(read.waiting, metadata.waiting);
    assert_eq!(read.done[..], metadata.done[..read.done.len()]);
    assert_eq!(done_from, Some(metadata.done[read.done.len()].start));

    let (text, fit) = metadata.encode(at, 60);
    let read = Metadata::decode(at, &text);
    let count = read.waiting.len();
    assert!(count > 2 && read.done.is_empty(), "{read:?}");
    let left = metadata.waiting[count..].iter().map(|one| one.offset);
    let expected = Fit::Truncated {
        waiting: left.collect(),
        done_from: Some(Offset(1000)),
    };
    assert_eq!(fit, expected);
}

fn any_metadata() -> impl Strategy<Value = (i64, Metadata)> {
    let gaps = prop_oneof![Just(1..3_i64), Just(1..200), Just(1..1_000_000)];
    let runs = gaps.prop_flat_map(|gaps| {
        prop::collection::vec(
            (gaps, prop_oneof![4 => 1..3_i64, 1 => 1..5000_i64]),
            0..3000,
        )
    });
    let waits = prop::collection::vec((1..50_i64, any::<u32>(), any::<i64>(), any::<i64>()), 0..60);
    (0..1_i64 << 50, runs, waits).prop_map(|(commit, runs, waits)| {
        let mut metadata = Metadata::default();
        let mut end = commit;
        for (apart, length) in runs {
            metadata
                .done
                .push(Offset(end + apart)..Offset(end + apart + length));
            end += apart + length;
        }
        let mut at = commit - 1;
        for (apart, attempts, first, due) in waits {
            at += apart;
            metadata.waiting.push(waiting(at, attempts, first, due));
        }
        (commit, metadata)
    })
}

proptest! {
    #[test]
    fn what_is_said_is_read_again_and_the_rest_is_named(
        (commit, metadata) in any_metadata(),
        limit in prop_oneof![Just(METADATA_LIMIT), 0..600_usize],
    ) {
        let (text, fit) = metadata.encode(Offset(commit), limit);
        prop_assert!(text.len() <= limit && text.is_ascii());
        let read = Metadata::decode(Offset(commit), &text);
        match fit {
            Fit::All => prop_assert_eq!(read, metadata),
            Fit::Truncated { waiting, done_from } => {
                let count = read.waiting.len();
                prop_assert_eq!(&read.waiting[..], &metadata.waiting[..count]);
                let left = metadata.waiting[count..].iter().map(|one| one.offset);
                prop_assert_eq!(waiting, left.collect::<Vec<_>>());
                let bound = done_from.unwrap_or(Offset(i64::MAX));
                let expected = metadata.done.iter().filter(|range| range.start < bound);
                let expected = expected.map(|range| range.start..range.end.min(bound));
                prop_assert_eq!(read.done, expected.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn no_input_is_too_odd(
        commit: i64,
        starts in prop::collection::vec(any::<(i64, i64)>(), 0..20),
        waits in prop::collection::vec(any::<(i64, u32, i64, i64)>(), 0..20),
        text in ".*",
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let metadata = Metadata {
            done: done(&starts),
            waiting: waits.into_iter().map(|(at, n, first, due)| waiting(at, n, first, due)).collect(),
        };
        let (written, _) = metadata.encode(Offset(commit), METADATA_LIMIT);
        prop_assert!(written.is_empty() || decode(Offset(commit), &written).is_some());
        let _ = Metadata::decode(Offset(commit), &text);
        let sum = checksum(Offset(commit), &bytes);
        let sealed = URL_SAFE_NO_PAD.encode([&sum[..], &bytes].concat());
        let _ = Metadata::decode(Offset(commit), &format!("{VERSION}{sealed}"));
    }
}
