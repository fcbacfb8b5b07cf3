//! The two listeners: the client API and the operator's pages.

use std::net::TcpListener;
use std::sync::Arc;

use super::DaemonError;
use crate::base::clock::Clock;
use crate::base::thread_group::ThreadGroup;
use crate::config::Config;
use crate::http::Handler;
use crate::http::{HttpLimits, Server};

/// Bytes of a form of the operators' pages.
const MAX_FORM_BYTES: u64 = 16_384;

/// Starts the listener of the client API. `None` if it is off. `waiting_requests` is the number of requests
/// that may wait for a synchronous job at the same time; they occupy no worker of other requests.
///
/// # Errors
/// When its address cannot be bound or served.
pub(super) fn start_client_listener(
    group: &ThreadGroup,
    clock: &Arc<dyn Clock>,
    config: &Config,
    waiting_requests: u32,
    api: Arc<dyn Handler>,
) -> Result<Option<Server>, DaemonError> {
    let usual = limits(config);
    let limits = HttpLimits {
        workers: usual.workers + number(waiting_requests),
        ..usual
    };
    start_listener(group, clock, "api", &config.listen, limits, api)
}

/// Starts the listener of the operator's pages. `None` if it is off.
///
/// # Errors
/// When its address cannot be bound or served.
pub(super) fn start_operator_listener(
    group: &ThreadGroup,
    clock: &Arc<dyn Clock>,
    config: &Config,
    pages: Arc<dyn Handler>,
) -> Result<Option<Server>, DaemonError> {
    let limits = HttpLimits {
        max_body_bytes: if config.ops_actions { MAX_FORM_BYTES } else { 0 },
        workers: 2,
        downloads: 1,
        connections: 128,
        trusted_proxies: Vec::new(),
        ..limits(config)
    };
    start_listener(group, clock, "ops", &config.ops_listen, limits, pages)
}

fn start_listener(
    group: &ThreadGroup,
    clock: &Arc<dyn Clock>,
    name: &'static str,
    address: &str,
    limits: HttpLimits,
    handler: Arc<dyn Handler>,
) -> Result<Option<Server>, DaemonError> {
    if address.is_empty() {
        return Ok(None);
    }
    let failed = |error| DaemonError::Listen {
        address: address.to_owned(),
        error,
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let server = Server::start(group, clock.clone(), name, listener, limits, handler).map_err(failed)?;
    log::info!(event = "listening", what = name, address:% = server.address(); "");
    Ok(Some(server))
}

/// The limits of every connection, from the configuration.
fn limits(config: &Config) -> HttpLimits {
    let http = &config.http;
    HttpLimits {
        max_head_bytes: usize::try_from(http.head_bytes).unwrap_or(usize::MAX),
        max_headers: number(http.headers),
        header_timeout: http.header_timeout,
        idle_timeout: http.idle_timeout,
        max_body_bytes: config.limits.max_body,
        body_budget: http.body_memory,
        body_stall: http.body_stall,
        write_stall: http.write_stall,
        connections: number(http.connections),
        connections_per_peer: number(http.connections_per_peer),
        trusted_proxies: http.trusted_proxies.clone(),
        requests_per_connection: http.requests_per_connection,
        workers: number(http.workers),
        downloads: number(http.downloads),
    }
}

fn number(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
