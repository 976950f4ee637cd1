//! Channels and subscriptions as the rest of the program sees them: names checked, references
//! resolved, defaults filled in. What a manifest says is turned into these by [`crate::manifest`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use crate::log::{GroupId, TopicName};

/// `<namespace>/<name>` of a channel, subscription or sink; both parts are DNS labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName(Arc<(Box<str>, Box<str>)>);

/// Text that is not `<namespace>/<name>` of two DNS labels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a name: {problem}")]
pub struct ResourceNameError {
    text: String,
    problem: &'static str,
}

/// Why `text` is not a DNS label (RFC 1123: 1 to 63 of `a-z 0-9 -`, no hyphen at an end).
#[must_use]
pub fn label_problem(text: &str) -> Option<&'static str> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() {
        Some("it is empty")
    } else if text.len() > 63 {
        Some("it has more than 63 characters")
    } else if !text.chars().all(legal) {
        Some("only a-z, 0-9 and - are allowed")
    } else if text.starts_with('-') || text.ends_with('-') {
        Some("it must begin and end with a letter or digit")
    } else {
        None
    }
}

impl ResourceName {
    /// Checks both parts.
    ///
    /// # Errors
    /// [`ResourceNameError`] when one is no DNS label.
    pub fn try_new(namespace: &str, name: &str) -> Result<Self, ResourceNameError> {
        match label_problem(namespace).or_else(|| label_problem(name)) {
            None => Ok(Self(Arc::new((namespace.into(), name.into())))),
            Some(problem) => Err(ResourceNameError {
                text: format!("{namespace}/{name}"),
                problem,
            }),
        }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.0
    }

    /// The name inside the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.1
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace(), self.name())
    }
}

impl std::str::FromStr for ResourceName {
    type Err = ResourceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        Self::try_new(namespace, name)
    }
}

/// A channel in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its name.
    pub name: ResourceName,
    /// `metadata.generation`, else 1 and one more for every change seen.
    pub generation: i64,
    /// Partitions of a topic that has to be made.
    pub partitions: u32,
    /// Replicas of a topic that has to be made.
    pub replicas: u16,
    /// How long events are kept in a topic that has to be made.
    pub retention: Duration,
    /// Its topic: `knative-messaging-kafka.<namespace>.<name>` unless configured otherwise.
    pub topic: TopicName,
    /// The sink that dead letters go to when a subscription names none, for the status.
    pub dead_letter: Option<Sink>,
}

/// A subscription in force: every reference resolved, every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its name.
    pub name: ResourceName,
    /// `metadata.uid`, else `<namespace>.<name>`.
    pub uid: String,
    /// `metadata.generation`, else 1 and one more for every change seen.
    pub generation: i64,
    /// The channel it reads.
    pub channel: ResourceName,
    /// That channel's topic.
    pub topic: TopicName,
    /// Where events wait for a retry.
    pub retry_topic: TopicName,
    /// Where events end that could not be delivered.
    pub dead_letter_topic: TopicName,
    /// Its consumer group.
    pub group: GroupId,
    /// Where events go.
    pub subscriber: Sink,
    /// Where the subscriber's replies go; without one they are dropped.
    pub reply: Option<Sink>,
    /// Where events go that could not be delivered.
    pub dead_letter: Option<Sink>,
    /// How events are delivered.
    pub delivery: DeliverySpec,
}

/// Where an event can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// An HTTP address.
    Http(HttpSink),
    /// A channel of ours: the event is appended to its topic, no HTTP.
    Channel {
        /// The channel.
        name: ResourceName,
        /// Its topic.
        topic: TopicName,
    },
}

impl Sink {
    /// The address as shown in the status and in `knativeerrordest`.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Http(sink) => sink.url.to_string(),
            Self::Channel { name, .. } => channel_url(name),
        }
    }
}

/// The address of a channel as Knative writes it (`status.address.url`).
#[must_use]
pub fn channel_url(name: &ResourceName) -> String {
    format!(
        "http://{}-kn-channel.{}.svc.cluster.local",
        name.name(),
        name.namespace()
    )
}

/// An HTTP address with what to send along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSink {
    /// The address as it was written.
    pub url: Arc<str>,
    /// The same, parsed: `http` or `https` with a host.
    pub uri: Uri,
    /// Static request headers of this sink and its subscription.
    pub headers: Arc<[(HeaderName, HeaderValue)]>,
    /// PEM certificates to trust besides the system's (`CACerts`).
    pub ca_certs: Option<Arc<str>>,
}

/// How the events of a subscription are delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliverySpec {
    /// Repeats after the first attempt.
    pub retry: u32,
    /// The delays between attempts.
    pub backoff: Backoff,
    /// Give up when the next attempt would be due later than this after the first one.
    pub retry_window: Option<Duration>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// The longest `Retry-After` that is obeyed; zero: none is.
    pub retry_after_max: Duration,
    /// Status codes that are worth another attempt.
    pub retry_codes: RetryCodes,
    /// The content mode; `None`: that in which the event was received.
    pub format: Option<Format>,
    /// What is kept in order.
    pub ordering: Ordering,
    /// Attempts at one time, at least 1.
    pub max_in_flight: usize,
    /// Unfinished events of a partition, at least 1: at this many the partition pauses.
    pub max_window: usize,
    /// Whether an event that no dead-letter sink took is kept in the dead-letter topic.
    pub dead_letter_topic: bool,
    /// At most so many attempts a second.
    pub rate_limit: Option<f64>,
    /// What a 2xx means.
    pub accepted: Accepted,
    /// Nothing is sent: each message ends as `not_sent`.
    pub sandbox: bool,
    /// How the provider is asked what became of a message it took.
    pub status_check: Option<Arc<StatusCheck>>,
}

/// What a 2xx means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accepted {
    /// The message is where it was to go.
    #[default]
    Delivered,
    /// It is on its way; no more is known.
    Sent,
}

/// How a provider is asked what became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusCheck {
    /// Where.
    pub url: StatusUrl,
    /// What the provider calls the message.
    pub receipt: Option<ReceiptFrom>,
    /// Request headers, secrets filled in.
    pub headers: Arc<[(HeaderName, HeaderValue)]>,
    /// JSON pointer to the status in the answer.
    pub status: String,
    /// Statuses that mean delivered.
    pub delivered: Vec<String>,
    /// Statuses that mean bounced.
    pub bounced: Vec<String>,
    /// Statuses that mean that the provider gave up.
    pub undelivered: Vec<String>,
}

/// Where a provider tells the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusUrl {
    /// An address with `{receipt}` in it.
    Template(String),
    /// The `Location` header of its answer.
    Location,
}

/// Where a receipt is in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptFrom {
    /// JSON pointer into the body.
    Pointer(String),
    /// A header.
    Header(HeaderName),
}

impl Eq for DeliverySpec {}

/// The delays between attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// How they grow.
    pub policy: BackoffPolicy,
    /// `backoffDelay`
    pub delay: Duration,
    /// No delay is longer than this, before jitter.
    pub max: Option<Duration>,
    /// 0 to 1: each delay is multiplied by a random factor in `[1 - jitter, 1]`.
    pub jitter: f64,
}

/// How delays grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackoffPolicy {
    /// The same delay before every retry.
    Linear,
    /// `delay * 2^n` before retry n = 1, 2, ...
    Exponential,
}

/// Which status codes are worth another attempt. 2xx never is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryCodes {
    /// 404, 408, 409, 429 and 5xx (requirements C-01).
    Standard,
    /// These codes and ranges, both ends included.
    Listed(Arc<[(u16, u16)]>),
}

impl RetryCodes {
    /// Whether an answer with `code` is worth another attempt.
    #[must_use]
    pub fn contains(&self, code: u16) -> bool {
        match self {
            Self::Standard => matches!(code, 404 | 408 | 409 | 429 | 500..=599),
            Self::Listed(ranges) => ranges
                .iter()
                .any(|(low, high)| (*low..=*high).contains(&code)),
        }
    }
}

/// The content mode of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Attributes in `ce-` headers, data in the body.
    Binary,
    /// One JSON object in the body.
    Json,
}

/// What is kept in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    /// Events with the same `partitionkey`; an event without one waits for nobody.
    Key,
    /// All events of a partition.
    Partition,
    /// Nothing.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_two_dns_labels() {
        assert_eq!(
            "prod/orders".parse::<ResourceName>().unwrap().to_string(),
            "prod/orders"
        );
        assert_eq!(
            "orders".parse::<ResourceName>().unwrap().namespace(),
            "default"
        );
        for bad in ["", "/", "a/", "A/b", "a/b/c", "a/-b", "a/b-", "a.b/c"] {
            assert!(bad.parse::<ResourceName>().is_err(), "{bad:?}");
        }
        assert!(ResourceName::try_new("a", &"x".repeat(64)).is_err());
    }

    #[test]
    fn standard_retry_codes_are_those_of_the_requirements() {
        let retried = |code| RetryCodes::Standard.contains(code);
        for code in [404, 408, 409, 429, 500, 501, 503, 599] {
            assert!(retried(code), "{code}");
        }
        for code in [200, 301, 307, 400, 401, 403, 410, 418, 425, 600] {
            assert!(!retried(code), "{code}");
        }
    }
}
