//! The response to a request, as `/v1/responses` and result files have it.
//!
//! It holds what a careless reader of real responses gets wrong: a reasoning item before the message, a
//! member `text` at the top that holds no text, and texts in several parts.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::faults::{ResponseFaults, Truncation};
use super::request::ResponsesRequest;
use super::texts;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::ids;
use crate::sandbox::model::usage::{InputTokenDetails, OutputTokenDetails, UsageObject};

/// The end of a text with the fault `odd_unicode`: line separators that are no line breaks in JSON.
pub const ODD_UNICODE: &str = " \u{2028}\u{2029}\u{85}.";

/// The result of a request.
pub struct RequestResult {
    /// The HTTP status.
    pub status: u16,
    /// The response, or the error's envelope.
    pub body: Box<RawValue>,
    /// The tokens that OpenAI would bill.
    pub usage: UsageObject,
    /// Whether the body holds a complete text.
    pub is_complete: bool,
}

impl RequestResult {
    /// The result of a request that is refused.
    pub(in crate::sandbox::model) fn from_error(error: &ErrorReply) -> Self {
        Self {
            status: error.status,
            body: error.envelope(),
            usage: UsageObject::default(),
            is_complete: false,
        }
    }
}

#[derive(Serialize)]
struct ResponseObject<'a> {
    id: String,
    object: &'static str,
    created_at: i64,
    status: &'static str,
    background: bool,
    completed_at: Option<i64>,
    error: Option<Value>,
    incomplete_details: Option<Value>,
    instructions: Option<&'a str>,
    max_output_tokens: Option<u64>,
    model: &'a str,
    output: Vec<Value>,
    parallel_tool_calls: bool,
    previous_response_id: Option<&'a str>,
    reasoning: Value,
    service_tier: &'static str,
    store: bool,
    temperature: f32,
    text: Value,
    tool_choice: &'static str,
    tools: [Value; 0],
    top_p: f32,
    truncation: &'static str,
    usage: UsageObject,
    metadata: Value,
}

const REASONING_TOKENS: u64 = 64;
const TOKENS_OF_AN_IMAGE: u64 = 85;

/// The text that a model writes, and its tokens.
struct GeneratedText {
    text: String,
    reasoning_tokens: u64,
    /// Reasoning included.
    output_tokens: u64,
    is_truncated: bool,
}

/// Answers a valid request with 200. `seed` decides the ids; `now` is in seconds.
pub fn complete_request(
    request: &ResponsesRequest<'_>,
    faults: &ResponseFaults,
    seed: &str,
    now: i64,
) -> RequestResult {
    let generated = generate_text(request, faults);
    let is_truncated = generated.is_truncated;
    let usage = match faults.unbilled {
        true => UsageObject::default(),
        false => usage(request, &generated, faults.absurd_usage),
    };
    let hash = ids::hex(&["response", seed]);
    let response = ResponseObject {
        id: format!("resp_{}", &hash[..48]),
        object: "response",
        created_at: now,
        status: match &faults.failure {
            Some(_) => "failed",
            None => status(is_truncated),
        },
        background: false,
        completed_at: (!is_truncated).then_some(now),
        error: faults.failure.as_ref().map(|code| {
            let message = format!("An error occurred while processing your request {}.", &hash[..16]);
            json!({"code": code, "message": message})
        }),
        incomplete_details: is_truncated.then(|| json!({"reason": "max_output_tokens"})),
        instructions: (!request.instructions.is_empty()).then_some(request.instructions),
        max_output_tokens: request.max_output_tokens,
        model: if faults.names_alias {
            &request.model.name
        } else {
            &request.model.snapshot
        },
        output: output_items(request, faults, &generated, &hash),
        parallel_tool_calls: true,
        previous_response_id: None,
        reasoning: json!({"effort": request.has_reasoning.then_some("medium"), "summary": null}),
        service_tier: "default",
        store: true,
        temperature: 1.0,
        text: json!({"format": {"type": "text"}, "verbosity": "medium"}),
        tool_choice: "auto",
        tools: [],
        top_p: 1.0,
        truncation: "disabled",
        usage,
        metadata: match &request.metadata {
            Value::Null => json!({}),
            metadata => metadata.clone(),
        },
    };
    RequestResult {
        status: 200,
        body: to_raw_value(&response).unwrap_or_default(),
        usage,
        is_complete: !is_truncated && !faults.refusal && faults.failure.is_none(),
    }
}

fn status(is_truncated: bool) -> &'static str {
    if is_truncated { "incomplete" } else { "completed" }
}

fn generate_text(request: &ResponsesRequest<'_>, faults: &ResponseFaults) -> GeneratedText {
    let mut text = match &request.language {
        Some(language) => texts::expected_translation(&request.text, language),
        None => texts::expected_description(&request.text, &request.images),
    };
    if faults.odd_unicode {
        text.push_str(ODD_UNICODE);
    }
    if let Some(size) = faults.huge {
        let missing = size.saturating_sub(text.len());
        text.push_str(&"damage ".repeat(missing / 7 + 1));
    }
    let reasoning_tokens = if request.has_reasoning {
        REASONING_TOKENS
    } else {
        0
    };
    // The fault `huge_line` ignores the request's limit.
    let limit = match faults.huge {
        Some(_) => u64::MAX,
        None => request.max_output_tokens.unwrap_or(u64::MAX),
    };
    let mut text_tokens = request
        .answer_tokens
        .map_or_else(|| tokens(&text), |[_, output]| output);
    let is_too_long = text_tokens.saturating_add(reasoning_tokens) > limit;
    let is_truncated = is_too_long || faults.truncation.is_some();
    if is_truncated {
        let kept = match faults.truncation {
            Some(Truncation::Empty) => 0,
            _ if is_too_long => limit.saturating_sub(reasoning_tokens),
            _ => text_tokens / 2,
        };
        text_tokens = text_tokens.min(kept);
        let letters = usize::try_from(text_tokens.saturating_mul(4)).unwrap_or(usize::MAX);
        text = text.chars().take(letters).collect();
    }
    GeneratedText {
        text,
        reasoning_tokens,
        output_tokens: (text_tokens + reasoning_tokens).min(limit),
        is_truncated,
    }
}

/// The tokens of an answer; `absurd` stands for those of input and of output.
fn usage(request: &ResponsesRequest<'_>, generated: &GeneratedText, absurd: Option<u64>) -> UsageObject {
    let images = u64::try_from(request.images.len()).unwrap_or(0);
    let counted = tokens(request.instructions) + tokens(&request.text) + TOKENS_OF_AN_IMAGE * images;
    let [input_tokens, output_tokens] = absurd
        .map(|tokens| [tokens; 2])
        .or(request.answer_tokens)
        .unwrap_or([counted, generated.output_tokens]);
    UsageObject {
        input_tokens,
        input_tokens_details: InputTokenDetails {
            cached_tokens: 0,
            cache_write_tokens: Some(0),
        },
        output_tokens,
        output_tokens_details: OutputTokenDetails {
            reasoning_tokens: generated.reasoning_tokens,
        },
        total_tokens: input_tokens.saturating_add(output_tokens),
    }
}

fn tokens(text: &str) -> u64 {
    u64::try_from(text.chars().count()).unwrap_or(u64::MAX) / 4 + 1
}

fn output_items(
    request: &ResponsesRequest<'_>,
    faults: &ResponseFaults,
    generated: &GeneratedText,
    hash: &str,
) -> Vec<Value> {
    let mut items = Vec::new();
    if faults.failure.is_some() {
        return items;
    }
    if request.has_reasoning || faults.reasoning {
        let id = format!("rs_{}", &hash[..48]);
        items.push(json!({"id": id, "type": "reasoning", "summary": []}));
    }
    if faults.nested {
        items.push(message(
            hash,
            "commentary",
            "completed",
            vec![text_part("Looking at the request first.")],
        ));
    }
    let parts = if faults.refusal {
        vec![json!({"type": "refusal", "refusal": "I'm sorry, but I can't help with that."})]
    } else if generated.text.is_empty() {
        // If reasoning used all tokens, there is no message.
        return items;
    } else if faults.nested {
        split(&generated.text, 3)
    } else if hash.starts_with(['0', '1']) {
        split(&generated.text, 2)
    } else {
        split(&generated.text, 1)
    };
    let status = status(generated.is_truncated);
    items.push(message(hash, "final_answer", status, parts));
    items
}

fn message(hash: &str, phase: &str, status: &str, content: Vec<Value>) -> Value {
    json!({
        "id": format!("msg_{}{}", &hash[..40], &phase[..2]),
        "type": "message",
        "role": "assistant",
        "status": status,
        "phase": phase,
        "content": content,
    })
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// Splits a text into parts of about equal length.
fn split(text: &str, parts: usize) -> Vec<Value> {
    let letters = text.chars().collect::<Vec<_>>();
    let size = letters.len().div_ceil(parts).max(1);
    letters
        .chunks(size)
        .map(|chunk| text_part(&chunk.iter().collect::<String>()))
        .collect()
}
