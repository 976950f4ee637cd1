//! Subscribers that answer as scripted.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Happening, Story};
use crate::channel::HttpSink;
use crate::clock::Clock;
use crate::delivery::{Attempt, AttemptReport, Deliver, Failure, Reason, Success};

/// One attempt as the subscriber sees it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) url: String,
    /// The event's id.
    pub(crate) id: String,
    /// Which call with this event at this address, from 1.
    pub(crate) number: usize,
    /// The attempt's own bound.
    pub(crate) timeout: Duration,
}

/// How an attempt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 200 after so long.
    Ok(Duration),
    /// This status code after so long; 5xx are worth another attempt.
    Code(u16, Duration),
    /// Never, but for the attempt's timeout.
    Hang,
}

impl Answer {
    pub(crate) const NOW: Self = Self::Ok(Duration::ZERO);
    pub(crate) const BUSY: Self = Self::Code(503, Duration::ZERO);
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Delivered,
    Failed,
    /// The future was dropped before its end.
    Cut,
}

type Script = Box<dyn FnMut(&Call) -> Answer + Send>;

/// All subscribers and sinks there are.
#[derive(Clone)]
pub(crate) struct Sinks {
    inner: Arc<Mutex<Inner>>,
    story: Story,
    clock: Clock,
}

struct Inner {
    script: Script,
    calls: HashMap<(String, String), usize>,
    at_once: usize,
    most_at_once: usize,
}

impl fmt::Debug for Sinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sinks").finish_non_exhaustive()
    }
}

impl Sinks {
    pub(super) fn new(story: Story, clock: Clock) -> Self {
        let inner = Inner {
            script: Box::new(|_| Answer::NOW),
            calls: HashMap::new(),
            at_once: 0,
            most_at_once: 0,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            story,
            clock,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on attempts go as `script` says.
    pub(crate) fn answer(&self, script: impl FnMut(&Call) -> Answer + Send + 'static) {
        self.lock().script = Box::new(script);
    }

    /// Attempts being made.
    pub(crate) fn at_once(&self) -> usize {
        self.lock().at_once
    }

    /// The most that were ever made at one time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.lock().most_at_once
    }

    fn begin(&self, attempt: &Attempt) -> (Answer, Attempting) {
        let id = attempt.event.attribute("id").unwrap().to_owned();
        let url = attempt.sink.url.to_string();
        let mut inner = self.lock();
        inner.at_once += 1;
        inner.most_at_once = inner.most_at_once.max(inner.at_once);
        let number = inner.calls.entry((url.clone(), id.clone())).or_default();
        *number += 1;
        let call = Call {
            number: *number,
            timeout: attempt.timeout,
            url,
            id: id.clone(),
        };
        let answer = (inner.script)(&call);
        drop(inner);
        self.story.tell(Happening::Began(id.clone()));
        let attempting = Attempting {
            sinks: self.clone(),
            id,
            ended: Ended::Cut,
        };
        (answer, attempting)
    }
}

/// Tells how an attempt ended, also when it is dropped.
struct Attempting {
    sinks: Sinks,
    id: String,
    ended: Ended,
}

impl Drop for Attempting {
    fn drop(&mut self) {
        self.sinks.lock().at_once -= 1;
        let id = std::mem::take(&mut self.id);
        self.sinks.story.tell(Happening::Ended(id, self.ended));
    }
}

impl Deliver for Sinks {
    /// Nobody tells anything.
    async fn ask(&self, _: HttpSink, _: Duration) -> AttemptReport {
        AttemptReport {
            started: self.clock.now(),
            duration: Duration::ZERO,
            request: None,
            answer: None,
            result: Err(Failure::without_answer(Reason::ConnectRefused, "scripted")),
        }
    }

    async fn attempt(&self, attempt: Attempt) -> AttemptReport {
        let (answer, mut attempting) = self.begin(&attempt);
        let (began, started) = (Instant::now(), self.clock.now());
        let wait = match answer {
            Answer::Ok(time) | Answer::Code(_, time) => time.min(attempt.timeout),
            Answer::Hang => attempt.timeout,
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let result = match answer {
            Answer::Ok(_) => Ok(Success {
                code: 200,
                reply: None,
            }),
            Answer::Code(code, _) => Err(Failure {
                code: Some(code),
                retryable: attempt.retry_codes.contains(code),
                ..Failure::without_answer(Reason::Http(code), "scripted")
            }),
            Answer::Hang => Err(Failure::without_answer(Reason::AttemptTimeout, "scripted")),
        };
        attempting.ended = match result {
            Ok(_) => Ended::Delivered,
            Err(_) => Ended::Failed,
        };
        AttemptReport {
            started,
            duration: began.elapsed(),
            request: None,
            answer: None,
            result,
        }
    }
}
