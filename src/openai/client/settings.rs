//! What a client is made of, and which of it is refused.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ureq::http::{HeaderValue, Uri};

use crate::openai::Identity;

/// A secret that does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(pub(super) String);

impl ApiKey {
    /// White space around it, such as a file's last newline, is no part of it.
    pub fn new(key: &str) -> Self {
        Self(key.trim().to_owned())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For an address, and again for a connection with its TLS handshake.
    pub connect: Duration,
    /// For a whole call that carries no file.
    pub small: Duration,
    /// For a whole `POST /batches`; the settling time must be longer.
    pub create: Duration,
    /// For a whole `POST /responses`.
    pub respond: Duration,
    /// Without a single byte moved in an upload or a download.
    pub stall: Duration,
    /// For sending a whole input file.
    pub upload: Duration,
    /// For the answer to an upload once it is sent.
    pub upload_answer: Duration,
    /// The window over which a download must keep [`Timeouts::least_rate`].
    pub rate_window: Duration,
    /// In bytes a second; 0 for none.
    pub least_rate: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            small: Duration::from_secs(60),
            create: Duration::from_secs(120),
            respond: Duration::from_secs(270),
            stall: Duration::from_secs(60),
            upload: Duration::from_secs(3600),
            upload_answer: Duration::from_secs(120),
            rate_window: Duration::from_secs(60),
            least_rate: 4096,
        }
    }
}

/// What a [`Client`](super::Client) is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The account, and where it is.
    pub identity: Identity,
    /// Sent as `Authorization: Bearer`.
    pub api_key: ApiKey,
    /// Lets the key travel in the clear to a host other than this machine.
    pub allow_plain_http: bool,
    /// See [`Timeouts`].
    pub timeouts: Timeouts,
    /// The longest file that is downloaded, in bytes.
    pub max_download: u64,
}

impl Settings {
    /// With the defaults of everything else: no plain HTTP, files up to 4 GiB.
    pub fn new(identity: Identity, api_key: ApiKey) -> Self {
        Self {
            identity,
            api_key,
            allow_plain_http: false,
            timeouts: Timeouts::default(),
            max_download: 4 << 30,
        }
    }
}

/// Why settings make no client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The base URL is no `http(s)://host[:port][/path]`.
    #[error("openai.base_url = {0:?} is no base URL, such as \"https://api.openai.com/v1\"")]
    BaseUrl(String),
    /// The base URL is plain HTTP to this host, which is not this machine.
    #[error(
        "openai.base_url: the key would travel to {0} in the clear; use https, or allow it with \
         openai.allow_plain_http = true"
    )]
    PlainHttp(String),
    /// The key is empty, or has characters that fit no header.
    #[error("the API key is empty or has odd characters")]
    ApiKey,
    /// The organization or the project has characters that fit no header.
    #[error("openai.{0} has odd characters")]
    Identity(&'static str),
}

/// Whether it is https.
pub(super) fn check_base_url(url: &str, allow_plain_http: bool) -> Result<bool, Unusable> {
    let bad = || Unusable::BaseUrl(url.to_owned());
    // A fragment the parser would drop without a word.
    if url.contains(['#', '?']) {
        return Err(bad());
    }
    let uri = url.parse::<Uri>().map_err(|_| bad())?;
    let authority = uri.authority().ok_or_else(bad)?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(bad());
    }
    match uri.scheme_str() {
        Some("https") => Ok(true),
        Some("http") if allow_plain_http || is_this_machine(authority.host()) => Ok(false),
        Some("http") => Err(Unusable::PlainHttp(authority.host().to_owned())),
        _ => Err(bad()),
    }
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// A header's value, none where it is empty.
pub(super) fn optional(value: &str, what: &'static str) -> Result<Option<HeaderValue>, Unusable> {
    if value.is_empty() {
        return Ok(None);
    }
    HeaderValue::from_str(value)
        .map(Some)
        .map_err(|_| Unusable::Identity(what))
}
