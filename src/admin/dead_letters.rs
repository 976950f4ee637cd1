//! Dead letters and redrives.

use http::StatusCode;
use serde_json::Value;

use super::answer::{self, Answer};
use super::guard::{Refusal, refuse};
use super::query::{Query, time};
use super::shapes::{self, Letter, List, PageInfo, Plan, Time, Wish};
use super::table::Parameter;
use crate::channel::ResourceName;
use crate::dead_letters::{Command, DeadLetters, Error, Filter, Page, RedriveId, Selection};

/// Dead letters of a page unless asked otherwise.
const PAGE: usize = 50;

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
    query: &Query,
    known: &[Parameter],
) -> Result<Answer, Refusal> {
    let name = subscription(namespace, name)?;
    let (filter, page) = asked(query, known).map_err(|detail| bad(&detail))?;
    let page_size = page.size;
    let found = letters
        .list(&name, &filter, page)
        .await
        .map_err(|error| failed(&error))?;
    let shown = |one| shapes::DeadLetter::new(&name, one);
    let list = List {
        items: found.letters.iter().map(shown).collect(),
        page_info: PageInfo {
            page_size,
            after: found.after.map(|ends| cursor(&ends)),
            searched_to: found.searched_to.map(Time::from),
            ..PageInfo::default()
        },
    };
    Ok(answer::json(StatusCode::OK, &list))
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
    Ok(answer::json(StatusCode::OK, &Letter::new(&name, &found)))
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
        return Ok(answer::json(StatusCode::OK, &Plan::from(planned)));
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
    Ok(answer::json(
        StatusCode::ACCEPTED,
        &shapes::Redrive::from(&begun),
    ))
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
    Ok(answer::json(status, &shapes::Redrive::from(&redrive)))
}

fn asked(query: &Query, known: &[Parameter]) -> Result<(Filter, Page), String> {
    let filter = Filter {
        since: query.time("inserted_at.gte")?,
        until: query.time("inserted_at.lt")?,
        event_type: query.get("event_type").map(str::to_owned),
        event_id: query.get("event_id").map(str::to_owned),
        error_code: query.number("error_code", known)?,
        ..Filter::default()
    };
    let page = Page {
        size: query.number("page_size", known)?.unwrap_or(PAGE),
        after: query.get("after").map(ends).transpose()?,
    };
    Ok((filter, page))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

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
        let path = "/v1/subscriptions/a/b/dead-letters";
        let known = crate::admin::table::find(path).unwrap().0.parameters;
        let asked = |query| asked(&Query::parse(Some(query), known)?, known);
        let (filter, page) = asked("event_type=a%20b&page_size=250&after=3.0.12").unwrap();
        assert_eq!(filter.event_type.as_deref(), Some("a b"));
        assert_eq!((page.size, page.after), (250, Some(vec![3, 0, 12])));
        assert_eq!(cursor(&[3, 0, 12]), "3.0.12");
        assert_eq!(asked("").unwrap().1.size, 50);
        for (query, word) in [
            ("page_size=0", "page_size"),
            ("page_size=251", "page_size"),
            ("error_code=abc", "error_code"),
            ("inserted_at.gte=now", "inserted_at.gte"),
            ("after=x", "after"),
            ("after=-1", "after"),
            ("type=x", "event_type"),
        ] {
            let error = asked(query).unwrap_err();
            assert!(error.contains(word), "{query}: {error}");
        }
    }
}
