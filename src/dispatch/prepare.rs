//! What has to be there before a subscription may read: its topics, and a fixed start.

use std::time::Duration;

use super::start::is_new;
use crate::channel::Subscription;
use crate::log::{
    Commit, EventLog, GroupId, LogError, Partition, Segments, TopicDescription, TopicName,
    TopicPartition, TopicSpec,
};

/// How long dead letters are kept.
const DEAD_LETTER_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// All partitions of the subscription's channel topic.
pub(crate) fn partitions(
    subscription: &Subscription,
    topic: &TopicDescription,
) -> Vec<TopicPartition> {
    let count = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
    (0..count)
        .map(|partition| TopicPartition {
            topic: subscription.topic.clone(),
            partition: Partition(partition),
        })
        .collect()
}

/// Fixes where a new subscription starts, then makes its retry and dead-letter topics.
///
/// In this order, because the retry topic says that the start is fixed: a crash in between leaves
/// commits and no retry topic, and the next try changes nothing of them.
pub(crate) async fn prepare(
    log: &dyn EventLog,
    subscription: &Subscription,
    topic: &TopicDescription,
    side_record_bytes: u32,
) -> Result<(), LogError> {
    if log
        .describe_topic(&subscription.retry_topic)
        .await?
        .is_none()
    {
        let partitions = partitions(subscription, topic);
        fix_start(log, &subscription.group, &subscription.topic, partitions).await?;
    }
    let side = |name: &TopicName, retention, segments| TopicSpec {
        name: name.clone(),
        partitions: topic.partitions,
        replicas: topic.replicas,
        retention,
        max_record_bytes: side_record_bytes,
        segments,
    };
    let dead_letters = side(
        &subscription.dead_letter_topic,
        Some(DEAD_LETTER_RETENTION),
        None,
    );
    log.create_topic(&dead_letters).await?;
    // Trimming alone frees no disk: only whole segments are deleted.
    let segments = Segments {
        bytes: 32 << 20,
        age: Duration::from_secs(3600),
    };
    log.create_topic(&side(&subscription.retry_topic, None, Some(segments)))
        .await?;
    Ok(())
}

/// Commits the ends of `topic`'s partitions for a group without commits.
async fn fix_start(
    log: &dyn EventLog,
    group: &GroupId,
    topic: &TopicName,
    partitions: Vec<TopicPartition>,
) -> Result<(), LogError> {
    // The ends first: another node may do the same meanwhile. If its commits are not to be seen
    // after the ends were read, then what is accepted once it says Ready lies beyond these ends,
    // whosever commits are the last.
    let marks = log.watermarks(topic).await?;
    let commits = log.committed(group, &partitions).await?;
    if !is_new(&commits) {
        return Ok(());
    }
    let ends = partitions
        .into_iter()
        .zip(marks)
        .map(|(at, marks)| {
            (
                at,
                Commit {
                    offset: marks.high,
                    metadata: String::new(),
                },
            )
        })
        .collect();
    match log.commit_idle(group, ends).await {
        // The group has members: another node fixed the start and is at work already.
        Err(LogError::Refused(_) | LogError::MembershipLost(_)) => Ok(()),
        other => other,
    }
}

/// Whether every partition has a commit: from then on no later event can be missed.
pub(crate) async fn is_fixed(
    log: &dyn EventLog,
    subscription: &Subscription,
    topic: &TopicDescription,
) -> Result<bool, LogError> {
    let partitions = partitions(subscription, topic);
    let commits = log.committed(&subscription.group, &partitions).await?;
    Ok(commits.iter().all(Option::is_some))
}

#[cfg(test)]
mod tests;
