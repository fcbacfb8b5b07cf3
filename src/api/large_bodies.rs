//! Large bodies wait for one another: a tree of JSON may take twenty times its text, and it is made
//! before anyone knows who sent it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bodies longer than this, in bytes, are read one at a time.
const LARGE_BODY: usize = 1_000_000;

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct LargeBodyPermits {
    reading: Mutex<()>,
    there: AtomicUsize,
    /// So many may be there, the one that is read included: the other workers are for small requests.
    most: usize,
}

impl LargeBodyPermits {
    /// For so many requests at once.
    pub(super) fn new(workers: u32) -> Self {
        Self {
            reading: Mutex::new(()),
            there: AtomicUsize::new(0),
            most: usize::try_from(workers / 2).unwrap_or(usize::MAX).max(1),
        }
    }

    /// Waits until a body may be read, which it may until the turn is dropped; none where too many
    /// wait already.
    pub(super) fn wait(&self, body: &[u8]) -> Option<LargeBodyPermit<'_>> {
        if body.len() <= LARGE_BODY {
            return Some(LargeBodyPermit(None));
        }
        let place = Place(&self.there);
        if self.there.fetch_add(1, Ordering::Relaxed) >= self.most {
            return None;
        }
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        Some(LargeBodyPermit(Some((reading, place))))
    }
}

/// Leave to read a body.
#[derive(Debug)]
pub(super) struct LargeBodyPermit<'a>(
    #[allow(dead_code, reason = "held for its end")] Option<(MutexGuard<'a, ()>, Place<'a>)>,
);

#[derive(Debug)]
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn large_bodies_take_turns_and_leave_workers_to_small_ones() {
        let turns = LargeBodyPermits::new(4);
        let large = vec![b' '; LARGE_BODY + 1];
        let first = turns.wait(&large).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| turns.wait(&large).is_some());
            while turns.there.load(Ordering::Relaxed) < 2 {
                thread::yield_now();
            }
            // Two are there: a third is not let wait, and small ones need not.
            assert!(turns.wait(&large).is_none());
            assert!(turns.wait(&large[1..]).is_some());
            assert!(!second.is_finished());
            drop(first);
            assert!(second.join().unwrap());
        });
        assert_eq!(turns.there.load(Ordering::Relaxed), 0);
    }
}
