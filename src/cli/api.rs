//! Asks the admin port.

use std::fmt;

use bytes::Bytes;
use clap::ValueEnum;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use serde_json::Value;

use super::http::{Answer, HttpClient, join, parse_url};
use super::{CliError, Console};

const HINT: &str = "start Levada with `levada serve`, or say with --admin where its admin port is";

/// Where the admin port is, and how to show what it says.
#[derive(Debug, clap::Args)]
pub(super) struct AdminArgs {
    #[command(flatten)]
    port: AdminPort,
    /// A table for people, or JSON for machines.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

/// Where the admin port is.
#[derive(Debug, clap::Args)]
pub(super) struct AdminPort {
    /// Address of the admin port.
    #[arg(
        long,
        value_name = "URL",
        env = "LEVADA_ADMIN_URL",
        default_value = "http://127.0.0.1:8081",
        value_parser = parse_url
    )]
    admin: Uri,
    /// Token of the admin port, if it has one.
    #[arg(long, env = "LEVADA_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl fmt::Display for AdminPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.admin.fmt(f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
}

/// The largest page the API gives.
const PAGE: u64 = 250;

impl AdminArgs {
    /// The items of a list, at most `limit`, page by page. `filter` is a query, each parameter
    /// with `&` before it.
    pub(super) async fn list(
        &self,
        path: &str,
        filter: &str,
        limit: u64,
        console: &Console,
    ) -> Result<Vec<Value>, CliError> {
        let mut items: Vec<Value> = Vec::new();
        let mut after = String::new();
        loop {
            let size = (limit - items.len() as u64).min(PAGE);
            let page = format!("{path}?page_size={size}{filter}{after}");
            let mut page = self.get(&page).await?;
            if let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) {
                items.extend(found);
            }
            let next = text(&page, "/page_info/after");
            if next.is_empty() || items.len() as u64 >= limit {
                console.progress("");
                return Ok(items);
            }
            console.progress(format_args!(
                "{} found, looked back to {}",
                items.len(),
                text(&page, "/page_info/searched_to")
            ));
            after = format!("&after={}", encode(&next));
        }
    }

    /// What stands at `path`.
    pub(super) async fn get(&self, path: &str) -> Result<Value, CliError> {
        self.port.get(path).await
    }

    /// What the admin port answers to `body` at `path`.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.port.post(path, body).await
    }
}

impl AdminPort {
    /// What stands at `path`.
    async fn get(&self, path: &str) -> Result<Value, CliError> {
        let answer = HttpClient::new()?.send(self.request(path)?, HINT).await?;
        self.content(&answer)
    }

    /// What stands at `path`; `None`: nothing, or nobody listens.
    pub(super) async fn find(&self, path: &str) -> Result<Option<Value>, CliError> {
        let client = HttpClient::new()?;
        match client.send_if_there(self.request(path)?).await? {
            Some(answer) if answer.status != StatusCode::NOT_FOUND => {
                self.content(&answer).map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        let request = self.with_body(Method::POST, path, body.to_string().into())?;
        let answer = HttpClient::new()?.send(request, HINT).await?;
        self.content(&answer)
    }

    fn request(&self, path: &str) -> Result<Request<Full<Bytes>>, CliError> {
        self.with_body(Method::GET, path, Bytes::new())
    }

    fn with_body(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, CliError> {
        let mut request = Request::builder()
            .method(method)
            .uri(join(&self.admin, path)?);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = self.token.as_deref().filter(|token| !token.is_empty()) {
            let value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
                CliError::Usage("the token has characters that no header can".into())
            })?;
            request = request.header(AUTHORIZATION, value);
        }
        request
            .body(Full::new(body))
            .map_err(|error| CliError::Usage(error.to_string()))
    }

    fn content(&self, answer: &Answer) -> Result<Value, CliError> {
        if answer.status == StatusCode::UNAUTHORIZED {
            let said = "the admin port wants its token: set --token or LEVADA_ADMIN_TOKEN";
            return Err(CliError::Failed(said.into()));
        }
        if !answer.status.is_success() {
            return Err(CliError::Failed(answer.explanation()));
        }
        serde_json::from_slice(&answer.body).map_err(|_| {
            let said = format!("{} does not answer as Levada's admin port does", self.admin);
            CliError::Failed(said)
        })
    }
}

/// Percent-encodes what has a meaning in a query.
pub(super) fn encode(text: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
    let one = |byte: u8| match safe(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Writes `value` as JSON over several lines.
pub(super) fn write_json(console: &Console, value: &Value) -> Result<(), CliError> {
    console.line(format_args!("{value:#}"))
}

/// Text at a JSON pointer; a number as it is written; nothing if it is not there.
pub(super) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => String::new(),
    }
}

/// What is worth knowing about a channel's topic.
pub(super) fn notes(channel: &Value) -> Vec<&str> {
    let notes = channel.pointer("/status/topic/notes");
    let notes = notes.and_then(Value::as_array).into_iter().flatten();
    notes.filter_map(Value::as_str).collect()
}

/// The conditions of a resource.
pub(super) fn conditions(resource: &Value) -> &[Value] {
    resource
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The condition that sums the others up.
pub(super) fn ready(resource: &Value) -> Option<&Value> {
    conditions(resource)
        .iter()
        .find(|condition| condition["type"] == "Ready")
}
