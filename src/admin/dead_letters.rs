//! Dead letters and redrives.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::guard::{Refusal, refuse};
use super::query::Query;
use crate::channel::ResourceName;
use crate::clock::UnixMillis;
use crate::dead_letters::{
    Command, DeadLetters, Error, Filter, Listed, Page, Redrive, RedriveId, Selection,
};

/// Dead letters of a page: unless asked otherwise, and at most.
const PAGE: (usize, usize) = (50, 250);

/// The parameters that choose dead letters, and those that choose a page.
const PARAMETERS: [&str; 7] = [
    "inserted_at.gte",
    "inserted_at.lt",
    "event_type",
    "event_id",
    "error_code",
    "page_size",
    "after",
];

fn bad(detail: &str) -> Refusal {
    refuse(StatusCode::BAD_REQUEST, detail)
}

fn failed(error: &Error) -> Refusal {
    let status = match error {
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::Conflict(_) => StatusCode::CONFLICT,
        Error::Log(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    refuse(status, error.to_string())
}

fn subscription(namespace: &str, name: &str) -> Result<ResourceName, Refusal> {
    ResourceName::try_new(namespace, name)
        .map_err(|error| refuse(StatusCode::NOT_FOUND, error.to_string()))
}

/// `GET /v1/subscriptions/{namespace}/{name}/dead-letters`
pub(super) async fn list(
    letters: &DeadLetters,
    (namespace, name): (&str, &str),
    query: Option<&str>,
) -> Result<Answer, Refusal> {
    let name = subscription(namespace, name)?;
    let asked = asked(query).map_err(|detail| bad(&detail))?;
    let (filter, page) = asked;
    let size = page.size;
    let found = letters
        .list(&name, &filter, page)
        .await
        .map_err(|error| failed(&error))?;
    let items: Vec<_> = found.letters.iter().map(|one| shown(&name, one)).collect();
    let mut info = json!({
        "page_size": size,
        "after": found.after.map(|ends| cursor(&ends)),
        "before": null,
    });
    if let Some(time) = found.searched_to {
        info["searched_to"] = time.rfc3339().into();
    }
    let body = json!({ "items": items, "page_info": info });
    Ok(answer::json(StatusCode::OK, &body))
}

/// `GET /v1/subscriptions/{namespace}/{name}/dead-letters/{id}`
pub(super) async fn one(
    letters: &DeadLetters,
    (namespace, name): (&str, &str),
    id: &str,
) -> Result<Answer, Refusal> {
    let name = subscription(namespace, name)?;
    let parsed = id
        .parse()
        .map_err(|error: crate::message::MessageIdError| {
            refuse(StatusCode::NOT_FOUND, error.to_string())
        })?;
    let found = letters.get(&name, parsed).await;
    let found = found.map_err(|error| failed(&error))?;
    let mut body = shown(&name, &found);
    body["content"] = content(&found);
    Ok(answer::json(StatusCode::OK, &body))
}

/// What `POST .../dead-letters/redrive` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wish {
    #[serde(rename = "inserted_at.gte")]
    since: Option<String>,
    #[serde(rename = "inserted_at.lt")]
    until: Option<String>,
    event_type: Option<String>,
    event_id: Option<String>,
    error_code: Option<u16>,
    limit: Option<u64>,
    rate: Option<f64>,
    again: bool,
    all: bool,
    dry_run: bool,
    plan: Option<String>,
}

impl Wish {
    fn read(body: &[u8]) -> Result<Self, String> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let failed = |error: serde_json::Error| format!("the body: {error}");
        // A list would do for a struct, its members in order.
        let object: serde_json::Map<String, Value> =
            serde_json::from_slice(body).map_err(failed)?;
        let wish: Self = serde_json::from_value(Value::Object(object)).map_err(failed)?;
        if wish.limit == Some(0) {
            return Err("limit must be at least 1".into());
        }
        if wish
            .rate
            .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
        {
            return Err("rate must be above 0".into());
        }
        Ok(wish)
    }

    fn selection(&self) -> Result<Selection, String> {
        let time = |name, text: &Option<String>| text.as_deref().map(|t| time(name, t)).transpose();
        Ok(Selection {
            filter: Filter {
                since: time("inserted_at.gte", &self.since)?,
                until: time("inserted_at.lt", &self.until)?,
                event_type: self.event_type.clone(),
                event_id: self.event_id.clone(),
                error_code: self.error_code,
                ..Filter::default()
            },
            limit: self.limit,
            again: self.again,
        })
    }
}

/// `POST /v1/subscriptions/{namespace}/{name}/dead-letters/redrive`
pub(super) async fn redrive(
    letters: &DeadLetters,
    (namespace, name): (&str, &str),
    body: &[u8],
) -> Result<Answer, Refusal> {
    let name = subscription(namespace, name)?;
    let wish = Wish::read(body).map_err(|detail| bad(&detail))?;
    let selection = wish.selection().map_err(|detail| bad(&detail))?;
    if wish.dry_run {
        let planned = letters.plan(&name, selection).await;
        let planned = planned.map_err(|error| failed(&error))?;
        let body = json!({
            "plan": planned.plan,
            "count": planned.count,
            "expires_at": planned.expires_at.rfc3339(),
        });
        return Ok(answer::json(StatusCode::OK, &body));
    }
    let chosen = selection != Selection::default();
    let begun = match &wish.plan {
        Some(_) if chosen || wish.all => {
            return Err(bad(
                "a plan says already which dead letters: leave the rest out",
            ));
        }
        Some(plan) => letters.start_plan(&name, plan, wish.rate).await,
        None if chosen || wish.all => letters.start(&name, selection, wish.rate).await,
        None => {
            return Err(bad(
                "say which dead letters: a filter, the plan of a dry run, or \"all\": true",
            ));
        }
    };
    let begun = begun.map_err(|error| failed(&error))?;
    Ok(answer::json(StatusCode::ACCEPTED, &told(&begun)))
}

/// `GET /v1/redrives/{id}`, `POST /v1/redrives/{id}/{command}`
pub(super) async fn one_redrive(
    letters: &DeadLetters,
    id: &str,
    command: Option<Command>,
) -> Result<Answer, Refusal> {
    let not_found = |error: crate::dead_letters::RedriveIdError| {
        refuse(StatusCode::NOT_FOUND, error.to_string())
    };
    let id: RedriveId = id.parse().map_err(not_found)?;
    let (status, redrive) = match command {
        None => (StatusCode::OK, letters.redrive(&id).await),
        Some(command) => (StatusCode::ACCEPTED, letters.command(&id, command).await),
    };
    let redrive = redrive.map_err(|error| failed(&error))?;
    Ok(answer::json(status, &told(&redrive)))
}

fn asked(query: Option<&str>) -> Result<(Filter, Page), String> {
    let query = Query::parse(query.unwrap_or_default(), &PARAMETERS)?;
    let time = |name| query.get(name).map(|text| time(name, text)).transpose();
    let filter = Filter {
        since: time("inserted_at.gte")?,
        until: time("inserted_at.lt")?,
        event_type: query.get("event_type").map(str::to_owned),
        event_id: query.get("event_id").map(str::to_owned),
        error_code: query
            .get("error_code")
            .map(|text| number("error_code", text, 100, 999))
            .transpose()?,
        ..Filter::default()
    };
    let page = Page {
        size: match query.get("page_size") {
            None => PAGE.0,
            Some(text) => number("page_size", text, 1, PAGE.1)?,
        },
        after: query.get("after").map(ends).transpose()?,
    };
    Ok((filter, page))
}

fn number<N>(name: &str, text: &str, low: N, high: N) -> Result<N, String>
where
    N: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let number = text.parse().ok().filter(|n| (&low..=&high).contains(&n));
    number.ok_or_else(|| format!("{name} must be a number from {low} to {high}, not {text:?}"))
}

fn time(name: &str, text: &str) -> Result<UnixMillis, String> {
    let time: Result<jiff::Timestamp, _> = text.parse();
    time.map(|time| UnixMillis(time.as_millisecond()))
        .map_err(|_| format!("{name} must be a time such as 2026-01-31T12:00:00Z, not {text:?}"))
}

/// Where a page ended, as text.
fn cursor(ends: &[i64]) -> String {
    let ends: Vec<_> = ends.iter().map(i64::to_string).collect();
    ends.join(".")
}

fn ends(cursor: &str) -> Result<Vec<i64>, String> {
    let end = |text: &str| text.parse().ok().filter(|end| *end >= 0);
    let ends: Option<Vec<i64>> = cursor.split('.').map(end).collect();
    ends.ok_or_else(|| "after must be what page_info.after of the page before says".into())
}

/// A dead letter as lists show it.
fn shown(subscription: &ResourceName, listed: &Listed) -> Value {
    let letter = &listed.letter;
    let (at, offset, time) = letter.origin();
    let attribute = |name| letter.attribute(name);
    json!({
        "id": letter.id.to_string(),
        "subscription": subscription.to_string(),
        "inserted_at": letter.inserted_at.rfc3339(),
        "event": {
            "id": attribute("id"),
            "source": attribute("source"),
            "type": attribute("type"),
            "subject": attribute("subject"),
            "time": attribute("time"),
        },
        "reason": letter.outcome,
        "error": { "dest": letter.dest, "code": letter.code, "data": letter.data },
        "phase": letter.phase,
        "attempts": letter.attempts,
        "first_attempt_at": letter.first_attempt.map(UnixMillis::rfc3339),
        "redriven": letter.redriven(),
        "sent_again": listed.is_sent,
        "redrivable": listed.is_redrivable,
        "origin": {
            "topic": at.topic.as_str(),
            "partition": at.partition.0,
            "offset": offset.0,
            "time": time.rfc3339(),
        },
        "position": {
            "partition": letter.position.partition.0,
            "offset": letter.position.offset.0,
        },
    })
}

/// The event as it was, all of it: JSON data as it is, text as text, anything else as base64.
fn content(listed: &Listed) -> Value {
    let Some(event) = listed.letter.event() else {
        return Value::Null;
    };
    serde_json::from_slice(&event.to_structured_json())
        // JSON data that serde_json cannot hold, such as numbers beyond its range.
        .unwrap_or_else(
            |_| json!({ "data_base64": event.data().map(|data| STANDARD.encode(data)) }),
        )
}

fn told(redrive: &Redrive) -> Value {
    let terms = &redrive.terms;
    let filter = &terms.filter;
    json!({
        "id": redrive.id.to_string(),
        "subscription": redrive.id.subscription.to_string(),
        "state": redrive.state,
        "count": terms.count,
        "sent": redrive.sent,
        "failed": redrive.failed,
        "filter": {
            "inserted_at.gte": filter.since.map(UnixMillis::rfc3339),
            "inserted_at.lt": filter.until.map(UnixMillis::rfc3339),
            "event_type": filter.event_type,
            "event_id": filter.event_id,
            "error_code": filter.error_code,
        },
        "limit": terms.limit,
        "rate": terms.rate,
        "again": terms.again,
        "node": terms.node,
        "created_at": redrive.created_at.rfc3339(),
        "updated_at": redrive.updated_at.rfc3339(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_checked() {
        assert_eq!(
            Wish::read(b"").unwrap().selection().unwrap(),
            Selection::default()
        );
        let wish = br#"{"inserted_at.gte": "1970-01-01T00:00:01Z", "error_code": 503, "limit": 2}"#;
        let selection = Wish::read(wish).unwrap().selection().unwrap();
        assert_eq!(selection.filter.since, Some(UnixMillis(1000)));
        assert_eq!(selection.filter.error_code, Some(503));
        assert_eq!(selection.limit, Some(2));
        for (body, word) in [
            ("[]", "body"),
            ("{\"event_typ\": \"x\"}", "event_typ"),
            ("{\"limit\": 0}", "limit"),
            ("{\"rate\": 0}", "rate"),
            ("{\"rate\": -1}", "rate"),
            ("{\"error_code\": \"x\"}", "body"),
            ("{\"inserted_at.lt\": \"yesterday\"}", "inserted_at.lt"),
        ] {
            let wish = Wish::read(body.as_bytes());
            let error = wish.and_then(|wish| wish.selection()).unwrap_err();
            assert!(error.contains(word), "{body}: {error}");
        }
    }

    #[test]
    fn queries_are_checked() {
        let (filter, page) = asked(Some("event_type=a%20b&page_size=250&after=3.0.12")).unwrap();
        assert_eq!(filter.event_type.as_deref(), Some("a b"));
        assert_eq!((page.size, page.after), (250, Some(vec![3, 0, 12])));
        assert_eq!(cursor(&[3, 0, 12]), "3.0.12");
        assert_eq!(asked(None).unwrap().1.size, 50);
        for (query, word) in [
            ("page_size=0", "page_size"),
            ("page_size=251", "page_size"),
            ("error_code=abc", "error_code"),
            ("inserted_at.gte=now", "inserted_at.gte"),
            ("after=x", "after"),
            ("after=-1", "after"),
            ("type=x", "event_type"),
        ] {
            let error = asked(Some(query)).unwrap_err();
            assert!(error.contains(word), "{query}: {error}");
        }
    }
}
