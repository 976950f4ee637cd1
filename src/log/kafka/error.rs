//! Kafka's error codes, by what a caller can do about them.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::properties::is_secret;
use crate::log::{LogError, Partition, TopicName, TopicPartition};

/// A property that is not the user's to set.
pub(super) fn property(name: &str, why: &str) -> LogError {
    LogError::Refused(format!(
        "the Kafka property {name} cannot be set so: {why}; remove it"
    ))
}

/// A client that could not be made: a property is unknown, or its value is.
pub(super) fn client(error: &KafkaError) -> LogError {
    LogError::Refused(match error {
        KafkaError::ClientConfig(_, problem, name, _) if is_secret(name) => {
            let problem = if problem.contains("No such") {
                "there is no such property"
            } else {
                "its value is not valid"
            };
            format!("the Kafka property {name}: {problem}")
        }
        KafkaError::ClientConfig(_, problem, name, _) => {
            format!("the Kafka property {name}: {problem}")
        }
        KafkaError::ClientCreation(problem) => {
            format!("the Kafka client does not take these properties: {problem}")
        }
        other => format!("the Kafka client cannot be made: {other}"),
    })
}

/// Why an append failed.
pub(super) fn append(
    code: RDKafkaErrorCode,
    topic: &TopicName,
    partition: Option<Partition>,
) -> LogError {
    use RDKafkaErrorCode as Code;
    match code {
        Code::QueueFull => LogError::Overloaded,
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
            LogError::TooLarge {
                topic: topic.clone(),
                detail: String::new(),
            }
        }
        Code::MessageTimedOut | Code::TimedOutQueue => {
            LogError::TimedOut(format!("topic {topic}: no acknowledgement"))
        }
        // Also when the sequence was broken, or when the record was given up with its client:
        // whether it was stored is unknown, the caller may send it again.
        Code::Fatal
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::PurgeQueue
        | Code::PurgeInflight => LogError::Unavailable(format!("topic {topic}: {code}")),
        code => topic_call(code, topic, partition),
    }
}

/// Whether an append that failed so may succeed in a moment, since the topic is new.
pub(super) fn is_unknown_topic(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition
    )
}

/// Why a call about a topic, or one partition of it, failed.
pub(super) fn topic_call(
    code: RDKafkaErrorCode,
    topic: &TopicName,
    partition: Option<Partition>,
) -> LogError {
    use RDKafkaErrorCode as Code;
    match (code, partition) {
        (Code::UnknownPartition, Some(partition)) => LogError::UnknownPartition(TopicPartition {
            topic: topic.clone(),
            partition,
        }),
        (
            Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::UnknownTopicId,
            _,
        ) => LogError::UnknownTopic(topic.clone()),
        (code, _) => call(code, format!("topic {topic}")),
    }
}

/// Why any other call failed; `about` says what it was about.
pub(super) fn call(code: RDKafkaErrorCode, about: impl Into<String>) -> LogError {
    use RDKafkaErrorCode as Code;
    let text = format!("{}: {code}", about.into());
    match code {
        Code::OperationTimedOut | Code::RequestTimedOut | Code::MessageTimedOut => {
            LogError::TimedOut(text)
        }
        Code::OffsetMetadataTooLarge => LogError::MetadataRefused(text),
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::UnsupportedSASLMechanism
        | Code::PolicyViolation
        | Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidReplicaAssignment
        | Code::InvalidConfig
        | Code::InvalidRequest
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidGroupId
        | Code::InvalidSessionTimeout
        | Code::InvalidRequiredAcks
        | Code::InvalidArgument
        | Code::InconsistentGroupProtocol
        | Code::UnsupportedAssignor
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType
        | Code::TopicDeletionDisabled
        | Code::GroupMaxSizeReached
        | Code::NonEmptyGroup
        | Code::OffsetOutOfRange => LogError::Refused(text),
        Code::BadMessage | Code::InvalidMessage | Code::BadCompression => LogError::Damaged(text),
        _ => LogError::Unavailable(text),
    }
}

/// Why a member's commit failed.
pub(super) fn commit(code: RDKafkaErrorCode) -> LogError {
    use RDKafkaErrorCode as Code;
    match code {
        Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::FencedMemberEpoch
        | Code::UnreleasedInstanceId
        | Code::Fenced
        | Code::Fatal
        | Code::AssignmentLost => LogError::MembershipLost(format!("commit: {code}")),
        // IllegalGeneration, RebalanceInProgress and StaleMemberEpoch pass: while a group
        // changes, the same commit is taken some milliseconds later.
        code => call(code, "commit"),
    }
}

/// The code inside an error, for those that carry one.
pub(super) fn code(error: &KafkaError) -> RDKafkaErrorCode {
    match error {
        KafkaError::AdminOp(code) => *code,
        other => other
            .rdkafka_error_code()
            .unwrap_or(RDKafkaErrorCode::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RDKafkaErrorCode as Code;

    fn topic() -> TopicName {
        TopicName::try_new("orders").unwrap()
    }

    #[test]
    fn failed_appends_are_told_by_what_helps() {
        let partition = Partition(3);
        let at = TopicPartition {
            topic: topic(),
            partition,
        };
        let is = |code, expected: fn(&LogError) -> bool| {
            let error = append(code, &topic(), Some(partition));
            assert!(expected(&error), "{code:?} became {error:?}");
        };
        for code in [Code::MessageSizeTooLarge, Code::MessageBatchTooLarge] {
            is(code, |e| matches!(e, LogError::TooLarge { .. }));
        }
        is(Code::QueueFull, |e| *e == LogError::Overloaded);
        is(Code::MessageTimedOut, |e| {
            matches!(e, LogError::TimedOut(_))
        });
        for code in [
            Code::NotEnoughReplicas,
            Code::NotEnoughReplicasAfterAppend,
            Code::KafkaStorageError,
            Code::NotLeaderForPartition,
            Code::BrokerTransportFailure,
            Code::Fatal,
            Code::OutOfOrderSequenceNumber,
            Code::PurgeInflight,
        ] {
            is(code, |e| matches!(e, LogError::Unavailable(_)));
        }
        for code in [
            Code::TopicAuthorizationFailed,
            Code::PolicyViolation,
            Code::InvalidRecord,
            Code::InvalidTopic,
        ] {
            is(code, |e| matches!(e, LogError::Refused(_)));
        }
        for code in [Code::UnknownTopic, Code::UnknownTopicOrPartition] {
            assert_eq!(
                append(code, &topic(), Some(partition)),
                LogError::UnknownTopic(topic())
            );
            assert!(is_unknown_topic(code));
        }
        assert_eq!(
            append(Code::UnknownPartition, &topic(), Some(partition)),
            LogError::UnknownPartition(at)
        );
        assert!(!is_unknown_topic(Code::UnknownPartition));
    }

    #[test]
    fn failed_commits_are_told_by_whether_the_member_lives() {
        for code in [
            Code::IllegalGeneration,
            Code::RebalanceInProgress,
            Code::StaleMemberEpoch,
            Code::NotCoordinator,
            Code::CoordinatorLoadInProgress,
        ] {
            let error = commit(code);
            assert!(matches!(error, LogError::Unavailable(_)), "{error:?}");
        }
        for code in [Code::UnknownMemberId, Code::FencedInstanceId, Code::Fatal] {
            let error = commit(code);
            assert!(matches!(error, LogError::MembershipLost(_)), "{error:?}");
        }
        let error = commit(Code::OffsetMetadataTooLarge);
        assert!(matches!(error, LogError::MetadataRefused(_)), "{error:?}");
        let error = commit(Code::GroupAuthorizationFailed);
        assert!(matches!(error, LogError::Refused(_)), "{error:?}");
    }

    #[test]
    fn a_secret_is_not_repeated_in_an_error() {
        use rdkafka::config::ClientConfig;
        use rdkafka::consumer::BaseConsumer;
        let refused = ClientConfig::new()
            .set("ssl.key.password.typo", "hunter2")
            .create::<BaseConsumer>()
            .err()
            .unwrap();
        let text = client(&refused).to_string();
        assert!(text.contains("ssl.key.password.typo"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
