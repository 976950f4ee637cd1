//! Whether every partition of a group has an owner.
//!
//! What members were assigned is told by the coordinator as the bytes of `ConsumerProtocolAssignment`
//! (Kafka's consumer protocol): version, then topics with their partitions, big-endian.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;

use super::error;
use super::member::Consumption;
use crate::log::LogError;

/// Partitions of the subscribed topics that no member has while the group is at rest. Blocks for
/// `limit` a question.
pub(super) fn count(consumer: &Consumption, limit: Duration) -> Result<usize, LogError> {
    let failed = |failure| {
        let code = error::code(&failure);
        error::call(code, "the members of a group".to_owned())
    };
    let group = &consumer.context().group().0;
    let groups = consumer
        .client()
        .fetch_group_list(Some(group), limit)
        .map_err(failed)?;
    let at_rest = groups
        .groups()
        .iter()
        .find(|known| known.name() == &**group && known.state() == "Stable");
    let Some(at_rest) = at_rest else {
        return Ok(0);
    };
    let mut owned = HashSet::new();
    for member in at_rest.members() {
        // One that cannot be read may own anything.
        let Some(partitions) = member.assignment().and_then(partitions) else {
            return Ok(0);
        };
        owned.extend(partitions);
    }
    let mut unowned = 0;
    for topic in consumer.subscription().map_err(failed)?.elements() {
        let metadata = consumer
            .fetch_metadata(Some(topic.topic()), limit)
            .map_err(failed)?;
        let known = metadata.topics().iter().flat_map(|known| {
            let name = known.name();
            known.partitions().iter().map(move |one| (name, one.id()))
        });
        unowned += known
            .filter(|(name, id)| !owned.contains(&((*name).to_owned(), *id)))
            .count();
    }
    Ok(unowned)
}

/// The partitions of an assignment; `None`: it is broken.
fn partitions(mut bytes: &[u8]) -> Option<Vec<(String, i32)>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let bytes = &mut bytes;
    take::<2>(bytes)?;
    let topics = i32::from_be_bytes(take(bytes)?);
    let mut all = Vec::new();
    for _ in 0..topics {
        let length = usize::try_from(i16::from_be_bytes(take(bytes)?)).ok()?;
        let (name, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        let name = std::str::from_utf8(name).ok()?;
        for _ in 0..i32::from_be_bytes(take(bytes)?) {
            all.push((name.to_owned(), i32::from_be_bytes(take(bytes)?)));
        }
    }
    Some(all)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_names_its_partitions() {
        let bytes = b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x05\0\x02bc\0\0\0\x01\0\0\0\x07\xff\xff\xff\xff";
        let expected = [("a", 0), ("a", 5), ("bc", 7)];
        let expected = expected.map(|(name, id)| (name.to_owned(), id)).to_vec();
        assert_eq!(partitions(bytes), Some(expected));
        assert_eq!(partitions(b""), Some(Vec::new()), "none yet");
        assert_eq!(partitions(b"\0\0\0\0\0\0"), Some(Vec::new()));
        for end in 1..bytes.len() - 4 {
            assert_eq!(partitions(&bytes[..end]), None, "{end}");
        }
    }
}
