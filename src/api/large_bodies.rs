//! Permits to parse large bodies, one at a time. A JSON tree may need twenty times the memory of its text,
//! and the signature is checked only after the body is parsed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Api, overloaded};
use crate::ops::answers::RequestError;

/// Longer bodies, in bytes, are parsed one at a time.
const LARGE_BODY: usize = 1_000_000;
/// Seconds after which a client may send a large body again.
const RETRY_AFTER: &str = "5";

/// Lets one large body be parsed and a few wait.
#[derive(Debug)]
pub(super) struct LargeBodyPermits {
    parsing: Mutex<()>,
    /// Requests with a large body: the one that is parsed, and those that wait.
    present: AtomicUsize,
    /// The most requests that may be present. The other HTTP workers serve small requests.
    most: usize,
}

impl LargeBodyPermits {
    /// Permits for a listener with `workers` HTTP workers.
    pub(super) fn new(workers: u32) -> Self {
        Self {
            parsing: Mutex::new(()),
            present: AtomicUsize::new(0),
            most: usize::try_from(workers / 2).unwrap_or(usize::MAX).max(1),
        }
    }

    /// Waits until a body may be parsed; `None` if too many requests wait already.
    pub(super) fn acquire(&self, body: &[u8]) -> Option<LargeBodyPermit<'_>> {
        if body.len() <= LARGE_BODY {
            return Some(LargeBodyPermit(None));
        }
        let present = Present(&self.present);
        if self.present.fetch_add(1, Ordering::Relaxed) >= self.most {
            return None;
        }
        let parsing = self.parsing.lock().unwrap_or_else(PoisonError::into_inner);
        Some(LargeBodyPermit(Some((parsing, present))))
    }
}

/// Permission to parse a body, until it is dropped. Small bodies need no lock.
#[derive(Debug)]
pub(super) struct LargeBodyPermit<'a>(
    #[allow(dead_code, reason = "dropping it releases the lock")] Option<(MutexGuard<'a, ()>, Present<'a>)>,
);

/// Counts a request as present until it is dropped.
#[derive(Debug)]
struct Present<'a>(&'a AtomicUsize);

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Api {
    /// A permit for a body, or 503 if too many large bodies wait.
    pub(super) fn large_body_permit(&self, body: &[u8]) -> Result<LargeBodyPermit<'_>, RequestError> {
        self.large_bodies.acquire(body).ok_or_else(|| {
            let message = "Too many large submissions are being read: send it again in some seconds.";
            overloaded(message, RETRY_AFTER)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn large_bodies_take_turns_and_leave_workers_to_small_ones() {
        let permits = LargeBodyPermits::new(4);
        let large = vec![b' '; LARGE_BODY + 1];
        let first = permits.acquire(&large).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| permits.acquire(&large).is_some());
            while permits.present.load(Ordering::Relaxed) < 2 {
                thread::yield_now();
            }
            // Two are present. A third is refused at once, and a small body does not wait.
            assert!(permits.acquire(&large).is_none());
            assert!(permits.acquire(&large[1..]).is_some());
            assert!(!second.is_finished());
            drop(first);
            assert!(second.join().unwrap());
        });
        assert_eq!(permits.present.load(Ordering::Relaxed), 0);
    }
}
