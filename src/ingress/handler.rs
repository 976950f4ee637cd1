//! One request: from its headers to its answer.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};
use http::{Method, Request};
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use super::Ingress;
use super::answer::{Answer, Refusal, accepted, options};
use super::body::{self, BodyError};
use super::load::Share;
use super::routes::Route;
use crate::event::{Decoded, Event, Mode};
use crate::log::{Appending, LogError, Target, TopicName};

impl Ingress {
    /// Answers a request, and counts and times it.
    pub(super) async fn handle(&self, request: Request<Incoming>) -> Answer {
        let start = Instant::now();
        let version = request.version();
        let found = {
            let table = self.routes.load();
            table.find(request.uri(), request.headers()).cloned()
        };
        let (route, result) = match found {
            Ok(route) => {
                let result = self.answer(&route, request).await;
                (Some(route), result)
            }
            // A wrong method is told before a wrong channel.
            Err(no_route) => (
                None,
                Err(match *request.method() {
                    Method::POST | Method::OPTIONS => Refusal::NoRoute(no_route),
                    _ => Refusal::Method,
                }),
            ),
        };
        let answer = result.unwrap_or_else(|refusal| {
            tracing::debug!(
                channel = route
                    .as_ref()
                    .map(|route| tracing::field::display(route.name())),
                ?refusal,
                "a request was refused"
            );
            refusal.answer(version)
        });
        let code = answer.status().as_u16();
        match &route {
            Some(route) => route.answers(&self.metrics).count(code),
            None => self.unknown.count(code),
        }
        let took = start.elapsed();
        self.metrics.request_seconds.observe(took.as_secs_f64());
        answer
    }

    async fn answer(&self, route: &Route, request: Request<Incoming>) -> Result<Answer, Refusal> {
        match *request.method() {
            Method::POST => {}
            Method::OPTIONS => return Ok(options(request.headers())),
            _ => return Err(Refusal::Method),
        }
        // Its share of memory is a request's own until the log has the events.
        let (decoded, _share) = self.receive(request).await?;
        self.store(route.topic(), decoded).await?;
        Ok(accepted())
    }

    /// Reads and decodes the request.
    async fn receive(&self, request: Request<Incoming>) -> Result<(Decoded, Share<'_>), Refusal> {
        let (head, body) = request.into_parts();
        refuse_encoded(&head.headers)?;
        let limit = self.body_limit(Mode::of(&head.headers));
        let declared = declared_len(&head.headers, &body);
        if declared.is_some_and(|len| len > limit) {
            return Err(Refusal::Body(BodyError::TooLarge { limit }));
        }
        let mut share = self
            .load
            .enter(declared.unwrap_or(0))
            .map_err(|full| Refusal::Body(full.into()))?;
        let time = self.settings.body_timeout;
        let body: Bytes = body::read(body, limit, time, &mut share)
            .await
            .map_err(Refusal::Body)?;
        let decoded = Event::from_http(&head.headers, body).map_err(Refusal::Event)?;
        let limit = self.settings.max_event_bytes;
        let events = match &decoded {
            Decoded::One(event) => std::slice::from_ref(event),
            Decoded::Batch(events) => events,
        };
        match events.iter().map(Event::byte_len).find(|len| *len > limit) {
            Some(bytes) => Err(Refusal::EventTooLarge { bytes, limit }),
            None => Ok((decoded, share)),
        }
    }

    fn body_limit(&self, mode: Mode) -> usize {
        let settings = &self.settings;
        match mode {
            Mode::Binary | Mode::Unsupported => settings.max_event_bytes,
            // Base64 and escapes make an event longer than it is.
            Mode::Structured => settings
                .max_event_bytes
                .saturating_mul(2)
                .min(settings.max_batch_bytes.max(settings.max_event_bytes)),
            Mode::Batch => settings.max_batch_bytes,
        }
    }

    /// Appends the events, all at once, and waits until all are stored.
    async fn store(&self, topic: &TopicName, decoded: Decoded) -> Result<(), Refusal> {
        let start = Instant::now();
        let append = |event: Event| self.log.append(topic, Target::ByKey, event.into_record());
        let time = self.settings.append_timeout;
        let stored = match decoded {
            Decoded::One(event) => body::within(time, append(event))
                .await
                .map(|result| result.map(drop)),
            Decoded::Batch(events) => {
                let appends = events.into_iter().map(append).collect();
                body::within(time, all_stored(appends)).await
            }
        };
        let took = start.elapsed();
        self.metrics.append_seconds.observe(took.as_secs_f64());
        stored
            .unwrap_or_else(|| Err(LogError::TimedOut(format!("no answer within {time:?}"))))
            .map_err(Refusal::Log)
    }
}

/// Waits for every append, so that none is answered for before it ended. An event that is too
/// large outweighs other failures: sending the batch again could not help.
async fn all_stored(appends: Vec<Appending>) -> Result<(), LogError> {
    let mut worst = None;
    for append in appends {
        match append.await {
            Ok(_) => {}
            Err(error @ LogError::TooLarge { .. }) => worst = Some(error),
            Err(error) => worst = worst.or(Some(error)),
        }
    }
    worst.map_or(Ok(()), Err)
}

fn refuse_encoded(headers: &HeaderMap) -> Result<(), Refusal> {
    let encoded = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        Err(Refusal::ContentEncoding)
    } else {
        Ok(())
    }
}

/// The length that the request says its body has.
fn declared_len(headers: &HeaderMap, body: &Incoming) -> Option<usize> {
    let exact = body.size_hint().exact();
    exact
        .or_else(|| headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok())
        .map(|len| usize::try_from(len).unwrap_or(usize::MAX))
}
