//! The parameters of a batch's lines, frozen in its row, so that the same row gives the same bytes.

use serde_json::Value;

use crate::domain::batch::Stage;
use crate::domain::translation::{self, TranslationParameters};
use crate::domain::vision::{self, VisionParameters};

/// The parameters of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameters {
    /// Parameters of the first stage.
    Vision(VisionParameters),
    /// Parameters of the second stage.
    Translation(TranslationParameters),
}

impl Parameters {
    /// Reads the text that is stored with a batch.
    ///
    /// # Errors
    /// If [`Parameters::to_text`] did not make the text.
    pub fn parse(stage: Stage, text: &str) -> serde_json::Result<Self> {
        Ok(match stage {
            Stage::Vision => Self::Vision(serde_json::from_str(text)?),
            Stage::Translation => Self::Translation(serde_json::from_str(text)?),
        })
    }

    /// The text that is stored with a batch.
    ///
    /// # Errors
    /// Never, in practice: the parameters are plain texts and numbers.
    pub fn to_text(&self) -> serde_json::Result<String> {
        match self {
            Self::Vision(parameters) => serde_json::to_string(parameters),
            Self::Translation(parameters) => serde_json::to_string(parameters),
        }
    }

    /// The model of every line.
    pub fn model(&self) -> &str {
        match self {
            Self::Vision(parameters) => &parameters.model,
            Self::Translation(parameters) => &parameters.model,
        }
    }

    /// The instructions, before a language is put into them.
    pub fn prompt(&self) -> &str {
        match self {
            Self::Vision(parameters) => &parameters.prompt,
            Self::Translation(parameters) => &parameters.prompt,
        }
    }

    /// The cap of an answer.
    pub fn max_output_tokens(&self) -> u32 {
        match self {
            Self::Vision(parameters) => parameters.max_output_tokens,
            Self::Translation(parameters) => parameters.max_output_tokens,
        }
    }

    /// The body of one line. The vision stage uses the seller's text and the images, the translation stage the
    /// description and the language. If `raised`, the answer may be longer.
    pub fn body(&self, raised: bool, info: &str, images: &[String], text: &str, language: &str) -> Value {
        match self {
            Self::Vision(parameters) => vision::request_body(parameters, raised, info, images),
            Self::Translation(parameters) => translation::request_body(parameters, raised, text, language),
        }
    }
}
