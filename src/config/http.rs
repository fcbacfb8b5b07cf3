//! `[http]`: what everyone who connects is held to, whoever it is.

use std::time::Duration;

use serde::Deserialize;

use super::text::{duration, size};
use super::{ConfigError, refuse, within};
use crate::base::cidr::Cidr;

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Proxies whose `X-Forwarded-For` names the peer.
    pub trusted_proxies: Vec<Cidr>,
    /// Connections open at once.
    pub connections: u32,
    /// Of these, one peer's; behind a trusted proxy, its requests at once.
    pub connections_per_peer: u32,
    /// Requests on one connection.
    pub requests_per_connection: u32,
    /// Bytes of a request's head.
    #[serde(with = "size")]
    pub head_bytes: u64,
    /// Header fields of a request.
    pub headers: u32,
    /// How long a head may take.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// Between two requests on one connection.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// How far a body may fall behind 64 KiB/s.
    #[serde(with = "duration")]
    pub body_stall: Duration,
    /// How far the taking of an answer may fall behind 64 KiB/s.
    #[serde(with = "duration")]
    pub write_stall: Duration,
    /// Bytes of all bodies that are arriving or being handled.
    #[serde(with = "size")]
    pub body_memory: u64,
    /// Requests handled at once.
    pub workers: u32,
    /// Long answers written at once.
    pub downloads: u32,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            connections: 1024,
            connections_per_peer: 256,
            requests_per_connection: 1000,
            head_bytes: 16_384,
            headers: 64,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_stall: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            body_memory: 256_000_000,
            workers: 8,
            downloads: 8,
        }
    }
}

impl HttpConfig {
    /// Checks the values, with the longest body that is to be taken.
    pub(super) fn check(&self, body: u64) -> Result<(), ConfigError> {
        for (key, value, most) in [
            ("http.connections", self.connections, 100_000),
            (
                "http.connections_per_peer",
                self.connections_per_peer,
                100_000,
            ),
            (
                "http.requests_per_connection",
                self.requests_per_connection,
                u32::MAX,
            ),
            ("http.headers", self.headers, 1000),
            ("http.workers", self.workers, 256),
            ("http.downloads", self.downloads, 256),
        ] {
            within(key, value.into(), 1, most.into())?;
        }
        within("http.head_bytes", self.head_bytes, 1024, 1_000_000)?;
        for (key, value) in [
            ("http.header_timeout", self.header_timeout),
            ("http.idle_timeout", self.idle_timeout),
            ("http.body_stall", self.body_stall),
            ("http.write_stall", self.write_stall),
        ] {
            if value.is_zero() {
                return refuse(format!(
                    "{key} = 0: nothing could ever arrive; give some seconds"
                ));
            }
        }
        if self.body_memory < body {
            return refuse(format!(
                "http.body_memory must be limits.max_body ({body} bytes) or more, or the largest body never fits"
            ));
        }
        Ok(())
    }
}
