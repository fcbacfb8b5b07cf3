//! Reads OpenAI's errors.
//!
//! The envelope is `{"error": {"message", "type", "param", "code"}}` (schema `ErrorResponse`). But `code` may be
//! an integer or null, the text may be in `detail`, and proxies answer with HTML.

use super::answer::Answer;
use super::json::{cut, member, string};
use crate::domain::decide::request_error::{Blame, ErrorPlace, RequestError};
use crate::python_json::Json;

/// The answer of a line whose request had no HTTP answer.
pub(super) fn of_line(error: Json<'_>) -> Answer {
    answer(read(error), ErrorPlace::Line, "line_error")
}

/// The answer with a status other than 2xx.
pub(super) fn of_status(status: u16, body: Option<Json<'_>>) -> Answer {
    let error = body.map(read_body).unwrap_or_default();
    answer(error, ErrorPlace::Status(status), &format!("http_{status}"))
}

/// The answer with a status of 2xx and an error in its body.
pub(super) fn inside_success(error: Json<'_>) -> Answer {
    answer(read(error), ErrorPlace::Success, "failed")
}

/// `unnamed` is the code of an error that has none.
fn answer(error: RequestError, place: ErrorPlace, unnamed: &str) -> Answer {
    let blame = error.blame(place);
    let code = [&error.code, &error.kind]
        .into_iter()
        .find(|code| !code.is_empty())
        .map_or(unnamed, |code| code.as_str())
        .to_owned();
    let message = error.message;
    let described = |message: String| match message.is_empty() {
        true => format!("no message came with {unnamed}"),
        false => message,
    };
    match blame {
        Blame::Image => Answer::ImageUnreachable {
            message: image_message(&error.param, if message.is_empty() { &code } else { &message }),
        },
        Blame::Moment => Answer::Retry {
            code,
            message: described(message),
        },
        Blame::Setting(setting) => Answer::Misconfigured {
            setting,
            code,
            message: described(message),
        },
        Blame::Request => Answer::Fail {
            code,
            message: described(message),
        },
    }
}

/// OpenAI's words on an image, after the parameter that names it.
fn image_message(param: &str, message: &str) -> String {
    match param.contains("content[") && !message.contains(param) {
        true => cut(&format!("{param}: {message}")),
        false => message.to_owned(),
    }
}

/// Reads an error object, or the bare text that some servers send.
fn read(error: Json<'_>) -> RequestError {
    if let Some(text) = error.as_text() {
        let message = cut(&text.decode_lossy());
        return RequestError {
            message,
            ..RequestError::default()
        };
    }
    let text = |name| string(error, name).unwrap_or_default();
    let number = || {
        let code = member(error, "code").and_then(Json::as_number);
        code.unwrap_or_default().to_owned()
    };
    RequestError {
        code: cut(&string(error, "code").unwrap_or_else(number)),
        kind: cut(&text("type")),
        param: text("param"),
        message: string(error, "message")
            .or_else(|| string(error, "detail"))
            .map(|message| cut(&message))
            .unwrap_or_default(),
    }
}

/// Reads the error of a whole body: its `error`, else its `detail`, else the body itself.
fn read_body(body: Json<'_>) -> RequestError {
    let error = member(body, "error");
    let detail = member(body, "detail");
    let mut found = read(error.or(detail).unwrap_or(body));
    if found.message.is_empty() {
        found.message = detail.map(|detail| read(detail).message).unwrap_or_default();
    }
    found
}
