//! ureq, bent to our ends: nothing from the environment, nothing followed, nothing kept, and errors
//! that tell whether anything was sent.

use ureq::Agent;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    ConnectionDetails, Connector, NextTimeout, RustlsConnector, TcpConnector,
};

use super::Timeouts;

pub(super) type AgentConfig = ureq::config::ConfigBuilder<ureq::typestate::AgentScope>;

/// An agent of its own for each kind of call, for their time-outs differ.
pub(super) fn agent(
    https_only: bool,
    timeouts: &Timeouts,
    limits: impl Fn(AgentConfig) -> AgentConfig,
) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .https_only(https_only)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .user_agent(concat!("batchkeeper/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(timeouts.connect))
        .timeout_connect(Some(timeouts.connect));
    // No connector for proxies is in the chain, whatever the environment says.
    let connector = ().chain(TcpConnector::default()).chain(RustlsConnector::default());
    Agent::with_parts(
        limits(config).build(),
        Marking(connector),
        Marking(DefaultResolver::default()),
    )
}

/// The mark of an error that came before the first byte of the request.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct BeforeSending(pub(super) ureq::Error);

/// A resolver or connector whose errors are marked.
#[derive(Debug)]
struct Marking<T>(T);

fn marked(error: ureq::Error) -> ureq::Error {
    ureq::Error::Other(Box::new(BeforeSending(error)))
}

impl<T: Resolver> Resolver for Marking<T> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0.resolve(uri, config, timeout).map_err(marked)
    }
}

impl<T: Connector> Connector for Marking<T> {
    type Out = T::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        self.0.connect(details, chained).map_err(marked)
    }
}
