//! What is counted: the connections in all and of each peer, and the memory that bodies may take.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The connections that are open, each on its own seat.
#[derive(Debug)]
pub struct Seats {
    all: usize,
    per_peer: usize,
    table: Mutex<Table>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    closing: bool,
    next: u64,
    taken: HashMap<u64, Taken>,
    peers: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Taken {
    stream: Arc<TcpStream>,
    /// No request is under way: nothing is lost when the connection ends now.
    idle: bool,
}

impl Seats {
    /// Seats for `all` connections, `per_peer` of them for any one peer.
    pub fn new(all: usize, per_peer: usize) -> Self {
        Self {
            all,
            per_peer,
            table: Mutex::default(),
            left: Condvar::new(),
        }
    }

    /// A seat for a new connection, idle as yet; none where they are all taken or being cleared.
    pub fn take(self: &Arc<Self>, stream: &Arc<TcpStream>, peer: IpAddr) -> Option<Seat> {
        let peer = neighbourhood(peer);
        let mut table = self.lock();
        let of_peer = table.peers.get(&peer).copied().unwrap_or(0);
        if table.closing || table.taken.len() >= self.all || of_peer >= self.per_peer {
            return None;
        }
        let id = table.next;
        table.next += 1;
        table.peers.insert(peer, of_peer + 1);
        let stream = Arc::clone(stream);
        table.taken.insert(id, Taken { stream, idle: true });
        drop(table);
        Some(Seat {
            seats: Arc::clone(self),
            id,
            peer,
        })
    }

    /// Ends every idle connection now, and every other one as soon as it becomes idle.
    pub fn close_idle(&self) {
        let mut table = self.lock();
        table.closing = true;
        table.taken.values().filter(|it| it.idle).for_each(hang_up);
    }

    /// Ends every connection, whatever it is doing.
    pub fn close_all(&self) {
        let mut table = self.lock();
        table.closing = true;
        table.taken.values().for_each(hang_up);
    }

    /// Whether the seats are being cleared.
    pub fn closing(&self) -> bool {
        self.lock().closing
    }

    /// Waits until all have left, `within` at most; false when some are still there.
    pub fn wait_until_empty(&self, within: Duration) -> bool {
        let (table, _) = self
            .left
            .wait_timeout_while(self.lock(), within, |table| !table.taken.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        table.taken.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
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
pub struct Seat {
    seats: Arc<Seats>,
    id: u64,
    peer: IpAddr,
}

impl Seat {
    /// Says whether a request is under way now. False: the connection is to end instead.
    pub fn set_idle(&self, idle: bool) -> bool {
        let mut table = self.seats.lock();
        if table.closing {
            return false;
        }
        if let Some(taken) = table.taken.get_mut(&self.id) {
            taken.idle = idle;
        }
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.seats.lock();
        table.taken.remove(&self.id);
        if let Some(count) = table.peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                table.peers.remove(&self.peer);
            }
        }
        drop(table);
        self.seats.left.notify_all();
    }
}

/// The memory that all bodies together may take.
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

    /// Sets `bytes` aside until the answer is dropped; none where there are not so many left.
    pub fn take(&self, bytes: u64) -> Option<Share<'_>> {
        let bytes = if bytes > FREE { bytes } else { 0 };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .ok()
            .map(|_| Share {
                budget: self,
                bytes,
            })
    }
}

/// A part of a [`Budget`]; dropping it gives it back.
#[derive(Debug)]
pub struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
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

    #[test]
    fn seats_are_counted_and_given_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let seats = Arc::new(Seats::new(3, 2));
        let peer = |text: &str| text.parse::<IpAddr>().unwrap();
        let a = seats.take(&stream, peer("2001:db8::1")).unwrap();
        let b = seats.take(&stream, peer("2001:db8::2")).unwrap();
        assert!(seats.take(&stream, peer("2001:db8::3")).is_none());
        let c = seats.take(&stream, peer("192.0.2.1")).unwrap();
        assert!(seats.take(&stream, peer("192.0.2.2")).is_none());
        drop(c);
        let c = seats.take(&stream, peer("::ffff:192.0.2.1")).unwrap();
        assert_eq!(c.peer, peer("192.0.2.1"));
        assert!(!seats.wait_until_empty(Duration::ZERO));
        drop((a, b));
        assert!(c.set_idle(false));
        seats.close_idle();
        assert!(!c.set_idle(true));
        assert!(seats.take(&stream, peer("192.0.2.1")).is_none());
        drop(c);
        assert!(seats.wait_until_empty(Duration::ZERO));
        assert!(seats.lock().peers.is_empty());
    }

    #[test]
    fn the_budget_holds_and_spares_small_bodies() {
        let budget = Budget::new(FREE + 5);
        let share = budget.take(FREE + 1).unwrap();
        assert!(budget.take(FREE + 1).is_none());
        assert!(budget.take(FREE).is_some());
        drop(share);
        assert!(budget.take(FREE + 5).is_some());
        assert!(budget.take(u64::MAX).is_none());
    }
}
