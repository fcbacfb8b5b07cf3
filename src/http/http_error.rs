//! Why a request gets no response from the handler.

use std::io::{self, ErrorKind};

/// A request that the server itself refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError {
    /// The HTTP status.
    pub status: u16,
    /// The code in the error's body.
    pub code: &'static str,
    /// The problem, and what the client can do.
    pub message: String,
}

impl HttpError {
    /// An error from its parts.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// The request is not well-formed HTTP.
    pub fn malformed(message: &str) -> Self {
        Self::new(400, "INVALID_PARAMETER", message)
    }

    /// The server has no capacity for the request at present.
    pub fn overloaded(message: &str) -> Self {
        Self::new(503, "OVERLOADED", message)
    }

    /// The memory budget for bodies is used up.
    pub fn budget_exceeded() -> Self {
        Self::overloaded("too many large requests are arriving at once: try again later")
    }
}

/// Why serving a request failed.
pub enum RequestFailure {
    /// The client gets this error as the response.
    Refused(HttpError),
    /// The connection is lost, or its response is incomplete. No further byte can be sent.
    ConnectionLost,
}

impl RequestFailure {
    /// The failure that an error means while a part of the request, such as its head, is read.
    pub fn while_reading(part: &str, error: &io::Error) -> Self {
        if error.kind() == ErrorKind::TimedOut {
            let message = format!("the request's {part} did not arrive in time");
            HttpError::new(408, "REQUEST_TIMEOUT", message).into()
        } else {
            Self::ConnectionLost
        }
    }
}

impl From<HttpError> for RequestFailure {
    fn from(error: HttpError) -> Self {
        Self::Refused(error)
    }
}

impl From<io::Error> for RequestFailure {
    fn from(_: io::Error) -> Self {
        Self::ConnectionLost
    }
}
