//! Wrong signatures of clients and wrong tokens of operators: counted, logged once a minute, and refused early
//! where one peer sends many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::http::peer_network;

/// Wrong credentials are counted by peer, and logged, over this time.
const WINDOW: Duration = Duration::from_mins(1);
/// A peer that sent this many in a window is refused until the window ends.
const MOST_OF_PEER: u32 = 10;
/// Peers that are counted at the same time.
const MOST_PEERS: usize = 10_000;

/// Counts wrong credentials of one kind. Times are on the steady clock.
pub struct WrongCredentials {
    kind: &'static str,
    total: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When they were last logged.
    logged: Option<Duration>,
    unlogged: u64,
    peers: HashMap<IpAddr, PeerWindow>,
}

/// The wrong credentials of one peer since the beginning of its window.
struct PeerWindow {
    since: Duration,
    count: u32,
}

impl WrongCredentials {
    /// A counter of `kind`, which is the name in metrics and log.
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            total: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Records one from `peer`.
    pub(crate) fn record(&self, peer: IpAddr, now: Duration) {
        self.total.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        state.unlogged += 1;
        if state.logged.is_none_or(|at| now.saturating_sub(at) >= WINDOW) {
            let number = std::mem::take(&mut state.unlogged);
            state.logged = Some(now);
            log::warn!(event = "wrong_credentials", kind = self.kind, number, peer:%; "");
        }
        let is_over = |window: &PeerWindow| now.saturating_sub(window.since) >= WINDOW;
        if state.peers.len() >= MOST_PEERS {
            state.peers.retain(|_, window| !is_over(window));
        }
        let has_place = state.peers.len() < MOST_PEERS;
        match state.peers.get_mut(&peer_network(peer)) {
            Some(window) if !is_over(window) => window.count += 1,
            Some(window) => *window = PeerWindow { since: now, count: 1 },
            None if has_place => {
                let window = PeerWindow { since: now, count: 1 };
                state.peers.insert(peer_network(peer), window);
            }
            None => {}
        }
    }

    /// How long a peer that sent too many must wait; `None` if it may try. A peer on this machine is never
    /// refused: it may be the proxy of all operators.
    pub(super) fn must_wait(&self, peer: IpAddr, now: Duration) -> Option<Duration> {
        if peer.to_canonical().is_loopback() {
            return None;
        }
        let state = self.lock();
        let window = state.peers.get(&peer_network(peer))?;
        let left = (window.since + WINDOW).saturating_sub(now);
        (window.count >= MOST_OF_PEER && !left.is_zero()).then_some(left)
    }

    /// The kind, and how many there were since the start.
    pub(super) fn figures(&self) -> (&'static str, u64) {
        (self.kind, self.total.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_guesses_waits_and_others_do_not() {
        let wrong = WrongCredentials::new("operator_token");
        let (peer, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let second = Duration::from_secs(1);
        for _ in 0..MOST_OF_PEER {
            assert_eq!(wrong.must_wait(peer, second), None);
            wrong.record(peer, second);
            wrong.record(IpAddr::from([127, 0, 0, 1]), second);
        }
        assert_eq!(wrong.must_wait(peer, second * 2), Some(WINDOW - second));
        assert_eq!(wrong.must_wait(other, second), None);
        assert_eq!(wrong.must_wait(IpAddr::from([127, 0, 0, 1]), second), None);
        assert_eq!(wrong.must_wait(peer, second + WINDOW), None);
        wrong.record(peer, second + WINDOW);
        assert_eq!(wrong.must_wait(peer, second + WINDOW), None);
        assert_eq!(wrong.figures(), ("operator_token", 21));
    }
}
