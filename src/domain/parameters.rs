//! The parameters of a batch's lines, frozen in its row, so that the same row gives the same bytes.

use serde_json::Value;

use crate::base::text_enum::text_enum;
use crate::domain::batch::Stage;
use crate::domain::endpoint::RequestForm;
use crate::domain::translation::TranslationParameters;
use crate::domain::vision::VisionParameters;

text_enum! {
    /// A setting that every line of a stage is made or sent with.
    Setting {
        /// The model's name.
        Model = "model",
        /// `reasoning_effort`.
        ReasoningEffort = "reasoning_effort",
        /// The cap of an answer.
        MaxOutputTokens = "max_output_tokens",
        /// How closely the model looks at an image.
        Detail = "detail",
        /// The API key, or its rights.
        ApiKey = "api_key",
        /// A parameter that no setting controls alone.
        Other = "other",
    }
}

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

    /// The form of every line.
    pub fn form(&self) -> RequestForm {
        let (endpoint, token_limit) = match self {
            Self::Vision(it) => (it.endpoint, it.token_limit),
            Self::Translation(it) => (it.endpoint, it.token_limit),
        };
        RequestForm {
            endpoint,
            token_limit,
        }
    }

    /// The parameters with a form.
    #[must_use]
    pub fn with_form(mut self, form: RequestForm) -> Self {
        let (endpoint, token_limit) = match &mut self {
            Self::Vision(it) => (&mut it.endpoint, &mut it.token_limit),
            Self::Translation(it) => (&mut it.endpoint, &mut it.token_limit),
        };
        (*endpoint, *token_limit) = (form.endpoint, form.token_limit);
        self
    }

    /// The model of every line.
    pub fn model(&self) -> &str {
        match self {
            Self::Vision(parameters) => &parameters.model,
            Self::Translation(parameters) => &parameters.model,
        }
    }

    /// The key and value of a setting, as the configuration has it: `translation.model = "gpt-6-luna"`.
    pub fn setting_text(&self, setting: Setting) -> String {
        let (section, effort, detail) = match self {
            Self::Vision(it) => ("vision", &it.reasoning_effort, it.detail.as_str()),
            Self::Translation(it) => ("translation", &it.reasoning_effort, ""),
        };
        let value = match setting {
            Setting::Model => format!("{:?}", self.model()),
            Setting::ReasoningEffort => format!("{effort:?}"),
            Setting::MaxOutputTokens => self.max_output_tokens().to_string(),
            Setting::Detail => format!("{detail:?}"),
            Setting::ApiKey => return "openai.api_key_file".to_owned(),
            Setting::Other => return format!("the section [{section}]"),
        };
        format!("{section}.{setting} = {value}")
    }

    /// The parameters without those that the model is not known to take. Lines are made with these; those of
    /// a batch that is planned already stay what they are.
    #[must_use]
    pub fn for_model(mut self) -> Self {
        if !takes_reasoning_effort(self.model()) {
            match &mut self {
                Self::Vision(parameters) => parameters.reasoning_effort.clear(),
                Self::Translation(parameters) => parameters.reasoning_effort.clear(),
            }
        }
        self
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
        let form = self.form();
        match self {
            Self::Vision(it) => it.question(raised, info, images).to_body(form),
            Self::Translation(it) => {
                let instructions = it.instructions(language);
                it.question(raised, &instructions, text, language).to_body(form)
            }
        }
    }
}

/// Whether a model is of a family that is known to take `reasoning.effort`: the o-series, and gpt-5 and later
/// ones. Every other model refuses the parameter.
fn takes_reasoning_effort(model: &str) -> bool {
    // A fine-tuned model: `ft:gpt-4.1-mini:org:name:id`.
    let name = model.strip_prefix("ft:").unwrap_or(model);
    let number = |text: &str| -> Option<u32> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    let is_chat = name.contains("-chat");
    match (name.strip_prefix("gpt-"), name.strip_prefix('o')) {
        (Some(version), _) => !is_chat && number(version).is_some_and(|version| version >= 5),
        (None, Some(version)) => number(version).is_some(),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasoning_effort_is_sent_to_families_that_are_known_to_take_it() {
        for (model, expected) in [
            ("gpt-6-luna", "none"),
            ("gpt-6.1-terra-2026-10-04", "none"),
            ("gpt-5", "none"),
            ("gpt-5.4-mini", "none"),
            ("gpt-12-sol", "none"),
            ("o3", "none"),
            ("o4-mini-2025-04-16", "none"),
            ("ft:gpt-5-mini:org:lots:1", "none"),
            ("gpt-4.1-mini", ""),
            ("gpt-4o-mini", ""),
            ("gpt-5-chat-latest", ""),
            ("ft:gpt-4.1-mini:org:lots:1", ""),
            ("omni-moderation-latest", ""),
            ("llama-5", ""),
            ("m", ""),
        ] {
            let parameters = Parameters::Translation(TranslationParameters {
                model: model.into(),
                ..TranslationParameters::default()
            });
            let effort = match parameters.for_model() {
                Parameters::Translation(it) => it.reasoning_effort,
                Parameters::Vision(it) => it.reasoning_effort,
            };
            assert_eq!(effort, expected, "{model}");
        }
    }

    #[test]
    fn a_setting_is_named_as_the_configuration_has_it() {
        let vision = Parameters::Vision(VisionParameters::default());
        let translation = Parameters::Translation(TranslationParameters::default());
        for (setting, expected) in [
            (Setting::Model, "translation.model = \"gpt-6-luna\""),
            (
                Setting::ReasoningEffort,
                "translation.reasoning_effort = \"none\"",
            ),
            (Setting::MaxOutputTokens, "translation.max_output_tokens = 2048"),
            (Setting::ApiKey, "openai.api_key_file"),
            (Setting::Other, "the section [translation]"),
        ] {
            assert_eq!(translation.setting_text(setting), expected);
        }
        assert_eq!(vision.setting_text(Setting::Detail), "vision.detail = \"low\"");
    }
}
