//! The second stage: a description → the body of a `/v1/responses` request.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::domain::vision::add_common_members;

/// `[translation]`: the parameters of a batch of the second stage, frozen in its row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TranslationParameters {
    /// The model.
    pub model: String,
    /// The instructions; `{language}` stands for the BCP 47 tag.
    pub prompt: String,
    /// The cap of an answer, reasoning included.
    pub max_output_tokens: u32,
    /// Left out of the request if empty.
    pub reasoning_effort: String,
}

impl Default for TranslationParameters {
    fn default() -> Self {
        Self {
            model: "gpt-6-luna".into(),
            prompt: "Translate the description of a car's damage into {language} (a BCP 47 language tag). Keep the \
                     paragraphs. Answer with the translation alone."
                .into(),
            max_output_tokens: 2048,
            reasoning_effort: "none".into(),
        }
    }
}

/// The body that asks for `text` in `language`. If `raised`, the answer may be longer.
pub fn request_body(with: &TranslationParameters, raised: bool, text: &str, language: &str) -> Value {
    let mut body = Map::new();
    body.insert("model".into(), json!(with.model));
    body.insert(
        "instructions".into(),
        json!(with.prompt.replace("{language}", language)),
    );
    body.insert(
        "input".into(),
        json!([{"role": "user", "content": [{"type": "input_text", "text": text}]}]),
    );
    body.insert("metadata".into(), json!({"language": language}));
    add_common_members(&mut body, with.max_output_tokens, raised, &with.reasoning_effort);
    Value::Object(body)
}
