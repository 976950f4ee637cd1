//! Leads a request to what its address asks for.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use prometheus::{Encoder, TextEncoder};

use super::answer::{self, Answer};
use super::guard::{Refusal, refuse};
use super::messages::{Act, Messages};
use super::query::Query;
use super::shapes::{Live, ManifestProblem, Ready, Resource};
use super::table::{self, Endpoint, Operation};
use super::{AdminState, dead_letters, guard, openapi, page};
use crate::dead_letters::{Command, DeadLetters};

/// How large the body of a request may be.
const MAX_BODY: usize = 64 << 10;
/// How long it may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

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
    let Some((endpoint, names)) = table::find(parts.uri.path()) else {
        if let Some(answer) = page::answer(state, &parts, body).await {
            return answer;
        }
        let detail = format!("there is nothing at {}", parts.uri.path());
        return answer::problem(StatusCode::NOT_FOUND, &detail);
    };
    if let Some(allowed) = endpoint.refuses(&parts.method) {
        return answer::method_not_allowed(allowed);
    }
    let asked = Asked {
        endpoint,
        names,
        query: parts.uri.query(),
        body,
    };
    let answer = asked.answer(state).await;
    answer.unwrap_or_else(|refusal| answer::problem(refusal.status, &refusal.detail))
}

/// A request at one of the addresses.
struct Asked<'r> {
    endpoint: &'static Endpoint,
    /// What stands in place of the names in the address.
    names: Vec<&'r str>,
    query: Option<&'r str>,
    body: Incoming,
}

impl<'r> Asked<'r> {
    async fn answer(self, state: &AdminState) -> Result<Answer, Refusal> {
        let resources = |all: Vec<_>| all.into_iter().map(Resource).collect::<Vec<_>>();
        match self.endpoint.operation {
            Operation::Live => Ok(answer::json(StatusCode::OK, &Live { status: "ok" })),
            Operation::Ready => Ok(readiness(state)),
            Operation::Metrics => Ok(metrics(state)),
            Operation::Document => {
                self.query()?;
                Ok(answer::answer(
                    StatusCode::OK,
                    "application/json",
                    openapi::document(),
                ))
            }
            Operation::Problems => {
                self.query()?;
                let problems = state.view.problems();
                Ok(answer::list(
                    problems.into_iter().map(ManifestProblem).collect(),
                ))
            }
            Operation::Channels => {
                self.query()?;
                Ok(answer::list(resources(state.view.channels())))
            }
            Operation::Subscriptions => {
                self.query()?;
                Ok(answer::list(resources(state.view.subscriptions())))
            }
            Operation::Channel => self.one("channel", resources(state.view.channels())),
            Operation::Subscription => {
                self.one("subscription", resources(state.view.subscriptions()))
            }
            Operation::DeadLetters
            | Operation::DeadLetter
            | Operation::StartRedrive
            | Operation::Redrive
            | Operation::PauseRedrive
            | Operation::ResumeRedrive
            | Operation::CancelRedrive => {
                let nothing = || refuse(StatusCode::NOT_FOUND, "this node shows no dead letters");
                let letters = state.dead_letters.as_ref().ok_or_else(nothing)?;
                self.letters(letters).await
            }
            Operation::Health
            | Operation::Stats
            | Operation::Messages
            | Operation::Message
            | Operation::Content
            | Operation::Events
            | Operation::DeliveryLogs
            | Operation::Redeliver
            | Operation::RetryNow => {
                let nothing = || refuse(StatusCode::NOT_FOUND, "this node tells of no messages");
                let messages = state.messages.as_ref().ok_or_else(nothing)?;
                self.messages(messages).await
            }
        }
    }

    /// What the query says.
    fn query(&self) -> Result<Query, Refusal> {
        Query::parse(self.query, self.endpoint.parameters)
            .map_err(|detail| refuse(StatusCode::BAD_REQUEST, detail))
    }

    /// The part in place of a name in the address; the table has one there.
    fn part(&self, index: usize) -> &'r str {
        self.names.get(index).copied().unwrap_or_default()
    }

    fn named(&self) -> (&'r str, &'r str) {
        (self.part(0), self.part(1))
    }

    fn one(&self, kind: &str, resources: Vec<Resource>) -> Result<Answer, Refusal> {
        self.query()?;
        let (namespace, name) = self.named();
        let is_it = |resource: &&Resource| {
            let metadata = &resource.0["metadata"];
            metadata["namespace"] == namespace && metadata["name"] == name
        };
        match resources.iter().find(is_it) {
            Some(resource) => Ok(answer::json(StatusCode::OK, resource)),
            None => {
                let detail = format!("there is no {kind} {namespace}/{name}");
                Err(refuse(StatusCode::NOT_FOUND, detail))
            }
        }
    }

    async fn messages(self, messages: &Messages) -> Result<Answer, Refusal> {
        let (query, id) = (self.query()?, self.part(0));
        match self.endpoint.operation {
            Operation::Messages => messages.list(&query, self.endpoint.parameters).await,
            Operation::Message => messages.one(id).await,
            Operation::Content => messages.content(id).await,
            Operation::Events => messages.events(id).await,
            Operation::DeliveryLogs => messages.logs(id).await,
            Operation::Redeliver => messages.act(id, Act::Redeliver).await,
            Operation::RetryNow => messages.act(id, Act::RetryNow).await,
            Operation::Stats => {
                let known = self.endpoint.parameters;
                messages.stats(self.named(), &query, known).await
            }
            _ => Ok(messages.health().await),
        }
    }

    async fn letters(self, letters: &DeadLetters) -> Result<Answer, Refusal> {
        let query = self.query()?;
        let command = match self.endpoint.operation {
            Operation::DeadLetters => {
                let known = self.endpoint.parameters;
                return dead_letters::list(letters, self.named(), &query, known).await;
            }
            Operation::DeadLetter => {
                return dead_letters::one(letters, self.named(), self.part(2)).await;
            }
            Operation::StartRedrive => {
                let named = self.named();
                let body = whole(self.body).await?;
                return dead_letters::redrive(letters, named, &body).await;
            }
            Operation::PauseRedrive => Some(Command::Pause),
            Operation::ResumeRedrive => Some(Command::Resume),
            Operation::CancelRedrive => Some(Command::Cancel),
            _ => None,
        };
        dead_letters::one_redrive(letters, self.part(0), command).await
    }
}

/// The body of a request.
pub(super) async fn whole(body: Incoming) -> Result<Bytes, Refusal> {
    let limited = Limited::new(body, MAX_BODY).collect();
    match tokio::time::timeout(BODY_TIMEOUT, limited).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => {
            let detail = format!("the body cannot be read: {error}");
            Err(refuse(StatusCode::BAD_REQUEST, detail))
        }
        Err(_) => {
            let detail = "the body did not come in time";
            Err(refuse(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}

fn readiness(state: &AdminState) -> Answer {
    let checks = state.view.readiness();
    let (code, status) = if checks.iter().all(|check| check.ok) {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    answer::json(code, &Ready { status, checks })
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
