//! ureq agents without ureq's defaults: no proxies of the environment, no redirects, no kept connections.
//! Their errors show whether anything was sent.

use ureq::Agent;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    ConnectionDetails, Connector, NextTimeout, RustlsConnector, TcpConnector,
};

use super::settings::Timeouts;
use crate::outbound::{CaFile, tls_config};

/// Sets the timeouts of one kind of call.
pub(super) type Limits<'a> = &'a dyn Fn(AgentConfig) -> AgentConfig;
type AgentConfig = ureq::config::ConfigBuilder<ureq::typestate::AgentScope>;

/// Creates an agent that trusts the authorities of `ca_file`, too. `limits` sets the timeouts of one kind of call.
pub(super) fn agent(
    https_only: bool,
    timeouts: &Timeouts,
    ca_file: Option<&CaFile>,
    limits: Limits<'_>,
) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .tls_config(tls_config(ca_file))
        .https_only(https_only)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .user_agent(concat!("batchkeeper/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(timeouts.connect))
        .timeout_connect(Some(timeouts.connect));
    // The chain has no connector for proxies, so the environment cannot add one.
    let connector = ().chain(TcpConnector::default()).chain(RustlsConnector::default());
    Agent::with_parts(
        limits(config).build(),
        ErrorMarker(connector),
        ErrorMarker(DefaultResolver::default()),
    )
}

/// An error that occurred before the first byte of the request was sent.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct ErrorBeforeSending(pub(super) ureq::Error);

/// A resolver or connector whose errors are wrapped in [`ErrorBeforeSending`].
#[derive(Debug)]
struct ErrorMarker<T>(T);

fn mark(error: ureq::Error) -> ureq::Error {
    ureq::Error::Other(Box::new(ErrorBeforeSending(error)))
}

impl<T: Resolver> Resolver for ErrorMarker<T> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0.resolve(uri, config, timeout).map_err(mark)
    }
}

impl<T: Connector> Connector for ErrorMarker<T> {
    type Out = T::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        self.0.connect(details, chained).map_err(mark)
    }
}
