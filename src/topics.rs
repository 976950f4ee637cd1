//! The topics of channels: made from the channel's spec, watched, and never altered.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::channel::Channel;
use crate::log::{EventLog, LogError, TopicDescription, TopicSpec};

/// Room for headers and framing beyond the largest event.
const CHANNEL_ROOM: u32 = 64 * 1024;
/// Room for a reply, an error and our headers beside the event.
const RETRY_ROOM: u32 = 128 * 1024;
/// How often a topic that is there is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Admin calls to the log at one time.
const ADMIN_CALLS: usize = 16;

/// What is known of a channel's topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// Not looked at yet.
    Pending,
    /// It is there.
    Ready {
        /// As it is.
        topic: TopicDescription,
        /// Where it differs from the channel's spec, in words.
        notes: Vec<String>,
    },
    /// It could not be made or looked at; it is tried again.
    Failed(LogError),
}

/// Makes and watches topics.
#[derive(Clone, Debug)]
pub struct Topics {
    log: Arc<dyn EventLog>,
    admin: Arc<Semaphore>,
    max_event_bytes: u32,
}

impl Topics {
    /// Topics on `log` for events of at most `max_event_bytes`.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>, max_event_bytes: u32) -> Self {
        Self {
            log,
            admin: Arc::new(Semaphore::new(ADMIN_CALLS)),
            max_event_bytes,
        }
    }

    /// Runs `call` when there is room for one more admin call to the log.
    pub(crate) async fn admin<T>(&self, call: impl Future<Output = T>) -> T {
        let _permit = self.admin.acquire().await;
        call.await
    }

    /// What the topic of `channel` is to look like when it is made.
    fn spec(&self, channel: &Channel) -> TopicSpec {
        TopicSpec {
            name: channel.topic.clone(),
            partitions: channel.partitions,
            replicas: channel.replicas,
            retention: Some(channel.retention),
            max_record_bytes: self.max_event_bytes.saturating_add(CHANNEL_ROOM),
            segments: None,
        }
    }

    /// The size limit of retry and dead-letter topics.
    pub(crate) fn side_record_bytes(&self) -> u32 {
        self.max_event_bytes
            .saturating_mul(2)
            .saturating_add(RETRY_ROOM)
    }

    /// Keeps `channel`'s topic there until `stop`, and tells its state.
    pub(crate) async fn keep(
        self,
        channel: Arc<Channel>,
        state: watch::Sender<TopicState>,
        stop: CancellationToken,
    ) {
        let mut pause = Duration::from_millis(100);
        loop {
            // The log may take its time to answer, a stop does not wait for it.
            let asked = self.admin(self.ensure(&channel));
            let Some(found) = stop.run_until_cancelled(asked).await else {
                return;
            };
            let wait = match &found {
                TopicState::Ready { .. } => {
                    pause = Duration::from_millis(100);
                    LOOK_AGAIN
                }
                TopicState::Failed(error) => {
                    tracing::warn!(channel = %channel.name, %error, "the channel's topic is not ready");
                    pause = (pause * 2).min(Duration::from_secs(5));
                    pause
                }
                TopicState::Pending => pause,
            };
            state.send_if_modified(|before| {
                let changed = *before != found;
                if changed {
                    *before = found;
                }
                changed
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    async fn ensure(&self, channel: &Channel) -> TopicState {
        let spec = self.spec(channel);
        let described = async {
            if let Some(topic) = self.log.describe_topic(&spec.name).await? {
                return Ok(Some(topic));
            }
            self.log.create_topic(&spec).await?;
            tracing::info!(channel = %channel.name, topic = %spec.name, "topic made");
            self.log.describe_topic(&spec.name).await
        };
        match described.await {
            Ok(Some(topic)) => TopicState::Ready {
                topic,
                notes: differences(&spec, &topic),
            },
            Ok(None) => TopicState::Failed(LogError::UnknownTopic(spec.name)),
            Err(error) => TopicState::Failed(error),
        }
    }
}

/// Where a topic differs from what its channel asks for, in words. An existing topic is used as
/// it is.
fn differences(spec: &TopicSpec, topic: &TopicDescription) -> Vec<String> {
    let mut notes = Vec::new();
    if topic.partitions != spec.partitions {
        notes.push(format!(
            "the topic has {} partitions, the spec says {}",
            topic.partitions, spec.partitions
        ));
    }
    if topic.replicas != spec.replicas {
        notes.push(format!(
            "the topic has {} replicas, the spec says {}",
            topic.replicas, spec.replicas
        ));
    }
    if topic.retention != spec.retention {
        let text = |retention: Option<Duration>| match retention {
            Some(time) => crate::duration::iso(time),
            None => "for ever".to_owned(),
        };
        notes.push(format!(
            "the topic keeps records {}, the spec says {}",
            text(topic.retention),
            text(spec.retention)
        ));
    }
    if topic.max_record_bytes < spec.max_record_bytes {
        notes.push(format!(
            "the topic takes records of at most {} bytes, larger events are refused",
            topic.max_record_bytes
        ));
    }
    if topic.replicas >= 3 && topic.min_in_sync < 2 {
        notes.push(format!(
            "min.insync.replicas is {}: an event that was answered 202 may be lost with one broker",
            topic.min_in_sync
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::TopicName;

    #[test]
    fn differences_are_told_in_words() {
        let spec = TopicSpec {
            name: TopicName::try_new("t").unwrap(),
            partitions: 4,
            replicas: 3,
            retention: Some(Duration::from_secs(3600)),
            max_record_bytes: 100,
            segments: None,
        };
        let same = TopicDescription {
            partitions: 4,
            replicas: 3,
            retention: spec.retention,
            max_record_bytes: 100,
            min_in_sync: 2,
        };
        assert_eq!(differences(&spec, &same), Vec::<String>::new());
        let other = TopicDescription {
            partitions: 1,
            replicas: 3,
            retention: None,
            max_record_bytes: 99,
            min_in_sync: 1,
        };
        let notes = differences(&spec, &other);
        assert_eq!(notes.len(), 4);
        assert_eq!(notes[0], "the topic has 1 partitions, the spec says 4");
        assert_eq!(
            notes[1],
            "the topic keeps records for ever, the spec says PT1H"
        );
    }
}
