//! What one line of a result file says, or one synchronous answer: a text, or why there is none.
//!
//! HTTP 200 is not success: the body may be cut short, refused, filtered or failed inside. Facts
//! are from OpenAI's OpenAPI document 2.3.0 (`Response`, `CreateChatCompletionResponse`,
//! `ResponseErrorCode`), from recorded result files, and from what users reported. Null, absent
//! and `{}` (so R writes null) all mean "none".

mod error;

use crate::domain::batch::Outcome;
use crate::domain::openai::without_secrets;
use crate::domain::usage::TokenUsage;
use crate::python_json::{Json, Text, parse};

/// The longest message that is kept, in characters.
const MESSAGE_CHARS: usize = 500;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// More tokens than any request can have: a number beyond it says nothing.
const MOST_TOKENS: u64 = 1 << 32;

/// One line of an output or error file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultLine {
    /// The key that the request was sent under.
    pub custom_id: String,
    /// What became of it.
    pub answer: Answer,
    /// Its tokens; zeros where the line does not say.
    pub usage: TokenUsage,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A whole text.
    Text {
        /// Trimmed, not empty, without NUL.
        text: String,
        /// The dated model that wrote it.
        model: Option<String>,
    },
    /// The model declined; asked again unchanged, it will again.
    Refusal {
        /// In the model's words.
        message: String,
    },
    /// The output limit was reached: whatever text there is, is not whole.
    Truncated,
    /// Held back by the content filter.
    Filtered,
    /// OpenAI could not fetch an image.
    ImageUnreachable {
        /// In OpenAI's words.
        message: String,
    },
    /// No fault of the request: the same may succeed at another time.
    Retry {
        /// OpenAI's code or type, or one of ours for what has none (`no_answer`, `empty_text`, …).
        code: String,
        /// For people.
        message: String,
    },
    /// The same request will fail again.
    Fail {
        /// OpenAI's code or type, or `http_<status>`.
        code: String,
        /// For people.
        message: String,
    },
}

impl Answer {
    /// What it is to its request, with the text of an answered one and what was said of another.
    pub fn outcome(&self) -> (Outcome, &str, String) {
        let said = |code: &str, message: &str| {
            if code.is_empty() {
                message.to_owned()
            } else {
                format!("{code}: {message}")
            }
        };
        match self {
            Self::Text { text, .. } => (Outcome::Answered, text, String::new()),
            Self::Refusal { message } => (Outcome::Refused, "", message.clone()),
            Self::Truncated => (Outcome::Truncated, "", String::new()),
            Self::Filtered => (Outcome::Filtered, "", String::new()),
            Self::ImageUnreachable { message } => (Outcome::ImageUnreachable, "", message.clone()),
            Self::Retry { code, message } => (Outcome::Passing, "", said(code, message)),
            Self::Fail { code, message } => (Outcome::Wrong, "", said(code, message)),
        }
    }
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenLine {
    /// What is wrong, for people.
    pub message: String,
    /// Whose line it seems to be, where that could still be made out.
    pub custom_id: Option<String>,
}

impl std::fmt::Display for BrokenLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BrokenLine {}

/// Reads one line of a result file (split at LF only: strings may hold bare U+2028 and the like).
///
/// # Errors
///
/// When it is no JSON object with a `custom_id`.
pub fn read_line(bytes: &[u8]) -> Result<ResultLine, BrokenLine> {
    // A file may begin with a byte order mark, and the answer behind it is paid like any other.
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let line = parse(bytes).map_err(|error| BrokenLine {
        message: format!("not a line of JSON: {error}"),
        custom_id: find_custom_id(bytes),
    })?;
    let Some(custom_id) = string(&line, "custom_id") else {
        return Err(BrokenLine {
            message: match line {
                Json::Object(_) => "the line has no custom_id".into(),
                other => format!("the line is {}, not an object", other.kind()),
            },
            custom_id: None,
        });
    };
    let response = member(&line, "response");
    let body = response.and_then(|response| member(response, "body"));
    let status = response
        .and_then(|response| member(response, "status_code"))
        .map(|status| {
            status
                .as_u64()
                .and_then(|status| u16::try_from(status).ok())
        });
    let (answer, usage) = match (body, member(&line, "error"), status) {
        (None, Some(_), Some(Some(status @ 400..))) => {
            (error::of_status(status, Some(&line)), TokenUsage::ZERO)
        }
        // Else an error of the line itself means that no HTTP answer was had.
        (None, Some(error), _) => (error::of_line(error), TokenUsage::ZERO),
        (None, None, None) => (
            retry("no_answer", "neither answer nor error"),
            TokenUsage::ZERO,
        ),
        (body, _, status) => {
            // Compatible servers leave the status out; the body then speaks for itself.
            let unsaid = if body.is_some() { 200 } else { 0 };
            let status = status.map_or(unsaid, |status| status.unwrap_or(0));
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
        Ok(body) => (of_http(status, Some(&body)), usage(&body)),
        // Not reached: it was JSON a moment ago.
        Err(error) => (
            retry("malformed_body", &error.to_string()),
            TokenUsage::ZERO,
        ),
    }
}

fn of_http(status: u16, body: Option<&Json<'_>>) -> Answer {
    if !(200..300).contains(&status) {
        return error::of_status(status, body);
    }
    let Some(body) = body.filter(|body| matches!(body, Json::Object(_))) else {
        return retry("malformed_body", "the body is no answer that is known here");
    };
    if let Some(error) = member(body, "error") {
        return error::inside_success(error);
    }
    if member(body, "output").is_some() || is(body, "object", "response") {
        of_response(body)
    } else if member(body, "choices").is_some() {
        of_chat(body)
    } else {
        retry("malformed_body", "the body is no answer that is known here")
    }
}

/// A body of `/v1/responses`. Its `text` member is the format that was asked for, never the answer.
fn of_response(body: &Json<'_>) -> Answer {
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
        Some(other) => {
            return retry(other, &format!("the answer's status is {other}"));
        }
    }
    let output = member(body, "output").and_then(Json::as_array);
    let messages = || {
        output
            .unwrap_or_default()
            .iter()
            .filter(|item| is(item, "type", "message"))
    };
    // Newer models may say something before they answer, and mark which is which.
    let any_final = messages().any(|item| is(item, "phase", "final_answer"));
    let mut said = Said::default();
    for item in messages() {
        let counts = if any_final {
            is(item, "phase", "final_answer")
        } else {
            !is(item, "phase", "commentary")
        };
        if counts {
            said.content(member(item, "content"));
        }
    }
    said.answer(body)
}

/// A body of `/v1/chat/completions`.
fn of_chat(body: &Json<'_>) -> Answer {
    let choices = member(body, "choices").and_then(Json::as_array);
    let Some(choice) = choices.and_then(<[_]>::first) else {
        return retry("malformed_body", "the answer has no choices");
    };
    match string(choice, "finish_reason").as_deref() {
        Some("length") => return Answer::Truncated,
        Some("content_filter") => return Answer::Filtered,
        _ => {}
    }
    let mut said = Said::default();
    if let Some(message) = member(choice, "message") {
        said.content(member(message, "content"));
        if let Some(refusal) = string(message, "refusal") {
            said.refusal.push_str(&refusal);
        }
    }
    said.answer(body)
}

/// What the parts of an answer add up to.
#[derive(Default)]
struct Said {
    text: String,
    refusal: String,
}

impl Said {
    /// Takes a message's content: a string, or parts.
    fn content(&mut self, content: Option<&Json<'_>>) {
        if let Some(text) = content.and_then(Json::as_text) {
            self.text.push_str(&text.decode_lossy());
        }
        for part in content.and_then(Json::as_array).unwrap_or_default() {
            match string(part, "type").as_deref() {
                Some("output_text" | "text") => {
                    self.text
                        .push_str(&string(part, "text").unwrap_or_default());
                }
                Some("refusal") => {
                    let refusal = string(part, "refusal").unwrap_or_default();
                    self.refusal.push_str(&refusal);
                }
                _ => {}
            }
        }
    }

    fn answer(self, body: &Json<'_>) -> Answer {
        let text = self.text.replace('\0', "");
        let text = text.trim();
        if !text.is_empty() {
            let (text, model) = (text.to_owned(), string(body, "model"));
            return Answer::Text { text, model };
        }
        let message = cut(&self.refusal);
        if message.is_empty() {
            retry("empty_text", "the answer has no text")
        } else {
            Answer::Refusal { message }
        }
    }
}

/// Reads the tokens in the words of either endpoint.
fn usage(body: &Json<'_>) -> TokenUsage {
    let Some(usage) = member(body, "usage") else {
        return TokenUsage::ZERO;
    };
    let count = |of: Option<&Json<'_>>, name| {
        let count = of.and_then(|of| member(of, name));
        count.and_then(Json::as_u64)
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
        cached: detail(
            "input_tokens_details",
            "prompt_tokens_details",
            "cached_tokens",
        ),
        output: either("output_tokens", "completion_tokens"),
        reasoning: detail(
            "output_tokens_details",
            "completion_tokens_details",
            "reasoning_tokens",
        ),
    }
    .map(|tokens| tokens.min(MOST_TOKENS))
}

/// A member that is there: not null, not `{}`.
fn member<'j, 'a>(json: &'j Json<'a>, name: &str) -> Option<&'j Json<'a>> {
    json.field(name)
        .filter(|value| value.as_object().is_none_or(|members| !members.is_empty()))
}

/// A member that is a string and not empty.
fn string(json: &Json<'_>, name: &str) -> Option<String> {
    let text = member(json, name)?.as_text()?.decode_lossy();
    (!text.is_empty()).then(|| text.into_owned())
}

fn is(json: &Json<'_>, name: &str, value: &str) -> bool {
    member(json, name)
        .and_then(Json::as_text)
        .is_some_and(|text| text.is(value))
}

fn retry(code: &str, message: &str) -> Answer {
    Answer::Retry {
        code: cut(code),
        message: cut(message),
    }
}

/// Trimmed, without NUL and OpenAI's secrets (clients read it), no longer than is kept.
fn cut(message: &str) -> String {
    let message = without_secrets(message.trim());
    let message = message.chars().filter(|c| *c != '\0');
    message.take(MESSAGE_CHARS).collect()
}

/// The custom id of a line that is no JSON: cut off, or of broken encoding. A `"custom_id"` inside
/// a text would have its quotes escaped, so the first bare one is the line's own.
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
    let json = parse(value.get(..=end?)?.as_bytes()).ok()?;
    json.as_text().map(Text::decode_lossy).map(Into::into)
}

#[cfg(test)]
mod tests;
