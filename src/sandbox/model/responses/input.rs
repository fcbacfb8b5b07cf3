//! The member `input` of a request.

use serde_json::{Map, Value};

use crate::sandbox::model::error_reply::ErrorReply;

const ROLES: [&str; 4] = ["user", "assistant", "system", "developer"];
const DETAILS: [&str; 4] = ["low", "high", "auto", "original"];
const URL_STARTS: [&str; 3] = ["http://", "https://", "data:image/"];

/// The texts and image URLs of a request's input, in their order.
#[derive(Default)]
struct InputContent<'a> {
    texts: Vec<&'a str>,
    images: Vec<&'a str>,
}

/// Checks a request's input; gives its texts, joined by line breaks, and its image URLs.
pub fn parse_input(body: &Map<String, Value>) -> Result<(String, Vec<&str>), ErrorReply> {
    let items = match body.get("input") {
        Some(Value::String(text)) => return Ok((text.clone(), Vec::new())),
        Some(Value::Array(items)) if !items.is_empty() => items,
        Some(Value::Array(_)) => {
            return Err(ErrorReply::invalid(
                "empty_array",
                "input",
                "Invalid 'input': empty array.",
            ));
        }
        Some(_) => return Err(ErrorReply::invalid_type("input", "a string or an array")),
        None => return Err(ErrorReply::missing("input")),
    };
    let mut content = InputContent::default();
    for (number, item) in items.iter().enumerate() {
        parse_item(item, &format!("input[{number}]"), &mut content)?;
    }
    Ok((content.texts.join("\n"), content.images))
}

fn parse_item<'a>(item: &'a Value, at: &str, content: &mut InputContent<'a>) -> Result<(), ErrorReply> {
    let role = item.get("role").and_then(Value::as_str).unwrap_or("");
    if !ROLES.contains(&role) {
        return Err(invalid_value(
            format!("{at}.role"),
            format!("Invalid value: '{role}'."),
        ));
    }
    match item.get("content") {
        Some(Value::String(text)) => content.texts.push(text),
        Some(Value::Array(parts)) => {
            for (number, part) in parts.iter().enumerate() {
                parse_part(part, &format!("{at}.content[{number}]"), content)?;
            }
        }
        _ => {
            return Err(ErrorReply::invalid_type(
                &format!("{at}.content"),
                "a string or an array",
            ));
        }
    }
    Ok(())
}

fn parse_part<'a>(part: &'a Value, at: &str, content: &mut InputContent<'a>) -> Result<(), ErrorReply> {
    let text = |name: &str| part.get(name).and_then(Value::as_str);
    match text("type") {
        Some("input_text") => {
            let text =
                text("text").ok_or_else(|| ErrorReply::invalid_type(&format!("{at}.text"), "a string"))?;
            content.texts.push(text);
            Ok(())
        }
        Some("input_image") => {
            if let Some(detail) = part.get("detail")
                && !DETAILS.iter().any(|known| detail == known)
            {
                return Err(invalid_value(
                    format!("{at}.detail"),
                    "Invalid value of 'detail'.",
                ));
            }
            if part.get("image_url").is_some_and(|url| !url.is_string()) {
                return Err(ErrorReply::invalid_type(
                    &format!("{at}.image_url"),
                    "an image URL, not an object",
                ));
            }
            let url = text("image_url")
                .filter(|url| URL_STARTS.iter().any(|start| url.starts_with(start)))
                .ok_or_else(|| {
                    invalid_value(
                        format!("{at}.image_url"),
                        "Invalid 'image_url': expected a URL of the scheme http, https or data.",
                    )
                })?;
            content.images.push(url);
            Ok(())
        }
        other => Err(invalid_value(
            format!("{at}.type"),
            format!("Invalid value: '{}'.", other.unwrap_or("")),
        )),
    }
}

fn invalid_value(param: String, message: impl Into<String>) -> ErrorReply {
    ErrorReply::invalid("invalid_value", &param, message)
}
