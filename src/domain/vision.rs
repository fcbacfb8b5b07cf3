//! The first stage: a lot → the body of a `/v1/responses` request.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// `[vision]`: the parameters of a batch of the first stage, frozen in its row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VisionParameters {
    /// The model.
    pub model: String,
    /// The instructions.
    pub prompt: String,
    /// `low`, `high`, `auto` or `original`.
    pub detail: String,
    /// The cap of an answer, reasoning included.
    pub max_output_tokens: u32,
    /// Left out of the request if empty.
    pub reasoning_effort: String,
}

impl Default for VisionParameters {
    fn default() -> Self {
        Self {
            model: "gpt-6-luna".into(),
            prompt: "You inspect cars for an auction. From the photographs and the seller's text, describe in \
                     English the damage that can be seen or is stated: which parts, what kind, how severe. Write \
                     two or three short paragraphs of plain text. Name nothing that is neither seen nor stated."
                .into(),
            detail: "low".into(),
            max_output_tokens: 2048,
            reasoning_effort: "none".into(),
        }
    }
}

/// The factor by which an answer's cap is raised after an answer was cut short.
pub const RAISED: u32 = 4;

/// The body that asks for a lot's description. If `raised`, the answer may be longer.
pub fn request_body(with: &VisionParameters, raised: bool, info: &str, images: &[String]) -> Value {
    let mut content = Vec::with_capacity(images.len() + 1);
    if !info.is_empty() {
        content.push(json!({"type": "input_text", "text": info}));
    }
    content.extend(
        images
            .iter()
            .map(|url| json!({"type": "input_image", "image_url": url, "detail": with.detail})),
    );
    let mut body = Map::new();
    body.insert("model".into(), json!(with.model));
    body.insert("instructions".into(), json!(with.prompt));
    body.insert("input".into(), json!([{"role": "user", "content": content}]));
    add_common_members(&mut body, with.max_output_tokens, raised, &with.reasoning_effort);
    Value::Object(body)
}

/// Adds the members that both stages' bodies end with.
pub(crate) fn add_common_members(body: &mut Map<String, Value>, cap: u32, raised: bool, effort: &str) {
    let cap = if raised { cap.saturating_mul(RAISED) } else { cap };
    body.insert("max_output_tokens".into(), json!(cap));
    body.insert("text".into(), json!({"format": {"type": "text"}}));
    if !effort.is_empty() {
        body.insert("reasoning".into(), json!({"effort": effort}));
    }
}
