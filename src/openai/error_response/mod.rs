//! Reads OpenAI's error responses.

use std::time::Duration;

use serde_json::Value;

use super::json_objects::{text, text_or_number};
use super::redactor::Redactor;
use crate::base::clock::Timestamp;
use crate::base::http_date;
use crate::domain::openai::OpenAiError;

/// The longest wait that a response may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Reads a response with a status other than 2xx. `header` returns a field's value by its lower-case name.
/// `body` may be incomplete.
pub(super) fn read_error<'a>(
    status: u16,
    header: impl Fn(&str) -> Option<&'a str>,
    body: &[u8],
    now: Timestamp,
    redactor: &Redactor,
) -> OpenAiError {
    let ErrorParts {
        code,
        param,
        mut message,
    } = parse_body(body);
    if let Some(location) = header("location").filter(|_| (300..400).contains(&status)) {
        message = format!("redirect to {location}, not followed");
    }
    if message.is_empty() {
        message = "no explanation".to_owned();
    }
    OpenAiError {
        call: Box::default(),
        status,
        code: redactor.word(&code),
        param: redactor.word(&param).into(),
        message: redactor.message(&message),
        retry_after: retry_after(&header, now),
        request_id: redactor.word(header("x-request-id").unwrap_or_default()).into(),
    }
}

/// The parts of an error's body; an empty string for each that it does not have.
#[derive(Default)]
struct ErrorParts {
    code: String,
    param: String,
    message: String,
}

/// Reads the forms of errors that were seen: OpenAI's `error` object, a text in `detail`, numbers as codes
/// and `{"status": …}` from proxies, OAuth's two strings, HTML.
fn parse_body(body: &[u8]) -> ErrorParts {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return ErrorParts {
            message: String::from_utf8_lossy(body).into_owned(),
            ..ErrorParts::default()
        };
    };
    let error = &value["error"];
    let detail = &value["detail"];
    // If the code is null, the type may say as much, unless it is a general "…_error".
    let kind = text(&error["type"]).filter(|kind| !kind.ends_with("_error"));
    let code = text_or_number(&error["code"])
        .or_else(|| text(error))
        .or(kind)
        .or_else(|| text_or_number(&detail["code"]));
    let message = [
        &error["message"],
        &error["detail"],
        &value["error_description"],
        &detail["message"],
        detail,
        &value["message"],
        error,
        &value["status"],
    ]
    .into_iter()
    .find_map(text)
    .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let param = text(&error["param"]).or_else(|| text(&detail["param"]));
    ErrorParts {
        code: code.unwrap_or_default(),
        param: param.unwrap_or_default(),
        message,
    }
}

/// The wait that `retry-after-ms`, a number of milliseconds, or else `Retry-After` asks for.
fn retry_after<'a>(header: &impl Fn(&str) -> Option<&'a str>, now: Timestamp) -> Option<Duration> {
    let in_millis = || http_date::seconds(header("retry-after-ms")?, MAX_RETRY_AFTER * 1000);
    let wait = || http_date::retry_after(header("retry-after")?, header("date"), now, MAX_RETRY_AFTER);
    in_millis().map(|it| it / 1000).or_else(wait)
}

#[cfg(test)]
mod tests;
