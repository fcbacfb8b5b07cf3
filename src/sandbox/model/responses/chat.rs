//! `/v1/chat/completions`: a request and its answer in the form of that endpoint. The model works on the form of
//! `/v1/responses`.

use std::borrow::Cow;

use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};

use super::object::RequestResult;
use super::request::language_in;
use crate::domain::endpoint::Endpoint;
use crate::sandbox::model::error_reply::ErrorReply;

/// Members that a request may have (openai-openapi 2.3.0, `CreateChatCompletionRequest`), as far as the sandbox
/// knows their meaning or may ignore them.
const MEMBERS: [&str; 14] = [
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "n",
    "prompt_cache_key",
    "reasoning_effort",
    "response_format",
    "seed",
    "service_tier",
    "store",
    "stream",
    "user",
];

/// A request to an endpoint, in the form of `/v1/responses`.
///
/// # Errors
/// The refusal of a request that has no such form.
pub fn to_responses_form<'a>(endpoint: &str, body: &'a Value) -> Result<Cow<'a, Value>, ErrorReply> {
    if endpoint != Endpoint::ChatCompletions.as_str() {
        return Ok(Cow::Borrowed(body));
    }
    let body = body.as_object().ok_or_else(ErrorReply::body_is_no_object)?;
    if let Some(unknown) = body.keys().find(|key| !MEMBERS.contains(&key.as_str())) {
        return Err(ErrorReply::unknown_parameter(unknown));
    }
    if body.contains_key("metadata") && body.get("store") != Some(&json!(true)) {
        return Err(ErrorReply::new(
            400,
            "The 'metadata' parameter is only allowed when 'store' is enabled.",
        ));
    }
    let messages = match body.get("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(_) => return Err(ErrorReply::invalid_type("messages", "an array of messages")),
        None => return Err(ErrorReply::missing("messages")),
    };
    let mut request = Map::new();
    let is_instruction = |message: &&Value| matches!(message["role"].as_str(), Some("system" | "developer"));
    let instructions: Vec<&str> = messages
        .iter()
        .filter(is_instruction)
        .filter_map(|message| message["content"].as_str())
        .collect();
    let instructions = instructions.join("\n");
    let items = messages
        .iter()
        .enumerate()
        .filter(|(_, message)| !is_instruction(message));
    let items = items.map(|(number, message)| to_item(number, message));
    let input: Value = items.collect::<Result<Vec<Value>, ErrorReply>>()?.into();
    let has_image = input.to_string().contains("\"input_image\"");
    if let Some(language) = language_in(&instructions).filter(|_| !has_image) {
        request.insert("metadata".into(), json!({"language": language}));
    }
    request.insert("instructions".into(), json!(instructions));
    request.insert("input".into(), input);
    let copied = [
        ("model", "model"),
        ("stream", "stream"),
        ("max_tokens", "max_output_tokens"),
        ("max_completion_tokens", "max_output_tokens"),
    ];
    for (from, to) in copied {
        if let Some(value) = body.get(from) {
            request.insert(to.into(), value.clone());
        }
    }
    if let Some(effort) = body.get("reasoning_effort").filter(|effort| !effort.is_null()) {
        request.insert("reasoning".into(), json!({"effort": effort}));
    }
    Ok(Cow::Owned(Value::Object(request)))
}

fn to_item(number: usize, message: &Value) -> Result<Value, ErrorReply> {
    let content = match &message["content"] {
        Value::Array(parts) => {
            let parts = parts.iter().enumerate();
            let parts =
                parts.map(|(part, value)| to_part(&format!("messages[{number}].content[{part}]"), value));
            parts.collect::<Result<Vec<Value>, ErrorReply>>()?.into()
        }
        content => content.clone(),
    };
    Ok(json!({"role": message["role"], "content": content}))
}

fn to_part(at: &str, part: &Value) -> Result<Value, ErrorReply> {
    match part["type"].as_str() {
        Some("text") => Ok(json!({"type": "input_text", "text": part["text"]})),
        Some("image_url") => {
            let image = part["image_url"]
                .as_object()
                .ok_or_else(|| ErrorReply::invalid_type(&format!("{at}.image_url"), "an object"))?;
            let mut item = json!({"type": "input_image", "image_url": image.get("url")});
            if let Some(detail) = image.get("detail") {
                item["detail"] = detail.clone();
            }
            Ok(item)
        }
        _ => Err(ErrorReply::invalid(
            "invalid_value",
            &format!("{at}.type"),
            "Invalid value: supported values are 'text' and 'image_url'.",
        )),
    }
}

/// The result of a request in the form of its endpoint.
pub fn from_responses_form(endpoint: &str, result: RequestResult) -> RequestResult {
    if endpoint != Endpoint::ChatCompletions.as_str() {
        return result;
    }
    let Ok(response) = serde_json::from_str::<Value>(result.body.get()) else {
        return result;
    };
    if result.status != 200 {
        return with_chat_names(&response, result);
    }
    if !response["error"].is_null() {
        return RequestResult {
            status: 500,
            body: to_raw_value(&json!({"error": response["error"]})).unwrap_or_default(),
            ..result
        };
    }
    let completion = completion(&response);
    RequestResult {
        body: to_raw_value(&completion).unwrap_or_default(),
        ..result
    }
}

/// An error names the members of the chat form.
fn with_chat_names(error: &Value, result: RequestResult) -> RequestResult {
    let mut error = error.clone();
    let names = [
        ("input[0]", "messages[1]"),
        ("max_output_tokens", "max_completion_tokens"),
        ("reasoning.effort", "reasoning_effort"),
    ];
    for place in ["/error/param", "/error/message"] {
        if let Some(Value::String(text)) = error.pointer_mut(place) {
            for (old, new) in names {
                *text = text.replace(old, new);
            }
        }
    }
    RequestResult {
        body: to_raw_value(&error).unwrap_or_default(),
        ..result
    }
}

fn completion(response: &Value) -> Value {
    let output = response["output"].as_array();
    let messages = output
        .into_iter()
        .flatten()
        .filter(|item| item["type"] == "message");
    let parts = messages.flat_map(|item| item["content"].as_array().into_iter().flatten());
    let (mut content, mut refusal) = (String::new(), Value::Null);
    for part in parts {
        match part["type"].as_str() {
            Some("refusal") => refusal = part["refusal"].clone(),
            _ => content.push_str(part["text"].as_str().unwrap_or_default()),
        }
    }
    let content = if refusal.is_null() {
        json!(content)
    } else {
        Value::Null
    };
    let usage = &response["usage"];
    let finish_reason = match response
        .pointer("/incomplete_details/reason")
        .and_then(Value::as_str)
    {
        Some("content_filter") => "content_filter",
        Some(_) => "length",
        None => "stop",
    };
    json!({
        "id": response["id"].as_str().unwrap_or_default().replace("resp_", "chatcmpl-"),
        "object": "chat.completion",
        "created": response["created_at"],
        "model": response["model"],
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": content, "refusal": refusal, "annotations": []},
            "logprobs": null,
            "finish_reason": finish_reason,
        }],
        "usage": {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "total_tokens": usage["total_tokens"],
            "prompt_tokens_details": {
                "cached_tokens": usage["input_tokens_details"]["cached_tokens"], "audio_tokens": 0,
            },
            "completion_tokens_details": {
                "reasoning_tokens": usage["output_tokens_details"]["reasoning_tokens"], "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": null,
    })
}
