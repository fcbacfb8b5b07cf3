//! Checks whether an image can be fetched, before a request about it is paid for.

use std::io::{self, Read};
use std::time::Duration;

use ureq::Body;
use ureq::http::{Method, Response, StatusCode, header};

use super::client::{GuardedClient, OutboundError};
use super::url;

/// Limits of one check of an image.
#[derive(Clone, Debug)]
pub struct ImageLimits {
    /// For the `HEAD` with its redirects.
    pub head_timeout: Duration,
    /// For the `GET` that follows a `HEAD` without a conclusive response.
    pub get_timeout: Duration,
    /// The largest image, in bytes.
    pub max_bytes: u64,
    /// Bytes that the `GET` fetches.
    pub fetched_bytes: u64,
    /// The number of redirects that are followed.
    pub max_redirects: usize,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(3),
            get_timeout: Duration::from_secs(5),
            max_bytes: 10_000_000,
            fetched_bytes: 32 * 1024,
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
    /// The response is not an image. This holds its media type, if it has one.
    #[error("{}", not_an_image(.0.as_deref()))]
    NotAnImage(Option<String>),
    /// The image is larger than [`ImageLimits::max_bytes`]. This holds its size.
    #[error("the image is too large ({0} bytes)")]
    TooLarge(u64),
    /// The response has no content.
    #[error("the image is empty")]
    Empty,
    /// The host redirects more often than [`ImageLimits::max_redirects`].
    #[error("too many redirects")]
    TooManyRedirects,
}

fn not_an_image(media_type: Option<&str>) -> String {
    match media_type {
        Some(media_type) => format!("not an image, the media type is {media_type:?}"),
        None => "not an image, the response has no Content-Type".to_owned(),
    }
}

impl ImageProblem {
    /// Whether a retry may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Request(error) => error.is_retryable(),
            Self::Status(_)
            | Self::Empty
            | Self::NotAnImage(_)
            | Self::TooLarge(_)
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
    /// Checks that `url` leads to an image: with `HEAD`, and if its response is not conclusive, with a `GET`
    /// of the image's first bytes.
    ///
    /// # Errors
    /// If the image cannot be fetched.
    pub fn probe_image(&self, url: &str, limits: &ImageLimits) -> Result<(), ImageProblem> {
        match self.request(Method::HEAD, url, limits) {
            // Many hosts refuse HEAD, or answer it without a media type.
            Ok(response) if response.status().is_success() && media_type(&response).is_some() => {
                check_response(&response, limits)
            }
            Err(ImageProblem::Request(error)) if !error.is_retryable() => Err(error.into()),
            Ok(_) | Err(_) => {
                let response = self.request(Method::GET, url, limits)?;
                check_response(&response, limits)?;
                let mut start = response.into_body().into_reader().take(limits.fetched_bytes);
                match io::copy(&mut start, &mut io::sink())? {
                    0 => Err(ImageProblem::Empty),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Sends a `HEAD` or `GET`, follows redirects, and returns the last response. Each URL passes the guard.
    fn request(
        &self,
        method: Method,
        url: &str,
        limits: &ImageLimits,
    ) -> Result<Response<Body>, ImageProblem> {
        let timeout = match method {
            Method::HEAD => limits.head_timeout,
            _ => limits.get_timeout,
        };
        let deadline = self.clock.now().steady + timeout;
        let mut url = url.to_owned();
        for _ in 0..=limits.max_redirects {
            self.guard.check_url(&url)?;
            let encoded = url::percent_encode(&url);
            let request = match method {
                Method::HEAD => self.agent.head(&*encoded),
                _ => {
                    let range = format!("bytes=0-{}", limits.fetched_bytes.saturating_sub(1));
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

/// Checks the status, the media type and the size.
fn check_response(response: &Response<Body>, limits: &ImageLimits) -> Result<(), ImageProblem> {
    if !response.status().is_success() {
        return Err(ImageProblem::Status(response.status().as_u16()));
    }
    let media_type = media_type(response);
    if !media_type.as_ref().is_some_and(|it| it.starts_with("image/")) {
        return Err(ImageProblem::NotAnImage(media_type));
    }
    match image_bytes(response) {
        Some(0) => Err(ImageProblem::Empty),
        Some(bytes) if bytes > limits.max_bytes => Err(ImageProblem::TooLarge(bytes)),
        _ => Ok(()),
    }
}

/// The size of the whole image. The `Content-Range` of a partial response gives it after the slash.
fn image_bytes(response: &Response<Body>) -> Option<u64> {
    let text = |name| response.headers().get(name)?.to_str().ok();
    match text(header::CONTENT_RANGE) {
        Some(range) => range.rsplit('/').next()?.trim().parse().ok(),
        None => text(header::CONTENT_LENGTH)?.trim().parse().ok(),
    }
}
