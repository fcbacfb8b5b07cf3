//! Permits to read large bodies, one at a time. A body is checked and hashed before its signature holds, so a
//! stranger without a key can make this work.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Api, overloaded};
use crate::http::{Request, peer_network};
use crate::ops::answers::RequestError;

/// Longer bodies, in bytes, are read one at a time.
const LARGE_BODY: usize = 1_000_000;
/// Seconds after which a client may send a large body again.
const RETRY_AFTER: &str = "5";

/// Lets one large body be read and a few wait.
#[derive(Debug)]
pub(super) struct LargeBodyPermits {
    reading: Mutex<()>,
    /// Requests with a large body by peer: the one that is read, and those that wait.
    present: Mutex<HashMap<IpAddr, usize>>,
    /// The most requests that may be present. The other HTTP workers serve small requests.
    most: usize,
    /// The most requests of one peer that may be present, so that another peer finds a place.
    most_of_peer: usize,
}

impl LargeBodyPermits {
    /// Permits for a listener with `workers` HTTP workers.
    pub(super) fn new(workers: u32) -> Self {
        let most = usize::try_from(workers / 2).unwrap_or(usize::MAX).max(1);
        Self {
            reading: Mutex::new(()),
            present: Mutex::default(),
            most,
            most_of_peer: (most / 2).max(1),
        }
    }

    /// Waits until a body of `peer` may be read; `None` if too many requests wait already.
    pub(super) fn acquire(&self, body: &[u8], peer: IpAddr) -> Option<LargeBodyPermit<'_>> {
        if body.len() <= LARGE_BODY {
            return Some(LargeBodyPermit(None));
        }
        let present = self.enter(peer_network(peer))?;
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        Some(LargeBodyPermit(Some((reading, present))))
    }

    fn enter(&self, peer: IpAddr) -> Option<PresentBody<'_>> {
        let mut present = self.lock();
        let of_peer = present.get(&peer).copied().unwrap_or(0);
        if of_peer >= self.most_of_peer || present.values().sum::<usize>() >= self.most {
            return None;
        }
        present.insert(peer, of_peer + 1);
        Some(PresentBody { permits: self, peer })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Permission to read a body, until it is dropped. Small bodies need no lock.
#[derive(Debug)]
pub(super) struct LargeBodyPermit<'a>(
    #[allow(dead_code, reason = "dropping it releases the lock")]
    Option<(MutexGuard<'a, ()>, PresentBody<'a>)>,
);

/// Counts a request as present until it is dropped.
#[derive(Debug)]
struct PresentBody<'a> {
    permits: &'a LargeBodyPermits,
    peer: IpAddr,
}

impl Drop for PresentBody<'_> {
    fn drop(&mut self) {
        let mut present = self.permits.lock();
        match present.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(present.remove(&self.peer)),
        }
    }
}

impl Api {
    /// A permit for a request's body, or 503 if too many large bodies wait.
    pub(super) fn large_body_permit(&self, request: &Request) -> Result<LargeBodyPermit<'_>, RequestError> {
        self.large_bodies
            .acquire(&request.body, request.peer)
            .ok_or_else(|| {
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
        let permits = LargeBodyPermits::new(8);
        let large = vec![b' '; LARGE_BODY + 1];
        let peer = |last| IpAddr::from([192, 0, 2, last]);
        let first = permits.acquire(&large, peer(1)).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| permits.acquire(&large, peer(1)).is_some());
            while permits.lock().get(&peer(1)) != Some(&2) {
                thread::yield_now();
            }
            // The peer has its share. Another peer still finds a place, and a small body does not wait.
            assert!(permits.acquire(&large, peer(1)).is_none());
            let third = permits.enter(peer(2)).unwrap();
            let fourth = permits.enter(peer(3)).unwrap();
            assert!(permits.enter(peer(4)).is_none());
            assert!(permits.acquire(&large[1..], peer(1)).is_some());
            assert!(!second.is_finished());
            drop((third, fourth, first));
            assert!(second.join().unwrap());
        });
        assert!(permits.lock().is_empty());
    }
}
