//! Which client properties are the user's to set.

use super::error;
use crate::log::LogError;

/// Whether a property's value must not be shown.
pub(super) fn is_secret(name: &str) -> bool {
    [
        "password",
        "secret",
        "ssl.key",
        "jaas",
        "oauthbearer.config",
    ]
    .iter()
    .any(|part| name.contains(part))
}

/// Properties that a guarantee or a bound rests on: name, the values that change nothing, why.
const FIXED: &[(&str, &[&str], &str)] = &[
    (
        "bootstrap.servers",
        &[],
        "it has an option of its own, bootstrap-servers",
    ),
    (
        "metadata.broker.list",
        &[],
        "it has an option of its own, bootstrap-servers",
    ),
    ("client.id", &[], "it has an option of its own"),
    ("group.id", &[], "each subscription has its own group"),
    (
        "group.instance.id",
        &[],
        "it is made from the data directory",
    ),
    ("group.protocol", &[], "it has an option of its own"),
    (
        "partition.assignment.strategy",
        &["cooperative-sticky"],
        "a rebalance must leave alone what stays",
    ),
    (
        "acks",
        &["all", "-1"],
        "202 means stored on all in-sync replicas",
    ),
    (
        "request.required.acks",
        &["all", "-1"],
        "202 means stored on all in-sync replicas",
    ),
    (
        "enable.idempotence",
        &["true"],
        "a resent batch must not be stored twice",
    ),
    (
        "enable.gapless.guarantee",
        &["false"],
        "one lost record must not stop the producer",
    ),
    (
        "delivery.report.only.error",
        &["false"],
        "every append is answered",
    ),
    (
        "transactional.id",
        &[],
        "records are not written in transactions",
    ),
    (
        "partitioner",
        &["murmur2_random"],
        "a key's partition must be the one that Java clients choose",
    ),
    (
        "message.timeout.ms",
        &[],
        "it has an option of its own, message-timeout",
    ),
    (
        "delivery.timeout.ms",
        &[],
        "it has an option of its own, message-timeout",
    ),
    (
        "message.max.bytes",
        &[],
        "it follows the largest event allowed",
    ),
    (
        "queue.buffering.max.messages",
        &[],
        "the append queue has options of its own",
    ),
    (
        "queue.buffering.max.kbytes",
        &[],
        "the append queue has options of its own",
    ),
    (
        "allow.auto.create.topics",
        &["false"],
        "a mistyped name must not make a topic",
    ),
    (
        "enable.auto.commit",
        &["false"],
        "only what is finished is committed",
    ),
    (
        "enable.auto.offset.store",
        &["false"],
        "only what is finished is committed",
    ),
    (
        "auto.commit.interval.ms",
        &[],
        "only what is finished is committed",
    ),
    (
        "auto.offset.reset",
        &["error"],
        "no record is skipped without being counted",
    ),
    (
        "enable.partition.eof",
        &["false"],
        "ends are found by watermarks",
    ),
    (
        "isolation.level",
        &["read_committed"],
        "records of aborted transactions are not events",
    ),
    (
        "queued.max.messages.kbytes",
        &[],
        "it follows the fetch memory, which bounds all subscriptions together",
    ),
    (
        "queued.min.messages",
        &[],
        "it follows the fetch memory, which bounds all subscriptions together",
    ),
    (
        "fetch.message.max.bytes",
        &[],
        "it follows the fetch memory, which bounds all subscriptions together",
    ),
    (
        "max.partition.fetch.bytes",
        &[],
        "it follows the fetch memory, which bounds all subscriptions together",
    ),
    ("log.queue", &[], "it belongs to the program"),
];

/// Refuses a property that would break a guarantee, unless the value changes nothing.
pub(super) fn check(name: &str, value: &str) -> Result<(), LogError> {
    if name.starts_with("test.mock.") {
        return Err(error::property(name, "it replaces Kafka by a mock"));
    }
    match FIXED.iter().find(|(fixed, _, _)| *fixed == name) {
        Some((_, same, why)) if !same.contains(&value) => Err(error::property(name, why)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_that_would_break_a_guarantee_are_refused_by_name() {
        for (name, value) in [
            ("acks", "1"),
            ("request.required.acks", "0"),
            ("enable.idempotence", "false"),
            ("enable.auto.commit", "true"),
            ("auto.offset.reset", "latest"),
            ("partitioner", "consistent"),
            ("delivery.report.only.error", "true"),
            ("isolation.level", "read_uncommitted"),
            ("partition.assignment.strategy", "range"),
            ("group.id", "mine"),
            ("queued.max.messages.kbytes", "1"),
            ("test.mock.num.brokers", "1"),
        ] {
            let refused = check(name, value).unwrap_err();
            assert!(matches!(&refused, LogError::Refused(_)), "{refused:?}");
            assert!(refused.to_string().contains(name), "{refused}");
        }
        for (name, value) in [
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("security.protocol", "SSL"),
            ("compression.type", "zstd"),
        ] {
            check(name, value).unwrap();
        }
    }
}
