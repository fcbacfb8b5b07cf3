//! The server's limits.

use std::time::Duration;

use crate::base::cidr::Cidr;

/// The limits for clients. Each keeps one client from using the capacity of all.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Bytes of a request's head.
    pub max_head_bytes: usize,
    /// Header fields of a request.
    pub max_headers: usize,
    /// The time from a request's first byte to the end of its head.
    pub header_timeout: Duration,
    /// The time between two requests on one connection.
    pub idle_timeout: Duration,
    /// Bytes of a request's body.
    pub max_body_bytes: u64,
    /// Bytes of all bodies that are arriving or being handled at once.
    pub body_budget: u64,
    /// The time by which a body may fall behind 64 KiB/s while it arrives.
    pub body_stall: Duration,
    /// The time by which a client may fall behind 64 KiB/s while it reads a response.
    pub write_stall: Duration,
    /// Connections open at once. If the process may not open enough descriptors, the server allows fewer.
    pub connections: usize,
    /// Connections of one peer (an IPv4 address or an IPv6 /64) open at once. For a peer behind a trusted
    /// proxy, its requests at once.
    pub connections_per_peer: usize,
    /// The proxies whose `X-Forwarded-For` names the peer. Their own connections count for no peer.
    pub trusted_proxies: Vec<Cidr>,
    /// Requests served on one connection before the server closes it.
    pub requests_per_connection: u32,
    /// Requests handled at once.
    pub workers: usize,
    /// Long responses written at once. As many again may wait.
    pub downloads: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            max_head_bytes: 16 * 1024,
            max_headers: 64,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            max_body_bytes: 100_000_000,
            body_budget: 200_000_000,
            body_stall: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            connections: 1024,
            connections_per_peer: 256,
            trusted_proxies: Vec::new(),
            requests_per_connection: 1000,
            workers: 8,
            downloads: 8,
        }
    }
}
