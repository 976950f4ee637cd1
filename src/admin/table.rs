//! Every address of the API with what it takes and answers, once.
//!
//! Requests are matched against this table, queries are read by it, and the OpenAPI document is
//! made of it: an address that is not in it is not there.

use http::Method;
use schemars::{Schema, SchemaGenerator};

use super::shapes::{
    DeadLetter, DeliveryLog, Health, Letter, List, Live, ManifestProblem, Message, MessageEvent,
    Plan, Ready, Redrive, Resource, Stats, Wish,
};

/// What is asked for at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Live,
    Ready,
    Metrics,
    Document,
    Health,
    Problems,
    Channels,
    Channel,
    Subscriptions,
    Subscription,
    Stats,
    DeadLetters,
    DeadLetter,
    StartRedrive,
    Redrive,
    PauseRedrive,
    ResumeRedrive,
    CancelRedrive,
    Messages,
    Message,
    Content,
    Events,
    DeliveryLogs,
    Redeliver,
    RetryNow,
}

/// One address.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) operation: Operation,
    /// `{name}` stands for one part.
    pub(super) path: &'static str,
    /// In a few words.
    pub(super) summary: &'static str,
    /// What the query may say.
    pub(super) parameters: &'static [Parameter],
    /// What the body says; such a request changes something, as one with [`Endpoint::acts`] does.
    pub(super) body: Option<MakeSchema>,
    /// Whether it is a POST.
    pub(super) acts: bool,
    /// What is answered if all is well: status, content.
    pub(super) answers: &'static [(u16, Content)],
}

/// Makes the schema of a type.
pub(super) type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

/// What a body holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// JSON of this shape.
    Json(MakeSchema),
    /// Something else, of this media type.
    Other(&'static str),
}

/// A parameter of a query.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    pub(super) kind: Kind,
    /// Whether it may be there several times; any of the values then fits.
    pub(super) repeated: bool,
}

/// What the value of a parameter is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    Time,
    Status,
    /// `<namespace>/<name>`
    Name,
    /// A whole number, from and to.
    Number(u32, u32),
}

const fn one(name: &'static str, kind: Kind, doc: &'static str) -> Parameter {
    Parameter {
        name,
        doc,
        kind,
        repeated: false,
    }
}

const fn any(name: &'static str, kind: Kind, doc: &'static str) -> Parameter {
    Parameter {
        repeated: true,
        ..one(name, kind, doc)
    }
}

const SINCE: Parameter = one("inserted_at.gte", Kind::Time, "Not older than this.");
const UNTIL: Parameter = one("inserted_at.lt", Kind::Time, "Older than this.");
const SIZE: Parameter = one(
    "page_size",
    Kind::Number(1, 250),
    "Items of a page; 50 unless it is said.",
);
const AFTER: Parameter = one(
    "after",
    Kind::Text,
    "page_info.after of a page: goes on with older items.",
);
const BEFORE: Parameter = one(
    "before",
    Kind::Text,
    "page_info.before of a page: goes on with newer items.",
);
const TYPE: Parameter = one("event_type", Kind::Text, "The event's type, exactly.");
const ID: Parameter = one("event_id", Kind::Text, "The event's id, exactly.");

const MESSAGES: &[Parameter] = &[
    any("status", Kind::Status, "Where they stand."),
    any("channel", Kind::Name, "The channel."),
    any("subscription", Kind::Name, "The subscription."),
    any(
        "reason",
        Kind::Text,
        "Why the last attempt failed, such as http_503.",
    ),
    ID,
    TYPE,
    one("event_source", Kind::Text, "The event's source, exactly."),
    SINCE,
    UNTIL,
    SIZE,
    AFTER,
    BEFORE,
];

const LETTERS: &[Parameter] = &[
    SINCE,
    UNTIL,
    TYPE,
    ID,
    one(
        "error_code",
        Kind::Number(100, 999),
        "The status code of the last answer.",
    ),
    SIZE,
    AFTER,
];

const STATS: &[Parameter] = &[
    one(
        "inserted_at.gte",
        Kind::Time,
        "From when; an hour before the end unless it is said.",
    ),
    one(
        "inserted_at.lt",
        Kind::Time,
        "To when; now unless it is said.",
    ),
    one(
        "step_minutes",
        Kind::Number(1, 1440),
        "Minutes that one entry covers; 1 unless it is said.",
    ),
];

macro_rules! json {
    ($shape:ty) => {
        Content::Json(SchemaGenerator::subschema_for::<$shape>)
    };
}

macro_rules! endpoints {
    ($( $operation:ident $method:ident $path:literal $summary:literal
        ($($parameters:expr)?) $(body $body:ty)? => $($status:literal $content:expr),+; )+) => {
        /// The addresses; of two that fit a path the first one is meant.
        pub(super) static ENDPOINTS: &[Endpoint] = &[$(
            Endpoint {
                operation: Operation::$operation,
                path: $path,
                summary: $summary,
                parameters: endpoints!(@list $($parameters)?),
                body: endpoints!(@body $($body)?),
                acts: endpoints!(@acts $method),
                answers: &[$(($status, $content)),+],
            },
        )+];
    };
    (@list) => { &[] };
    (@list $parameters:expr) => { $parameters };
    (@body) => { None };
    (@body $body:ty) => { Some(SchemaGenerator::subschema_for::<$body>) };
    (@acts get) => { false };
    (@acts post) => { true };
}

endpoints! {
    Live get "/healthz" "Whether the process lives"
        () => 200 json!(Live);
    Ready get "/readyz" "Whether the node can serve"
        () => 200 json!(Ready), 503 json!(Ready);
    Metrics get "/metrics" "The node's metrics, for Prometheus"
        () => 200 Content::Other("text/plain");
    Document get "/v1/openapi.json" "This document"
        () => 200 Content::Other("application/json");
    Health get "/v1/health" "How each subscription and the journal are doing"
        () => 200 json!(Health);
    Problems get "/v1/problems" "What is wrong with the manifests"
        () => 200 json!(List<ManifestProblem>);
    Channels get "/v1/channels" "The channels"
        () => 200 json!(List<Resource>);
    Channel get "/v1/channels/{namespace}/{name}" "A channel with its status"
        () => 200 json!(Resource);
    Subscriptions get "/v1/subscriptions" "The subscriptions"
        () => 200 json!(List<Resource>);
    Subscription get "/v1/subscriptions/{namespace}/{name}" "A subscription with its status and lag"
        () => 200 json!(Resource);
    Stats get "/v1/subscriptions/{namespace}/{name}/stats" "What became of a subscription's attempts"
        (STATS) => 200 json!(Stats);
    DeadLetters get "/v1/subscriptions/{namespace}/{name}/dead-letters"
        "The dead letters of a subscription, the newest first"
        (LETTERS) => 200 json!(List<DeadLetter>);
    StartRedrive post "/v1/subscriptions/{namespace}/{name}/dead-letters/redrive"
        "Counts dead letters (dry_run), or sends them again"
        () body Wish => 200 json!(Plan), 202 json!(Redrive);
    DeadLetter get "/v1/subscriptions/{namespace}/{name}/dead-letters/{id}" "A dead letter with its event"
        () => 200 json!(Letter);
    Redrive get "/v1/redrives/{id}" "How far a redrive is"
        () => 200 json!(Redrive);
    PauseRedrive post "/v1/redrives/{id}/pause" "Has a redrive wait"
        () => 202 json!(Redrive);
    ResumeRedrive post "/v1/redrives/{id}/resume" "Has a redrive go on"
        () => 202 json!(Redrive);
    CancelRedrive post "/v1/redrives/{id}/cancel" "Ends a redrive before it is done"
        () => 202 json!(Redrive);
    Messages get "/v1/messages" "Messages, the newest first"
        (MESSAGES) => 200 json!(List<Message>);
    Message get "/v1/messages/{id}" "A message"
        () => 200 json!(Message);
    Content get "/v1/messages/{id}/content" "The event's data, its attributes in ce- headers, for download"
        () => 200 Content::Other("*/*");
    Events get "/v1/messages/{id}/events" "The changes of a message's status, the oldest first"
        () => 200 json!(List<MessageEvent>);
    DeliveryLogs get "/v1/messages/{id}/delivery_logs" "Each request with its answer, the oldest first"
        () => 200 json!(List<DeliveryLog>);
    Redeliver post "/v1/messages/{id}/redeliver" "Sends a message again that is at its end, in a round of its own"
        () => 202 json!(Message);
    RetryNow post "/v1/messages/{id}/retry-now" "Makes the attempt now that a message waits for"
        () => 202 json!(Message);
}

impl Endpoint {
    /// Its method; whoever may GET may also HEAD.
    pub(super) fn method(&self) -> &'static str {
        if self.acts { "POST" } else { "GET" }
    }

    /// The methods it takes, as the header `Allow` lists them, unless `method` is among them.
    pub(super) fn refuses(&self, method: &Method) -> Option<&'static str> {
        let fits = match *method {
            Method::POST => self.acts,
            Method::GET | Method::HEAD => !self.acts,
            _ => false,
        };
        (!fits).then_some(if self.acts { "POST" } else { "GET, HEAD" })
    }

    /// The parts of `path` that stand where this one has names; `None`: it is another address.
    fn parts<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        let (mut own, mut given) = (self.path.split('/'), path.split('/'));
        let mut parts = Vec::new();
        loop {
            match (own.next(), given.next()) {
                (None, None) => return Some(parts),
                (Some(own), Some(given)) if own.starts_with('{') => parts.push(given),
                (Some(own), Some(given)) if own == given => {}
                _ => return None,
            }
        }
    }
}

/// The address that `path` is, and what stands in place of its names.
pub(super) fn find(path: &str) -> Option<(&'static Endpoint, Vec<&str>)> {
    let mut all = ENDPOINTS.iter();
    all.find_map(|endpoint| Some((endpoint, endpoint.parts(path)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(path: &str) -> Option<(Operation, Vec<&str>)> {
        find(path).map(|(endpoint, parts)| (endpoint.operation, parts))
    }

    #[test]
    fn addresses_are_matched_whole() {
        for (path, wanted, parts) in [
            ("/v1/channels/a/b", Operation::Channel, &["a", "b"][..]),
            ("/v1/subscriptions", Operation::Subscriptions, &[]),
            (
                "/v1/subscriptions/a/b/dead-letters",
                Operation::DeadLetters,
                &["a", "b"],
            ),
            (
                "/v1/subscriptions/a/b/dead-letters/x",
                Operation::DeadLetter,
                &["a", "b", "x"],
            ),
            (
                "/v1/subscriptions/a/b/dead-letters/redrive",
                Operation::StartRedrive,
                &["a", "b"],
            ),
            ("/v1/redrives/x", Operation::Redrive, &["x"]),
            ("/v1/redrives/x/pause", Operation::PauseRedrive, &["x"]),
        ] {
            assert_eq!(operation(path), Some((wanted, parts.to_vec())), "{path}");
        }
        for nothing in [
            "",
            "/v1/channels/a/b/dead-letters",
            "/v1/subscriptions/a/b/dead-letters/x/y",
            "/v1/redrives/x/stop",
            "/",
            "*",
            "/v1",
            "/v1/",
            "/v1/channels/",
            "/v1/channels/a",
            "/v1/channels/a/b/c",
            "/healthz/",
            "/v2/channels",
            "//healthz",
        ] {
            assert_eq!(operation(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn each_address_leads_to_its_own_operation() {
        for endpoint in ENDPOINTS {
            let path = endpoint.path.replace(['{', '}'], "");
            let found = operation(&path).map(|(operation, _)| operation);
            assert_eq!(found, Some(endpoint.operation), "{path}");
        }
    }
}
