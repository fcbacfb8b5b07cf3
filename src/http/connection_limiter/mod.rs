//! The limit on connections, in total and for each peer.
//!
//! If no permit is left, a new connection takes the permit of another one: of the peer with the most
//! connections, the connection that has made no progress for the longest time. So connections that send
//! nothing, or send one byte at a time, displace each other, and a connection whose request is being served
//! keeps its permit.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a new connection waits if the threads of many evicted connections have not ended yet.
const EVICTION_WAIT: Duration = Duration::from_secs(1);

/// Gives a permit to each open connection.
#[derive(Debug)]
pub struct ConnectionLimiter {
    max_connections: usize,
    max_per_peer: usize,
    connections: Mutex<Connections>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct Connections {
    is_closing: bool,
    /// A counter that orders acquisitions and progress in time.
    ticks: u64,
    open: HashMap<u64, OpenConnection>,
    /// Evicted connections whose threads have not ended yet.
    evicted: usize,
    /// Connections and proxied requests of each peer.
    peers: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct OpenConnection {
    stream: Arc<TcpStream>,
    peer: Option<IpAddr>,
    phase: Phase,
    /// The id of the request that is being served.
    request: Option<String>,
    /// The tick of its last progress.
    last_progress: u64,
}

/// The state of a connection's current request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No request is in progress. Closing the connection loses nothing.
    Idle,
    /// A request is arriving, and has no effect yet.
    Arriving,
    /// A request is being handled, or its response is being written.
    Served,
}

impl ConnectionLimiter {
    /// Creates a limiter for `max_connections` connections, and `max_per_peer` of each peer.
    pub fn new(max_connections: usize, max_per_peer: usize) -> Self {
        Self {
            max_connections,
            max_per_peer,
            connections: Mutex::default(),
            released: Condvar::new(),
        }
    }

    /// Gives a permit to a new connection, which begins as [`Phase::Idle`]. `None` if all connections are
    /// being served, or the limiter is closing. A trusted proxy's connection has no `peer`: it counts for no
    /// peer, and is evicted last.
    pub fn acquire(
        self: &Arc<Self>,
        stream: &Arc<TcpStream>,
        peer: Option<IpAddr>,
    ) -> Option<ConnectionPermit> {
        let peer = peer.map(peer_network);
        let mut connections = self.lock();
        if connections.is_closing {
            return None;
        }
        let peer_is_full = peer.is_some_and(|peer| connections.count(peer) >= self.max_per_peer);
        if peer_is_full || connections.open.len() >= self.max_connections {
            if !connections.evict(peer.filter(|_| peer_is_full)) {
                return None;
            }
            // The thread of an evicted connection ends soon. This wait bounds the number of such threads.
            (connections, _) = self
                .released
                .wait_timeout_while(connections, EVICTION_WAIT, |connections| {
                    connections.evicted > self.max_connections / 4
                })
                .unwrap_or_else(PoisonError::into_inner);
        }
        let id = connections.tick();
        if let Some(peer) = peer {
            *connections.peers.entry(peer).or_default() += 1;
        }
        let connection = OpenConnection {
            stream: Arc::clone(stream),
            peer,
            phase: Phase::Idle,
            request: None,
            last_progress: id,
        };
        connections.open.insert(id, connection);
        drop(connections);
        Some(ConnectionPermit {
            limiter: Arc::clone(self),
            id,
        })
    }

    /// Evicts one connection that is not being served, because the process has no descriptor or thread left.
    pub fn evict_one(&self) {
        let mut connections = self.lock();
        if connections.evicted == 0 {
            // If every connection is being served, this evicts none. They end by themselves.
            connections.evict(None);
        }
    }

    /// Gives a permit to a request that a proxy forwards for `peer`. It counts as a connection of the peer
    /// does. `None` if the peer has reached its limit.
    pub fn acquire_proxied(self: &Arc<Self>, peer: IpAddr) -> Option<ProxiedRequestPermit> {
        let peer = peer_network(peer);
        let mut connections = self.lock();
        if connections.count(peer) >= self.max_per_peer {
            return None;
        }
        *connections.peers.entry(peer).or_default() += 1;
        drop(connections);
        Some(ProxiedRequestPermit {
            limiter: Arc::clone(self),
            peer,
        })
    }

    /// Closes every idle connection now, and every other one as soon as it becomes idle.
    pub fn close_idle(&self) {
        let mut connections = self.lock();
        connections.is_closing = true;
        let idle = |it: &&OpenConnection| it.phase == Phase::Idle;
        connections.open.values().filter(idle).for_each(shut_down);
    }

    /// Closes every connection in any phase.
    pub fn close_all(&self) {
        let mut connections = self.lock();
        connections.is_closing = true;
        connections.open.values().for_each(shut_down);
    }

    /// Closes the connection whose request has this id, if it is still open.
    pub fn close_request(&self, id: &str) {
        let connections = self.lock();
        let is_it = |it: &&OpenConnection| it.request.as_deref() == Some(id);
        connections.open.values().filter(is_it).for_each(shut_down);
    }

    /// Whether the server is stopping.
    pub fn is_closing(&self) -> bool {
        self.lock().is_closing
    }

    /// Waits at most `within` until all connections have ended. Returns false if some have not.
    pub fn wait_until_empty(&self, within: Duration) -> bool {
        let (connections, _) = self
            .released
            .wait_timeout_while(self.lock(), within, |connections| !connections.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        connections.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn is_empty(&self) -> bool {
        self.open.is_empty() && self.evicted == 0
    }

    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    fn count(&self, peer: IpAddr) -> usize {
        self.peers.get(&peer).copied().unwrap_or(0)
    }

    fn release_peer(&mut self, peer: Option<IpAddr>) {
        let Some(peer) = peer else {
            return;
        };
        if let Some(count) = self.peers.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&peer);
            }
        }
    }

    /// Evicts a connection of `peer`; if that is `None`, of the peer with the most connections. Returns false
    /// if all these connections are being served.
    fn evict(&mut self, peer: Option<IpAddr>) -> bool {
        let victim = self
            .open
            .iter()
            .filter(|(_, it)| it.phase != Phase::Served && (peer.is_none() || it.peer == peer))
            .max_by_key(|(_, it)| {
                let peer_count = it.peer.map(|peer| self.count(peer));
                (peer_count, Reverse(it.last_progress))
            })
            .map(|(id, _)| *id);
        let Some(connection) = victim.and_then(|id| self.open.remove(&id)) else {
            return false;
        };
        self.release_peer(connection.peer);
        self.evicted += 1;
        shut_down(&connection);
        true
    }
}

fn shut_down(connection: &OpenConnection) {
    // It fails only if the other side has closed the connection already.
    drop(connection.stream.shutdown(Shutdown::Both));
}

/// The addresses that count as one peer: an IPv4 address, or the /64 that a provider gives to one IPv6
/// customer.
pub fn peer_network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// The permit of one connection. Dropping it releases it.
#[derive(Debug)]
pub struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    id: u64,
}

impl ConnectionPermit {
    /// Sets the id of the request that is being served, for [`ConnectionLimiter::close_request`].
    pub fn set_request(&self, id: &str) {
        if let Some(connection) = self.limiter.lock().open.get_mut(&self.id) {
            connection.request = Some(id.to_owned());
        }
    }

    /// Sets the connection's phase. To enter [`Phase::Arriving`] again records that more has arrived. Returns
    /// false if the connection must end: it was evicted, or the server is stopping.
    pub fn enter(&self, phase: Phase) -> bool {
        let mut connections = self.limiter.lock();
        let is_closing = connections.is_closing;
        let now = connections.tick();
        let Some(connection) = connections.open.get_mut(&self.id) else {
            return false;
        };
        if is_closing && (phase == Phase::Idle || connection.phase == Phase::Idle) {
            return false;
        }
        // A first byte is no progress. Otherwise a client that sends a byte at a time would be evicted last.
        if (connection.phase, phase) != (Phase::Idle, Phase::Arriving) {
            connection.last_progress = now;
        }
        connection.phase = phase;
        true
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut connections = self.limiter.lock();
        match connections.open.remove(&self.id) {
            Some(connection) => connections.release_peer(connection.peer),
            None => connections.evicted -= 1,
        }
        drop(connections);
        self.limiter.released.notify_all();
    }
}

/// The permit of one request that a proxy forwards. Dropping it releases it.
#[derive(Debug)]
pub struct ProxiedRequestPermit {
    limiter: Arc<ConnectionLimiter>,
    peer: IpAddr,
}

impl Drop for ProxiedRequestPermit {
    fn drop(&mut self) {
        self.limiter.lock().release_peer(Some(self.peer));
    }
}

#[cfg(test)]
mod tests;
