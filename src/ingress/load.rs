//! How many bytes of requests are in memory at one time, and their bound.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What a request weighs besides its body: headers, buffers, the task.
const REQUEST_OVERHEAD: usize = 4096;

/// The bytes of all requests in progress.
#[derive(Debug)]
pub(super) struct Load {
    bytes: AtomicUsize,
    limit: usize,
}

/// There is no room for a request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// A request's share, given back when dropped.
#[derive(Debug)]
pub(super) struct Share<'a> {
    load: &'a Load,
    bytes: usize,
}

impl Load {
    /// A load of at most `limit` bytes of bodies, and always one request.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            limit: limit.saturating_add(REQUEST_OVERHEAD),
        }
    }

    /// Takes the share of a request whose body is said to have `bytes`.
    pub(super) fn enter(&self, bytes: usize) -> Result<Share<'_>, Full> {
        let mut share = Share {
            load: self,
            bytes: 0,
        };
        share.grow_to(bytes.saturating_add(REQUEST_OVERHEAD))?;
        Ok(share)
    }
}

impl Share<'_> {
    /// Makes room for a body that turned out to have `bytes`.
    pub(super) fn cover(&mut self, bytes: usize) -> Result<(), Full> {
        self.grow_to(bytes.saturating_add(REQUEST_OVERHEAD))
    }

    fn grow_to(&mut self, bytes: usize) -> Result<(), Full> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let before = self.load.bytes.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        // What was taken too much goes back when the share is dropped.
        if before.saturating_add(more) > self.load.limit {
            return Err(Full);
        }
        Ok(())
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_and_given_back() {
        let load = Load::new(10_000);
        let mut first = load.enter(5_000).unwrap();
        assert!(load.enter(5_000).is_err());
        assert!(first.cover(10_001).is_err());
        drop(first);
        assert_eq!(load.bytes.load(Ordering::Relaxed), 0);
        assert!(load.enter(10_000).is_ok());
    }
}
