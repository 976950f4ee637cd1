//! The names of topics and groups.

use crate::channel::ResourceName;
use crate::log::{GroupId, TopicName, TopicNameError};

/// How topics and groups are named. The defaults are what Knative's Kafka channel uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Templates {
    topic: String,
    group: String,
}

/// A template that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template {template:?} cannot be used: {problem}")]
pub struct TemplateError {
    template: String,
    problem: String,
}

impl Default for Templates {
    fn default() -> Self {
        Self {
            topic: "knative-messaging-kafka.{namespace}.{name}".to_owned(),
            group: "kafka.{namespace}.{channel}.{uid}".to_owned(),
        }
    }
}

impl Templates {
    /// `topic` with `{namespace}` and `{name}` of the channel, both needed; `group` with
    /// `{namespace}`, `{channel}`, `{subscription}` and `{uid}`, the last one needed.
    ///
    /// # Errors
    /// As [`Templates::check_topic`] and [`Templates::check_group`].
    pub fn try_new(topic: &str, group: &str) -> Result<Self, TemplateError> {
        Self::check_topic(topic)?;
        Self::check_group(group)?;
        Ok(Self {
            topic: topic.to_owned(),
            group: group.to_owned(),
        })
    }

    /// Whether channel topics can be named so.
    ///
    /// # Errors
    /// [`TemplateError`] when a place is missing or not known, or another character is not allowed
    /// in a topic's name.
    pub fn check_topic(template: &str) -> Result<(), TemplateError> {
        check(template, &["namespace", "name"], &["namespace", "name"])
    }

    /// Whether groups can be named so.
    ///
    /// # Errors
    /// As [`Templates::check_topic`].
    pub fn check_group(template: &str) -> Result<(), TemplateError> {
        let known = ["namespace", "channel", "subscription", "uid"];
        check(template, &["uid"], &known)
    }

    /// The topic of a channel.
    ///
    /// # Errors
    /// [`TopicNameError`] when it is longer than 249 characters.
    pub fn channel_topic(&self, channel: &ResourceName) -> Result<TopicName, TopicNameError> {
        let places = [("namespace", channel.namespace()), ("name", channel.name())];
        TopicName::try_new(&fill(&self.topic, &places))
    }

    /// `<channel topic>.<subscription>.retry`
    ///
    /// # Errors
    /// [`TopicNameError`] when it is longer than 249 characters.
    pub fn retry_topic(
        &self,
        topic: &TopicName,
        subscription: &ResourceName,
    ) -> Result<TopicName, TopicNameError> {
        TopicName::try_new(&format!("{topic}.{}.retry", subscription.name()))
    }

    /// `<channel topic>.<subscription>.dead-letter`
    ///
    /// # Errors
    /// [`TopicNameError`] when it is longer than 249 characters.
    pub fn dead_letter_topic(
        &self,
        topic: &TopicName,
        subscription: &ResourceName,
    ) -> Result<TopicName, TopicNameError> {
        TopicName::try_new(&format!("{topic}.{}.dead-letter", subscription.name()))
    }

    /// The consumer group of a subscription.
    #[must_use]
    pub fn group(&self, channel: &ResourceName, subscription: &ResourceName, uid: &str) -> GroupId {
        let places = [
            ("namespace", subscription.namespace()),
            ("channel", channel.name()),
            ("subscription", subscription.name()),
            ("uid", uid),
        ];
        GroupId(fill(&self.group, &places).into())
    }
}

fn check(template: &str, needed: &[&str], known: &[&str]) -> Result<(), TemplateError> {
    let refuse = |problem: String| {
        Err(TemplateError {
            template: template.to_owned(),
            problem,
        })
    };
    if let Some(missing) = needed
        .iter()
        .find(|name| !template.contains(&format!("{{{name}}}")))
    {
        return refuse(format!(
            "{{{missing}}} is missing, so names would be given twice"
        ));
    }
    let empty: Vec<_> = known.iter().map(|name| (*name, "")).collect();
    let rest = fill(template, &empty);
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(illegal) = rest.chars().find(|c| !legal(*c)) {
        let known: Vec<_> = known.iter().map(|name| format!("{{{name}}}")).collect();
        return refuse(format!(
            "{illegal:?} is not allowed, only a-z A-Z 0-9 . _ - and {}",
            known.join(" ")
        ));
    }
    Ok(())
}

/// Fills in the places in one pass: what is filled in is not looked at again.
fn fill(template: &str, places: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let place = after.split_once('}').and_then(|(name, tail)| {
            let (_, value) = places.iter().find(|(known, _)| *known == name)?;
            Some((*value, tail))
        });
        match place {
            Some((value, tail)) => {
                filled.push_str(value);
                rest = tail;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_knative_channel() {
        let templates = Templates::default();
        let channel = ResourceName::try_new("prod", "orders").unwrap();
        let billing = ResourceName::try_new("prod", "billing").unwrap();
        let topic = templates.channel_topic(&channel).unwrap();
        assert_eq!(topic.as_str(), "knative-messaging-kafka.prod.orders");
        assert_eq!(
            templates.retry_topic(&topic, &billing).unwrap().as_str(),
            "knative-messaging-kafka.prod.orders.billing.retry"
        );
        assert_eq!(
            templates
                .dead_letter_topic(&topic, &billing)
                .unwrap()
                .as_str(),
            "knative-messaging-kafka.prod.orders.billing.dead-letter"
        );
        let group = templates.group(&channel, &billing, "prod.billing");
        assert_eq!(group.to_string(), "kafka.prod.orders.prod.billing");
    }

    #[test]
    fn the_longest_names_fit_the_defaults() {
        let templates = Templates::default();
        let label = "x".repeat(63);
        let name = ResourceName::try_new(&label, &label).unwrap();
        let topic = templates.channel_topic(&name).unwrap();
        assert!(templates.retry_topic(&topic, &name).is_ok());
        assert!(templates.dead_letter_topic(&topic, &name).is_ok());
    }

    #[test]
    fn templates_are_checked() {
        let group = "{uid}";
        assert!(Templates::try_new("{namespace}-{name}", group).is_ok());
        for topic in [
            "{name}",
            "{namespace}",
            "x",
            "{namespace}/{name}",
            "{namespace}{name}{uid}",
        ] {
            assert!(Templates::try_new(topic, group).is_err(), "{topic}");
        }
        assert!(Templates::try_new("{namespace}.{name}", "kafka.{name}").is_err());
        assert!(Templates::try_new("{namespace}.{name}", "{uid}{").is_err());
    }
}
