//! Reads a request's body: to a bound, in time, and without a copy when it comes in one piece.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::load::{Full, Share};

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is larger than {limit} bytes; send it in smaller parts")]
    TooLarge { limit: usize },
    #[error("the body did not arrive within {0:?}")]
    TimedOut(Duration),
    #[error("the body ended early or its framing is broken: {0}")]
    Incomplete(hyper::Error),
    #[error("too many requests are in progress; try again soon")]
    Overloaded,
}

impl From<Full> for BodyError {
    fn from(_: Full) -> Self {
        Self::Overloaded
    }
}

/// Reads the whole body, at most `limit` bytes within `time`.
pub(super) async fn read(
    body: Incoming,
    limit: usize,
    time: Duration,
    share: &mut Share<'_>,
) -> Result<Bytes, BodyError> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    within(time, collect(body, limit, share))
        .await
        .unwrap_or(Err(BodyError::TimedOut(time)))
}

async fn collect(
    mut body: Incoming,
    limit: usize,
    share: &mut Share<'_>,
) -> Result<Bytes, BodyError> {
    let declared = body.size_hint().lower();
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers are not part of the event.
        let Ok(data) = frame.map_err(BodyError::Incomplete)?.into_data() else {
            continue;
        };
        let len = first.len() + all.len() + data.len();
        if len > limit {
            return Err(BodyError::TooLarge { limit });
        }
        share.cover(len)?;
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                let declared = usize::try_from(declared).unwrap_or(usize::MAX);
                all.reserve(declared.clamp(len, limit));
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// The outcome of `work`, or `None` when it took longer than `time`. Work that is done at once
/// costs no timer.
pub(super) async fn within<F: Future>(time: Duration, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    match poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        Poll::Ready(done) => Some(done),
        Poll::Pending => tokio::time::timeout(time, work).await.ok(),
    }
}
