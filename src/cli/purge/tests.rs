use std::io::Cursor;
use std::sync::Arc;

use super::super::console::captured;
use super::*;
use crate::log::embedded::{self, EmbeddedLog};
use crate::log::{Commit, GroupSpec, Offset, Partition, Record, TopicName, TopicPartition};
use crate::log::{Target as Place, TopicSpec};

fn topic(name: &str) -> TopicName {
    TopicName::try_new(name).unwrap()
}

const CHANNEL: &str = "knative-messaging-kafka.prod.orders";
const GROUP: &str = "kafka.prod.orders.prod.billing";

fn retry() -> TopicName {
    topic(&format!("{CHANNEL}.billing.retry"))
}

fn dead_letters() -> TopicName {
    topic(&format!("{CHANNEL}.billing.dead-letter"))
}

/// A log with a channel, and a subscription that has two dead letters.
async fn log(dir: &tempfile::TempDir) -> Arc<EmbeddedLog> {
    let settings = embedded::Settings {
        dir: dir.path().join("log"),
        ..embedded::Settings::default()
    };
    let log = EmbeddedLog::open(settings, Clock::system()).unwrap();
    for name in [topic(CHANNEL), retry(), dead_letters()] {
        let spec = TopicSpec {
            name,
            partitions: 2,
            replicas: 1,
            retention: None,
            max_record_bytes: 1000,
            segments: None,
        };
        log.create_topic(&spec).await.unwrap();
    }
    for name in [topic(CHANNEL), dead_letters(), dead_letters()] {
        let record = Record::default();
        log.append(&name, Place::ByKey, record).await.unwrap();
    }
    let commit = Commit {
        offset: Offset(0),
        metadata: String::new(),
    };
    let at = TopicPartition {
        topic: topic(CHANNEL),
        partition: Partition(1),
    };
    log.commit_idle(&group(), vec![(at, commit)]).await.unwrap();
    log
}

fn group() -> GroupId {
    GroupId(GROUP.into())
}

fn billing(channel: &str) -> Target {
    Target::Subscription {
        name: ResourceName::try_new("prod", "billing").unwrap(),
        channel: channel.to_owned(),
        uid: None,
    }
}

async fn run_on(log: &EmbeddedLog, what: &Target, sure: bool) -> (Result<(), String>, String) {
    let (console, text) = captured();
    let belongings = what.belongings(&Templates::default()).unwrap();
    let ask = async || Ok(sure);
    let result = purge(log, &what.key(), belongings, "the log", ask, &console).await;
    (result.map_err(|error| error.to_string()), text())
}

async fn exists(log: &EmbeddedLog, topic: &TopicName) -> bool {
    log.describe_topic(topic).await.unwrap().is_some()
}

#[tokio::test]
async fn a_subscriptions_topics_and_group_are_shown_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir).await;
    let (result, said) = run_on(&log, &billing("orders"), false).await;
    assert_eq!(result.unwrap_err(), "nothing was deleted");
    let wanted = "\
subscription prod/billing has in the log:
         NAME                                                     PARTITIONS  RECORDS
  topic  knative-messaging-kafka.prod.orders.billing.retry        2           0
  topic  knative-messaging-kafka.prod.orders.billing.dead-letter  2           2
  topic  knative-messaging-kafka.prod.orders.billing.redrives     -           not there
  group  kafka.prod.orders.prod.billing                           -           1 commits
";
    assert_eq!(said, wanted);
    assert!(exists(&log, &retry()).await && exists(&log, &dead_letters()).await);

    let (result, said) = run_on(&log, &billing("orders"), true).await;
    result.unwrap();
    assert!(
        said.ends_with("subscription prod/billing is purged\n"),
        "{said}"
    );
    assert!(!exists(&log, &retry()).await && !exists(&log, &dead_letters()).await);
    assert!(exists(&log, &topic(CHANNEL)).await, "the channel stays");
    let at = TopicPartition {
        topic: topic(CHANNEL),
        partition: Partition(1),
    };
    assert_eq!(log.committed(&group(), &[at]).await.unwrap(), [None]);

    let (result, _) = run_on(&log, &billing("orders"), true).await;
    let said = result.unwrap_err();
    assert!(
        said.contains(GROUP) && said.contains(retry().as_str()),
        "{said}"
    );
}

#[tokio::test]
async fn a_channels_topic_is_deleted_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir).await;
    let channel = Target::Channel(ResourceName::try_new("prod", "orders").unwrap());
    let (result, said) = run_on(&log, &channel, true).await;
    result.unwrap();
    assert!(
        said.contains("channel prod/orders has in the log:"),
        "{said}"
    );
    assert!(!exists(&log, &topic(CHANNEL)).await);
    assert!(exists(&log, &retry()).await && exists(&log, &dead_letters()).await);
}

#[tokio::test]
async fn nothing_is_deleted_while_the_group_has_a_member() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir).await;
    let member = log
        .join(&GroupSpec {
            group: group(),
            topics: vec![topic(CHANNEL)],
            instance: None,
        })
        .unwrap();
    // The wait for members that ended is Tokio's, and skipped.
    tokio::time::pause();
    let (result, _) = run_on(&log, &billing("orders"), true).await;
    tokio::time::resume();
    let said = result.unwrap_err();
    assert!(said.contains("Nothing was deleted"), "{said}");
    assert!(exists(&log, &retry()).await && exists(&log, &dead_letters()).await);
    member.leave(false).await.unwrap();
}

#[tokio::test]
async fn a_subscription_that_is_not_there_is_told_with_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir).await;
    let (result, _) = run_on(&log, &billing("invoices"), true).await;
    let said = result.unwrap_err();
    assert!(said.contains("prod.invoices.billing.dead-letter"), "{said}");
    let error = billing("A/B").belongings(&Templates::default());
    assert!(error.unwrap_err().to_string().contains("--channel"));
}

#[test]
fn only_yes_is_yes() {
    for (line, yes) in [
        ("y\n", true),
        (" YES \n", true),
        ("yes", true),
        ("n\n", false),
        ("\n", false),
        ("", false),
        ("yeah\n", false),
    ] {
        assert_eq!(confirm::answer(&mut Cursor::new(line)), yes, "{line:?}");
    }
}

#[test]
fn what_the_manifests_declare_is_refused_and_what_they_may_declare_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    let declared = "apiVersion: messaging.knative.dev/v1beta1\nkind: KafkaChannel\n\
                    metadata: {name: orders, namespace: prod}\n";
    let config = Config {
        manifests: vec![dir.path().to_owned()],
        ..Config::default()
    };
    let key = |name: &str| Target::Channel(ResourceName::try_new("prod", name).unwrap()).key();
    for (content, name, wanted) in [
        (declared, "orders", Some("a.yaml:1: take it out first")),
        (declared, "invoices", None),
        (
            "{",
            "invoices",
            Some("cannot tell what the manifests declare"),
        ),
        ("", "orders", None),
    ] {
        std::fs::write(&file, content).unwrap();
        match (refuse_declared(&config, &key(name)), wanted) {
            (Ok(()), None) => {}
            (Err(error), Some(wanted)) => {
                assert!(error.to_string().contains(wanted), "{error}");
            }
            (result, _) => panic!("{content:?} {name}: {result:?}"),
        }
    }
    let missing = Config {
        manifests: vec![dir.path().join("nothing")],
        ..Config::default()
    };
    assert!(refuse_declared(&missing, &key("orders")).is_err());
}
