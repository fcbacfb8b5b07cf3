//! The first stage: what is asked about a lot.

use serde::{Deserialize, Serialize};

use crate::domain::endpoint::{Endpoint, TokenLimit};
use crate::domain::request_body::{Part, Question};

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
    /// The endpoint, from `openai.endpoint`.
    #[serde(skip_serializing_if = "Endpoint::is_default")]
    pub(crate) endpoint: Endpoint,
    /// The cap's name in a chat request, from `openai.token_limit`.
    #[serde(skip_serializing_if = "TokenLimit::is_default")]
    pub(crate) token_limit: TokenLimit,
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
            endpoint: Endpoint::default(),
            token_limit: TokenLimit::default(),
        }
    }
}

impl VisionParameters {
    /// Asks for a lot's description. If `is_raised`, the answer may be longer.
    pub fn question<'a>(&'a self, is_raised: bool, info: &'a str, images: &'a [String]) -> Question<'a> {
        let info = Some(Part::Text(info)).filter(|_| !info.is_empty());
        let images = images.iter().map(|url| Part::Image {
            url,
            detail: &self.detail,
        });
        Question {
            model: &self.model,
            instructions: &self.prompt,
            parts: info.into_iter().chain(images).collect(),
            language: None,
            max_output_tokens: self.max_output_tokens,
            reasoning_effort: &self.reasoning_effort,
            is_raised,
        }
    }
}

/// The number, from 0, of the image that is the content part at `place` of a question.
pub fn image_at(place: usize, info: &str) -> Option<usize> {
    match info.is_empty() {
        true => Some(place),
        false => place.checked_sub(1),
    }
}
