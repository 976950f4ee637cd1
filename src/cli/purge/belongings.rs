//! What a resource has in the log: its topics and its group.

use std::fmt::Write as _;

use super::super::table::{indented, table};
use crate::channel::ResourceName;
use crate::dead_letters::redrives_topic;
use crate::log::{EventLog, GroupId, LogError, Partition, TopicName, TopicPartition, Watermarks};
use crate::registry::Templates;

/// What a resource may have.
#[derive(Debug)]
pub(super) struct Belongings {
    topics: Vec<TopicName>,
    group: Option<Group>,
}

#[derive(Debug)]
struct Group {
    id: GroupId,
    /// The topics it reads.
    reads: [TopicName; 2],
}

/// What a resource has.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) topics: Vec<FoundTopic>,
    pub(super) group: Option<FoundGroup>,
}

#[derive(Debug)]
pub(super) struct FoundTopic {
    pub(super) name: TopicName,
    /// `None`: it is not there.
    pub(super) size: Option<Size>,
}

#[derive(Debug)]
pub(super) struct Size {
    partitions: u32,
    records: i64,
}

#[derive(Debug)]
pub(super) struct FoundGroup {
    pub(super) id: GroupId,
    /// How many partitions of topics that are there it has commits for.
    commits: usize,
}

impl Belongings {
    /// A channel's topic.
    pub(super) fn of_channel(templates: &Templates, name: &ResourceName) -> Result<Self, String> {
        let topic = templates.channel_topic(name).map_err(|e| e.to_string())?;
        Ok(Self {
            topics: vec![topic],
            group: None,
        })
    }

    /// The topics and the group of a subscription.
    pub(super) fn of_subscription(
        templates: &Templates,
        name: &ResourceName,
        channel: &str,
        uid: Option<&str>,
    ) -> Result<Self, String> {
        let channel = ResourceName::try_new(name.namespace(), channel)
            .map_err(|error| format!("--channel: {error}"))?;
        let named = || {
            let topic = templates.channel_topic(&channel)?;
            let retry = templates.retry_topic(&topic, name)?;
            let dead_letters = templates.dead_letter_topic(&topic, name)?;
            Ok((topic, retry, dead_letters))
        };
        let (topic, retry, dead_letters) =
            named().map_err(|error: crate::log::TopicNameError| error.to_string())?;
        let default_uid = format!("{}.{}", name.namespace(), name.name());
        let id = templates.group(&channel, name, uid.unwrap_or(&default_uid));
        Ok(Self {
            topics: vec![
                retry.clone(),
                dead_letters.clone(),
                redrives_topic(&dead_letters),
            ],
            group: Some(Group {
                id,
                reads: [topic, retry],
            }),
        })
    }

    /// Looks at what there is.
    pub(super) async fn look(self, log: &dyn EventLog) -> Result<Found, LogError> {
        let mut topics = Vec::new();
        for name in self.topics {
            let size = size(log, &name).await?;
            topics.push(FoundTopic { name, size });
        }
        let group = match self.group {
            None => None,
            Some(group) => Some(FoundGroup {
                commits: commits(log, &group).await?,
                id: group.id,
            }),
        };
        Ok(Found { topics, group })
    }
}

async fn size(log: &dyn EventLog, topic: &TopicName) -> Result<Option<Size>, LogError> {
    let Some(description) = log.describe_topic(topic).await? else {
        return Ok(None);
    };
    let marks = log.watermarks(topic).await?;
    let kept = |marks: &Watermarks| marks.high.0 - marks.low.0;
    Ok(Some(Size {
        partitions: description.partitions,
        records: marks.iter().map(kept).sum(),
    }))
}

async fn commits(log: &dyn EventLog, group: &Group) -> Result<usize, LogError> {
    let mut partitions = Vec::new();
    for topic in &group.reads {
        let count = log.describe_topic(topic).await?.map_or(0, |t| t.partitions);
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        partitions.extend((0..count).map(|number| TopicPartition {
            topic: topic.clone(),
            partition: Partition(number),
        }));
    }
    let commits = log.committed(&group.id, &partitions).await?;
    Ok(commits.iter().flatten().count())
}

impl Found {
    /// Whether none of it is there. A group alone, of topics that are all gone, is not seen.
    pub(super) fn is_empty(&self) -> bool {
        self.topics.iter().all(|topic| topic.size.is_none())
            && self.group.as_ref().is_none_or(|group| group.commits == 0)
    }

    /// The names that were looked for.
    pub(super) fn names(&self) -> String {
        let mut names = String::new();
        for topic in &self.topics {
            let _ = write!(names, "topic {}, ", topic.name);
        }
        match &self.group {
            Some(group) => names + &format!("group {}", group.id),
            None => names.trim_end_matches(", ").to_owned(),
        }
    }

    /// A table for people.
    pub(super) fn rendered(&self) -> String {
        let topics = self.topics.iter().map(|topic| {
            let (partitions, records) = match &topic.size {
                Some(size) => (size.partitions.to_string(), size.records.to_string()),
                None => (String::new(), "not there".into()),
            };
            vec!["topic".into(), topic.name.to_string(), partitions, records]
        });
        let group = self.group.iter().map(|group| {
            let held = format!("{} commits", group.commits);
            vec!["group".into(), group.id.to_string(), String::new(), held]
        });
        let rows: Vec<_> = topics.chain(group).collect();
        indented(&table(&["", "NAME", "PARTITIONS", "RECORDS"], &rows), 2)
    }
}
