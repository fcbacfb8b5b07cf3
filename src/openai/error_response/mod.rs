//! Reads OpenAI's error responses.

use std::time::Duration;

use serde_json::Value;

use super::json_objects::{text, text_or_number};
use super::redactor::Redactor;
use crate::base::clock::Timestamp;
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
        status,
        code: redactor.word(&code),
        param: redactor.word(&param),
        message: redactor.message(&message),
        retry_after: retry_after(&header, now),
        request_id: redactor.word(header("x-request-id").unwrap_or_default()),
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

/// The wait that `retry-after-ms` or else `Retry-After` asks for. The latter is a number of seconds, with or
/// without a fraction, or a date. A date is compared with the response's own `Date` if it has one, since the
/// clocks differ.
fn retry_after<'a>(header: &impl Fn(&str) -> Option<&'a str>, now: Timestamp) -> Option<Duration> {
    let wait = header("retry-after-ms")
        .and_then(|text| seconds(text, 1000.0))
        .or_else(|| {
            let text = header("retry-after")?;
            seconds(text, 1.0).or_else(|| {
                let until = http_date(text)?;
                let now = header("date").and_then(http_date).unwrap_or(now);
                Some(until.since(now))
            })
        })?;
    Some(wait.min(MAX_RETRY_AFTER))
}

fn seconds(text: &str, per_second: f64) -> Option<Duration> {
    let number = text.trim().parse::<f64>().ok().filter(|n| n.is_finite())?;
    let seconds = (number / per_second).clamp(0.0, MAX_RETRY_AFTER.as_secs_f64());
    Duration::try_from_secs_f64(seconds).ok()
}

/// Reads a date such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7), but not the obsolete forms.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    let time = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text.trim())
        .ok()?;
    Some(Timestamp::from_millis(time.as_millisecond()))
}

#[cfg(test)]
mod tests;
