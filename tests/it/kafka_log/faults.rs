//! A broker that is away, frozen, or answers with errors; settings that are refused.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that calls them"
)]

use std::sync::Arc;
use std::time::Duration;

use levada::log::kafka::{KafkaLog, Settings};
use levada::log::{EventLog, LogError, Position, Target, TopicName};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};
use tokio::time::{Instant, sleep};

use crate::log_contract::{valued, within};

const MESSAGE_TIMEOUT: Duration = Duration::from_secs(2);
/// librdkafka looks for timeouts once a second; the machine may be busy.
const SLACK: Duration = Duration::from_secs(3);

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// A mock broker with a topic, and a log on it that has stored a record.
async fn cluster(properties: &[(&str, &str)]) -> (Cluster, Arc<KafkaLog>, TopicName) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let log = KafkaLog::connect(Settings {
        bootstrap_servers: cluster.bootstrap_servers(),
        message_timeout: MESSAGE_TIMEOUT,
        properties: properties.iter().map(owned).collect(),
        ..Settings::default()
    });
    let (log, topic) = (log.unwrap(), TopicName::try_new("t").unwrap());
    append(&log, &topic).await.unwrap();
    (cluster, log, topic)
}

async fn append(log: &KafkaLog, topic: &TopicName) -> Result<Position, LogError> {
    within("an append", log.append(topic, Target::ByKey, valued("x"))).await
}

/// An append that must fail in time.
async fn append_fails(log: &KafkaLog, topic: &TopicName) -> LogError {
    let start = Instant::now();
    let failed = append(log, topic).await.unwrap_err();
    let took = start.elapsed();
    assert!(took < MESSAGE_TIMEOUT + SLACK, "{failed} after {took:?}");
    failed
}

/// The log is whole again by itself.
async fn recovers(log: &KafkaLog, topic: &TopicName) {
    let start = Instant::now();
    append(log, topic).await.unwrap();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    log.probe().await.unwrap();
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_no_reason_to_wait() {
    let start = Instant::now();
    let log = KafkaLog::connect(Settings {
        bootstrap_servers: "127.0.0.1:1".to_owned(),
        message_timeout: MESSAGE_TIMEOUT,
        ..Settings::default()
    })
    .unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    let start = Instant::now();
    let probe = log.probe().await.unwrap_err();
    assert!(probe.is_retryable(), "{probe}");
    assert!(start.elapsed() < Duration::from_secs(2));
    let topic = TopicName::try_new("t").unwrap();
    let failed = append_fails(&log, &topic).await;
    assert!(matches!(failed, LogError::TimedOut(_)), "{failed}");
}

#[tokio::test]
async fn a_stopped_broker_fails_appends_in_time_and_its_return_is_noticed() {
    let (cluster, log, topic) = cluster(&[]).await;
    log.probe().await.unwrap();
    cluster.broker_down(-1).unwrap();
    let failed = append_fails(&log, &topic).await;
    assert!(matches!(failed, LogError::TimedOut(_)), "{failed}");
    log.probe().await.unwrap_err();
    cluster.broker_up(-1).unwrap();
    recovers(&log, &topic).await;
}

#[tokio::test]
async fn a_frozen_broker_fails_appends_in_time_and_its_return_is_noticed() {
    let (cluster, log, topic) = cluster(&[("socket.timeout.ms", "1000")]).await;
    let frozen = Duration::from_secs(3600);
    cluster.broker_round_trip_time(-1, frozen).unwrap();
    let failed = append_fails(&log, &topic).await;
    assert!(failed.is_retryable(), "{failed}");
    let start = Instant::now();
    log.probe().await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(2));
    cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    // The mock keeps back what it held; a new connection is answered.
    let back = async { while append(&log, &topic).await.is_err() {} };
    within("the broker", back).await;
    recovers(&log, &topic).await;
}

#[tokio::test]
async fn a_producer_that_failed_for_good_is_replaced() {
    let (cluster, log, topic) = cluster(&[]).await;
    // The broker lost the sequence: librdkafka's producer never stores again after that.
    let lost = Code::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.request_errors(RDKafkaApiKey::Produce, &[lost]);
    let failed = append(&log, &topic).await.unwrap_err();
    assert!(matches!(failed, LogError::Unavailable(_)), "{failed}");
    let replaced = async {
        while append(&log, &topic).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let start = Instant::now();
    within("a new producer", replaced).await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    log.probe().await.unwrap();
}

#[tokio::test]
async fn errors_that_pass_are_waited_out_and_others_are_told() {
    let (cluster, log, topic) = cluster(&[]).await;
    let passing = Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    cluster.request_errors(RDKafkaApiKey::Produce, &[passing, passing]);
    append(&log, &topic).await.unwrap();
    let policy = Code::RD_KAFKA_RESP_ERR_POLICY_VIOLATION;
    cluster.request_errors(RDKafkaApiKey::Produce, &[policy]);
    let refused = append(&log, &topic).await.unwrap_err();
    assert!(matches!(refused, LogError::Refused(_)), "{refused}");
    append(&log, &topic).await.unwrap();
}

#[tokio::test]
async fn a_topic_made_a_moment_later_is_waited_for() {
    let (cluster, log, _) = cluster(&[("topic.metadata.propagation.max.ms", "0")]).await;
    let late = TopicName::try_new("late").unwrap();
    let missing = Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.topic_error("late", missing).unwrap();
    let unknown = LogError::UnknownTopic(late.clone());
    assert_eq!(append(&log, &late).await.unwrap_err(), unknown);
    // From now on librdkafka refuses at once, for what it remembers.
    let waiting = log.append(&late, Target::ByKey, valued("x"));
    cluster
        .topic_error("late", Code::RD_KAFKA_RESP_ERR_NO_ERROR)
        .unwrap();
    within("the append", waiting).await.unwrap();
}

#[tokio::test]
async fn a_full_queue_is_told_at_once() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let log = KafkaLog::connect(Settings {
        bootstrap_servers: cluster.bootstrap_servers(),
        append_queue_records: 2,
        ..Settings::default()
    })
    .unwrap();
    cluster.broker_down(-1).unwrap();
    let topic = TopicName::try_new("t").unwrap();
    let waiting: Vec<_> = (0..2)
        .map(|_| log.append(&topic, Target::ByKey, valued("x")))
        .collect();
    let full = append(&log, &topic).await.unwrap_err();
    assert_eq!(full, LogError::Overloaded);
    cluster.broker_up(-1).unwrap();
    for append in waiting {
        within("an append", append).await.unwrap();
    }
}

#[tokio::test]
async fn what_waits_at_the_end_is_answered() {
    let (cluster, log, topic) = cluster(&[]).await;
    cluster.broker_down(-1).unwrap();
    let waiting = log.append(&topic, Target::ByKey, valued("x"));
    let closed = log.close(Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(closed, LogError::TimedOut(_)), "{closed}");
    let failed = within("the answer", waiting).await.unwrap_err();
    assert!(failed.is_retryable(), "{failed}");
    let late = append(&log, &topic).await.unwrap_err();
    assert!(late.is_retryable(), "{late}");
}

#[tokio::test]
async fn settings_that_are_not_taken_are_named() {
    for (name, value) in [
        ("acks", "1"),
        ("no.such.property", "1"),
        ("socket.timeout.ms", "soon"),
        ("security.protocol", "magic"),
    ] {
        let refused = KafkaLog::connect(Settings {
            properties: [(name.to_owned(), value.to_owned())].into(),
            ..Settings::default()
        });
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(name), "{name}: {text}");
    }
}
