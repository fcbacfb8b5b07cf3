//! What is counted: the connections in all and of each peer, and the memory that bodies may take.
//!
//! ConnectionLimiter are for who has something to say. When none is left, a newcomer takes that of whoever has
//! brought nothing for the longest time, of the peer who holds the most of them: connections that are
//! opened and left, or dripped, push each other out and nobody else. Who is being served stays.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a newcomer waits, where many have been sent away, for one of them to be gone.
const LEAVE: Duration = Duration::from_secs(1);

/// The connections that are open, each on its own permit.
#[derive(Debug)]
pub struct ConnectionLimiter {
    all: usize,
    per_peer: usize,
    table: Mutex<Table>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    closing: bool,
    /// Counts limiter and progress: an order in time.
    ticks: u64,
    taken: HashMap<u64, Taken>,
    /// ConnectionLimiter that were taken away, whose threads have not ended yet.
    leaving: usize,
    peers: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Taken {
    stream: Arc<TcpStream>,
    peer: Option<IpAddr>,
    phase: Phase,
    /// When it last got further.
    since: u64,
}

/// How far a connection is with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No request is under way: nothing is lost when the connection ends now.
    Idle,
    /// A request is arriving, and has had no effect yet.
    Arriving,
    /// A request is being answered.
    Served,
}

impl ConnectionLimiter {
    /// ConnectionLimiter for `all` connections, `per_peer` of them for any one peer.
    pub fn new(all: usize, per_peer: usize) -> Self {
        Self {
            all,
            per_peer,
            table: Mutex::default(),
            left: Condvar::new(),
        }
    }

    /// A permit for a new connection, idle as yet; none where all are being served or cleared. A
    /// connection without a peer is a proxy's: it counts for no peer and gives way last.
    pub fn take(
        self: &Arc<Self>,
        stream: &Arc<TcpStream>,
        peer: Option<IpAddr>,
    ) -> Option<ConnectionPermit> {
        let peer = peer.map(neighbourhood);
        let mut table = self.lock();
        if table.closing {
            return None;
        }
        let crowded = peer.is_some_and(|peer| table.count(peer) >= self.per_peer);
        if crowded || table.taken.len() >= self.all {
            if !table.evict(peer.filter(|_| crowded)) {
                return None;
            }
            // Threads end as soon as they are let run; there must not be ever more of them.
            (table, _) = self
                .left
                .wait_timeout_while(table, LEAVE, |table| table.leaving > self.all / 4)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let id = table.tick();
        if let Some(peer) = peer {
            *table.peers.entry(peer).or_default() += 1;
        }
        let taken = Taken {
            stream: Arc::clone(stream),
            peer,
            phase: Phase::Idle,
            since: id,
        };
        table.taken.insert(id, taken);
        drop(table);
        Some(ConnectionPermit {
            limiter: Arc::clone(self),
            id,
        })
    }

    /// Takes one permit away from whoever brings nothing: the machine has no descriptor left.
    pub fn make_room(&self) {
        let mut table = self.lock();
        if table.leaving == 0 {
            // Where all are served, each of them will end.
            table.evict(None);
        }
    }

    /// Counts a request of a peer behind a proxy as its connection would be; none where it has as
    /// many as it may have.
    pub fn count(self: &Arc<Self>, peer: IpAddr) -> Option<Counted> {
        let peer = neighbourhood(peer);
        let mut table = self.lock();
        if table.count(peer) >= self.per_peer {
            return None;
        }
        *table.peers.entry(peer).or_default() += 1;
        drop(table);
        Some(Counted {
            limiter: Arc::clone(self),
            peer,
        })
    }

    /// Ends every idle connection now, and every other one as soon as it becomes idle.
    pub fn close_idle(&self) {
        let mut table = self.lock();
        table.closing = true;
        let idle = |it: &&Taken| it.phase == Phase::Idle;
        table.taken.values().filter(idle).for_each(hang_up);
    }

    /// Ends every connection, whatever it is doing.
    pub fn close_all(&self) {
        let mut table = self.lock();
        table.closing = true;
        table.taken.values().for_each(hang_up);
    }

    /// Whether the limiter are being cleared.
    pub fn closing(&self) -> bool {
        self.lock().closing
    }

    /// Waits until all have left, `within` at most; false when some are still there.
    pub fn wait_until_empty(&self, within: Duration) -> bool {
        let (table, _) = self
            .left
            .wait_timeout_while(self.lock(), within, |table| !table.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        table.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.leaving == 0
    }

    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    fn count(&self, peer: IpAddr) -> usize {
        self.peers.get(&peer).copied().unwrap_or(0)
    }

    fn leave(&mut self, peer: Option<IpAddr>) {
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

    /// Takes a permit away, `of` this peer or of the one with the most; false when all are served.
    fn evict(&mut self, of: Option<IpAddr>) -> bool {
        let victim = self
            .taken
            .iter()
            .filter(|(_, it)| it.phase != Phase::Served && (of.is_none() || it.peer == of))
            .max_by_key(|(_, it)| (it.peer.map(|peer| self.count(peer)), Reverse(it.since)))
            .map(|(id, _)| *id);
        let Some(taken) = victim.and_then(|id| self.taken.remove(&id)) else {
            return false;
        };
        self.leave(taken.peer);
        self.leaving += 1;
        hang_up(&taken);
        true
    }
}

fn hang_up(taken: &Taken) {
    // It fails only where the other side has hung up before.
    drop(taken.stream.shutdown(Shutdown::Both));
}

/// Whom a limit per peer counts as one: an IPv4 address, or the /64 that one IPv6 customer has.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
        v4 => v4,
    }
}

/// One connection's place; dropping it gives it back.
#[derive(Debug)]
pub struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    id: u64,
}

impl ConnectionPermit {
    /// Says how far it is now; to arrive once more says that more has arrived. False: the permit was
    /// taken away or is being cleared, and the connection is to end instead.
    pub fn enter(&self, phase: Phase) -> bool {
        let mut table = self.limiter.lock();
        let closing = table.closing;
        let now = table.tick();
        let Some(taken) = table.taken.get_mut(&self.id) else {
            return false;
        };
        if closing && (phase == Phase::Idle || taken.phase == Phase::Idle) {
            return false;
        }
        // A first byte alone is nothing: whoever drips would be the last to go.
        if (taken.phase, phase) != (Phase::Idle, Phase::Arriving) {
            taken.since = now;
        }
        taken.phase = phase;
        true
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut table = self.limiter.lock();
        match table.taken.remove(&self.id) {
            Some(taken) => table.leave(taken.peer),
            None => table.leaving -= 1,
        }
        drop(table);
        self.limiter.left.notify_all();
    }
}

/// One request of a peer behind a proxy; dropping it ends it.
#[derive(Debug)]
pub struct Counted {
    limiter: Arc<ConnectionLimiter>,
    peer: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.limiter.lock().leave(Some(self.peer));
    }
}

/// The memory that all bodies together may take. What has arrived is counted, not what was
/// announced: who announces much and sends little holds nothing.
#[derive(Debug)]
pub struct Budget(AtomicU64);

/// Bodies up to this size are let in without asking: they cost no more than a connection does, and
/// nobody who hoards the budget can keep a small request out.
const FREE: u64 = 64 * 1024;

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    /// Begins a body of so many bytes; none where there is no room for it now.
    pub fn open(&self, length: u64) -> Option<Share<'_>> {
        (length <= FREE || length <= self.0.load(Ordering::Relaxed)).then_some(Share {
            budget: self,
            free: length <= FREE,
            bytes: 0,
        })
    }
}

/// A body's part of a [`Budget`]; dropping it gives it back.
#[derive(Debug)]
pub struct Share<'a> {
    budget: &'a Budget,
    free: bool,
    bytes: u64,
}

impl Share<'_> {
    /// Sets so many more bytes aside; false where others have taken them meanwhile.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let counted = if self.free { 0 } else { bytes };
        let grown = self
            .budget
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(counted)
            })
            .is_ok();
        if grown {
            self.bytes += counted;
        }
        grown
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn peer(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn a_stream() -> (TcpListener, Arc<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener, Arc::new(stream))
    }

    #[test]
    fn seats_are_counted_and_given_back() {
        let (_listener, stream) = a_stream();
        let limiter = Arc::new(ConnectionLimiter::new(3, 2));
        let a = limiter.take(&stream, peer("2001:db8::1")).unwrap();
        let b = limiter.take(&stream, peer("2001:db8::2")).unwrap();
        for permit in [&a, &b] {
            assert!(permit.enter(Phase::Served));
        }
        assert!(limiter.take(&stream, peer("2001:db8::3")).is_none());
        assert!(limiter.count(peer("2001:db8::3").unwrap()).is_none());
        let c = limiter.take(&stream, peer("192.0.2.1")).unwrap();
        assert!(c.enter(Phase::Served));
        assert!(limiter.take(&stream, peer("192.0.2.2")).is_none());
        drop(c);
        let c = limiter.take(&stream, peer("::ffff:192.0.2.1")).unwrap();
        let counted = limiter.count(peer("192.0.2.1").unwrap()).unwrap();
        assert!(limiter.count(peer("192.0.2.1").unwrap()).is_none());
        drop(counted);
        assert!(!limiter.wait_until_empty(Duration::ZERO));
        drop((a, b));
        assert!(c.enter(Phase::Arriving));
        limiter.close_idle();
        assert!(c.enter(Phase::Served), "it may end");
        assert!(!c.enter(Phase::Idle));
        assert!(limiter.take(&stream, peer("192.0.2.1")).is_none());
        drop(c);
        assert!(limiter.wait_until_empty(Duration::ZERO));
        assert!(limiter.lock().peers.is_empty());
    }

    #[test]
    fn who_brings_nothing_gives_way_to_who_comes() {
        let (_listener, stream) = a_stream();
        let limiter = Arc::new(ConnectionLimiter::new(5, 4));
        let take = |text: &str| limiter.take(&stream, peer(text));
        let proxy = limiter.take(&stream, None).unwrap();
        let other = take("192.0.2.1").unwrap();
        let [a, b, c] = [(); 3].map(|()| take("192.0.2.2").unwrap());
        // The first byte is no progress, a whole head or a piece of a body is.
        assert!(a.enter(Phase::Arriving));
        assert!(b.enter(Phase::Arriving) && b.enter(Phase::Arriving));
        let d = take("192.0.2.3").unwrap();
        assert!(!a.enter(Phase::Arriving), "the oldest of the one with most");
        assert!(c.enter(Phase::Served) && d.enter(Phase::Served));
        let e = take("192.0.2.3").unwrap();
        assert!(!b.enter(Phase::Served), "what has not begun does not begin");
        drop((a, b));
        assert!(e.enter(Phase::Served) && other.enter(Phase::Served));
        let f = take("192.0.2.3").unwrap();
        assert!(!proxy.enter(Phase::Arriving), "a proxy gives way at last");
        drop(proxy);
        assert!(f.enter(Phase::Served));
        assert!(take("192.0.2.5").is_none(), "all are being served");
        drop((c, d, e, f, other));
        assert!(limiter.wait_until_empty(Duration::ZERO));
        assert!(limiter.lock().peers.is_empty());
    }

    #[test]
    fn a_crowded_peer_pushes_out_its_own() {
        let (_listener, stream) = a_stream();
        let limiter = Arc::new(ConnectionLimiter::new(9, 2));
        let take = |text: &str| limiter.take(&stream, peer(text)).unwrap();
        let other = take("192.0.2.1");
        let first = take("192.0.2.2");
        let second = take("192.0.2.2");
        let third = take("192.0.2.2");
        assert!(!first.enter(Phase::Arriving));
        assert!(
            [other, second, third]
                .iter()
                .all(|it| it.enter(Phase::Arriving))
        );
    }

    #[test]
    fn the_budget_counts_what_has_arrived_and_spares_small_bodies() {
        let budget = Budget::new(FREE + 5);
        let mut share = budget.open(FREE + 1).unwrap();
        let mut idle = budget.open(FREE + 1).unwrap();
        assert!(share.grow(FREE));
        assert!(!idle.grow(6) && idle.grow(5));
        assert!(budget.open(FREE + 1).is_none());
        assert!(budget.open(FREE).is_some_and(|mut it| it.grow(FREE)));
        drop((share, idle));
        assert!(
            budget
                .open(FREE + 5)
                .is_some_and(|mut it| it.grow(FREE + 5))
        );
        assert!(budget.open(u64::MAX).is_none());
    }
}
