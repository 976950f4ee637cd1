//! What the quickstart does and tells.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use cloudevents::{EventBuilder as _, EventBuilderV10};
use http::{Request, Uri};
use http_body_util::Full;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::super::api;
use super::super::event::{Mode, Outgoing};
use super::super::http::HttpClient;
use super::super::listen::Delivery;
use super::super::{CliError, Console, Tone};

/// Where everything is.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) ingress: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) subscriber: SocketAddr,
    pub(super) manifest: PathBuf,
}

/// The events: id, type, and what will become of it.
const EVENTS: [(&str, &str); 4] = [
    ("order-1", "order.created"),
    ("order-2", "order.created"),
    ("order-3", "order.flaky"),
    ("order-4", "order.broken"),
];

/// Repeats after the first attempt, as the manifest has it.
const RETRIES: usize = 3;

/// How long the subscription may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

pub(super) struct Story {
    places: Places,
    console: Console,
    client: HttpClient,
    started: Instant,
}

impl Story {
    pub(super) fn new(places: Places, console: Console) -> Result<Self, CliError> {
        Ok(Self {
            places,
            console,
            client: HttpClient::new()?,
            started: Instant::now(),
        })
    }

    /// Tells it, and goes on telling what comes; ends only with an error.
    pub(super) async fn tell(
        mut self,
        mut taken: mpsc::Receiver<Delivery>,
        mut dead: mpsc::Receiver<Delivery>,
    ) -> Result<(), CliError> {
        timeout(READY_WITHIN, self.until_ready())
            .await
            .map_err(|_| CliError::Failed("the subscription did not become ready".into()))??;
        self.introduce()?;
        self.started = Instant::now();
        for (id, kind) in EVENTS {
            self.send(id, kind).await?;
        }
        let mut advised = false;
        loop {
            tokio::select! {
                Some(delivery) = taken.recv() => self.delivery(&delivery)?,
                Some(letter) = dead.recv() => {
                    self.dead_letter(&letter)?;
                    if !advised {
                        advised = true;
                        self.advise(letter.event.attribute("id"))?;
                    }
                }
                else => return Ok(()),
            }
        }
    }

    /// Waits until every later event will reach the subscriber.
    async fn until_ready(&self) -> Result<(), CliError> {
        let uri = format!(
            "http://{}/v1/subscriptions/default/billing",
            self.places.admin
        );
        loop {
            let request = Request::get(&uri)
                .body(Full::<Bytes>::default())
                .map_err(|error| CliError::Failed(error.to_string()))?;
            let answer = self
                .client
                .send(request, "the broker did not start")
                .await?;
            let resource: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if api::ready(&resource).is_some_and(|ready| ready["status"] == "True") {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn introduce(&self) -> Result<(), CliError> {
        let Places {
            ingress,
            admin,
            subscriber,
            ..
        } = &self.places;
        self.console.line(format_args!(
            "Levada takes events at http://{ingress}, its admin port is http://{admin}."
        ))?;
        self.console.line(format_args!(
            "Subscription billing passes events of channel orders on to http://{subscriber}: {RETRIES} retries, then dead letters."
        ))?;
        self.console.line("")
    }

    async fn send(&self, id: &str, kind: &str) -> Result<(), CliError> {
        let event = EventBuilderV10::new()
            .id(id)
            .ty(kind)
            .source("/quickstart")
            .build()
            .map_err(|error| CliError::Failed(error.to_string()))?;
        let data = Bytes::from(format!("{{\"order\":\"{id}\"}}"));
        let event = Outgoing::new(event, Some("application/json".into()), Some(data));
        let uri: Uri = format!("http://{}/default/orders", self.places.ingress)
            .parse()
            .map_err(|error| CliError::Failed(format!("{error}")))?;
        let answer = self
            .client
            .send(
                event.request(&uri, Mode::Binary)?,
                "the broker did not start",
            )
            .await?;
        let told = if answer.status == 202 {
            format!("sent {id} ({kind}): 202, it is on disk")
        } else {
            format!(
                "sent {id} ({kind}): {} {}",
                answer.status,
                answer.explanation()
            )
        };
        self.at(told)
    }

    fn delivery(&self, delivery: &Delivery) -> Result<(), CliError> {
        let (id, answer) = (delivery.event.attribute("id"), delivery.answer);
        let attempt = delivery.attempt;
        let told = if answer < 300 {
            let which = match attempt {
                1 => String::new(),
                _ => format!(" at attempt {attempt}"),
            };
            self.console
                .paint(Tone::Good, format_args!("delivered {id}{which}: {answer}"))
        } else {
            let next = if attempt <= RETRIES {
                "again in 0.5 s"
            } else {
                "no retries left"
            };
            let told =
                format!("the subscriber answers {answer} to attempt {attempt} of {id}; {next}");
            self.console.paint(Tone::Notice, told)
        };
        self.at(told)
    }

    fn dead_letter(&self, letter: &Delivery) -> Result<(), CliError> {
        let id = letter.event.attribute("id");
        let code = letter.event.attribute("knativeerrorcode");
        let told = format!("{id} went to the dead-letter sink, with the last answer: {code}");
        self.at(self.console.paint(Tone::Bad, told))
    }

    /// A line with the seconds since the first event.
    fn at(&self, text: impl Display) -> Result<(), CliError> {
        let seconds = self.started.elapsed().as_secs_f64();
        self.console.line(format_args!("{seconds:6.2} s  {text}"))
    }

    /// What to do next; `dead` is the event whose message ended.
    fn advise(&self, dead: &str) -> Result<(), CliError> {
        let to = unless_default("--url", self.places.ingress, 8080);
        let admin = unless_default("--admin", self.places.admin, 8081);
        let manifest = self.places.manifest.display();
        let address = self.places.admin;
        self.console.text(&format!(
            "
Look at it: what became of {dead} is at
  http://{address}/messages?event_id={dead}
and how everything is doing at http://{address}/
Try next:
  levada send --channel orders --data '{{\"total\": 7}}'{to}
  levada send --channel orders --type order.flaky{to}
  levada get subscriptions{admin}
  levada describe subscription billing{admin}
  curl http://{address}/metrics
The channel and its subscription are declared in {manifest}; changes are in force within a second.
It goes on until Ctrl-C.

"
        ))
    }
}

/// The flag that the commands need to find `address`; none at the default port.
fn unless_default(flag: &str, address: SocketAddr, port: u16) -> String {
    if address.port() == port {
        String::new()
    } else {
        format!(" {flag} http://{address}")
    }
}
