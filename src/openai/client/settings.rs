//! The settings of the client, and their checks.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ureq::http::{HeaderName, HeaderValue, Uri, header};

use crate::openai::Identity;
use crate::outbound::CaFile;

/// An API key. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(pub(super) String);

impl ApiKey {
    /// Creates a key. White space around it, such as a file's last line break, is removed.
    pub fn new(key: &str) -> Self {
        Self(key.trim().to_owned())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// The timeouts of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For resolving a name, and again for a connection with its TLS handshake.
    pub connect: Duration,
    /// For a whole call without a file.
    pub small: Duration,
    /// For a whole `POST /batches`. The settling time must be longer.
    pub create: Duration,
    /// For a whole `POST /responses`.
    pub respond: Duration,
    /// For a whole batch, or a whole page of a listing. It is long enough for one batch with an error on each of its lines at
    /// [`Timeouts::min_rate`].
    pub page: Duration,
    /// For a pause of an upload, a download or a page of a listing, in which no byte moves.
    pub stall: Duration,
    /// For sending a whole input file.
    pub upload: Duration,
    /// For the response to an upload, after it was sent.
    pub upload_answer: Duration,
    /// The window in which a download or a page of a listing must keep [`Timeouts::min_rate`].
    pub rate_window: Duration,
    /// The minimum rate of a download or a page of a listing in bytes a second; 0 for no minimum.
    pub min_rate: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            small: Duration::from_secs(60),
            create: Duration::from_secs(120),
            respond: Duration::from_secs(270),
            page: Duration::from_hours(1),
            stall: Duration::from_secs(60),
            upload: Duration::from_secs(3600),
            upload_answer: Duration::from_secs(120),
            rate_window: Duration::from_secs(60),
            min_rate: 4096,
        }
    }
}

/// The settings of an [`OpenAiClient`](super::OpenAiClient).
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The account and the base URL.
    pub identity: Identity,
    /// The key, sent as `Authorization: Bearer`.
    pub api_key: ApiKey,
    /// Whether the key may be sent without TLS to another machine.
    pub allow_plain_http: bool,
    /// The timeouts of calls.
    pub timeouts: Timeouts,
    /// Whether the `Date` of answers is OpenAI's time.
    pub trust_date: bool,
    /// The longest file that may be downloaded, in bytes.
    pub max_download: u64,
    /// Certificate authorities beside the public ones.
    pub ca_file: Option<CaFile>,
    /// Header fields of every call, beside the usual ones. `Authorization` takes the place of the usual one, and is
    /// not sent if it is empty.
    pub headers: Vec<(String, ApiKey)>,
}

impl ClientSettings {
    /// Settings with the defaults of all other fields: no plain HTTP to other machines, a `Date` that is trusted, files up to 4 GiB.
    pub fn new(identity: Identity, api_key: ApiKey) -> Self {
        Self {
            identity,
            api_key,
            allow_plain_http: false,
            timeouts: Timeouts::default(),
            trust_date: true,
            max_download: 4 << 30,
            ca_file: None,
            headers: Vec::new(),
        }
    }
}

/// Why a setting is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The base URL does not have the form `http(s)://host[:port][/path]`.
    #[error("openai.base_url = {0:?} is no base URL, such as \"https://api.openai.com/v1\"")]
    BaseUrl(String),
    /// The base URL has plain HTTP, and this host is not this machine.
    #[error(
        "openai.base_url: the key would travel to {0} in the clear; use https, or allow it with \
         openai.allow_plain_http = true"
    )]
    PlainHttp(String),
    /// The key is empty, or has characters that are not allowed in a header field.
    #[error("the API key is empty or has odd characters")]
    ApiKey,
    /// The organization or the project has characters that are not allowed in a header field.
    #[error("openai.{0} has a character that cannot be in a header field; use visible ASCII alone")]
    Identity(&'static str),
    /// The name or the value of an additional header field cannot be sent, or the program sets the field itself.
    #[error(
        "openai.headers: {0:?} cannot be sent: it is no name of a header field, its value has odd characters, or the \
         program sets it itself"
    )]
    Header(String),
}

/// The header fields that the client sets itself.
const OWN_FIELDS: [&str; 12] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "openai-organization",
    "openai-project",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The additional header fields, and whether `Authorization` is one of them.
pub(super) fn additional_headers(
    fields: &[(String, ApiKey)],
) -> Result<(Vec<(HeaderName, HeaderValue)>, bool), SettingsError> {
    let mut headers = Vec::new();
    let mut has_authorization = false;
    for (name, value) in fields {
        let refused = || SettingsError::Header(name.clone());
        let field = HeaderName::try_from(name.as_str()).map_err(|_| refused())?;
        if OWN_FIELDS.contains(&field.as_str()) {
            return Err(refused());
        }
        has_authorization |= field == header::AUTHORIZATION;
        let mut value = HeaderValue::from_str(&value.0)
            .ok()
            .filter(|value| value.to_str().is_ok())
            .ok_or_else(refused)?;
        value.set_sensitive(true);
        if !value.is_empty() {
            headers.push((field, value));
        }
    }
    Ok((headers, has_authorization))
}

/// Checks the base URL. Returns whether it is `https`.
pub(super) fn check_base_url(url: &str, allow_plain_http: bool) -> Result<bool, SettingsError> {
    let bad = || SettingsError::BaseUrl(url.to_owned());
    // The parser drops a fragment without an error.
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
        Some("http") => Err(SettingsError::PlainHttp(authority.host().to_owned())),
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

/// The value of a header field; `None` if it is empty.
pub(super) fn optional_header(value: &str, what: &'static str) -> Result<Option<HeaderValue>, SettingsError> {
    if value.is_empty() {
        return Ok(None);
    }
    // `HeaderValue` takes characters outside ASCII, and sends their bytes.
    HeaderValue::from_str(value)
        .ok()
        .filter(|value| value.to_str().is_ok())
        .map(Some)
        .ok_or(SettingsError::Identity(what))
}
