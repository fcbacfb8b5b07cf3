//! Reads a line of a result file, or the body of a synchronous answer.

use super::answer::{Answer, BrokenLine, ResultLine};
use super::error;
use super::json::{cut, is, member, string};
use crate::domain::usage::TokenUsage;
use crate::python_json::{Json, Text, parse};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads one line of a result file (split at LF only: strings may hold bare U+2028 and the like).
///
/// # Errors
///
/// If it is no JSON object with a `custom_id`.
pub fn read_line(bytes: &[u8]) -> Result<ResultLine, BrokenLine> {
    // A file may begin with a byte order mark. The answer behind it is billed like any other.
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let document = parse(bytes).map_err(|error| BrokenLine {
        message: format!("not a line of JSON: {error}"),
        custom_id: find_custom_id(bytes),
    })?;
    let line = document.root();
    let Some(custom_id) = string(line, "custom_id") else {
        return Err(BrokenLine {
            message: match line {
                Json::Object(_) => "the line has no custom_id".into(),
                other => format!("the line is {}, not an object", other.kind()),
            },
            custom_id: None,
        });
    };
    let response = member(line, "response");
    let stated = response.and_then(|response| member(response, "body"));
    // Some compatible servers send the body as a text of JSON.
    let text = stated.and_then(Json::as_text).map(Text::decode_lossy);
    let inner = text.as_ref().and_then(|text| parse(text.as_bytes()).ok());
    let body = inner.as_ref().map(|document| document.root()).or(stated);
    let status = response
        .and_then(|response| member(response, "status_code"))
        .map(|status| status.as_u64().and_then(|status| u16::try_from(status).ok()));
    let (answer, usage) = match (body, member(line, "error"), status) {
        (None, Some(_), Some(Some(status @ 400..))) => {
            (error::of_status(status, Some(line)), TokenUsage::ZERO)
        }
        // Else an error of the line itself means that there was no HTTP answer.
        (None, Some(error), _) => (error::of_line(error), TokenUsage::ZERO),
        (None, None, None) => (
            Answer::malformed("no_answer", "neither answer nor error"),
            TokenUsage::ZERO,
        ),
        (body, _, status) => {
            // Compatible servers leave the status out. The body then counts as a success.
            let assumed = if body.is_some() { 200 } else { 0 };
            let status = status.map_or(assumed, |status| status.unwrap_or(0));
            (of_http(status, body), body.map(usage).unwrap_or_default())
        }
    };
    Ok(ResultLine {
        custom_id,
        answer,
        usage,
    })
}

/// Reads the answer of a synchronous call.
pub fn read_body(status: u16, body: &serde_json::Value) -> (Answer, TokenUsage) {
    let text = body.to_string();
    match parse(text.as_bytes()) {
        Ok(document) => {
            let body = document.root();
            (of_http(status, Some(body)), usage(body))
        }
        // Not reached: `body` is JSON.
        Err(error) => (
            Answer::malformed("malformed_body", &error.to_string()),
            TokenUsage::ZERO,
        ),
    }
}

fn of_http(status: u16, body: Option<Json<'_>>) -> Answer {
    if !(200..300).contains(&status) {
        return error::of_status(status, body);
    }
    let Some(body) = body.filter(|body| matches!(body, Json::Object(_))) else {
        return Answer::malformed("malformed_body", "the body is no answer that is known here");
    };
    if let Some(error) = member(body, "error") {
        return error::inside_success(error);
    }
    if member(body, "output").is_some() || is(body, "object", "response") {
        of_response(body)
    } else if member(body, "choices").is_some() {
        of_chat(body)
    } else {
        Answer::malformed("malformed_body", "the body is no answer that is known here")
    }
}

/// A body of `/v1/responses`. Its `text` member is the format that was asked for, never the answer.
fn of_response(body: Json<'_>) -> Answer {
    let status = string(body, "status");
    match status.as_deref() {
        Some("completed") | None => {}
        Some("incomplete") => {
            let details = member(body, "incomplete_details");
            let reason = details.and_then(|details| string(details, "reason"));
            return match reason.as_deref() {
                Some("content_filter") => Answer::Filtered,
                _ => Answer::Truncated,
            };
        }
        Some("failed") => {
            return Answer::Retry {
                code: "failed".into(),
                message: "the answer's status is failed".into(),
            };
        }
        Some(other) => {
            return Answer::malformed(other, &format!("the answer's status is {other}"));
        }
    }
    let output = member(body, "output").and_then(Json::as_array);
    let items = || output.into_iter().flatten();
    let messages = || items().filter(|item| is(*item, "type", "message"));
    // Newer models may send a commentary before the answer, and mark both.
    let any_final = messages().any(|item| is(item, "phase", "final_answer"));
    let mut parts = AnswerParts::default();
    for item in messages() {
        let counts = if any_final {
            is(item, "phase", "final_answer")
        } else {
            !is(item, "phase", "commentary")
        };
        if counts {
            parts.add_content(member(item, "content"));
        }
    }
    parts.into_answer(body)
}

/// A body of `/v1/chat/completions`.
fn of_chat(body: Json<'_>) -> Answer {
    let choices = member(body, "choices").and_then(Json::as_array);
    let Some(choice) = choices.and_then(|mut choices| choices.next()) else {
        return Answer::malformed("malformed_body", "the answer has no choices");
    };
    match string(choice, "finish_reason").as_deref() {
        Some("length") => return Answer::Truncated,
        Some("content_filter") => return Answer::Filtered,
        _ => {}
    }
    let mut parts = AnswerParts::default();
    if let Some(message) = member(choice, "message") {
        parts.add_content(member(message, "content"));
        if let Some(refusal) = string(message, "refusal") {
            parts.refusal.push_str(&refusal);
        }
    }
    parts.into_answer(body)
}

/// The parts of an answer, put together.
#[derive(Default)]
struct AnswerParts {
    text: String,
    refusal: String,
}

impl AnswerParts {
    /// Adds a message's content: a string, or parts.
    fn add_content(&mut self, content: Option<Json<'_>>) {
        if let Some(text) = content.and_then(Json::as_text) {
            self.text.push_str(&text.decode_lossy());
        }
        for part in content.and_then(Json::as_array).into_iter().flatten() {
            match string(part, "type").as_deref() {
                Some("output_text" | "text") => {
                    self.text.push_str(&string(part, "text").unwrap_or_default());
                }
                Some("refusal") => {
                    let refusal = string(part, "refusal").unwrap_or_default();
                    self.refusal.push_str(&refusal);
                }
                _ => {}
            }
        }
    }

    fn into_answer(self, body: Json<'_>) -> Answer {
        let text = self.text.replace('\0', "");
        let text = text.trim();
        if !text.is_empty() {
            let (text, model) = (text.to_owned(), string(body, "model"));
            return Answer::Text { text, model };
        }
        let message = cut(&self.refusal);
        if message.is_empty() {
            Answer::malformed("empty_text", "the answer has no text")
        } else {
            Answer::Refusal { message }
        }
    }
}

/// Reads the tokens in the words of either endpoint, as they are stated. A number that is no count (negative, a
/// fraction, too long) is read as the largest one, which no request can have.
fn usage(body: Json<'_>) -> TokenUsage {
    let Some(usage) = member(body, "usage") else {
        return TokenUsage::ZERO;
    };
    let count = |of: Option<Json<'_>>, name| {
        let count = of.and_then(|of| member(of, name));
        count?
            .as_number()
            .map(|_| count.and_then(Json::as_u64).unwrap_or(u64::MAX))
    };
    let either = |responses, chat| {
        count(Some(usage), responses)
            .or_else(|| count(Some(usage), chat))
            .unwrap_or(0)
    };
    let detail = |responses, chat, name| {
        count(member(usage, responses), name)
            .or_else(|| count(member(usage, chat), name))
            .unwrap_or(0)
    };
    TokenUsage {
        input: either("input_tokens", "prompt_tokens"),
        cached: detail("input_tokens_details", "prompt_tokens_details", "cached_tokens"),
        output: either("output_tokens", "completion_tokens"),
        reasoning: detail(
            "output_tokens_details",
            "completion_tokens_details",
            "reasoning_tokens",
        ),
    }
}

/// The custom id of a line that is no JSON, as it is cut off or its encoding is broken. A `"custom_id"` inside
/// a text has its quotes escaped, so the first one with bare quotes is the line's own.
fn find_custom_id(bytes: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(bytes);
    let name = "\"custom_id\"";
    let after = line.get(line.find(name)? + name.len()..)?;
    let value = after.trim_start().strip_prefix(':')?.trim_start();
    let mut end = None;
    let mut escaped = false;
    for (at, byte) in value.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => {
                end = Some(at);
                break;
            }
            _ => {}
        }
    }
    let document = parse(value.get(..=end?)?.as_bytes()).ok()?;
    document.root().as_text().map(Text::decode_lossy).map(Into::into)
}
