//! What stands under which address.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use prometheus::{Encoder, TextEncoder};
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::guard::Refusal;
use super::messages::Act;
use super::{AdminState, dead_letters, guard, page};
use crate::dead_letters::Command;

/// How large the body of a request may be.
const MAX_BODY: usize = 64 << 10;
/// How long it may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// An address of the admin port.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route<'a> {
    Health,
    Readiness,
    Metrics,
    Problems,
    List(Kind),
    One(Kind, &'a str, &'a str),
    DeadLetters(Named<'a>),
    DeadLetter(Named<'a>, &'a str),
    StartRedrive(Named<'a>),
    Redrive(&'a str),
    CommandRedrive(&'a str, Command),
    Told(Told<'a>),
}

/// What is told of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told<'a> {
    List,
    One(&'a str),
    Content(&'a str),
    Events(&'a str),
    Logs(&'a str),
    Stats(Named<'a>),
    Health,
    Act(&'a str, Act),
}

/// Namespace and name.
type Named<'a> = (&'a str, &'a str);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Channel,
    Subscription,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Subscription => "subscription",
        }
    }
}

impl<'a> Route<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let parts: Vec<_> = path.strip_prefix('/')?.splitn(7, '/').collect();
        let kind = |word| match word {
            "channels" => Some(Kind::Channel),
            "subscriptions" => Some(Kind::Subscription),
            _ => None,
        };
        match parts[..] {
            ["healthz"] => Some(Self::Health),
            ["readyz"] => Some(Self::Readiness),
            ["metrics"] => Some(Self::Metrics),
            ["v1", "problems"] => Some(Self::Problems),
            ["v1", "redrives", id] => Some(Self::Redrive(id)),
            ["v1", "redrives", id, word] => {
                let command = match word {
                    "pause" => Command::Pause,
                    "resume" => Command::Resume,
                    "cancel" => Command::Cancel,
                    _ => return None,
                };
                Some(Self::CommandRedrive(id, command))
            }
            ["v1", "subscriptions", namespace, name, "dead-letters"] => {
                Some(Self::DeadLetters((namespace, name)))
            }
            [
                "v1",
                "subscriptions",
                namespace,
                name,
                "dead-letters",
                "redrive",
            ] => Some(Self::StartRedrive((namespace, name))),
            ["v1", "subscriptions", namespace, name, "dead-letters", id] => {
                Some(Self::DeadLetter((namespace, name), id))
            }
            ["v1", "subscriptions", namespace, name, "stats"] => {
                Some(Self::Told(Told::Stats((namespace, name))))
            }
            ["v1", "health"] => Some(Self::Told(Told::Health)),
            ["v1", "messages"] => Some(Self::Told(Told::List)),
            ["v1", "messages", id] => Some(Self::Told(Told::One(id))),
            ["v1", "messages", id, part] => Some(Self::Told(match part {
                "content" => Told::Content(id),
                "events" => Told::Events(id),
                "delivery_logs" => Told::Logs(id),
                "redeliver" => Told::Act(id, Act::Redeliver),
                "retry-now" => Told::Act(id, Act::RetryNow),
                _ => return None,
            })),
            ["v1", word] => kind(word).map(Self::List),
            ["v1", word, namespace, name] => {
                kind(word).map(|kind| Self::One(kind, namespace, name))
            }
            _ => None,
        }
    }
}

/// Answers a request.
pub(super) async fn handle(state: &AdminState, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let guarded = guard::check(&state.settings, &parts.method, &parts.uri, &parts.headers);
    let body = match guarded {
        Ok(()) => body,
        Err(refusal) => match page::let_in(state, refusal, &parts, body).await {
            Ok(body) => body,
            Err(answer) => return answer,
        },
    };
    let Some(route) = Route::parse(parts.uri.path()) else {
        if let Some(answer) = page::answer(state, &parts, body).await {
            return answer;
        }
        let detail = format!("there is nothing at {}", parts.uri.path());
        return answer::problem(StatusCode::NOT_FOUND, &detail);
    };
    if let Some(answer) = refuse_method(&route, &parts.method) {
        return answer;
    }
    match route {
        Route::Health => answer::json(StatusCode::OK, &json!({ "status": "ok" })),
        Route::Readiness => readiness(state),
        Route::Metrics => metrics(state),
        Route::Problems => answer::list(state.view.problems()),
        Route::List(kind) => answer::list(resources(state, kind)),
        Route::One(kind, namespace, name) => one(state, kind, namespace, name),
        Route::Told(told) => messages(state, told, parts.uri.query())
            .await
            .unwrap_or_else(|refusal| answer::problem(refusal.status, &refusal.detail)),
        route => dead_letters(state, route, parts.uri.query(), body)
            .await
            .unwrap_or_else(|refusal| answer::problem(refusal.status, &refusal.detail)),
    }
}

fn refuse_method(route: &Route<'_>, method: &Method) -> Option<Answer> {
    let changes = matches!(
        route,
        Route::StartRedrive(_) | Route::CommandRedrive(..) | Route::Told(Told::Act(..))
    );
    let allowed = if changes { "POST" } else { "GET, HEAD" };
    let fits = match *method {
        Method::POST => changes,
        Method::GET | Method::HEAD => !changes,
        _ => false,
    };
    (!fits).then(|| answer::method_not_allowed(allowed))
}

async fn messages(
    state: &AdminState,
    told: Told<'_>,
    query: Option<&str>,
) -> Result<Answer, Refusal> {
    let nothing = || guard::refuse(StatusCode::NOT_FOUND, "this node tells of no messages");
    let messages = state.messages.as_ref().ok_or_else(nothing)?;
    match told {
        Told::List => messages.list(query).await,
        Told::One(id) => messages.one(id).await,
        Told::Content(id) => messages.content(id).await,
        Told::Events(id) => messages.events(id).await,
        Told::Logs(id) => messages.logs(id).await,
        Told::Stats(name) => messages.stats(name, query).await,
        Told::Health => Ok(messages.health().await),
        Told::Act(id, act) => messages.act(id, act).await,
    }
}

async fn dead_letters(
    state: &AdminState,
    route: Route<'_>,
    query: Option<&str>,
    body: Incoming,
) -> Result<Answer, Refusal> {
    let nothing = || guard::refuse(StatusCode::NOT_FOUND, "this node shows no dead letters");
    let letters = state.dead_letters.as_ref().ok_or_else(nothing)?;
    match route {
        Route::DeadLetters(name) => dead_letters::list(letters, name, query).await,
        Route::DeadLetter(name, id) => dead_letters::one(letters, name, id).await,
        Route::StartRedrive(name) => {
            let body = whole(body).await?;
            dead_letters::redrive(letters, name, &body).await
        }
        Route::Redrive(id) => dead_letters::one_redrive(letters, id, None).await,
        Route::CommandRedrive(id, command) => {
            dead_letters::one_redrive(letters, id, Some(command)).await
        }
        Route::Health
        | Route::Readiness
        | Route::Metrics
        | Route::Problems
        | Route::List(_)
        | Route::Told(_)
        | Route::One(..) => Err(nothing()),
    }
}

/// The body of a request.
pub(super) async fn whole(body: Incoming) -> Result<Bytes, Refusal> {
    let limited = Limited::new(body, MAX_BODY).collect();
    match tokio::time::timeout(BODY_TIMEOUT, limited).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => {
            let detail = format!("the body cannot be read: {error}");
            Err(guard::refuse(StatusCode::BAD_REQUEST, detail))
        }
        Err(_) => {
            let detail = "the body did not come in time";
            Err(guard::refuse(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}

fn resources(state: &AdminState, kind: Kind) -> Vec<Value> {
    match kind {
        Kind::Channel => state.view.channels(),
        Kind::Subscription => state.view.subscriptions(),
    }
}

fn one(state: &AdminState, kind: Kind, namespace: &str, name: &str) -> Answer {
    let is_it = |resource: &Value| {
        let metadata = &resource["metadata"];
        metadata["namespace"] == namespace && metadata["name"] == name
    };
    match resources(state, kind)
        .iter()
        .find(|resource| is_it(resource))
    {
        Some(resource) => answer::json(StatusCode::OK, resource),
        None => {
            let detail = format!("there is no {} {namespace}/{name}", kind.word());
            answer::problem(StatusCode::NOT_FOUND, &detail)
        }
    }
}

fn readiness(state: &AdminState) -> Answer {
    let checks = state.view.readiness();
    let (status, word) = if checks.iter().all(|check| check.ok) {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    answer::json(status, &json!({ "status": word, "checks": checks }))
}

fn metrics(state: &AdminState) -> Answer {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&state.registry.gather(), &mut text) {
        Ok(()) => answer::answer(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            text,
        ),
        Err(error) => answer::problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_matched_whole() {
        let one = Route::One(Kind::Channel, "a", "b");
        assert_eq!(Route::parse("/v1/channels/a/b"), Some(one));
        assert_eq!(
            Route::parse("/v1/subscriptions"),
            Some(Route::List(Kind::Subscription))
        );
        let named = ("a", "b");
        for (path, route) in [
            (
                "/v1/subscriptions/a/b/dead-letters",
                Route::DeadLetters(named),
            ),
            (
                "/v1/subscriptions/a/b/dead-letters/x",
                Route::DeadLetter(named, "x"),
            ),
            (
                "/v1/subscriptions/a/b/dead-letters/redrive",
                Route::StartRedrive(named),
            ),
            ("/v1/redrives/x", Route::Redrive("x")),
            (
                "/v1/redrives/x/pause",
                Route::CommandRedrive("x", Command::Pause),
            ),
        ] {
            assert_eq!(Route::parse(path), Some(route), "{path}");
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
            "/v1/channels/a/b/c/d",
            "/healthz/",
            "/v2/channels",
            "//healthz",
        ] {
            assert_eq!(Route::parse(nothing), None, "{nothing}");
        }
    }
}
