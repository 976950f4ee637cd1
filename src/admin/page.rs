//! The operator's page, and signing in to it.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Incoming;

use super::answer::{self, Answer};
use super::guard::{self, Refusal};
use super::{AdminState, routes};
use crate::dashboard::Dashboard;

/// Where a token becomes a session.
pub(super) const SIGN_IN: &str = "/sign-in";

/// Answers for the page; `None`: the address is none of its own.
pub(super) async fn answer(state: &AdminState, parts: &Parts, body: Incoming) -> Option<Answer> {
    let path = parts.uri.path();
    let dashboard = state.dashboard.as_ref().filter(|_| Dashboard::owns(path))?;
    let body = match parts.method {
        Method::GET | Method::HEAD => Bytes::new(),
        Method::POST => match routes::whole(body).await {
            Ok(body) => body,
            Err(refusal) => return Some(dashboard.refused(refusal.status, &refusal.detail)),
        },
        _ => return Some(answer::method_not_allowed("GET, HEAD, POST")),
    };
    let query = parts.uri.query();
    let answer = dashboard.answer(&parts.method, path, query, &parts.headers, &body);
    Some(answer.await)
}

/// Lets in whom the guard refused for want of a token if they signed in; shows a browser where to.
pub(super) async fn let_in(
    state: &AdminState,
    refusal: Refusal,
    parts: &Parts,
    body: Incoming,
) -> Result<Incoming, Answer> {
    let refused = || answer::problem(refusal.status, &refusal.detail);
    if refusal.status != StatusCode::UNAUTHORIZED {
        return Err(refused());
    }
    if state.sessions.has(&parts.headers) {
        return Ok(body);
    }
    let path = parts.uri.path();
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    match &state.dashboard {
        None => Err(refused()),
        Some(_) if reads && path.starts_with("/assets/") => Ok(body),
        Some(dashboard) if path == SIGN_IN && reads => {
            Err(dashboard.sign_in(parts.uri.query(), false))
        }
        Some(dashboard) if path == SIGN_IN && parts.method == Method::POST => {
            let Ok(form) = routes::whole(body).await else {
                return Err(refused());
            };
            let fits = |token: &str| {
                guard::equal(token.as_bytes(), state.settings.token.reveal().as_bytes())
            };
            Err(dashboard.signed_in(&form, fits, || state.sessions.begin()))
        }
        Some(dashboard) if reads && Dashboard::owns(path) => {
            let wanted = parts.uri.path_and_query().map_or(path, |all| all.as_str());
            Err(dashboard.sign_in_first(wanted))
        }
        Some(_) => Err(refused()),
    }
}
