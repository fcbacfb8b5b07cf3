//! Parts of a request that are checked alike wherever they stand: the input's items, metadata.

use serde_json::{Map, Value};

use crate::sandbox::model::error_reply::ErrorReply;

/// A 400 with code and param.
pub(in crate::sandbox) fn invalid(
    code: &str,
    param: &str,
    message: impl Into<String>,
) -> ErrorReply {
    ErrorReply::new(400, message).code(code).param(param)
}

/// A value of the wrong JSON type.
pub(in crate::sandbox) fn invalid_type(param: &str, expected: &str) -> ErrorReply {
    invalid(
        "invalid_type",
        param,
        format!("Invalid type for '{param}': expected {expected}."),
    )
}

/// The rule for metadata of responses and of batches: 16 pairs, keys of 64, values of 512.
pub(in crate::sandbox) fn check_metadata(metadata: &Value) -> Result<(), ErrorReply> {
    let pairs = match metadata {
        Value::Null => return Ok(()),
        Value::Object(pairs) => pairs,
        _ => return Err(invalid_type("metadata", "an object")),
    };
    if pairs.len() > 16 {
        return Err(invalid(
            "object_above_max_properties",
            "metadata",
            "Invalid 'metadata': too many properties. Expected at most 16.",
        ));
    }
    for (key, value) in pairs {
        let param = format!("metadata.{key}");
        let Some(text) = value.as_str() else {
            return Err(invalid_type(&param, "a string"));
        };
        if key.chars().count() > 64 {
            return Err(invalid(
                "invalid_value",
                &param,
                "Invalid 'metadata': a key is longer than 64 characters.",
            ));
        }
        if text.chars().count() > 512 {
            return Err(invalid(
                "string_above_max_length",
                &param,
                format!("Invalid '{param}': string too long. Expected at most 512 characters."),
            ));
        }
    }
    Ok(())
}

/// The texts, joined by line breaks, and the image URLs of a request's input.
pub(in crate::sandbox) fn input(
    body: &Map<String, Value>,
) -> Result<(String, Vec<&str>), ErrorReply> {
    let items = match body.get("input") {
        Some(Value::String(text)) => return Ok((text.clone(), Vec::new())),
        Some(Value::Array(items)) if !items.is_empty() => items,
        Some(Value::Array(_)) => {
            return Err(invalid(
                "empty_array",
                "input",
                "Invalid 'input': empty array.",
            ));
        }
        Some(_) => return Err(invalid_type("input", "a string or an array")),
        None => {
            return Err(invalid(
                "missing_required_parameter",
                "input",
                "Missing required parameter: 'input'.",
            ));
        }
    };
    let mut texts = Vec::new();
    let mut images = Vec::new();
    for (number, item) in items.iter().enumerate() {
        let at = format!("input[{number}]");
        let role = item.get("role").and_then(Value::as_str).unwrap_or("");
        if !["user", "assistant", "system", "developer"].contains(&role) {
            return Err(invalid(
                "invalid_value",
                &format!("{at}.role"),
                format!("Invalid value: '{role}'."),
            ));
        }
        match item.get("content") {
            Some(Value::String(text)) => texts.push(text.as_str()),
            Some(Value::Array(parts)) => {
                for (number, part) in parts.iter().enumerate() {
                    content_part(
                        part,
                        &format!("{at}.content[{number}]"),
                        &mut texts,
                        &mut images,
                    )?;
                }
            }
            _ => {
                return Err(invalid_type(
                    &format!("{at}.content"),
                    "a string or an array",
                ));
            }
        }
    }
    Ok((texts.join("\n"), images))
}

fn content_part<'a>(
    part: &'a Value,
    at: &str,
    texts: &mut Vec<&'a str>,
    images: &mut Vec<&'a str>,
) -> Result<(), ErrorReply> {
    let text = |name: &str| part.get(name).and_then(Value::as_str);
    match text("type") {
        Some("input_text") => match text("text") {
            Some(text) => {
                texts.push(text);
                Ok(())
            }
            None => Err(invalid_type(&format!("{at}.text"), "a string")),
        },
        Some("input_image") => {
            if let Some(detail) = part.get("detail")
                && !["low", "high", "auto", "original"]
                    .iter()
                    .any(|known| detail == known)
            {
                return Err(invalid(
                    "invalid_value",
                    &format!("{at}.detail"),
                    "Invalid value of 'detail'.",
                ));
            }
            match text("image_url") {
                Some(url)
                    if ["http://", "https://", "data:image/"]
                        .iter()
                        .any(|start| url.starts_with(start)) =>
                {
                    images.push(url);
                    Ok(())
                }
                _ => Err(invalid(
                    "invalid_value",
                    &format!("{at}.image_url"),
                    "Invalid 'image_url': expected a URL of the scheme http, https or data.",
                )),
            }
        }
        other => Err(invalid(
            "invalid_value",
            &format!("{at}.type"),
            format!("Invalid value: '{}'.", other.unwrap_or("")),
        )),
    }
}
