//! The second stage: what is asked about a description.

use serde::{Deserialize, Serialize};

use crate::domain::endpoint::{Endpoint, TokenLimit};
use crate::domain::request_body::{Part, Question};

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
    /// The endpoint, from `openai.endpoint`.
    #[serde(skip_serializing_if = "Endpoint::is_default")]
    pub(crate) endpoint: Endpoint,
    /// The cap's name in a chat request, from `openai.token_limit`.
    #[serde(skip_serializing_if = "TokenLimit::is_default")]
    pub(crate) token_limit: TokenLimit,
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
            endpoint: Endpoint::default(),
            token_limit: TokenLimit::default(),
        }
    }
}

impl TranslationParameters {
    /// The instructions for a language.
    pub fn instructions(&self, language: &str) -> String {
        self.prompt.replace("{language}", language)
    }

    /// Asks for `text` in `language`. If `is_raised`, the answer may be longer.
    pub fn question<'a>(
        &'a self,
        is_raised: bool,
        instructions: &'a str,
        text: &'a str,
        language: &'a str,
    ) -> Question<'a> {
        Question {
            model: &self.model,
            instructions,
            parts: vec![Part::Text(text)],
            language: Some(language),
            max_output_tokens: self.max_output_tokens,
            reasoning_effort: &self.reasoning_effort,
            is_raised,
        }
    }
}
