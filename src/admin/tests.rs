use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::shutdown::Tasks;

struct View {
    log_is_up: bool,
}

impl AdminView for View {
    fn channels(&self) -> Vec<Value> {
        vec![
            json!({ "kind": "KafkaChannel", "metadata": { "namespace": "prod", "name": "orders" } }),
        ]
    }

    fn subscriptions(&self) -> Vec<Value> {
        let named = |name| json!({ "metadata": { "namespace": "prod", "name": name } });
        vec![named("billing"), named("mail")]
    }

    fn lag(&self, _: &ResourceName) -> Option<Lag> {
        None
    }

    fn committed(&self, _: &ResourceName, _: Partition) -> Option<Offset> {
        None
    }

    fn problems(&self) -> Vec<Value> {
        vec![json!({ "file": "a.yaml", "line": 3, "field": "spec", "message": "x" })]
    }

    fn readiness(&self) -> Vec<ReadinessCheck> {
        let check = |name: &str, ok, message: &str| ReadinessCheck {
            name: name.into(),
            ok,
            message: message.into(),
        };
        vec![
            check("manifests", true, "read"),
            check("log", self.log_is_up, "answered 0.1 s ago"),
        ]
    }
}

struct Port {
    address: SocketAddr,
    tasks: Tasks,
}

struct Got {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Port {
    async fn open(view: View) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Registry::new();
        let counter = prometheus::IntCounter::new("levada_test_total", "Tests.").unwrap();
        counter.inc();
        registry.register(Box::new(counter)).unwrap();
        let tasks = Tasks::new();
        let state = AdminState::new(Arc::new(view), registry, Settings::default());
        let address = serve(listener, state, &tasks).unwrap();
        Self { address, tasks }
    }

    async fn ask(&self, method: &str, path: &str) -> Got {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let (parts, body) = client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Got {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }
}

#[tokio::test]
async fn health_and_readiness_tell_what_fails() {
    let port = Port::open(View { log_is_up: false }).await;
    assert_eq!(port.ask("GET", "/healthz").await.status, 200);
    let ready = port.ask("GET", "/readyz").await;
    assert_eq!(ready.status, 503);
    let checks = &ready.json()["checks"];
    assert_eq!(checks[0]["ok"], true);
    assert_eq!(checks[1]["name"], "log");
    assert_eq!(checks[1]["ok"], false);
    let port = Port::open(View { log_is_up: true }).await;
    assert_eq!(port.ask("GET", "/readyz").await.status, 200);
}

#[tokio::test]
async fn resources_are_listed_and_found_by_name() {
    let port = Port::open(View { log_is_up: true }).await;
    let list = port.ask("GET", "/v1/subscriptions").await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert_eq!(list["page_info"]["page_size"], 2);
    let one = port.ask("GET", "/v1/subscriptions/prod/mail").await.json();
    assert_eq!(one["metadata"]["name"], "mail");
    let channel = port.ask("GET", "/v1/channels/prod/orders").await.json();
    assert_eq!(channel["kind"], "KafkaChannel");
    let problems = port.ask("GET", "/v1/problems").await.json();
    assert_eq!(problems["items"][0]["line"], 3);
    for nothing in [
        "/v1/channels/prod/mail",
        "/v1/channels/mail/prod",
        "/v1/nothing",
        "/",
    ] {
        let got = port.ask("GET", nothing).await;
        assert_eq!(got.status, 404, "{nothing}");
        assert_eq!(got.headers["content-type"], "application/problem+json");
        assert_eq!(got.json()["status"], 404);
    }
}

#[tokio::test]
async fn metrics_are_those_of_the_registry() {
    let port = Port::open(View { log_is_up: true }).await;
    let got = port.ask("GET", "/metrics").await;
    assert_eq!(got.status, 200);
    assert!(
        got.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    assert!(got.body.contains("\nlevada_test_total 1\n"), "{}", got.body);
}

#[tokio::test]
async fn other_methods_than_get_and_head_are_refused() {
    let port = Port::open(View { log_is_up: true }).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let got = port.ask(method, "/v1/channels").await;
        assert_eq!(got.status, 405, "{method}");
        assert_eq!(got.headers["allow"], "GET, HEAD");
    }
    let get = port.ask("GET", "/v1/channels").await;
    let head = port.ask("HEAD", "/v1/channels").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(
        head.headers["content-length"],
        get.headers["content-length"]
    );
}

#[tokio::test]
async fn it_stops_when_it_is_told_to() {
    let port = Port::open(View { log_is_up: true }).await;
    port.ask("GET", "/healthz").await;
    port.tasks
        .drain(std::time::Duration::from_secs(5))
        .await
        .unwrap();
    assert!(tokio::net::TcpStream::connect(port.address).await.is_err());
}

#[tokio::test]
async fn it_is_not_opened_to_others_by_accident() {
    let settings = Settings::default();
    let beyond: SocketAddr = "0.0.0.0:8081".parse().unwrap();
    assert_eq!(settings.check(beyond), Err(Exposed(beyond)));
    assert_eq!(settings.check("[::1]:8081".parse().unwrap()), Ok(()));
    let token = Settings {
        token: Secret::new("x"),
        ..Settings::default()
    };
    assert_eq!(token.check(beyond), Ok(()));
    let open = Settings {
        open: true,
        ..Settings::default()
    };
    assert_eq!(open.check(beyond), Ok(()));
    // What counts is what the listener is bound to, whatever the settings say.
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let state = AdminState::new(
        Arc::new(View { log_is_up: true }),
        Registry::new(),
        settings,
    );
    assert!(serve(listener, state, &Tasks::new()).is_err());
}

#[tokio::test]
async fn a_browser_signs_in_with_the_token() {
    let settings = Settings {
        token: Secret::new("s3cret"),
        ..Settings::default()
    };
    let view: Arc<dyn AdminView> = Arc::new(View { log_is_up: true });
    let clock = crate::clock::Clock::system();
    let (_publish, snapshots) = tokio::sync::watch::channel(Arc::default());
    let registry = Registry::new();
    let watch = crate::health::Watch::new(registry.clone(), Arc::clone(&view), clock.clone());
    let dashboard = Dashboard::new(crate::dashboard::Parts {
        view: Arc::clone(&view),
        watch,
        snapshots,
        journal: None,
        dead_letters: None,
        log: None,
        actions: None,
        read_only: false,
        clock,
        node: "a".into(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tasks = Tasks::new();
    let state = AdminState::new(view, registry, settings).with_dashboard(dashboard);
    let address = serve(listener, state, &tasks).unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let ask = |method: &str, path: &str, cookie: &str, body: &'static str| {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://{address}{path}"))
            .header("cookie", cookie)
            .body(http_body_util::Full::<bytes::Bytes>::from(body))
            .unwrap();
        client.request(request)
    };
    let first = ask("GET", "/messages?a=b", "", "").await.unwrap();
    assert_eq!(first.status(), 303);
    assert_eq!(
        first.headers()["location"],
        "/sign-in?to=%2Fmessages%3Fa%3Db"
    );
    assert_eq!(ask("GET", "/sign-in", "", "").await.unwrap().status(), 200);
    let wrong = ask("POST", "/sign-in", "", "token=x").await.unwrap();
    assert_eq!(wrong.status(), 401);
    let right = ask("POST", "/sign-in", "", "token=s3cret&to=%2Fmessages")
        .await
        .unwrap();
    assert_eq!(
        (right.status().as_u16(), &right.headers()["location"]),
        (303, &"/messages".parse().unwrap())
    );
    let cookie = right.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Strict"));
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(ask("GET", "/", cookie, "").await.unwrap().status(), 200);
    assert_eq!(
        ask("GET", "/v1/channels", cookie, "")
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(
        ask("GET", "/v1/channels", "", "").await.unwrap().status(),
        401
    );
    assert_eq!(
        ask("POST", "/messages", "", "").await.unwrap().status(),
        401
    );
}
