//! What stands under which address.

use http::{HeaderMap, Method, StatusCode, Uri};
use prometheus::{Encoder, TextEncoder};
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::{AdminState, guard};

/// An address of the admin port.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route<'a> {
    Health,
    Readiness,
    Metrics,
    Problems,
    List(Kind),
    One(Kind, &'a str, &'a str),
}

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
        let parts: Vec<_> = path.strip_prefix('/')?.splitn(5, '/').collect();
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
            ["v1", word] => kind(word).map(Self::List),
            ["v1", word, namespace, name] => {
                kind(word).map(|kind| Self::One(kind, namespace, name))
            }
            _ => None,
        }
    }
}

/// Answers a request; the body does not matter to any of them.
pub(super) fn handle(
    state: &AdminState,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Answer {
    if let Err(refusal) = guard::check(&state.settings, method, uri, headers) {
        return answer::problem(refusal.status, &refusal.detail);
    }
    let Some(route) = Route::parse(uri.path()) else {
        let detail = format!("there is nothing at {}", uri.path());
        return answer::problem(StatusCode::NOT_FOUND, &detail);
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return answer::method_not_allowed("GET, HEAD");
    }
    match route {
        Route::Health => answer::json(StatusCode::OK, &json!({ "status": "ok" })),
        Route::Readiness => readiness(state),
        Route::Metrics => metrics(state),
        Route::Problems => answer::list(state.view.problems()),
        Route::List(kind) => answer::list(resources(state, kind)),
        Route::One(kind, namespace, name) => one(state, kind, namespace, name),
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
        for nothing in [
            "",
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
