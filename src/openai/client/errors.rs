//! Turns failures of the transport and error responses into [`CallError`]s.

use std::io::Read;

use ureq::Body;
use ureq::http::Response;

use super::OpenAiClient;
use super::agents::ErrorBeforeSending;
use crate::base::clock::Clock;
use crate::domain::openai::{CallError, OpenAiError};
use crate::openai::error_response;
use crate::outbound::certificate_problem;

/// Bytes of an error's body that are read.
const MAX_ERROR_BYTES: usize = 64 * 1024;

impl OpenAiClient {
    /// Reads a response to `call` with a status other than 2xx.
    pub(super) fn read_error(&self, call: String, response: Response<Body>) -> OpenAiError {
        let (parts, body) = response.into_parts();
        let body = self.read_error_body(body.into_reader());
        let error = error_response::read_error(
            parts.status.as_u16(),
            |name| parts.headers.get(name)?.to_str().ok(),
            &body,
            self.clock.now().wall,
            &self.redactor,
        );
        OpenAiError {
            call: call.into(),
            ..error
        }
    }

    /// Reads the body of an error, as far as it arrives within a short call's timeout. The status is known
    /// already, so an incomplete body is no failure.
    fn read_error_body(&self, mut reader: impl Read) -> Vec<u8> {
        let mut body = vec![0; MAX_ERROR_BYTES];
        let mut length = 0;
        let deadline = self.clock.now().steady + self.timeouts.small;
        while length < body.len() && self.clock.now().steady < deadline {
            match reader.read(&mut body[length..]) {
                Ok(0) | Err(_) => break,
                Ok(read) => length += read,
            }
        }
        body.truncate(length);
        body
    }

    /// The error for a failure of ureq: [`CallError::NotSent`] only if it is marked as one before sending.
    pub(super) fn transport_error(&self, error: &ureq::Error) -> CallError {
        match error {
            ureq::Error::Other(inner) => match inner.downcast_ref::<ErrorBeforeSending>() {
                Some(ErrorBeforeSending(before)) => {
                    let text = before.to_string();
                    let problem = certificate_problem(&text, "openai.ca_file");
                    self.not_sent(&problem.unwrap_or(text))
                }
                None => self.unknown(&error.to_string()),
            },
            _ => self.unknown(&error.to_string()),
        }
    }

    pub(super) fn not_sent(&self, message: &str) -> CallError {
        CallError::NotSent {
            message: self.redactor.message(message),
        }
    }

    pub(super) fn unreadable(&self, message: &str) -> CallError {
        CallError::Unreadable {
            message: self.redactor.message(message),
        }
    }

    pub(super) fn unknown(&self, message: &str) -> CallError {
        CallError::Unknown {
            message: self.redactor.message(message),
        }
    }
}
