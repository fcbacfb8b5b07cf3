//! The HTTP client that connects only to addresses that the SSRF guard allows.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use ureq::http::HeaderMap;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Error};

use super::ca_file::{CaFile, certificate_problem, tls_config};
use super::ssrf_guard::{ForbiddenAddress, GuardedResolver, SsrfGuard};
use super::url::{UrlProblem, percent_encode};
use crate::base::clock::{Clock, Timestamp};
use crate::base::escape::escape_controls;
use crate::base::http_date;

/// The setting that adds certificate authorities.
const CA_SETTING: &str = "network.ca_file";
/// The longest head of a response.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Bytes of a response's body that are read for [`PostResponse::body_start`].
const BODY_START_BYTES: u64 = 2_000;
/// Characters of it that are kept.
const BODY_START_CHARS: usize = 500;
/// How long the client waits for the start of the body after it has received the status.
const BODY_START_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait that a `Retry-After` of a receiver may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Sends requests to URLs that others name, through the SSRF guard.
#[derive(Clone)]
pub struct GuardedClient {
    pub(super) guard: SsrfGuard,
    pub(super) agent: Agent,
    pub(super) clock: Arc<dyn Clock>,
}

/// A receiver's response to a POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostResponse {
    /// The status code.
    pub status: u16,
    /// The wait that `Retry-After` asks for, at most a day.
    pub retry_after: Option<Duration>,
    /// The first 500 characters of the body, with control characters escaped.
    pub body_start: String,
}

/// Why a request got no usable response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The SSRF guard forbids an address of the host. A retry cannot help.
    #[error("{ForbiddenAddress}")]
    ForbiddenAddress,
    /// The URL is not usable. A retry cannot help.
    #[error("{0}")]
    Url(UrlProblem),
    /// The timeout passed. The receiver may have got the request.
    #[error("no complete answer in time")]
    Timeout,
    /// The host was not found or not reached, or the connection was lost.
    #[error("connection failed: {0}")]
    Connection(String),
    /// The host's certificate is refused. This says why, and what to do.
    #[error("{0}")]
    Certificate(String),
    /// TLS failed, or the response violates HTTP.
    #[error("request failed: {0}")]
    Other(String),
}

impl OutboundError {
    /// Whether a retry may succeed.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::ForbiddenAddress | Self::Url(_))
    }
}

impl From<UrlProblem> for OutboundError {
    fn from(problem: UrlProblem) -> Self {
        match problem {
            UrlProblem::ForbiddenAddress => Self::ForbiddenAddress,
            problem => Self::Url(problem),
        }
    }
}

impl From<Error> for OutboundError {
    fn from(error: Error) -> Self {
        match error {
            Error::Other(other) if other.is::<ForbiddenAddress>() => Self::ForbiddenAddress,
            Error::Timeout(_) => Self::Timeout,
            Error::Io(error) => Self::from(error),
            Error::HostNotFound | Error::ConnectionFailed => Self::Connection(error.to_string()),
            error => Self::Other(error.to_string()),
        }
    }
}

impl From<io::Error> for OutboundError {
    fn from(error: io::Error) -> Self {
        // An error of ureq's readers may wrap a `ureq::Error`.
        if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            return match error.downcast::<Error>() {
                Ok(inner) => Self::from(inner),
                Err(error) => Self::Connection(error.to_string()),
            };
        }
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::InvalidData => {
                let text = error.to_string();
                match certificate_problem(&text, CA_SETTING) {
                    Some(problem) => Self::Certificate(problem),
                    None => Self::Other(text),
                }
            }
            _ => Self::Connection(error.to_string()),
        }
    }
}

/// Sends an HTTP POST. The workers that send webhooks and alerts use the network through this trait alone.
pub trait HttpPost: Send + Sync {
    /// Posts `body` and reads the response, all within `timeout`. A response of any status is a success.
    /// Redirects are not followed.
    ///
    /// # Errors
    /// If there is no response. The receiver may have got the request all the same.
    fn post(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<PostResponse, OutboundError>;
}

impl GuardedClient {
    /// Creates a client that `guard` restricts. `connect_timeout` limits connecting, and resolving as well. `ca_file`
    /// adds certificate authorities.
    pub fn new(
        guard: SsrfGuard,
        clock: Arc<dyn Clock>,
        connect_timeout: Duration,
        ca_file: Option<&CaFile>,
    ) -> Self {
        Self {
            agent: agent(guard.clone(), connect_timeout, ca_file),
            guard,
            clock,
        }
    }

    /// The guard that restricts it.
    pub fn guard(&self) -> &SsrfGuard {
        &self.guard
    }

    /// Sends a GET and returns the status of the response, all within `timeout`.
    ///
    /// # Errors
    /// If there is no response.
    pub fn get(&self, url: &str, timeout: Duration) -> Result<u16, OutboundError> {
        self.guard.check_url(url)?;
        let request = self.agent.get(&*percent_encode(url)).config();
        let response = request.timeout_global(Some(timeout)).build().call()?;
        Ok(response.status().as_u16())
    }
}

impl HttpPost for GuardedClient {
    fn post(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<PostResponse, OutboundError> {
        self.guard.check_url(url)?;
        let mut request = self
            .agent
            .post(&*percent_encode(url))
            .config()
            .timeout_global(Some(timeout))
            .timeout_recv_body(Some(BODY_START_TIMEOUT))
            .build();
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.send(body)?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers(), self.clock.now().wall);
        let mut start = Vec::new();
        let read = response
            .into_body()
            .into_reader()
            .take(BODY_START_BYTES)
            .read_to_end(&mut start);
        if let Err(error) = read {
            // The status alone decides whether the delivery succeeded.
            log::debug!(event = "webhook_answer_cut", status, error:%; "");
        }
        Ok(PostResponse {
            status,
            retry_after,
            body_start: body_start(&start),
        })
    }
}

/// A ureq agent without ureq's defaults: no proxies, no redirects, no idle connections, no errors for
/// statuses.
fn agent(guard: SsrfGuard, connect_timeout: Duration, ca_file: Option<&CaFile>) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .tls_config(tls_config(ca_file))
        .max_redirects(0)
        .http_status_as_error(false)
        .max_idle_connections(0)
        .max_response_header_size(MAX_HEAD_BYTES)
        .timeout_resolve(Some(connect_timeout))
        .timeout_connect(Some(connect_timeout))
        .user_agent(concat!("batchkeeper/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), GuardedResolver::new(guard))
}

/// The wait that `Retry-After` asks for.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    http_date::retry_after(text("retry-after")?, text("date"), now, MAX_RETRY_AFTER)
}

/// The start of a response's body, escaped for logs and pages.
fn body_start(bytes: &[u8]) -> String {
    let text = escape_controls(&String::from_utf8_lossy(bytes));
    text.chars().take(BODY_START_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::base::clock::SystemClock;

    #[test]
    fn the_start_of_a_body_is_escaped_and_cut() {
        assert_eq!(body_start(b"a\x1b[31m\r\n\xff"), "a\\u{1b}[31m\\r\\n\u{fffd}");
        assert_eq!(body_start("\u{202e}é".as_bytes()), "\\u{202e}é");
        assert_eq!(body_start(&[b'\n'; 2000]).len(), 500);
    }

    #[test]
    fn the_resolver_stops_what_the_url_did_not_tell() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let outbound = GuardedClient {
            guard: SsrfGuard::AllowAll,
            agent: agent(SsrfGuard::DenyPrivate, Duration::from_secs(9), None),
            clock: Arc::new(SystemClock::new()),
        };
        for host in [
            "localhost",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "[::1]",
            "[::ffff:7f00:1]",
        ] {
            let url = format!("http://{host}:{port}/");
            let result = outbound.post(&url, &[], Vec::new(), Duration::from_secs(9));
            assert_eq!(result, Err(OutboundError::ForbiddenAddress), "{url}");
        }
        assert!(listener.accept().is_err());
    }

    #[test]
    fn it_can_be_shared() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<GuardedClient>();
        shared::<OutboundError>();
    }
}
