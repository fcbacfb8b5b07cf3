//! The body of a model's answer, as `/v1/responses` and result files have it.
//!
//! It holds all the traps of real ones: a reasoning item before the message, a member `text` at
//! the top that is no text, several parts.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::sandbox::model::ids;
use crate::sandbox::model::responses::request::ResponsesRequest;
use crate::sandbox::model::responses::texts;

/// Appended to a text by the fault `odd_unicode`: line separators that are no line breaks in JSON.
pub const ODD_UNICODE: &str = " \u{2028}\u{2029}\u{85}.";

/// How an answer is twisted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::sandbox) struct ResponseFaults {
    pub(in crate::sandbox) refusal: bool,
    /// Cut off; true: without any text.
    pub(in crate::sandbox) truncated: Option<bool>,
    pub(in crate::sandbox) nested: bool,
    pub(in crate::sandbox) odd_unicode: bool,
    pub(in crate::sandbox) huge: Option<usize>,
    /// Names the alias instead of the dated model.
    pub(in crate::sandbox) alias: bool,
}

/// What a model's work cost, in OpenAI's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(in crate::sandbox) struct UsageObject {
    pub(in crate::sandbox) input_tokens: u64,
    pub(in crate::sandbox) input_tokens_details: InputTokenDetails,
    pub(in crate::sandbox) output_tokens: u64,
    pub(in crate::sandbox) output_tokens_details: OutputTokenDetails,
    pub(in crate::sandbox) total_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(in crate::sandbox) struct InputTokenDetails {
    pub(in crate::sandbox) cached_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(in crate::sandbox) struct OutputTokenDetails {
    pub(in crate::sandbox) reasoning_tokens: u64,
}

impl UsageObject {
    pub(in crate::sandbox) fn add(&mut self, other: UsageObject) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.output_tokens_details.reasoning_tokens += other.output_tokens_details.reasoning_tokens;
        self.total_tokens += other.total_tokens;
    }
}

/// An answer with status 200.
pub(in crate::sandbox) struct RequestResult {
    pub(in crate::sandbox) body: Box<RawValue>,
    pub(in crate::sandbox) usage: UsageObject,
    /// Whether it is a whole text.
    pub(in crate::sandbox) whole: bool,
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

fn tokens(text: &str) -> u64 {
    u64::try_from(text.chars().count()).unwrap_or(u64::MAX) / 4 + 1
}

/// Answers a request. `seed` makes the ids; `now` is in seconds.
pub(in crate::sandbox) fn answer(
    ask: &ResponsesRequest<'_>,
    twist: &ResponseFaults,
    seed: &str,
    now: i64,
) -> RequestResult {
    let mut text = match &ask.language {
        Some(language) => texts::expected_translation(&ask.text, language),
        None => texts::expected_description(&ask.text, &ask.images),
    };
    if twist.odd_unicode {
        text.push_str(ODD_UNICODE);
    }
    if let Some(size) = twist.huge {
        let missing = size.saturating_sub(text.len());
        text.push_str(&"damage ".repeat(missing / 7 + 1));
    }
    let thinking = if ask.reasons { REASONING_TOKENS } else { 0 };
    // A text that is told to be huge minds no cap.
    let limit = match twist.huge {
        Some(_) => u64::MAX,
        None => ask.max_output_tokens.unwrap_or(u64::MAX),
    };
    let mut spoken = tokens(&text);
    let too_long = spoken.saturating_add(thinking) > limit;
    let truncated = too_long || twist.truncated.is_some();
    if truncated {
        let kept = if twist.truncated == Some(true) {
            0
        } else if too_long {
            limit.saturating_sub(thinking)
        } else {
            spoken / 2
        };
        spoken = spoken.min(kept);
        let letters = usize::try_from(spoken.saturating_mul(4)).unwrap_or(usize::MAX);
        text = text.chars().take(letters).collect();
    }
    let output_tokens = (spoken + thinking).min(limit);
    let input_tokens = tokens(ask.instructions)
        + tokens(&ask.text)
        + TOKENS_OF_AN_IMAGE * u64::try_from(ask.images.len()).unwrap_or(0);
    let usage = UsageObject {
        input_tokens,
        input_tokens_details: InputTokenDetails::default(),
        output_tokens,
        output_tokens_details: OutputTokenDetails {
            reasoning_tokens: thinking,
        },
        total_tokens: input_tokens + output_tokens,
    };
    let hash = ids::hex(&["response", seed]);
    let document = ResponseObject {
        id: format!("resp_{}", &hash[..48]),
        object: "response",
        created_at: now,
        status: if truncated { "incomplete" } else { "completed" },
        background: false,
        completed_at: (!truncated).then_some(now),
        error: None,
        incomplete_details: truncated.then(|| json!({"reason": "max_output_tokens"})),
        instructions: (!ask.instructions.is_empty()).then_some(ask.instructions),
        max_output_tokens: ask.max_output_tokens,
        model: if twist.alias {
            &ask.model.name
        } else {
            &ask.model.snapshot
        },
        output: output(ask, twist, &text, &hash, truncated),
        parallel_tool_calls: true,
        previous_response_id: None,
        reasoning: json!({"effort": if ask.reasons { json!("medium") } else { Value::Null }, "summary": null}),
        service_tier: "default",
        store: true,
        temperature: 1.0,
        text: json!({"format": {"type": "text"}, "verbosity": "medium"}),
        tool_choice: "auto",
        tools: [],
        top_p: 1.0,
        truncation: "disabled",
        usage,
        metadata: match &ask.metadata {
            Value::Null => json!({}),
            metadata => metadata.clone(),
        },
    };
    RequestResult {
        body: to_raw_value(&document).unwrap_or_default(),
        usage,
        whole: !truncated && !twist.refusal,
    }
}

fn output(
    ask: &ResponsesRequest<'_>,
    twist: &ResponseFaults,
    text: &str,
    hash: &str,
    truncated: bool,
) -> Vec<Value> {
    let mut items = Vec::new();
    if ask.reasons {
        items
            .push(json!({"id": format!("rs_{}", &hash[..48]), "type": "reasoning", "summary": []}));
    }
    if twist.nested {
        items.push(message(
            hash,
            "commentary",
            "completed",
            vec![part("Looking at the request first.")],
        ));
    }
    let status = if truncated { "incomplete" } else { "completed" };
    let parts = if twist.refusal {
        vec![json!({"type": "refusal", "refusal": "I'm sorry, but I can't help with that."})]
    } else if text.is_empty() {
        // A cap that thinking used up leaves no message at all.
        return items;
    } else if twist.nested {
        split(text, 3)
    } else if hash.starts_with(['0', '1']) {
        split(text, 2)
    } else {
        split(text, 1)
    };
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

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// The text in parts of about equal length; joined they are the text.
fn split(text: &str, parts: usize) -> Vec<Value> {
    let letters = text.chars().collect::<Vec<_>>();
    let size = letters.len().div_ceil(parts).max(1);
    letters
        .chunks(size)
        .map(|chunk| part(&chunk.iter().collect::<String>()))
        .collect()
}
