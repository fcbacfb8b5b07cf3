//! Why a call to OpenAI failed.

use std::fmt;
use std::time::Duration;

/// Why a call did not give its answer; the distinction that the submission protocol stands on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It failed before a byte of the request was sent: it certainly had no effect.
    #[error("not sent: {message}")]
    NotSent {
        /// For people.
        message: String,
    },
    /// OpenAI answered with a status other than 2xx. A redirect is one of them, as none is followed.
    #[error("{0}")]
    Refused(OpenAiError),
    /// It may have had its effect: a time-out, a broken connection.
    #[error("outcome unknown: {message}")]
    Unknown {
        /// For people.
        message: String,
    },
    /// It may have had its effect: the answer of status 2xx is whole, and is not what was asked for.
    #[error("outcome unknown: {message}")]
    Unreadable {
        /// For people. It quotes the answer.
        message: String,
    },
}

/// An answer with a status other than 2xx.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenAiError {
    /// The call: its method and its path, as in `GET /v1/files`. Empty if there was none.
    pub call: Box<str>,
    /// The HTTP status.
    pub status: u16,
    /// `error.code`. If it is null, an `error.type` that says as much (`insufficient_quota`, but not
    /// `invalid_request_error`). Else an empty string. A number is kept as text.
    pub code: String,
    /// `error.param`, or an empty string.
    pub param: Box<str>,
    /// `error.message`, `detail`, or the start of a body that is not JSON. It has at most 500 characters, no
    /// control characters, and no keys or `org-…` ids.
    pub message: String,
    /// `retry-after-ms` or `Retry-After`, one hour at most.
    pub retry_after: Option<Duration>,
    /// `x-request-id`, or an empty string.
    pub request_id: Box<str>,
}

impl CallError {
    /// Whether the call certainly had no effect: it was never sent, or refused with a 4xx other than 408 and
    /// 409.
    pub fn had_no_effect(&self) -> bool {
        match self {
            Self::NotSent { .. } => true,
            Self::Refused(refusal) => {
                (400..500).contains(&refusal.status) && !matches!(refusal.status, 408 | 409)
            }
            Self::Unknown { .. } | Self::Unreadable { .. } => false,
        }
    }

    /// Whether OpenAI has no such object under this identity.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == 404)
    }

    /// Whether the server does not have the call at all, as opposed to its object.
    pub fn is_not_offered(&self) -> bool {
        matches!(self, Self::Refused(refusal) if matches!(refusal.status, 404 | 405 | 501))
    }

    /// Whether the server refuses the parameters of the call.
    pub fn is_of_parameters(&self) -> bool {
        matches!(self, Self::Refused(refusal) if matches!(refusal.status, 400 | 422))
    }

    /// How long OpenAI asks to wait before the next call.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

impl fmt::Display for OpenAiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.call.is_empty() {
            write!(f, "{}: ", self.call)?;
        }
        write!(f, "HTTP {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.param.is_empty() {
            write!(f, " (param {})", self.param)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.request_id.is_empty() {
            write!(f, " [request {}]", self.request_id)?;
        }
        Ok(())
    }
}
