//! Addresses, `[http]`, `[network]` and `[limits]`: what clients and their URLs may do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::error::{check_range, refuse};
use super::units::{duration, size};
use super::{Config, ConfigError};
use crate::base::cidr::Cidr;

/// `[http]`: limits of every connection.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Proxies whose `X-Forwarded-For` names the peer.
    pub trusted_proxies: Vec<Cidr>,
    /// Open connections.
    pub connections: u32,
    /// Open connections of one peer. Behind a trusted proxy: the peer's requests at the same time.
    pub connections_per_peer: u32,
    /// Requests on one connection.
    pub requests_per_connection: u32,
    /// Bytes of a request's head.
    #[serde(with = "size")]
    pub head_bytes: u64,
    /// Header fields of a request.
    pub headers: u32,
    /// How long a request's head may take to arrive.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// How long a connection may stay without a request.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// How far a request's body may fall behind 64 KiB/s.
    #[serde(with = "duration")]
    pub body_stall: Duration,
    /// How far a client that reads a response may fall behind 64 KiB/s.
    #[serde(with = "duration")]
    pub write_stall: Duration,
    /// Bytes of all bodies that arrive or are handled at the same time.
    #[serde(with = "size")]
    pub body_memory: u64,
    /// Requests handled at the same time.
    pub workers: u32,
    /// Long responses written at the same time.
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
            body_memory: 200_000_000,
            workers: 8,
            downloads: 8,
        }
    }
}

impl HttpConfig {
    /// Checks the limits against each other and against the largest body, in bytes.
    pub(super) fn check(&self, max_body: u64) -> Result<(), ConfigError> {
        let per_peer = ("http.connections_per_peer", self.connections_per_peer, 100_000);
        let requests = (
            "http.requests_per_connection",
            self.requests_per_connection,
            u32::MAX,
        );
        for (key, value, most) in [
            ("http.connections", self.connections, 100_000),
            per_peer,
            requests,
            ("http.headers", self.headers, 1000),
            ("http.workers", self.workers, 256),
            ("http.downloads", self.downloads, 256),
        ] {
            check_range(key, value, 1, most.into())?;
        }
        check_range("http.head_bytes", self.head_bytes, 1024, 1_000_000)?;
        for (key, value) in [
            ("http.header_timeout", self.header_timeout),
            ("http.idle_timeout", self.idle_timeout),
            ("http.body_stall", self.body_stall),
            ("http.write_stall", self.write_stall),
        ] {
            if value.is_zero() {
                return refuse(format!("{key} = 0: no request could arrive; give some seconds"));
            }
        }
        match self.body_memory < max_body {
            true => refuse(format!(
                "http.body_memory must be limits.max_body ({max_body} bytes) or more, or the largest body \
                 never fits"
            )),
            false => Ok(()),
        }
    }
}

/// `[network]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Whether webhooks and images may go to private addresses.
    pub allow_private: PrivateNetworks,
    /// The certificate authorities that are trusted for webhooks, images, alerts and the heartbeat, beside the public
    /// ones. `None` if there are none.
    pub ca_file: Option<PathBuf>,
}

/// `network.allow_private`: false, true, or a list of networks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "allow_private is true, false, or a list of networks such as [\"10.0.0.0/8\"]"
)]
pub enum PrivateNetworks {
    /// All private networks, or none.
    All(bool),
    /// These networks, in CIDR notation.
    Networks(Vec<String>),
}

impl Default for PrivateNetworks {
    fn default() -> Self {
        Self::All(false)
    }
}

/// `[limits]`: what one client may send. 0 means no limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Submissions a minute.
    pub submit: u32,
    /// Synchronous submissions a minute.
    pub synchronous: u32,
    /// Reads a minute.
    pub read: u32,
    /// Lots a day.
    pub lots_per_day: u32,
    /// How long a submission without an `Idempotency-Key` that equals an earlier one gets the earlier one's
    /// answer. 0 turns this off.
    #[serde(with = "duration")]
    pub dedupe_window: Duration,
    /// Languages of a job.
    pub languages: u32,
    /// Bytes of a request's body.
    #[serde(with = "size")]
    pub max_body: u64,
    /// Bytes of free disk space that are kept for results of batches that are paid already. 0 keeps none.
    #[serde(with = "size")]
    pub disk_reserve: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            submit: 120,
            synchronous: 100,
            read: 6000,
            lots_per_day: 500_000,
            dedupe_window: Duration::from_hours(1),
            languages: 10,
            max_body: 100_000_000,
            disk_reserve: 1_000_000_000,
        }
    }
}

impl LimitsConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_range("limits.languages", self.languages, 1, 100)
    }
}

impl Config {
    /// Checks where the client API and the operator's pages listen.
    pub(super) fn check_addresses(&self) -> Result<(), ConfigError> {
        let ops: Option<SocketAddr> = self.ops_listen.parse().ok();
        if ops.is_some_and(|it| !it.ip().is_loopback()) && self.ops_token_file.is_none() {
            return refuse(
                "ops_listen is reachable from other machines: give ops_token_file a file with a token, \
                 or listen on 127.0.0.1",
            );
        }
        for (key, is_set) in [
            ("ops_actions", self.ops_actions),
            ("ops_read_token_file", self.ops_read_token_file.is_some()),
        ] {
            if is_set && self.ops_token_file.is_none() {
                return refuse(format!(
                    "{key} needs ops_token_file: without it, everyone may act"
                ));
            }
        }
        for (key, text) in [("listen", &self.listen), ("ops_listen", &self.ops_listen)] {
            if !text.is_empty() && text.parse::<SocketAddr>().is_err() {
                return refuse(format!(
                    "{key} = {text:?} is no address and port, such as \"127.0.0.1:8080\""
                ));
            }
        }
        let is_any_port = self.listen.ends_with(":0");
        if !self.listen.is_empty() && self.listen == self.ops_listen && !is_any_port {
            return refuse(format!(
                "listen and ops_listen are both {:?}: give each a port of its own",
                self.listen
            ));
        }
        Ok(())
    }
}
