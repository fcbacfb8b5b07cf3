//! The agent behind all of it: ureq, with the guard as its resolver and its defaults undone.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use ureq::config::Config;
use ureq::http::{HeaderMap, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

use super::guard::Guard;
use super::url::{UrlProblem, encoded};
use crate::base::clock::Clock;
use crate::base::escape::escape_controls;

/// An answer's head has this length at most.
const MOST_HEAD: usize = 16 * 1024;
/// So much of an answer's body is read to show what it says.
const BODY_START_BYTES: u64 = 2_000;
/// And so much is kept of that.
const BODY_START_CHARS: usize = 500;
/// How long its status is kept waiting for it.
const BODY_START_WAIT: Duration = Duration::from_secs(5);
/// Nobody is taken at his word to stay away for longer.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Sends requests to where clients say. Clones share nothing but the settings.
#[derive(Clone)]
pub struct Outbound {
    pub(super) guard: Guard,
    pub(super) agent: Agent,
    pub(super) clock: Arc<dyn Clock>,
}

/// A webhook's receiver has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostReply {
    /// The status code.
    pub status: u16,
    /// When it asks to be tried again; a day at most.
    pub retry_after: Option<Duration>,
    /// The first 500 characters of what it said, control characters escaped.
    pub body_start: String,
}

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The URL leads to an address that must not be talked to. Never tried again.
    #[error("the host has an address that is not on the public Internet")]
    Refused,
    /// The URL can't be used. Never tried again.
    #[error("{0}")]
    Url(UrlProblem),
    /// The time was up; the request may have been received.
    #[error("no complete answer in time")]
    Timeout,
    /// The host was not found or not reached, or the connection broke.
    #[error("connection failed: {0}")]
    Connection(String),
    /// It was no HTTP that one can trust: TLS or the protocol failed.
    #[error("request failed: {0}")]
    Other(String),
}

impl NetError {
    /// Whether another attempt can go better.
    pub fn retry(&self) -> bool {
        !matches!(self, Self::Refused | Self::Url(_))
    }
}

impl From<UrlProblem> for NetError {
    fn from(problem: UrlProblem) -> Self {
        match problem {
            UrlProblem::Refused => Self::Refused,
            problem => Self::Url(problem),
        }
    }
}

impl From<Error> for NetError {
    fn from(error: Error) -> Self {
        match error {
            Error::Other(other) if other.is::<RefusedAddress>() => Self::Refused,
            Error::Timeout(_) => Self::Timeout,
            Error::Io(error) => Self::from(error),
            Error::HostNotFound | Error::ConnectionFailed => Self::Connection(error.to_string()),
            error => Self::Other(error.to_string()),
        }
    }
}

impl From<io::Error> for NetError {
    fn from(error: io::Error) -> Self {
        // What ureq's readers give may have one of its own errors inside.
        if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            return match error.downcast::<Error>() {
                Ok(inner) => Self::from(inner),
                Err(error) => Self::Connection(error.to_string()),
            };
        }
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::InvalidData => Self::Other(error.to_string()),
            _ => Self::Connection(error.to_string()),
        }
    }
}

/// Takes webhooks to their receivers: what the courier needs of the net.
pub trait Post: Send + Sync {
    /// Posts `body`, all within `timeout`. Any status is an answer; redirects are not followed.
    ///
    /// # Errors
    /// When there is no answer; the receiver may have got the request all the same.
    fn post(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<PostReply, NetError>;
}

impl Outbound {
    /// Requests through `guard`; connecting may take `connect` (resolving as long again).
    pub fn new(guard: Guard, clock: Arc<dyn Clock>, connect: Duration) -> Self {
        Self {
            agent: agent(guard.clone(), connect),
            guard,
            clock,
        }
    }

    /// Asks for `url` and tells the status, all within `timeout`.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, url: &str, timeout: Duration) -> Result<u16, NetError> {
        self.guard.check_url(url)?;
        let request = self.agent.get(&*encoded(url)).config();
        let response = request.timeout_global(Some(timeout)).build().call()?;
        Ok(response.status().as_u16())
    }
}

impl Post for Outbound {
    fn post(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<PostReply, NetError> {
        self.guard.check_url(url)?;
        let mut request = self
            .agent
            .post(&*encoded(url))
            .config()
            .timeout_global(Some(timeout))
            .timeout_recv_body(Some(BODY_START_WAIT))
            .build();
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.send(body)?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let mut start = Vec::new();
        let read = response
            .into_body()
            .into_reader()
            .take(BODY_START_BYTES)
            .read_to_end(&mut start);
        if let Err(error) = read {
            // The status is what counts, and it has been said.
            log::debug!(event = "webhook_answer_cut", status, error:%; "");
        }
        Ok(PostReply {
            status,
            retry_after,
            body_start: shown(&start),
        })
    }
}

/// ureq without its defaults: no proxies, redirects, idle connections, errors made of statuses.
fn agent(guard: Guard, connect: Duration) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .max_idle_connections(0)
        .max_response_header_size(MOST_HEAD)
        .timeout_resolve(Some(connect))
        .timeout_connect(Some(connect))
        .user_agent(concat!("batchkeeper/", env!("CARGO_PKG_VERSION")))
        .build();
    let resolver = Guarded {
        guard,
        names: DefaultResolver::default(),
    };
    Agent::with_parts(config, DefaultConnector::default(), resolver)
}

/// `Retry-After` in seconds, or as a date, which the answer's own `Date` makes a duration.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok();
    let asked = text("retry-after")?.trim();
    let wait = match asked.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let (from, until) = (date(text("date")?)?, date(asked)?);
            let seconds = until.timestamp().as_second() - from.timestamp().as_second();
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        }
    };
    Some(wait.min(MOST_RETRY_AFTER))
}

/// The start of a foreign text, harmless for logs and pages.
fn shown(bytes: &[u8]) -> String {
    let text = escape_controls(&String::from_utf8_lossy(bytes));
    text.chars().take(BODY_START_CHARS).collect()
}

/// Resolves names and refuses those with an address that the guard does not allow: any one of
/// them, for which one is connected to is not decided here.
#[derive(Debug)]
struct Guarded {
    guard: Guard,
    names: DefaultResolver,
}

impl Resolver for Guarded {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        self.judge(self.names.resolve(uri, config, timeout)?)
    }
}

impl Guarded {
    fn judge(&self, found: ResolvedSocketAddrs) -> Result<ResolvedSocketAddrs, Error> {
        if found.iter().all(|address| self.guard.allows(address.ip())) {
            Ok(found)
        } else {
            Err(Error::Other(Box::new(RefusedAddress)))
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{}", NetError::Refused)]
struct RefusedAddress;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use ureq::http::HeaderValue;

    use super::*;
    use crate::base::clock::SystemClock;

    #[test]
    fn a_wait_is_read_in_both_forms() {
        for (value, expected) in [
            ("120", Some(120)),
            ("99999999", Some(24 * 3600)),
            ("Tue, 24 Nov 2026 02:25:30 GMT", Some(90)),
            ("Tue, 24 Nov 2026 02:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", HeaderValue::from_static(value));
            headers.insert(
                "date",
                HeaderValue::from_static("Tue, 24 Nov 2026 02:24:00 GMT"),
            );
            let expected = expected.map(Duration::from_secs);
            assert_eq!(retry_after(&headers), expected, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn foreign_text_is_made_harmless() {
        assert_eq!(shown(b"a\x1b[31m\r\n\xff"), "a\\u{1b}[31m\\r\\n\u{fffd}");
        assert_eq!(shown("\u{202e}é".as_bytes()), "\\u{202e}é");
        assert_eq!(shown(&[b'\n'; 2000]).len(), 500);
    }

    #[test]
    fn one_bad_address_among_many_is_enough() {
        let resolver = Guarded {
            guard: Guard::DenyPrivate,
            names: DefaultResolver::default(),
        };
        let judge = |addresses: &[&str]| {
            let mut found = resolver.empty();
            for address in addresses {
                found.push(address.parse().unwrap());
            }
            resolver.judge(found).map_err(NetError::from).map(drop)
        };
        assert_eq!(judge(&["8.8.8.8:80", "[2606:4700::1111]:80"]), Ok(()));
        for bad in ["127.0.0.1:80", "[::1]:80", "[::ffff:10.0.0.1]:80"] {
            assert_eq!(judge(&["8.8.8.8:80", bad]), Err(NetError::Refused));
        }
    }

    #[test]
    fn the_resolver_stops_what_the_url_did_not_tell() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let outbound = Outbound {
            guard: Guard::AllowAll,
            agent: agent(Guard::DenyPrivate, Duration::from_secs(9)),
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
            assert_eq!(result, Err(NetError::Refused), "{url}");
        }
        assert!(listener.accept().is_err());
    }

    #[test]
    fn it_can_be_shared() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<Outbound>();
        shared::<NetError>();
    }
}
