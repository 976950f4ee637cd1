//! What the API answers. The answers are made of these types, and so is the OpenAPI document:
//! neither can say what the other does not.

mod health;
mod letters;
mod messages;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::Value;

pub(super) use health::{Health, JournalHealth, Live, Ready, ReasonCount, Span, Stats};
pub(super) use letters::{DeadLetter, Letter, Plan, Redrive, Wish};
pub(super) use messages::{DeliveryLog, Message, MessageEvent};

use crate::clock::UnixMillis;
use crate::delivery::Reason;

/// A time, RFC 3339 in UTC with milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("format" = "date-time"))]
pub(super) struct Time(String);

impl From<UnixMillis> for Time {
    fn from(time: UnixMillis) -> Self {
        Self(time.rfc3339())
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct ReasonName(pub(super) String);

impl JsonSchema for ReasonName {
    fn schema_name() -> Cow<'static, str> {
        "Reason".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = Reason::names().collect();
        json_schema!({
            "type": "string",
            "description": "Why an attempt failed; `invalid_event` is a record that is no event.",
            "pattern": format!("^(http_[1-9][0-9]{{2}}|invalid_event|{})$", names.join("|")),
        })
    }
}

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ListOf{T}")]
pub(super) struct List<T> {
    /// What stands on the page.
    pub(super) items: Vec<T>,
    /// Which page it is.
    pub(super) page_info: PageInfo,
}

/// Which page of a list it is, and where it goes on.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct PageInfo {
    /// At most so many are on a page.
    pub(super) page_size: usize,
    /// Where older ones go on, for the parameter `after`; null: there are none.
    pub(super) after: Option<String>,
    /// Where newer ones go on, for the parameter `before`; null: this is the first page.
    pub(super) before: Option<String>,
    /// A bounded search stopped here: what is older was not looked at. `after` leads further.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) searched_to: Option<Time>,
    /// Events that wait for their first attempt, in the subscriptions that are asked for: they
    /// are listed from that on. Absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) untried: Option<u64>,
}

impl<T> List<T> {
    /// Everything on one page.
    pub(super) fn whole(items: Vec<T>) -> Self {
        let page_info = PageInfo {
            page_size: items.len(),
            ..PageInfo::default()
        };
        Self { items, page_info }
    }
}

/// An event's attributes.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct EventFacts {
    /// `id`; null for a record that is no event, as all of them.
    pub(super) id: Option<String>,
    /// `source`
    pub(super) source: Option<String>,
    /// `type`
    pub(super) r#type: Option<String>,
    /// `subject`
    pub(super) subject: Option<String>,
    /// `time`, as it was sent.
    pub(super) time: Option<String>,
}

/// A place in the log.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Position {
    /// The topic.
    pub(super) topic: String,
    /// The partition.
    pub(super) partition: i32,
    /// The offset.
    pub(super) offset: i64,
}

/// A channel or a subscription, as Kubernetes shapes an object.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Resource(pub(super) Value);

impl JsonSchema for Resource {
    fn schema_name() -> Cow<'static, str> {
        "Resource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let text = || json_schema!({ "type": "string" });
        let condition = json_schema!({
            "type": "object",
            "required": ["type", "status"],
            "properties": {
                "type": text(),
                "status": { "enum": ["True", "False", "Unknown"] },
                "reason": text(), "message": text(), "severity": text(),
                "lastTransitionTime": { "type": "string", "format": "date-time" },
            },
        });
        json_schema!({
            "type": "object",
            "description": "A channel or a subscription as Kubernetes shapes an object; its condition `Ready` sums the others up.",
            "required": ["apiVersion", "kind", "metadata", "spec", "status"],
            "properties": {
                "apiVersion": text(),
                "kind": text(),
                "metadata": {
                    "type": "object",
                    "required": ["name", "namespace"],
                    "properties": {
                        "name": text(), "namespace": text(), "uid": { "type": ["string", "null"] },
                        "generation": { "type": "integer" },
                    },
                },
                "spec": { "type": "object", "additionalProperties": true },
                "status": {
                    "type": "object",
                    "required": ["conditions"],
                    "properties": { "conditions": { "type": "array", "items": condition } },
                    "additionalProperties": true,
                },
            },
        })
    }
}

/// What is wrong with a manifest.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(super) struct ManifestProblem(pub(super) Value);

impl JsonSchema for ManifestProblem {
    fn schema_name() -> Cow<'static, str> {
        "ManifestProblem".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "required": ["file", "message"],
            "properties": {
                "file": { "type": "string" },
                "line": { "type": ["integer", "null"] },
                "field": { "type": ["string", "null"] },
                "message": { "type": "string" },
            },
        })
    }
}

/// Why a request was refused (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Problem {
    /// The status in words.
    pub(super) title: String,
    /// The status.
    pub(super) status: u16,
    /// What is wrong, and what would be right.
    pub(super) detail: String,
}
