//! Checks whether an image can be fetched, before a request about it is paid for.

use std::io::Read;
use std::time::Duration;

use ureq::Body;
use ureq::http::{Response, StatusCode, header};

use super::client::{GuardedClient, OutboundError, retry_after};
use super::url;
use crate::base::clock::Timestamp;
use crate::domain::decide::postponed_image::PassingProblem;
use crate::domain::image_format::{self, ImageFormat};
use crate::domain::image_reader::ImageReader;

/// Bytes of an image from which its format is read. A `GET` of them asks for no more.
const START_BYTES: u64 = 1024;

/// Limits of one check of an image.
#[derive(Clone, Debug)]
pub struct ImageLimits {
    /// For the `HEAD` with its redirects.
    pub head_timeout: Duration,
    /// For each `GET` that follows a `HEAD` without a conclusive response.
    pub get_timeout: Duration,
    /// For the `GET` of a whole image.
    pub whole_timeout: Duration,
    /// The largest image, in bytes.
    pub max_bytes: u64,
    /// The number of redirects that are followed.
    pub max_redirects: usize,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(3),
            get_timeout: Duration::from_secs(5),
            whole_timeout: Duration::from_secs(30),
            max_bytes: 10_000_000,
            max_redirects: 3,
        }
    }
}

/// Why an image cannot be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageProblem {
    /// The request got no response, or was forbidden.
    #[error("{0}")]
    Request(OutboundError),
    /// The response has a status other than 2xx.
    #[error("the host answers with status {0}")]
    Status(u16),
    /// The host asks for patience: 429, or 503 with `Retry-After`. The time is the one that it names.
    #[error("the host answers with status {0}")]
    HostAsksToWait(u16, Option<Duration>),
    /// The host's name cannot be looked up, and OpenAI's neither.
    #[error("no name of a host can be looked up at the moment")]
    NoNames,
    /// The response is no picture that OpenAI takes. This holds what it is.
    #[error("OpenAI takes JPEG, PNG, GIF and WebP, and this is {0}")]
    NotAnImage(String),
    /// The image is larger than [`ImageLimits::max_bytes`]. This holds its size.
    #[error("the image is too large ({0} bytes)")]
    TooLarge(u64),
    /// The response has no content.
    #[error("the image is empty")]
    Empty,
    /// The end of the image is missing, or its parts make no sense.
    #[error("the image is damaged: its end is missing")]
    Damaged,
    /// The host redirects more often than [`ImageLimits::max_redirects`].
    #[error("too many redirects")]
    TooManyRedirects,
}

impl ImageProblem {
    /// The reason why the probe failed, if it says nothing about the image.
    pub fn passing(&self) -> Option<PassingProblem> {
        match self {
            Self::HostAsksToWait(_, asked) => Some(PassingProblem::HostAsksToWait(*asked)),
            Self::NoNames => Some(PassingProblem::NoNames),
            _ => None,
        }
    }

    /// Whether a retry at once may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Request(error) => error.is_retryable(),
            Self::HostAsksToWait(..) | Self::NoNames => false,
            Self::Status(_)
            | Self::Empty
            | Self::NotAnImage(_)
            | Self::TooLarge(_)
            | Self::Damaged
            | Self::TooManyRedirects => true,
        }
    }
}

impl<E: Into<OutboundError>> From<E> for ImageProblem {
    fn from(error: E) -> Self {
        Self::Request(error.into())
    }
}

impl GuardedClient {
    /// Checks that `url` leads to an image that OpenAI takes. A `HEAD` can only accept it. Without a conclusive
    /// `HEAD`, the first bytes of a `GET` decide, whatever its media type says.
    ///
    /// # Errors
    /// If the image cannot be fetched, or is none that OpenAI takes.
    pub fn probe_image(&self, url: &str, limits: &ImageLimits) -> Result<(), ImageProblem> {
        let head = self.request(ImageRequest::Head, url, limits);
        if head.is_ok_and(|response| is_accepted(&response, limits)) {
            return Ok(());
        }
        let response = self.request(ImageRequest::Range, url, limits)?;
        let response = match response.status() {
            // Some hosts refuse a range that reaches beyond the image's end, or every range.
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED => {
                self.request(ImageRequest::Get, url, limits)?
            }
            _ => response,
        };
        check_size(&response, limits, self.clock.now().wall)?;
        check_start(response)
    }

    /// Checks that `url` leads to a whole image that OpenAI takes, with a `GET` of all its bytes.
    ///
    /// # Errors
    /// If the image cannot be fetched, is damaged, or is none that OpenAI takes.
    pub fn probe_whole_image(&self, url: &str, limits: &ImageLimits) -> Result<(), ImageProblem> {
        let response = self.request(ImageRequest::Whole, url, limits)?;
        check_size(&response, limits, self.clock.now().wall)?;
        check_whole(response, limits)
    }

    /// Sends a `HEAD` or `GET`, follows redirects, and returns the last response. Each URL passes the guard.
    fn request(
        &self,
        kind: ImageRequest,
        url: &str,
        limits: &ImageLimits,
    ) -> Result<Response<Body>, ImageProblem> {
        let timeout = match kind {
            ImageRequest::Head => limits.head_timeout,
            ImageRequest::Range | ImageRequest::Get => limits.get_timeout,
            ImageRequest::Whole => limits.whole_timeout,
        };
        let deadline = self.clock.now().steady + timeout;
        let mut url = url.to_owned();
        for _ in 0..=limits.max_redirects {
            self.guard.check_url(&url)?;
            let encoded = url::percent_encode(&url);
            let request = match kind {
                ImageRequest::Head => self.agent.head(&*encoded),
                ImageRequest::Get | ImageRequest::Whole => self.agent.get(&*encoded),
                ImageRequest::Range => {
                    let range = format!("bytes=0-{}", START_BYTES - 1);
                    self.agent.get(&*encoded).header(header::RANGE, range)
                }
            };
            let left = deadline.saturating_sub(self.clock.now().steady);
            let response = request.config().timeout_global(Some(left)).build().call()?;
            match redirect(&response) {
                Some(location) => url = url::join(&url, location)?,
                None => return Ok(response),
            }
        }
        Err(ImageProblem::TooManyRedirects)
    }
}

/// The requests of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ImageRequest {
    Head,
    /// A `GET` of the first bytes.
    Range,
    /// A `GET` without a range, of which the first bytes are read.
    Get,
    /// A `GET` of everything.
    Whole,
}

/// The `Location` of a redirect; `None` if the response is not a redirect.
fn redirect(response: &Response<Body>) -> Option<&[u8]> {
    let is_redirect = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers().get(header::LOCATION).filter(|_| is_redirect)?;
    Some(location.as_bytes())
}

/// The media type without its parameters, in lower case.
fn media_type(response: &Response<Body>) -> Option<String> {
    let value = response.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split(';').next().unwrap_or_default().trim();
    (!media_type.is_empty()).then(|| media_type.to_ascii_lowercase())
}

/// Whether the response to a `HEAD` is enough: a media type that OpenAI takes, and a size within the limit.
fn is_accepted(response: &Response<Body>, limits: &ImageLimits) -> bool {
    response.status().is_success()
        && media_type(response).is_some_and(|it| image_format::MEDIA_TYPES.contains(&it.as_str()))
        && image_bytes(response).is_some_and(|bytes| (1..=limits.max_bytes).contains(&bytes))
}

/// Checks the status of a `GET`, and the size that it announces.
fn check_size(response: &Response<Body>, limits: &ImageLimits, now: Timestamp) -> Result<(), ImageProblem> {
    let status = response.status();
    if !status.is_success() {
        let asked = retry_after(response.headers(), now);
        return Err(match (status, asked) {
            (StatusCode::TOO_MANY_REQUESTS, _) | (StatusCode::SERVICE_UNAVAILABLE, Some(_)) => {
                ImageProblem::HostAsksToWait(status.as_u16(), asked)
            }
            _ => ImageProblem::Status(status.as_u16()),
        });
    }
    match image_bytes(response) {
        Some(bytes) if bytes > limits.max_bytes => Err(ImageProblem::TooLarge(bytes)),
        _ => Ok(()),
    }
}

/// Reads the first bytes of an image until they show its format. The rest is not read.
fn check_start(response: Response<Body>) -> Result<(), ImageProblem> {
    let media_type = media_type(&response);
    let mut reader = response.into_body().into_reader().take(START_BYTES);
    let mut start = Vec::new();
    loop {
        let mut chunk = [0; 256];
        match reader.read(&mut chunk)? {
            0 => break,
            read => start.extend_from_slice(&chunk[..read]),
        }
        if ImageFormat::of(&start).is_some() {
            return Ok(());
        }
    }
    Err(describe(&start, media_type))
}

/// Reads a whole image.
fn check_whole(response: Response<Body>, limits: &ImageLimits) -> Result<(), ImageProblem> {
    let media_type = media_type(&response);
    let mut reader = response.into_body().into_reader().take(limits.max_bytes + 1);
    let (mut image, mut start, mut bytes) = (ImageReader::default(), Vec::new(), 0);
    loop {
        let mut chunk = [0; 8192];
        let read = reader.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        image.feed(&chunk[..read]);
        if (start.len() as u64) < START_BYTES {
            start.extend_from_slice(&chunk[..read]);
        } else if ImageFormat::of(&start).is_none() {
            break;
        }
    }
    match ImageFormat::of(&start) {
        None => Err(describe(&start, media_type)),
        Some(_) if bytes > limits.max_bytes => Err(ImageProblem::TooLarge(bytes)),
        Some(_) if image.is_whole() => Ok(()),
        Some(_) => Err(ImageProblem::Damaged),
    }
}

/// The problem of content that does not begin as an image that OpenAI takes.
fn describe(start: &[u8], media_type: Option<String>) -> ImageProblem {
    if start.is_empty() {
        return ImageProblem::Empty;
    }
    let found = image_format::other_format(start).map(str::to_owned);
    let found = found.or_else(|| media_type.filter(|it| !it.starts_with("image/")));
    ImageProblem::NotAnImage(found.unwrap_or_else(|| "unknown content".into()))
}

/// The size of the whole image. The `Content-Range` of a partial response gives it after the slash.
fn image_bytes(response: &Response<Body>) -> Option<u64> {
    let text = |name| response.headers().get(name)?.to_str().ok();
    match text(header::CONTENT_RANGE) {
        Some(range) => range.rsplit('/').next()?.trim().parse().ok(),
        None => text(header::CONTENT_LENGTH)?.trim().parse().ok(),
    }
}
