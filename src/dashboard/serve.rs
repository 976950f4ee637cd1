//! Which view stands at which address, and the headers of all of them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH,
    LOCATION, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use maud::Markup;

use super::frame::{View, bare, page};
use super::query::{Query, encode};
use super::views::search::{self, Found};
use super::views::{
    channel, dead_letters, logs, message, messages, missing, overview, redrive, subscription,
};
use super::{Dashboard, assets};
use crate::channel::ResourceName;
use crate::clock::UnixMillis;
use crate::dead_letters::{Command, RedriveId};

/// An answer that stands as a whole.
pub(super) type Answer = Response<Full<Bytes>>;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Says the server's time, for countdowns.
const TIME: HeaderName = HeaderName::from_static("levada-time");

impl Dashboard {
    /// Whether an address is the page's, whatever stands there.
    #[must_use]
    pub fn owns(path: &str) -> bool {
        let first = path.trim_start_matches('/').split('/').next();
        path.starts_with('/')
            && matches!(
                first,
                Some(
                    "" | "assets"
                        | "subscriptions"
                        | "messages"
                        | "dead-letters"
                        | "redrives"
                        | "channels"
                )
            )
    }

    /// Answers a request; `body` is a form's.
    pub async fn answer(
        &self,
        method: &Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Answer {
        if let Some(asset) = assets::find(path) {
            let mut answer = framed(StatusCode::OK, asset.media, asset.bytes);
            let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
            answer.headers_mut().insert(CACHE_CONTROL, forever);
            return answer;
        }
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        if *method == Method::POST {
            return self.post(&parts, path, body).await;
        }
        self.get(&parts, path, query, headers).await
    }

    async fn get(
        &self,
        parts: &[&str],
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Answer {
        let now = self.now();
        let query = Query::parse(query.unwrap_or_default());
        let view = match parts {
            [""] => overview::view(self, &query, now),
            ["messages"] => match self.searched(&query).await {
                Searched::Elsewhere(address) => return see_other(&address),
                Searched::Nothing(id) => missing::message(&id),
                Searched::List => messages::view(self, &query, now).await,
            },
            ["messages", "newer"] => {
                let fragment = messages::newer(self, &query, now).await;
                return stamped(StatusCode::OK, &fragment, now, headers);
            }
            ["messages", id] => story(message::view(self, id, &query, now).await, id),
            ["messages", id, "logs"] => story(logs::view(self, id, &query, now).await, id),
            ["dead-letters"] => dead_letters::all(self, now),
            ["subscriptions", namespace, name, rest @ ..]
                if matches!(rest, [] | ["dead-letters"]) =>
            {
                let shown = match ResourceName::try_new(namespace, name) {
                    Err(_) => None,
                    Ok(name) if rest.is_empty() => {
                        subscription::view(self, &name, &query, now).await
                    }
                    Ok(_) if self.parts.dead_letters.is_none() => Some(dead_letters::unavailable()),
                    Ok(name) => dead_letters::one(self, &name, &query, now).await,
                };
                shown.unwrap_or_else(|| missing::resource("subscription", namespace, name))
            }
            ["channels", namespace, name] => ResourceName::try_new(namespace, name)
                .ok()
                .and_then(|name| channel::view(self, &name, now))
                .unwrap_or_else(|| missing::resource("channel", namespace, name)),
            ["redrives", id] => self.redrive(id, &query, now).await,
            _ => missing::address(path),
        };
        stamped(view.status, &page(self, &view, now), now, headers)
    }

    async fn redrive(&self, id: &str, query: &Query, now: UnixMillis) -> View {
        let (Some(letters), Ok(id)) = (&self.parts.dead_letters, id.parse::<RedriveId>()) else {
            return missing::address(&format!("/redrives/{id}"));
        };
        match redrive::view(self, letters, &id, query, now).await {
            Ok(view) => view,
            Err(crate::dead_letters::Error::NotFound(what)) => {
                missing::failed(StatusCode::NOT_FOUND, &what)
            }
            Err(error) => missing::failed(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        }
    }

    /// What a search for an event id, alone in the query, leads to.
    async fn searched(&self, query: &Query) -> Searched {
        let mut pairs = query.pairs();
        let (Some(("event_id", typed)), None) = (pairs.next(), pairs.next()) else {
            return Searched::List;
        };
        let id = search::pasted(typed);
        if id.is_empty() {
            return Searched::Elsewhere("/messages".into());
        }
        match search::search(self, id).await {
            Found::One(message) => Searched::Elsewhere(format!("/messages/{}", encode(&message))),
            Found::Nothing => Searched::Nothing(id.to_owned()),
            Found::Many | Found::Failed if id != typed => {
                Searched::Elsewhere(Query::default().with("event_id", id).at("/messages"))
            }
            Found::Many | Found::Failed => Searched::List,
        }
    }

    async fn post(&self, parts: &[&str], path: &str, body: &[u8]) -> Answer {
        let form = Query::parse(&String::from_utf8_lossy(body));
        let done = match parts {
            ["messages", id, action @ ("redeliver" | "retry-now")] => {
                let done = self.act(id, action).await;
                let note = match &done {
                    Ok(done) => ("done", done),
                    Err(error) => ("error", error),
                };
                let query = Query::default().with(note.0, note.1);
                return see_other(&query.at(&format!("/messages/{}", encode(id))));
            }
            [
                "subscriptions",
                namespace,
                name,
                "dead-letters",
                action @ ("plan" | "redrive"),
            ] => {
                let here = format!("/subscriptions/{namespace}/{name}/dead-letters");
                (
                    here,
                    self.dead_letters(namespace, name, action, &form).await,
                )
            }
            ["redrives", id, command] => {
                (format!("/redrives/{id}"), self.command(id, command).await)
            }
            _ => return self.plain(&missing::address(path)),
        };
        match done {
            (_, Ok(address)) => see_other(&address),
            (here, Err(error)) => see_other(&Query::default().with("error", &error).at(&here)),
        }
    }

    async fn act(&self, id: &str, action: &str) -> Result<String, String> {
        let actions = self
            .parts
            .actions
            .as_ref()
            .ok_or("this node cannot do that")?;
        let id = id
            .parse::<crate::message::MessageId>()
            .map_err(|error| error.to_string())?;
        if action == "redeliver" {
            actions.redeliver(id).await
        } else {
            actions.retry_now(id).await
        }
    }

    async fn dead_letters(
        &self,
        namespace: &str,
        name: &str,
        action: &str,
        form: &Query,
    ) -> Result<String, String> {
        let letters = self
            .parts
            .dead_letters
            .as_ref()
            .ok_or("this node shows no dead letters")?;
        let name = ResourceName::try_new(namespace, name).map_err(|error| error.to_string())?;
        if action == "plan" {
            dead_letters::make_plan(letters, &name, form).await
        } else {
            dead_letters::start(letters, &name, form).await
        }
    }

    async fn command(&self, id: &str, command: &str) -> Result<String, String> {
        let letters = self
            .parts
            .dead_letters
            .as_ref()
            .ok_or("this node shows no dead letters")?;
        let command = match command {
            "pause" => Command::Pause,
            "resume" => Command::Resume,
            "cancel" => Command::Cancel,
            _ => return Err("there is no such command".into()),
        };
        let id = id.parse::<RedriveId>().map_err(|error| error.to_string())?;
        letters
            .command(&id, command)
            .await
            .map_err(|error| error.to_string())?;
        Ok(format!("/redrives/{id}"))
    }

    fn plain(&self, view: &View) -> Answer {
        let html = page(self, view, self.now()).into_string();
        framed(view.status, "text/html; charset=utf-8", html)
    }

    /// The form to sign in with.
    #[must_use]
    pub fn sign_in(&self, query: Option<&str>, wrong: bool) -> Answer {
        let query = Query::parse(query.unwrap_or_default());
        let view = missing::sign_in(own(query.get("to")), wrong);
        framed(
            view.status,
            "text/html; charset=utf-8",
            bare(&view).into_string(),
        )
    }

    /// Sends a browser to the form, and back to `wanted` afterwards.
    #[must_use]
    pub fn sign_in_first(&self, wanted: &str) -> Answer {
        see_other(&Query::default().with("to", wanted).at("/sign-in"))
    }

    /// Takes the form: a session for a token that fits.
    pub fn signed_in(
        &self,
        form: &[u8],
        fits: impl Fn(&str) -> bool,
        begin: impl FnOnce() -> String,
    ) -> Answer {
        let form = Query::parse(&String::from_utf8_lossy(form));
        if !form.get("token").is_some_and(fits) {
            let to = form.get("to").unwrap_or_default();
            return self.sign_in(Some(&format!("to={}", encode(to))), true);
        }
        let mut answer = see_other(own(form.get("to")));
        if let Ok(cookie) = HeaderValue::from_str(&begin()) {
            answer.headers_mut().insert(SET_COOKIE, cookie);
        }
        answer
    }

    /// A refusal as a page, for a browser.
    #[must_use]
    pub fn refused(&self, status: StatusCode, why: &str) -> Answer {
        self.plain(&missing::failed(status, why))
    }
}

/// An address of this page, and of no other.
fn own(address: Option<&str>) -> &str {
    let is_own =
        |address: &&str| address.starts_with('/') && !address[1..].starts_with(['/', '\\']);
    address.filter(is_own).unwrap_or("/")
}

enum Searched {
    Elsewhere(String),
    Nothing(String),
    List,
}

fn story(shown: Result<Option<View>, String>, id: &str) -> View {
    match shown {
        Ok(Some(view)) => view,
        Ok(None) => missing::message(id),
        Err(error) => missing::failed(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("Could not read the journal: {error}"),
        ),
    }
}

/// An answer with the headers that all have.
fn framed(status: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    let fixed = [
        (CONTENT_TYPE, media),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "same-origin"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn see_other(address: &str) -> Answer {
    let mut answer = framed(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "");
    if let Ok(address) = HeaderValue::from_str(address) {
        answer.headers_mut().insert(LOCATION, address);
    }
    answer
}

/// The page, or 304 when whoever asks has it already.
fn stamped(status: StatusCode, page: &Markup, now: UnixMillis, headers: &HeaderMap) -> Answer {
    let tag = format!("\"{:016x}\"", fingerprint(&page.0));
    let known = headers.get(IF_NONE_MATCH).map(HeaderValue::as_bytes);
    let mut answer = if known == Some(tag.as_bytes()) {
        framed(StatusCode::NOT_MODIFIED, "text/html; charset=utf-8", "")
    } else {
        framed(status, "text/html; charset=utf-8", page.0.clone())
    };
    let headers = answer.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    headers.insert(TIME, HeaderValue::from(now.0));
    answer
}

/// A hash of what a page says, but for what only tells how time goes on.
fn fingerprint(html: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut pieces = html.split("data-tick");
    pieces.next().hash(&mut hasher);
    for piece in pieces {
        // From the end of this tag to the end of the text in it.
        let text = piece.split_once('>').map_or(piece, |(_, text)| text);
        text.split_once('<')
            .map_or("", |(_, rest)| rest)
            .hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_course_of_time_is_no_change() {
        let page = |ago: &str, status: &str| {
            format!("<p>{status} <span data-ago=\"1\" data-tick>{ago}</span></p>")
        };
        assert_eq!(
            fingerprint(&page("2 s ago", "x")),
            fingerprint(&page("3 s ago", "x"))
        );
        assert_ne!(
            fingerprint(&page("2 s ago", "x")),
            fingerprint(&page("2 s ago", "y"))
        );
    }

    #[test]
    fn nobody_is_sent_elsewhere_after_signing_in() {
        assert_eq!(own(Some("/messages?a=b")), "/messages?a=b");
        for other in [
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "",
        ] {
            assert_eq!(own(Some(other)), "/", "{other}");
        }
    }

    #[test]
    fn the_page_has_its_own_addresses() {
        for path in [
            "/",
            "/messages",
            "/messages/x/logs",
            "/subscriptions/a/b/dead-letters",
            "/assets/x.css",
        ] {
            assert!(Dashboard::owns(path), "{path}");
        }
        for path in ["/v1/messages", "/metrics", "/healthz", "*", "/favicon.ico"] {
            assert!(!Dashboard::owns(path), "{path}");
        }
    }
}
