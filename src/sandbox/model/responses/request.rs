//! A request to `/v1/responses`: its checks and what it asks for.

use serde_json::{Map, Value};

use super::input::parse_input;
use super::sample_images::is_reachable;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::metadata::check_metadata;
use crate::sandbox::model::settings::{Reasoning, SandboxSettings, SimulatedModel};

/// Members that a request may have (openai-openapi 2.3.0, `CreateResponse`).
const MEMBERS: [&str; 29] = [
    "background",
    "context_management",
    "conversation",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
];

const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/// A valid request.
pub struct ResponsesRequest<'a> {
    pub model: &'a SimulatedModel,
    /// The language of a translation; `None` if the request asks for a description.
    pub language: Option<String>,
    /// All `input_text` parts, joined by line breaks.
    pub text: String,
    /// The image URLs in their order.
    pub images: Vec<&'a str>,
    pub instructions: &'a str,
    pub max_output_tokens: Option<u64>,
    /// Whether a reasoning item comes first.
    pub has_reasoning: bool,
    pub metadata: Value,
    /// See [`SandboxSettings::answer_tokens`].
    pub answer_tokens: Option<[u64; 2]>,
}

impl<'a> ResponsesRequest<'a> {
    /// Checks a request.
    pub fn parse(body: &'a Value, settings: &'a SandboxSettings) -> Result<Self, ErrorReply> {
        let body = body.as_object().ok_or_else(ErrorReply::body_is_no_object)?;
        if let Some(unknown) = body.keys().find(|key| !MEMBERS.contains(&key.as_str())) {
            return Err(ErrorReply::unknown_parameter(unknown));
        }
        let model = requested_model(body, settings)?;
        if body.get("stream").is_some_and(|stream| *stream == true) {
            return Err(ErrorReply::invalid(
                "unsupported_value",
                "stream",
                "The sandbox does not stream.",
            ));
        }
        let instructions = optional_text(body, "instructions")?.unwrap_or("");
        let max_output_tokens = max_output_tokens(body)?;
        let has_reasoning = has_reasoning(body, model)?;
        check_sampling(body, has_reasoning)?;
        check_text_format(body)?;
        let metadata = body.get("metadata").cloned().unwrap_or(Value::Null);
        check_metadata(&metadata)?;
        let (text, images) = parse_input(body)?;
        let language = match metadata.get("language").and_then(Value::as_str) {
            Some(language) => Some(language.to_owned()),
            None if images.is_empty() => language_in(instructions),
            None => None,
        };
        Ok(Self {
            model,
            language,
            text,
            images,
            instructions,
            max_output_tokens,
            has_reasoning,
            metadata,
            answer_tokens: settings.answer_tokens,
        })
    }

    /// The first image that the model cannot download.
    pub fn unreachable_image(&self) -> Option<&'a str> {
        self.images.iter().copied().find(|url| !is_reachable(url))
    }
}

/// The names that a fault's `match` is compared with, in a batch and in a synchronous request alike: what the
/// request asks for, and its text.
pub fn request_names(body: &Value) -> [String; 2] {
    let is_translation = body.pointer("/metadata/language").is_some();
    let kind = if is_translation {
        "translation"
    } else {
        "description"
    };
    let text = body
        .as_object()
        .and_then(|body| parse_input(body).ok())
        .map(|(text, _)| text)
        .unwrap_or_default();
    [format!("kind:{kind}"), format!("text:{text}")]
}

fn requested_model<'a>(
    body: &Map<String, Value>,
    settings: &'a SandboxSettings,
) -> Result<&'a SimulatedModel, ErrorReply> {
    let name = match body.get("model") {
        Some(Value::String(name)) => name,
        Some(_) => return Err(ErrorReply::invalid_type("model", "a string")),
        None => return Err(ErrorReply::missing("model")),
    };
    settings.model(name).ok_or_else(|| {
        ErrorReply::new(
            404,
            format!("The model '{name}' does not exist or you do not have access to it."),
        )
        .code("model_not_found")
        .param("model")
    })
}

fn optional_text<'a>(body: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, ErrorReply> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ErrorReply::invalid_type(name, "a string")),
    }
}

fn max_output_tokens(body: &Map<String, Value>) -> Result<Option<u64>, ErrorReply> {
    const NAME: &str = "max_output_tokens";
    match body.get(NAME) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64() {
            None => Err(ErrorReply::invalid_type(NAME, "an integer")),
            Some(number) if number < 16 => Err(ErrorReply::invalid(
                "integer_below_min_value",
                NAME,
                format!(
                    "Invalid '{NAME}': integer below minimum value. Expected a value >= 16, but got {number} instead."
                ),
            )),
            Some(number) => Ok(u64::try_from(number).ok()),
        },
    }
}

fn has_reasoning(body: &Map<String, Value>, model: &SimulatedModel) -> Result<bool, ErrorReply> {
    let reasoning = body.get("reasoning").filter(|value| !value.is_null());
    if let Some(value) = reasoning {
        if model.reasoning == Reasoning::Never {
            return Err(ErrorReply::invalid(
                "unsupported_parameter",
                "reasoning.effort",
                "Unsupported parameter: 'reasoning.effort' is not supported with this model.",
            ));
        }
        if !value.is_object() {
            return Err(ErrorReply::invalid_type("reasoning", "an object"));
        }
    }
    let effort = match reasoning.and_then(|value| value.get("effort")) {
        None | Some(Value::Null) => None,
        Some(Value::String(effort)) => Some(effort.as_str()),
        Some(_) => return Err(ErrorReply::invalid_type("reasoning.effort", "a string")),
    };
    match effort {
        Some(effort) if !EFFORTS.contains(&effort) => Err(ErrorReply::invalid(
            "invalid_value",
            "reasoning.effort",
            format!("Invalid value: '{effort}'."),
        )),
        Some("none") if model.reasoning == Reasoning::Always => Err(ErrorReply::invalid(
            "unsupported_value",
            "reasoning.effort",
            "Unsupported value: 'none' is not supported with this model.",
        )),
        _ => Ok(model.reasoning != Reasoning::Never && effort != Some("none")),
    }
}

fn check_sampling(body: &Map<String, Value>, has_reasoning: bool) -> Result<(), ErrorReply> {
    for (name, highest) in [("temperature", 2.0), ("top_p", 1.0)] {
        let Some(value) = body.get(name).filter(|value| !value.is_null()) else {
            continue;
        };
        let Some(number) = value.as_f64() else {
            return Err(ErrorReply::invalid_type(name, "a number"));
        };
        if !(0.0..=highest).contains(&number) {
            return Err(ErrorReply::invalid(
                "decimal_out_of_range",
                name,
                format!("Invalid '{name}': expected 0 to {highest}."),
            ));
        }
        if has_reasoning {
            return Err(ErrorReply::invalid(
                "unsupported_parameter",
                name,
                format!("Unsupported parameter: '{name}' is not supported with this model."),
            ));
        }
    }
    Ok(())
}

fn check_text_format(body: &Map<String, Value>) -> Result<(), ErrorReply> {
    let Some(text) = body.get("text").filter(|value| !value.is_null()) else {
        return Ok(());
    };
    if !text.is_object() {
        return Err(ErrorReply::invalid_type("text", "an object"));
    }
    match text.get("format").map(|format| format.get("type")) {
        None => Ok(()),
        Some(Some(Value::String(kind)))
            if ["text", "json_object", "json_schema"].contains(&kind.as_str()) =>
        {
            Ok(())
        }
        Some(_) => Err(ErrorReply::invalid(
            "invalid_value",
            "text.format.type",
            "Invalid value of 'text.format.type'.",
        )),
    }
}

/// The language tag that follows "into" in the instructions.
pub(super) fn language_in(instructions: &str) -> Option<String> {
    let words = instructions.split_whitespace().collect::<Vec<_>>();
    words.windows(2).find_map(|pair| {
        let tag = pair[1].trim_matches(|c: char| !c.is_alphanumeric());
        let mut parts = tag.split('-');
        let plausible = pair[0].eq_ignore_ascii_case("into")
            && parts.next().is_some_and(|first| {
                (2..=3).contains(&first.len()) && first.chars().all(|c| c.is_ascii_alphabetic())
            })
            && parts.all(|part| (1..=8).contains(&part.len()));
        plausible.then(|| tag.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(body: Value) -> (u16, String, String) {
        let settings = SandboxSettings::default();
        match ResponsesRequest::parse(&body, &settings) {
            Ok(_) => panic!("accepted: {body}"),
            Err(error) => (
                error.status,
                error.code.unwrap_or_default(),
                error.param.unwrap_or_default(),
            ),
        }
    }

    #[test]
    fn requests_are_checked_against_the_contract() {
        let with = |name: &str, value: Value| {
            let mut body = json!({"model": "gpt-6-luna", "input": "x"});
            body[name] = value;
            refused(body)
        };
        for (got, status, code, param) in [
            (refused(json!([])), 400, "", ""),
            (
                refused(json!({"input": "x"})),
                400,
                "missing_required_parameter",
                "model",
            ),
            (
                refused(json!({"model": "gpt-6-luna"})),
                400,
                "missing_required_parameter",
                "input",
            ),
            (with("model", json!("gpt-9")), 404, "model_not_found", "model"),
            (
                with("max_output_tokens", json!(15)),
                400,
                "integer_below_min_value",
                "max_output_tokens",
            ),
            (
                with("max_tokens", json!(100)),
                400,
                "unknown_parameter",
                "max_tokens",
            ),
            (with("stream", json!(true)), 400, "unsupported_value", "stream"),
            (
                with("metadata", json!({"a": 1})),
                400,
                "invalid_type",
                "metadata.a",
            ),
            (
                with("temperature", json!(0.5)),
                400,
                "unsupported_parameter",
                "temperature",
            ),
            (
                with("reasoning", json!({"effort": "hard"})),
                400,
                "invalid_value",
                "reasoning.effort",
            ),
            (
                with("input", json!([{"role": "user", "content": [{"type": "text"}]}])),
                400,
                "invalid_value",
                "input[0].content[0].type",
            ),
            (
                with(
                    "input",
                    json!([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]),
                ),
                400,
                "invalid_value",
                "input[0].content[0].image_url",
            ),
        ] {
            assert_eq!(got, (status, code.to_owned(), param.to_owned()));
        }
    }

    #[test]
    fn translations_are_distinguished_from_descriptions() {
        let settings = SandboxSettings::default();
        let body = json!({"model": "gpt-4.1-mini", "instructions": "Take it into account, and translate into pt-BR.", "input": "x"});
        assert_eq!(
            ResponsesRequest::parse(&body, &settings)
                .map(|request| request.language)
                .ok(),
            Some(Some("pt-BR".to_owned()))
        );
        let body =
            json!({"model": "gpt-4.1-mini", "instructions": "Take the text into account.", "input": "x"});
        assert_eq!(
            ResponsesRequest::parse(&body, &settings)
                .map(|request| request.language)
                .ok(),
            Some(None)
        );
        let body = json!({"model": "gpt-4.1-mini", "input": "x", "metadata": {"language": "ru"}});
        assert_eq!(
            ResponsesRequest::parse(&body, &settings)
                .map(|request| request.language)
                .ok(),
            Some(Some("ru".to_owned()))
        );
    }
}
