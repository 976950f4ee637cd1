//! Topics: made, described, trimmed, deleted; ends and times of their partitions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as RawOffset, TopicPartitionList};
use tokio::time::{Instant, sleep, timeout};

use super::blocking;
use super::error;
use super::metadata::{Found, find, offsets};
use super::poller::{Pollable, Pollers, Turn};
use super::producer::Producer;
use super::report::{Reporter, Reporting};
use super::settings::Settings;
use crate::clock::UnixMillis;
use crate::log::{
    Creation, GroupId, LogError, Offset, Partition, TopicDescription, TopicName, TopicPartition,
    TopicSpec, Watermarks,
};

/// How long a new topic may take to be known to our own clients.
const PROPAGATION: Duration = Duration::from_secs(10);
/// How often that is looked at.
const PROPAGATION_PAUSE: Duration = Duration::from_millis(30);
/// How often a topic is described whose settings do not come.
const DESCRIPTIONS: u32 = 10;
/// The clients for everything that is neither an append nor a group's reading.
pub(super) struct Admin {
    /// `None` only while it is dropped.
    clients: Option<Clients>,
    limit: Duration,
}

struct Clients {
    admin: AdminClient<Reporting>,
    metadata: Arc<BaseConsumer<Reporting>>,
    /// Keeps the metadata client polled.
    _turn: Arc<Turn>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Pollable for BaseConsumer<Reporting> {
    fn poll_main(&self) {
        // Errors were told by the context; there are no records.
        while self.poll(Duration::ZERO).is_some() {}
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(clients) = self.clients.take() {
            blocking::detached("kafka-drop-admin", move || drop(clients));
        }
    }
}

impl Admin {
    pub(super) fn try_new(
        settings: &Settings,
        report: &Reporter,
        pollers: &Pollers,
    ) -> Result<Self, LogError> {
        let context = || Reporting {
            report: report.clone(),
        };
        let admin = AdminClient::from_config_and_context(&settings.admin(), context())
            .map_err(|error| error::client(&error))?;
        let metadata = BaseConsumer::from_config_and_context(&settings.metadata(), context())
            .map_err(|error| error::client(&error))?;
        let metadata = Arc::new(metadata);
        let turn = pollers.turn();
        let pollable: Arc<dyn Pollable> = metadata.clone();
        turn.of(Arc::downgrade(&pollable));
        Ok(Self {
            clients: Some(Clients {
                admin,
                metadata,
                _turn: turn,
            }),
            limit: settings.operation_timeout,
        })
    }

    fn clients(&self) -> &Clients {
        self.clients.as_ref().expect("taken only when dropped")
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new()
            .request_timeout(Some(self.limit))
            .operation_timeout(Some(self.limit))
    }

    /// Waits for an administrative answer; librdkafka's own limit comes first.
    async fn answered<T>(
        &self,
        about: &str,
        answer: impl Future<Output = rdkafka::error::KafkaResult<T>>,
    ) -> Result<T, LogError> {
        match timeout(self.limit + Duration::from_secs(1), answer).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(failure)) => Err(error::call(error::code(&failure), about)),
            Err(_) => Err(LogError::TimedOut(format!("{about}: no answer"))),
        }
    }

    /// Runs a blocking call with the metadata client.
    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        call: impl FnOnce(&BaseConsumer<Reporting>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let client = Arc::clone(&self.clients().metadata);
        // Room for calls of several requests.
        blocking::within(self.limit * 3, what, move || call(&client)).await
    }

    pub(super) async fn create_topic(
        &self,
        spec: &TopicSpec,
        producer: &Arc<Producer>,
    ) -> Result<Creation, LogError> {
        let config = topic_config(spec);
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let replicas = TopicReplication::Fixed(i32::from(spec.replicas));
        let mut new = NewTopic::new(spec.name.as_str(), partitions, replicas);
        for (name, value) in &config {
            new = new.set(name, value);
        }
        let about = format!("create topic {}", spec.name);
        let answer = self.clients().admin.create_topics([&new], &self.options());
        let results = self.answered(&about, answer).await?;
        let creation = match results.into_iter().next() {
            Some(Ok(_)) => Creation::Created,
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Creation::Existed,
            Some(Err((_, code))) => return Err(error::call(code, about)),
            None => return Err(LogError::Unavailable(format!("{about}: no result"))),
        };
        self.wait_until_known(&spec.name, producer).await?;
        Ok(creation)
    }

    /// Waits until both the producer and the metadata client see a leader for each partition.
    async fn wait_until_known(
        &self,
        topic: &TopicName,
        producer: &Arc<Producer>,
    ) -> Result<(), LogError> {
        let deadline = Instant::now() + PROPAGATION;
        let limit = self.limit;
        loop {
            let (name, producer) = (topic.clone(), Arc::clone(producer));
            let known = self.ask("metadata", move |client| {
                let ours = find(client.client(), &name, limit)?;
                let theirs = producer.partitions_led(&name, limit)?;
                if !ours.led || theirs != Some(ours.partitions) {
                    return Ok(false);
                }
                // A leader may be named a moment before it knows.
                offsets(client, &name, ours.partitions, RawOffset::End, limit).map(|_| true)
            });
            match known.await {
                Ok(true) => return Ok(()),
                Ok(false) | Err(LogError::UnknownTopic(_)) => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= deadline {
                return Err(LogError::TimedOut(format!(
                    "topic {topic} was made but has no leader yet"
                )));
            }
            sleep(PROPAGATION_PAUSE).await;
        }
    }

    pub(super) async fn delete_topic(&self, topic: &TopicName) -> Result<(), LogError> {
        let about = format!("delete topic {topic}");
        let answer = self
            .clients()
            .admin
            .delete_topics(&[topic.as_str()], &self.options());
        match self.answered(&about, answer).await?.into_iter().next() {
            Some(Err((_, code))) if !error::is_unknown_topic(code) => Err(error::call(code, about)),
            _ => Ok(()),
        }
    }

    pub(super) async fn describe_topic(
        &self,
        topic: &TopicName,
    ) -> Result<Option<TopicDescription>, LogError> {
        for _ in 0..DESCRIPTIONS {
            let (name, limit) = (topic.clone(), self.limit);
            let found = self.ask("metadata", move |client| {
                find(client.client(), &name, limit)
            });
            let found = match found.await {
                Ok(found) => found,
                Err(LogError::UnknownTopic(_)) => return Ok(None),
                Err(error) => return Err(error),
            };
            let config = self.topic_config(topic).await?;
            // Also how a refusal looks: the crate drops it. Mostly the topic is just going.
            if !config.entries.is_empty() {
                return describe(&found, &config, topic).map(Some);
            }
            sleep(PROPAGATION_PAUSE).await;
        }
        Err(LogError::Unavailable(format!(
            "the settings of topic {topic} cannot be seen: is this client allowed to describe them?"
        )))
    }

    async fn topic_config(&self, topic: &TopicName) -> Result<ConfigResource, LogError> {
        let about = format!("describe topic {topic}");
        let resource = ResourceSpecifier::Topic(topic.as_str());
        let admin = &self.clients().admin;
        let answer = admin.describe_configs([&resource], &self.options());
        match self.answered(&about, answer).await?.into_iter().next() {
            Some(Ok(config)) => Ok(config),
            Some(Err(code)) => Err(error::call(code, about)),
            None => Err(LogError::Unavailable(format!("{about}: no result"))),
        }
    }

    pub(super) async fn watermarks(&self, topic: &TopicName) -> Result<Vec<Watermarks>, LogError> {
        let (name, limit) = (topic.clone(), self.limit);
        self.ask("watermarks", move |client| {
            let partitions = find(client.client(), &name, limit)?.partitions;
            let lows = offsets(client, &name, partitions, RawOffset::Beginning, limit)?;
            let highs = offsets(client, &name, partitions, RawOffset::End, limit)?;
            let pairs = lows.into_iter().zip(highs);
            Ok(pairs
                .map(|(low, high)| Watermarks {
                    low: Offset(low.unwrap_or(0)),
                    high: Offset(high.unwrap_or(0)),
                })
                .collect())
        })
        .await
    }

    pub(super) async fn offsets_at(
        &self,
        topic: &TopicName,
        time: UnixMillis,
    ) -> Result<Vec<Offset>, LogError> {
        let (name, limit) = (topic.clone(), self.limit);
        self.ask("offsets by time", move |client| {
            let partitions = find(client.client(), &name, limit)?.partitions;
            // Negative numbers would mean ends, not times.
            let time = RawOffset::Offset(time.0.max(0));
            let found = offsets(client, &name, partitions, time, limit)?;
            // The ends second: a record that came between is later than the time asked for.
            let ends = offsets(client, &name, partitions, RawOffset::End, limit)?;
            let pairs = found.into_iter().zip(ends);
            Ok(pairs
                .map(|(found, end)| Offset(found.or(end).unwrap_or(0)))
                .collect())
        })
        .await
    }

    pub(super) async fn trim(
        &self,
        topic: &TopicName,
        before: &[(Partition, Offset)],
    ) -> Result<(), LogError> {
        let mut list = TopicPartitionList::with_capacity(before.len());
        for (partition, offset) in before {
            // -1 would mean the end: never delete all by a slip.
            let offset = RawOffset::Offset(offset.0.max(0));
            list.add_partition_offset(topic.as_str(), partition.0, offset)
                .map_err(|error| error::call(error::code(&error), "trim"))?;
        }
        if before.is_empty() {
            return Ok(());
        }
        let about = format!("trim topic {topic}");
        let answer = self.clients().admin.delete_records(&list, &self.options());
        let answer = timeout(self.limit + Duration::from_secs(1), answer).await;
        let trimmed = match answer {
            Ok(Ok(trimmed)) => trimmed,
            // How librdkafka says that no partition has a leader.
            Ok(Err(KafkaError::AdminOp(RDKafkaErrorCode::NoEnt))) => {
                return Err(LogError::UnknownTopic(topic.clone()));
            }
            Ok(Err(failure)) => return Err(error::topic_call(error::code(&failure), topic, None)),
            Err(_) => return Err(LogError::TimedOut(format!("{about}: no answer"))),
        };
        for element in trimmed.elements() {
            if let Err(failure) = element.error() {
                let partition = Partition(element.partition());
                let code = error::code(&failure);
                return Err(error::topic_call(code, topic, Some(partition)));
            }
        }
        Ok(())
    }

    pub(super) async fn delete_group(&self, group: &GroupId) -> Result<(), LogError> {
        let about = format!("delete group {group}");
        let answer = self
            .clients()
            .admin
            .delete_groups(&[&group.0], &self.options());
        match self.answered(&about, answer).await?.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::GroupIdNotFound))) | Some(Ok(_)) | None => Ok(()),
            Some(Err((_, code))) => Err(error::call(code, about)),
        }
    }

    /// Low and high watermark of one partition.
    pub(super) async fn partition_watermarks(
        &self,
        at: &TopicPartition,
    ) -> Result<Watermarks, LogError> {
        let marks = self.watermarks(&at.topic).await?;
        let unknown = || LogError::UnknownPartition(at.clone());
        marks.get(at.partition.index()).copied().ok_or_else(unknown)
    }
}

/// What a topic is made with.
fn topic_config(spec: &TopicSpec) -> Vec<(&'static str, String)> {
    let retention = spec
        .retention
        .map_or("-1".to_owned(), |kept| kept.as_millis().to_string());
    let mut config = vec![
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", retention),
        ("max.message.bytes", spec.max_record_bytes.to_string()),
    ];
    if let Some(segments) = spec.segments {
        config.push(("segment.bytes", segments.bytes.to_string()));
        config.push(("segment.ms", segments.age.as_millis().to_string()));
    }
    if spec.replicas >= 3 {
        // One replica may be lost, and what was acknowledged survives it.
        config.push(("min.insync.replicas", "2".to_owned()));
        config.push(("unclean.leader.election.enable", "false".to_owned()));
    }
    config
}

fn describe(
    found: &Found,
    config: &ConfigResource,
    topic: &TopicName,
) -> Result<TopicDescription, LogError> {
    let number = |name: &str| {
        let value = config.get(name).and_then(|entry| entry.value.as_deref());
        value
            .and_then(|value| value.parse::<i64>().ok())
            .ok_or_else(|| {
                LogError::Unavailable(format!("topic {topic}: {name} is not known: {value:?}"))
            })
    };
    let retention = u64::try_from(number("retention.ms")?).ok();
    Ok(TopicDescription {
        partitions: found.partitions,
        replicas: found.replicas,
        retention: retention.map(Duration::from_millis),
        max_record_bytes: u32::try_from(number("max.message.bytes")?).unwrap_or(u32::MAX),
        min_in_sync: u16::try_from(number("min.insync.replicas")?).unwrap_or(u16::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Segments;

    #[test]
    fn topics_are_made_with_what_their_spec_says() {
        let mut spec = TopicSpec {
            name: TopicName::try_new("t").unwrap(),
            partitions: 1,
            replicas: 1,
            retention: None,
            max_record_bytes: 7,
            segments: None,
        };
        let config = topic_config(&spec);
        assert!(config.contains(&("retention.ms", "-1".to_owned())));
        assert!(
            !config
                .iter()
                .any(|(name, _)| *name == "min.insync.replicas")
        );
        spec.replicas = 3;
        spec.retention = Some(Duration::from_secs(2));
        spec.segments = Some(Segments {
            bytes: 1024,
            age: Duration::from_secs(3600),
        });
        let config = topic_config(&spec);
        for expected in [
            ("cleanup.policy", "delete"),
            ("retention.ms", "2000"),
            ("max.message.bytes", "7"),
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
            ("segment.bytes", "1024"),
            ("segment.ms", "3600000"),
        ] {
            let expected = (expected.0, expected.1.to_owned());
            assert!(config.contains(&expected), "{expected:?}");
        }
    }
}
