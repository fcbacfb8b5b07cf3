//! Errors, sorted by what helps: another try, another image, or nothing.
//!
//! The envelope is `{"error": {"message", "type", "param", "code"}}` (schema `ErrorResponse`), but
//! `code` comes as an integer or null too, the text as `detail`, and proxies answer with HTML.

use super::{Answer, cut, member, string};
use crate::python_json::Json;

/// Codes of `ResponseErrorCode` for an image that OpenAI could not get.
const IMAGE_CODES: [&str; 3] = [
    "invalid_image_url",
    "failed_to_download_image",
    "image_file_not_found",
];

/// Codes that blame no request, whatever status they come with; the last three are want of money.
const PASSING_CODES: [&str; 9] = [
    "server_error",
    "rate_limit_exceeded",
    "vector_store_timeout",
    "request_timeout",
    "batch_expired",
    "batch_cancelled",
    "insufficient_quota",
    "billing_hard_limit_reached",
    "credit_balance_exhausted",
];

/// An error of the line itself: the request had no HTTP answer. Unknown codes are tried again,
/// since nothing says that the request is to blame.
pub(super) fn of_line(error: &Json<'_>) -> Answer {
    let error = Error::of(error);
    if error.is_image() {
        return error.image();
    }
    error.retry("line_error")
}

/// An HTTP answer that is not 2xx.
pub(super) fn of_status(status: u16, body: Option<&Json<'_>>) -> Answer {
    let error = body.map(Error::of_body).unwrap_or_default();
    let unnamed = format!("http_{status}");
    match status {
        408 | 409 | 429 => error.retry(&unnamed),
        400..500 if error.is_image() => error.image(),
        400..500 if error.is_passing() => error.retry(&unnamed),
        400..500 => error.fail(&unnamed),
        _ => error.retry(&unnamed),
    }
}

/// An error in the body of a 2xx answer: the call was taken, the model's run failed.
pub(super) fn inside_success(error: &Json<'_>) -> Answer {
    let error = Error::of(error);
    if error.is_image() {
        error.image()
    } else if error.is_passing() || error.code.is_empty() {
        error.retry("failed")
    } else {
        error.fail("failed")
    }
}

/// What an error says of itself; empty strings where it does not.
#[derive(Default)]
struct Error {
    code: String,
    kind: String,
    param: String,
    message: String,
}

impl Error {
    /// From the error object, or from the bare text that some servers send.
    fn of(error: &Json<'_>) -> Self {
        if let Some(text) = error.as_text() {
            let message = cut(&text.decode_lossy());
            return Self {
                message,
                ..Self::default()
            };
        }
        let text = |name| string(error, name).unwrap_or_default();
        let number = || {
            let code = member(error, "code").and_then(Json::as_number);
            code.unwrap_or_default().to_owned()
        };
        Self {
            code: cut(&string(error, "code").unwrap_or_else(number)),
            kind: cut(&text("type")),
            param: text("param"),
            message: string(error, "message")
                .or_else(|| string(error, "detail"))
                .map(|message| cut(&message))
                .unwrap_or_default(),
        }
    }

    /// From a whole body: `error`, else `detail`, else the body itself.
    fn of_body(body: &Json<'_>) -> Self {
        let error = member(body, "error");
        let detail = member(body, "detail");
        let mut found = Self::of(error.or(detail).unwrap_or(body));
        if found.message.is_empty() {
            found.message = detail
                .map(|detail| Self::of(detail).message)
                .unwrap_or_default();
        }
        found
    }

    fn is_passing(&self) -> bool {
        PASSING_CODES
            .iter()
            .any(|code| self.code == *code || (self.code.is_empty() && self.kind == *code))
    }

    /// The code differs by endpoint, and in time: the message is the last resort.
    fn is_image(&self) -> bool {
        if IMAGE_CODES.contains(&self.code.as_str()) {
            return true;
        }
        if self.code == "invalid_value" && self.param == "url" {
            return true;
        }
        let message = self.message.to_ascii_lowercase();
        let any = |words: &[&str]| words.iter().any(|word| message.contains(word));
        // Not "downloaded": an image that arrived may be bad in other ways.
        any(&["downloading", "to download", "not download"]) && any(&["image", "http"])
    }

    fn image(self) -> Answer {
        let message = self.message;
        Answer::ImageUnreachable { message }
    }

    fn retry(self, unnamed: &str) -> Answer {
        let (code, message) = self.told(unnamed);
        Answer::Retry { code, message }
    }

    fn fail(self, unnamed: &str) -> Answer {
        let (code, message) = self.told(unnamed);
        Answer::Fail { code, message }
    }

    fn told(self, unnamed: &str) -> (String, String) {
        let code = [self.code, self.kind, unnamed.to_owned()]
            .into_iter()
            .find(|code| !code.is_empty())
            .unwrap_or_default();
        let message = if self.message.is_empty() {
            format!("no message came with {unnamed}")
        } else {
            self.message
        };
        (code, message)
    }
}
