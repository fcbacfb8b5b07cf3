//! Whether an image can be had, before anyone pays for a request about it.

use std::io::{self, Read};
use std::time::Duration;

use ureq::Body;
use ureq::http::{Response, StatusCode, header};

use super::outbound::{NetError, Outbound};
use super::url;

/// What an image's host is held to.
#[derive(Clone, Debug)]
pub struct ImageLimits {
    /// For the `HEAD`, its redirects included.
    pub head: Duration,
    /// For the `GET` that comes after a `HEAD` which said too little.
    pub get: Duration,
    /// The image's size.
    pub bytes: u64,
    /// How much of it is fetched.
    pub fetched: u64,
    /// Redirects followed.
    pub redirects: usize,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(3),
            get: Duration::from_secs(5),
            bytes: 10_000_000,
            fetched: 32 * 1024,
            redirects: 3,
        }
    }
}

/// Why an image is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageProblem {
    /// No answer, or none from where one may ask.
    #[error("{0}")]
    Net(NetError),
    /// An answer that is no success.
    #[error("the host answers with status {0}")]
    Status(u16),
    /// No image: its media type, if it has one.
    #[error("{}", not_an_image(.0.as_deref()))]
    NotAnImage(Option<String>),
    /// More bytes than are taken.
    #[error("the image is too large ({0} bytes)")]
    TooLarge(u64),
    /// No bytes at all.
    #[error("the image is empty")]
    Empty,
    /// Sent on too often.
    #[error("too many redirects")]
    TooManyRedirects,
}

fn not_an_image(media_type: Option<&str>) -> String {
    match media_type {
        Some(media_type) => format!("no image but {media_type:?}"),
        None => "no Content-Type says that it is an image".to_owned(),
    }
}

impl ImageProblem {
    /// Whether a second look may find it well.
    pub fn retry(&self) -> bool {
        match self {
            Self::Net(error) => error.retry(),
            Self::Status(_)
            | Self::Empty
            | Self::NotAnImage(_)
            | Self::TooLarge(_)
            | Self::TooManyRedirects => true,
        }
    }
}

impl<E: Into<NetError>> From<E> for ImageProblem {
    fn from(error: E) -> Self {
        Self::Net(error.into())
    }
}

impl Outbound {
    /// Looks whether `url` gives an image: by `HEAD`, and where that does not tell, by `GET` of its
    /// beginning.
    ///
    /// # Errors
    /// Why it does not.
    pub fn probe_image(&self, url: &str, limits: &ImageLimits) -> Result<(), ImageProblem> {
        match self.ask(true, url, limits) {
            // Many hosts know no HEAD, or answer it carelessly.
            Ok(answer) if answer.status().is_success() && media_type(&answer).is_some() => {
                judge(&answer, limits)
            }
            Err(ImageProblem::Net(error)) if !error.retry() => Err(error.into()),
            Ok(_) | Err(_) => {
                let answer = self.ask(false, url, limits)?;
                judge(&answer, limits)?;
                let mut start = answer.into_body().into_reader().take(limits.fetched);
                match io::copy(&mut start, &mut io::sink())? {
                    0 => Err(ImageProblem::Empty),
                    _ => Ok(()),
                }
            }
        }
    }

    /// The answer at the end of the redirects.
    fn ask(
        &self,
        head: bool,
        url: &str,
        limits: &ImageLimits,
    ) -> Result<Response<Body>, ImageProblem> {
        let within = if head { limits.head } else { limits.get };
        let end = self.clock.now().steady + within;
        let mut url = url.to_owned();
        for _ in 0..=limits.redirects {
            self.guard.check_url(&url)?;
            let sent = url::encoded(&url);
            let request = if head {
                self.agent.head(&*sent)
            } else {
                let range = format!("bytes=0-{}", limits.fetched.saturating_sub(1));
                self.agent.get(&*sent).header(header::RANGE, range)
            };
            let left = end.saturating_sub(self.clock.now().steady);
            let answer = request.config().timeout_global(Some(left)).build().call()?;
            match redirect(&answer) {
                Some(location) => url = url::join(&url, &location),
                None => return Ok(answer),
            }
        }
        Err(ImageProblem::TooManyRedirects)
    }
}

fn redirect(answer: &Response<Body>) -> Option<String> {
    let moved = matches!(
        answer.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = answer.headers().get(header::LOCATION).filter(|_| moved)?;
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

/// The media type without its parameters, in lower case.
fn media_type(answer: &Response<Body>) -> Option<String> {
    let value = answer.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split(';').next().unwrap_or_default().trim();
    (!media_type.is_empty()).then(|| media_type.to_ascii_lowercase())
}

fn judge(answer: &Response<Body>, limits: &ImageLimits) -> Result<(), ImageProblem> {
    if !answer.status().is_success() {
        return Err(ImageProblem::Status(answer.status().as_u16()));
    }
    let media_type = media_type(answer);
    if !media_type
        .as_ref()
        .is_some_and(|it| it.starts_with("image/"))
    {
        return Err(ImageProblem::NotAnImage(media_type));
    }
    match size(answer) {
        Some(0) => Err(ImageProblem::Empty),
        Some(bytes) if bytes > limits.bytes => Err(ImageProblem::TooLarge(bytes)),
        _ => Ok(()),
    }
}

/// The whole image's size, which a part of it tells behind the slash of its `Content-Range`.
fn size(answer: &Response<Body>) -> Option<u64> {
    let text = |name| answer.headers().get(name)?.to_str().ok();
    match text(header::CONTENT_RANGE) {
        Some(range) => range.rsplit('/').next()?.trim().parse().ok(),
        None => text(header::CONTENT_LENGTH)?.trim().parse().ok(),
    }
}
