use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::super::*;
use super::fake::*;
use crate::admin::ReadinessCheck;
use crate::channel::ResourceName;
use crate::journal::*;
use crate::log::{Offset, Partition};
use crate::status::Lag;

struct View;

impl AdminView for View {
    fn channels(&self) -> Vec<Value> {
        vec![json!({ "metadata": { "namespace": "prod", "name": "orders" } })]
    }

    fn subscriptions(&self) -> Vec<Value> {
        vec![json!({
            "metadata": { "namespace": "prod", "name": "billing" },
            "spec": { "channel": { "name": "orders" } },
            "status": { "conditions": [{ "type": "Ready", "status": "False", "reason": "X", "message": "<i>no brokers</i>" }] },
        })]
    }

    fn lag(&self, _: &ResourceName) -> Option<Lag> {
        None
    }

    fn committed(&self, _: &ResourceName, _: Partition) -> Option<Offset> {
        None
    }

    fn problems(&self) -> Vec<Value> {
        vec![json!({ "file": "a.yaml", "line": 3, "message": "<script>" })]
    }

    fn readiness(&self) -> Vec<ReadinessCheck> {
        vec![ReadinessCheck {
            name: "log".into(),
            ok: true,
            message: String::new(),
        }]
    }
}

#[derive(Debug)]
struct Actions;

impl MessageActions for Actions {
    fn redeliver(&self, id: MessageId) -> ActionFuture<'_> {
        Box::pin(async move { Ok(format!("sent again: {id}")) })
    }

    fn retry_now(&self, _: MessageId) -> ActionFuture<'_> {
        Box::pin(async { Err("it does not wait".into()) })
    }
}

struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

fn dashboard(journal: Fake) -> Dashboard {
    let clock = Clock::fixed(NOW);
    let view: Arc<dyn AdminView> = Arc::new(View);
    let watch = Watch::new(
        prometheus::Registry::new(),
        Arc::clone(&view),
        clock.clone(),
    );
    watch.look();
    let (sender, snapshots) = watch::channel(Arc::new(Snapshot::default()));
    // The page keeps the last snapshot when nobody publishes any more.
    drop(sender);
    Dashboard::new(Parts {
        view,
        watch,
        snapshots,
        journal: Some(Arc::new(journal)),
        dead_letters: None,
        log: None,
        actions: Some(Arc::new(Actions)),
        read_only: false,
        clock,
        node: "a1".into(),
    })
}

async fn send(page: &Dashboard, method: Method, address: &str, tag: Option<&str>) -> Got {
    let (path, query) = address
        .split_once('?')
        .map_or((address, None), |(p, q)| (p, Some(q)));
    let mut headers = HeaderMap::new();
    if let Some(tag) = tag {
        headers.insert("if-none-match", tag.parse().unwrap());
    }
    let (parts, body) = page
        .answer(&method, path, query, &headers, b"")
        .await
        .into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Got {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn get(page: &Dashboard, address: &str) -> Got {
    send(page, Method::GET, address, None).await
}

fn with(events: &[&str]) -> Fake {
    Fake {
        stories: (1..)
            .zip(events)
            .map(|(number, id)| story(number, id))
            .collect(),
        ..Fake::default()
    }
}

#[tokio::test]
async fn every_page_carries_the_guards_and_a_tag() {
    let page = dashboard(with(&["ord-1"]));
    for address in [
        "/",
        "/messages",
        "/messages/6ec31f2fcd0f49ba-3-1",
        "/dead-letters",
        "/nowhere",
    ] {
        let got = get(&page, address).await;
        let policy = got.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"));
        assert_eq!(got.headers["x-content-type-options"], "nosniff");
        assert_eq!(got.headers["referrer-policy"], "same-origin");
        assert_eq!(got.headers["cache-control"], "no-store");
        assert_eq!(
            got.headers["levada-time"].to_str().unwrap(),
            NOW.0.to_string()
        );
        assert!(!got.body.contains("style="), "{address}");
        assert!(got.body.len() <= 60 << 10);
        let tag = got.headers["etag"].to_str().unwrap();
        let again = send(&page, Method::GET, address, Some(tag)).await;
        assert_eq!(
            (again.status, again.body.as_str()),
            (StatusCode::NOT_MODIFIED, "")
        );
    }
    let overview = get(&page, "/").await.body;
    let asset = overview
        .split("src=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let got = get(&page, asset).await;
    assert_eq!(
        got.headers["cache-control"],
        "public, max-age=31536000, immutable"
    );
}

#[tokio::test]
async fn the_overview_says_what_is_wrong_and_needs_no_journal() {
    let page = dashboard(Fake {
        down: true,
        ..Fake::default()
    });
    page.background.look(&page.parts).await;
    let got = get(&page, "/").await;
    assert_eq!(got.status, StatusCode::OK);
    assert!(got.body.contains("<title>1 failing - Levada</title>"));
    assert!(got.body.contains("1 of 1 subscription needs attention."));
    assert!(got.body.contains("&lt;i&gt;no brokers&lt;/i&gt;"));
    assert!(got.body.contains("database is locked"));
    assert!(!got.body.contains("<script>"));
    let got = get(&page, "/messages").await;
    assert!(got.body.contains("Could not read the journal"));
}

#[tokio::test]
async fn gaps_are_shown() {
    let gap = Gap {
        from: UnixMillis(NOW.0 - 60_000),
        to: Some(NOW),
        changes: 1310,
    };
    let reach = Reach {
        gaps: vec![gap],
        oldest: Some(UnixMillis(0)),
        ..Reach::default()
    };
    let page = dashboard(Fake {
        reach,
        ..Fake::default()
    });
    page.background.look(&page.parts).await;
    let got = get(&page, "/").await;
    assert!(
        got.body
            .contains("The journal missed 1,310 changes between"),
        "{}",
        got.body
    );
}

#[tokio::test]
async fn a_search_leads_to_one_message_to_many_or_to_causes() {
    let page = dashboard(with(&["ord-1", "ord-2", "ord-2"]));
    let to = |got: Got| {
        (
            got.status,
            got.headers
                .get("location")
                .map(|l| l.to_str().unwrap().to_owned()),
        )
    };
    for typed in ["ord-1", "%20ord-1+", "%22ord-1%22", "6ec31f2fcd0f49ba-3-1"] {
        let got = get(&page, &format!("/messages?event_id={typed}")).await;
        assert_eq!(
            to(got),
            (
                StatusCode::SEE_OTHER,
                Some("/messages/6ec31f2fcd0f49ba-3-1".into())
            )
        );
    }
    let many = get(&page, "/messages?event_id=ord-2").await;
    assert_eq!(many.body.matches("data-open").count(), 2);
    let none = get(&page, "/messages?event_id=%3Cb%3E").await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    for cause in [
        "Older than the journal keeps",
        "had a gap",
        "Not accepted, or not tried yet",
        "&lt;b&gt;",
    ] {
        assert!(none.body.contains(cause), "{cause}");
    }
    assert_eq!(
        get(&page, "/messages/6ec31f2fcd0f49ba-3-99").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_message_tells_its_story() {
    let page = dashboard(with(&["ord-1"]));
    let got = get(&page, "/messages/6ec31f2fcd0f49ba-3-1").await;
    assert!(got.body.contains("<title>queued - ord-1 - Levada</title>"));
    for part in [
        "attempt 1",
        "503 Service Unavailable",
        "41 ms",
        "waiting",
        "attempt 2",
        "in 5 s",
        "Retry now",
    ] {
        assert!(got.body.contains(part), "{part}: {}", got.body);
    }
    let logs = get(&page, "/messages/6ec31f2fcd0f49ba-3-1/logs").await.body;
    for part in [
        "https://billing.int/hook",
        "upstream timed out",
        "curl -i -g -X POST",
        "node ",
    ] {
        assert!(logs.contains(part), "{part}");
    }
}

#[tokio::test]
async fn hostile_events_stay_text() {
    let hostile =
        "<script>alert(1)</script>\"><img src=x onerror=alert(1)>javascript:alert(1)\u{202e}\0";
    let mut one = story(1, hostile);
    one.message.event.r#type = hostile.into();
    one.message.event.subject = Some("x".repeat(1 << 20));
    one.logs[0].request_headers = vec![(hostile.into(), hostile.into())];
    one.logs[0].body = hostile.into();
    one.logs[0].url = hostile.into();
    one.logs[0].error = Some((hostile.into(), hostile.into()));
    let page = dashboard(Fake {
        stories: vec![one],
        ..Fake::default()
    });
    for address in [
        "/messages",
        "/messages/6ec31f2fcd0f49ba-3-1",
        "/messages/6ec31f2fcd0f49ba-3-1/logs",
    ] {
        let body = get(&page, address).await.body;
        assert!(
            !body.contains("<script>") && !body.contains("<img"),
            "{address}"
        );
        assert!(
            body.contains("<span class=\"esc\">\\u202e\\u0000</span>"),
            "{address}"
        );
        assert!(body.len() <= 60 << 10, "{address}: {}", body.len());
        for attribute in body.split('"').skip(1).step_by(2) {
            assert!(!attribute.contains("alert("), "{address}: {attribute}");
        }
    }
}

#[tokio::test]
async fn actions_answer_on_the_message() {
    let page = dashboard(with(&["ord-1"]));
    let id = "6ec31f2fcd0f49ba-3-1";
    let got = send(
        &page,
        Method::POST,
        &format!("/messages/{id}/redeliver"),
        None,
    )
    .await;
    assert_eq!(got.status, StatusCode::SEE_OTHER);
    let back = got.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(back, format!("/messages/{id}?done=sent%20again%3A%20{id}"));
    assert!(get(&page, &back).await.body.contains("sent again: "));
    let got = send(
        &page,
        Method::POST,
        &format!("/messages/{id}/retry-now"),
        None,
    )
    .await;
    assert!(
        got.headers["location"]
            .to_str()
            .unwrap()
            .contains("error=it%20does%20not")
    );
    assert_eq!(
        send(&page, Method::POST, "/messages", None).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn newer_messages_are_counted() {
    let page = dashboard(with(&["a", "b", "c"]));
    let than = NOW.0 - 10_000 + 1;
    let got = get(
        &page,
        &format!("/messages/newer?than={than}.6ec31f2fcd0f49ba-3-1&status=queued"),
    )
    .await;
    assert!(got.body.contains("data-newer=\"2\""), "{}", got.body);
    assert!(got.body.contains("/messages?status=queued"));
}

#[tokio::test]
async fn filters_are_chips_that_remove_themselves() {
    let page = dashboard(with(&["a"]));
    let body = get(&page, "/messages?status=queued&event_type=%22%3E%3Cb%3E")
        .await
        .body;
    assert!(body.contains("href=\"/messages?event_type=%22%3E%3Cb%3E\""));
    assert!(body.contains("href=\"/messages?status=queued\""));
    assert!(!body.contains("<b>"));
    let empty = get(&page, "/messages?status=bounced&last=24h").await.body;
    assert!(empty.contains("No message fits these filters in") && empty.contains("clear filters"));
}
