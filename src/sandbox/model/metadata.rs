//! OpenAI's rule for the metadata of responses and of batches.

use serde_json::Value;

use super::error_reply::ErrorReply;

/// Refuses metadata with more than 16 pairs, keys over 64 or values over 512 characters.
pub fn check_metadata(metadata: &Value) -> Result<(), ErrorReply> {
    let pairs = match metadata {
        Value::Null => return Ok(()),
        Value::Object(pairs) => pairs,
        _ => return Err(ErrorReply::invalid_type("metadata", "an object")),
    };
    if pairs.len() > 16 {
        return Err(ErrorReply::invalid(
            "object_above_max_properties",
            "metadata",
            "Invalid 'metadata': too many properties. Expected at most 16.",
        ));
    }
    for (key, value) in pairs {
        let param = format!("metadata.{key}");
        let Some(text) = value.as_str() else {
            return Err(ErrorReply::invalid_type(&param, "a string"));
        };
        if key.chars().count() > 64 {
            return Err(ErrorReply::invalid(
                "invalid_value",
                &param,
                "Invalid 'metadata': a key is longer than 64 characters.",
            ));
        }
        if text.chars().count() > 512 {
            return Err(ErrorReply::invalid(
                "string_above_max_length",
                &param,
                format!("Invalid '{param}': string too long. Expected at most 512 characters."),
            ));
        }
    }
    Ok(())
}
