//! The body of a request: what is asked, in the form of either endpoint.

use serde_json::{Map, Value, json};

use crate::domain::endpoint::{Endpoint, RequestForm};

/// The factor by which an answer's cap is raised after an answer was cut short.
pub const RAISED: u32 = 4;

/// A part of what the user says.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// A text.
    Text(&'a str),
    /// The URL of an image.
    Image {
        /// The URL.
        url: &'a str,
        /// How closely the model looks at it.
        detail: &'a str,
    },
}

/// What a request asks.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The model.
    pub model: &'a str,
    /// The instructions.
    pub instructions: &'a str,
    /// What the user says.
    pub parts: Vec<Part<'a>>,
    /// The language of a translation; `None` for a description.
    pub language: Option<&'a str>,
    /// The cap of an answer, reasoning included.
    pub max_output_tokens: u32,
    /// Left out if empty.
    pub reasoning_effort: &'a str,
    /// Whether the answer may be longer, because one was cut short.
    pub is_raised: bool,
}

impl Question<'_> {
    /// The body in the form of an endpoint.
    pub fn to_body(&self, form: RequestForm) -> Value {
        let mut body = Map::new();
        body.insert("model".into(), json!(self.model));
        body.insert(form.limit_name().into(), json!(self.cap()));
        match form.endpoint {
            Endpoint::Responses => self.responses_members(&mut body),
            Endpoint::ChatCompletions => self.chat_members(&mut body),
        }
        Value::Object(body)
    }

    fn cap(&self) -> u32 {
        match self.is_raised {
            true => self.max_output_tokens.saturating_mul(RAISED),
            false => self.max_output_tokens,
        }
    }

    fn responses_members(&self, body: &mut Map<String, Value>) {
        let content: Vec<Value> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => json!({"type": "input_text", "text": text}),
                Part::Image { url, detail } => {
                    json!({"type": "input_image", "image_url": url, "detail": detail})
                }
            })
            .collect();
        body.insert("instructions".into(), json!(self.instructions));
        body.insert("input".into(), json!([{"role": "user", "content": content}]));
        if let Some(language) = self.language {
            body.insert("metadata".into(), json!({"language": language}));
        }
        body.insert("text".into(), json!({"format": {"type": "text"}}));
        if !self.reasoning_effort.is_empty() {
            body.insert("reasoning".into(), json!({"effort": self.reasoning_effort}));
        }
    }

    /// OpenAI takes `metadata` here only of answers that it stores, so there is none. A text alone is a string,
    /// since some servers take parts only of models that see.
    fn chat_members(&self, body: &mut Map<String, Value>) {
        let content = match self.parts.as_slice() {
            [Part::Text(text)] => json!(text),
            parts => parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => json!({"type": "text", "text": text}),
                    Part::Image { url, detail } => {
                        json!({"type": "image_url", "image_url": {"url": url, "detail": detail}})
                    }
                })
                .collect(),
        };
        let messages = json!([
            {"role": "system", "content": self.instructions},
            {"role": "user", "content": content},
        ]);
        body.insert("messages".into(), messages);
        if !self.reasoning_effort.is_empty() {
            body.insert("reasoning_effort".into(), json!(self.reasoning_effort));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::endpoint::TokenLimit;

    #[test]
    fn a_question_has_the_form_of_its_endpoint() {
        let image = Part::Image {
            url: "https://img.example/1.jpg",
            detail: "low",
        };
        let vision = Question {
            model: "m",
            instructions: "Describe.",
            parts: vec![Part::Text("A dent."), image],
            language: None,
            max_output_tokens: 100,
            reasoning_effort: "none",
            is_raised: false,
        };
        let translation = Question {
            parts: vec![Part::Text("A dent.")],
            language: Some("ru"),
            reasoning_effort: "",
            is_raised: true,
            ..vision.clone()
        };
        let chat = |token_limit| RequestForm {
            endpoint: Endpoint::ChatCompletions,
            token_limit,
        };
        assert_eq!(
            vision.to_body(chat(TokenLimit::MaxCompletionTokens)),
            json!({
                "model": "m", "max_completion_tokens": 100, "reasoning_effort": "none",
                "messages": [
                    {"role": "system", "content": "Describe."},
                    {"role": "user", "content": [
                        {"type": "text", "text": "A dent."},
                        {"type": "image_url", "image_url": {"url": "https://img.example/1.jpg", "detail": "low"}},
                    ]},
                ],
            })
        );
        assert_eq!(
            translation.to_body(chat(TokenLimit::MaxTokens)),
            json!({
                "model": "m", "max_tokens": 400,
                "messages": [
                    {"role": "system", "content": "Describe."}, {"role": "user", "content": "A dent."},
                ],
            })
        );
        let responses = RequestForm {
            endpoint: Endpoint::Responses,
            token_limit: TokenLimit::MaxTokens,
        };
        assert_eq!(
            translation.to_body(responses),
            json!({
                "model": "m", "instructions": "Describe.", "max_output_tokens": 400,
                "input": [{"role": "user", "content": [{"type": "input_text", "text": "A dent."}]}],
                "metadata": {"language": "ru"}, "text": {"format": {"type": "text"}},
            })
        );
    }
}
