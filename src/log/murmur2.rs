//! Kafka's way from a key to a partition, so that both logs (and other producers) agree.

use crate::log::Partition;

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;

/// The partition of `key` among `partitions`, which is at least 1: `toPositive(murmur2(key))`
/// modulo their number, as Kafka's Java client does it.
#[must_use]
pub fn partition(key: &[u8], partitions: u32) -> Partition {
    let positive = murmur2(key) & 0x7fff_ffff;
    let number = positive % partitions.max(1);
    Partition(i32::try_from(number).expect("at most 31 bits are left"))
}

/// The 32-bit murmur2 hash with the seed that Kafka uses.
fn murmur2(key: &[u8]) -> u32 {
    // The hash is defined on lengths of 32 bits.
    #[expect(clippy::cast_possible_truncation, reason = "a key is far below 4 GiB")]
    let mut hash = SEED ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("chunks of 4"));
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Kafka's own `UtilsTest`.
    const KNOWN: [(&str, i32); 6] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
        ("abc", 479_470_107),
    ];

    #[test]
    fn hashes_are_those_of_the_java_client() {
        for (key, hash) in KNOWN {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn partitions_are_positive_and_in_range() {
        // The sign bit is dropped, not the absolute value taken.
        let positive = 0x7fff_ffff & -973_932_308_i32;
        assert_eq!(partition(b"21", 7), Partition(positive % 7));
        assert_eq!(partition(b"abc", 10), Partition(7));
        for partitions in 1..20 {
            for key in ["", "a", "ab", "abcd", "x-1", "x-2"] {
                let found = partition(key.as_bytes(), partitions);
                assert!(found.index() < partitions as usize);
            }
        }
    }
}
