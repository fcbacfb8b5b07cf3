use std::net::TcpListener;

use super::*;

fn peer(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn stream_pair() -> (TcpListener, Arc<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, Arc::new(stream))
}

#[test]
fn permits_are_counted_and_released() {
    let (_listener, stream) = stream_pair();
    let limiter = Arc::new(ConnectionLimiter::new(3, 2));
    let a = limiter.acquire(&stream, peer("2001:db8::1")).unwrap();
    let b = limiter.acquire(&stream, peer("2001:db8::2")).unwrap();
    for permit in [&a, &b] {
        assert!(permit.enter(Phase::Served));
    }
    assert!(limiter.acquire(&stream, peer("2001:db8::3")).is_none());
    assert!(limiter.acquire_proxied(peer("2001:db8::3").unwrap()).is_none());
    let c = limiter.acquire(&stream, peer("192.0.2.1")).unwrap();
    assert!(c.enter(Phase::Served));
    assert!(limiter.acquire(&stream, peer("192.0.2.2")).is_none());
    drop(c);
    let c = limiter.acquire(&stream, peer("::ffff:192.0.2.1")).unwrap();
    let proxied = limiter.acquire_proxied(peer("192.0.2.1").unwrap()).unwrap();
    assert!(limiter.acquire_proxied(peer("192.0.2.1").unwrap()).is_none());
    drop(proxied);
    assert!(!limiter.wait_until_empty(Duration::ZERO));
    drop((a, b));
    assert!(c.enter(Phase::Arriving));
    limiter.close_idle();
    assert!(c.enter(Phase::Served), "it may end");
    assert!(!c.enter(Phase::Idle));
    assert!(limiter.acquire(&stream, peer("192.0.2.1")).is_none());
    drop(c);
    assert!(limiter.wait_until_empty(Duration::ZERO));
    assert!(limiter.lock().peers.is_empty());
}

#[test]
fn a_connection_without_progress_is_evicted_for_a_new_one() {
    let (_listener, stream) = stream_pair();
    let limiter = Arc::new(ConnectionLimiter::new(5, 4));
    let acquire = |text: &str| limiter.acquire(&stream, peer(text));
    let proxy = limiter.acquire(&stream, None).unwrap();
    let other = acquire("192.0.2.1").unwrap();
    let [a, b, c] = [(); 3].map(|()| acquire("192.0.2.2").unwrap());
    // The first byte is no progress, a whole head or a piece of a body is.
    assert!(a.enter(Phase::Arriving));
    assert!(b.enter(Phase::Arriving) && b.enter(Phase::Arriving));
    let d = acquire("192.0.2.3").unwrap();
    assert!(
        !a.enter(Phase::Arriving),
        "the oldest connection of the peer with the most"
    );
    assert!(c.enter(Phase::Served) && d.enter(Phase::Served));
    let e = acquire("192.0.2.3").unwrap();
    assert!(!b.enter(Phase::Served), "an evicted connection is not served");
    drop((a, b));
    assert!(e.enter(Phase::Served) && other.enter(Phase::Served));
    let f = acquire("192.0.2.3").unwrap();
    assert!(!proxy.enter(Phase::Arriving), "a proxy is evicted last");
    drop(proxy);
    assert!(f.enter(Phase::Served));
    assert!(acquire("192.0.2.5").is_none(), "all are being served");
    drop((c, d, e, f, other));
    assert!(limiter.wait_until_empty(Duration::ZERO));
    assert!(limiter.lock().peers.is_empty());
}

#[test]
fn a_peer_at_its_limit_displaces_its_own_connections() {
    let (_listener, stream) = stream_pair();
    let limiter = Arc::new(ConnectionLimiter::new(9, 2));
    let acquire = |text: &str| limiter.acquire(&stream, peer(text)).unwrap();
    let other = acquire("192.0.2.1");
    let first = acquire("192.0.2.2");
    let second = acquire("192.0.2.2");
    let third = acquire("192.0.2.2");
    assert!(!first.enter(Phase::Arriving));
    assert!([other, second, third].iter().all(|it| it.enter(Phase::Arriving)));
}
