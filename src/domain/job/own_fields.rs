//! The client's own fields: `metadata` of a job and `reference` of a lot. They are stored and given back, and mean
//! nothing here.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::json;

use super::lot_checks::{check_text, invalid_lot};
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::python_json::Json;

/// A job's `metadata`: a client's values by its keys.
pub type Metadata = BTreeMap<String, String>;

/// The most keys of `metadata`.
pub const MAX_METADATA_KEYS: usize = 16;
/// The most characters of a key.
pub const MAX_METADATA_KEY_CHARS: usize = 64;
/// The most characters of a value, and of a lot's `reference`.
pub const MAX_OWN_CHARS: usize = 512;

/// Checks `metadata`; empty if it is absent.
pub(super) fn check_metadata(value: Option<Json<'_>>) -> Result<Metadata, ApiError> {
    let members = match value {
        None => return Ok(Metadata::new()),
        Some(Json::Object(members)) => members,
        Some(_) => {
            let problem = "must be an object of strings, such as {\"order\": \"1001\"}.";
            return Err(invalid_metadata("metadata", problem));
        }
    };
    // Of duplicates, the last one counts.
    let mut values = BTreeMap::new();
    for (key, value) in members {
        let key = key.decode().map_err(|_| {
            let problem = "has a key with half of a surrogate pair.";
            invalid_metadata("metadata", problem)
        })?;
        let length = key.chars().count();
        if !(1..=MAX_METADATA_KEY_CHARS).contains(&length) {
            let problem = format!(
                "has a key of {length} characters; a key must have 1 to {MAX_METADATA_KEY_CHARS}: shorten it."
            );
            return Err(invalid_metadata("metadata", &problem));
        }
        if key.contains('\0') {
            return Err(invalid_metadata("metadata", "has a key with a NUL."));
        }
        values.insert(key, value);
        if values.len() > MAX_METADATA_KEYS {
            let problem = format!("holds more than {MAX_METADATA_KEYS} keys: leave some out.");
            return Err(invalid_metadata("metadata", &problem));
        }
    }
    let checked = values.into_iter().map(|(key, value)| {
        let value = check_value(&key, value)?;
        Ok((key.into_owned(), value))
    });
    checked.collect()
}

fn check_value(key: &str, value: Json<'_>) -> Result<String, ApiError> {
    let refuse = |problem: &str| invalid_metadata(&format!("metadata.{key}"), problem);
    let Json::String(text) = value else {
        return Err(refuse(&format!(
            "is {}; it must be a string: send its text.",
            value.kind()
        )));
    };
    let text = text
        .decode()
        .map_err(|_| refuse("holds half of a surrogate pair."))?;
    let length = text.chars().count();
    if length > MAX_OWN_CHARS {
        return Err(refuse(&format!(
            "has {length} characters; a value may have {MAX_OWN_CHARS}: shorten it."
        )));
    }
    if text.contains('\0') {
        return Err(refuse("holds a NUL."));
    }
    Ok(text.into_owned())
}

fn invalid_metadata(field: &str, problem: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidParameter, format!("`{field}` {problem}")).with(json!({"field": field}))
}

/// Checks the `reference` of a lot.
pub(super) fn check_reference<'a>(
    position: usize,
    value: Option<Json<'a>>,
) -> Result<Option<Cow<'a, str>>, ApiError> {
    let text = match value {
        None => return Ok(None),
        Some(Json::String(text)) => check_text(position, "reference", text)?,
        Some(other) => {
            let problem = format!(
                "`reference` is {}; it must be a string: send its text.",
                other.kind()
            );
            return Err(invalid_lot(position, &problem));
        }
    };
    let length = text.chars().count();
    if length > MAX_OWN_CHARS {
        let problem =
            format!("`reference` has {length} characters; it may have {MAX_OWN_CHARS}: shorten it.");
        return Err(invalid_lot(position, &problem));
    }
    Ok(Some(text))
}

/// Own fields that are not valid. A program of the earlier service may use the names for something else: its fields are
/// ignored, and the answer says why. Those of other programs are refused.
#[derive(Debug)]
pub(super) struct InvalidOwnFields {
    are_ignored: bool,
    /// The name of an ignored field, and what is wrong with the first one.
    ignored: Vec<(&'static str, String)>,
}

impl InvalidOwnFields {
    pub(super) fn new(are_ignored: bool) -> Self {
        Self {
            are_ignored,
            ignored: Vec::new(),
        }
    }

    /// The checked value of a field, or nothing in place of one that is ignored.
    pub(super) fn ignore_or_refuse<T: Default>(
        &mut self,
        name: &'static str,
        checked: Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        checked.or_else(|error| {
            if !self.are_ignored {
                return Err(error);
            }
            if self.ignored.iter().all(|(known, _)| *known != name) {
                self.ignored.push((name, error.message));
            }
            Ok(T::default())
        })
    }

    /// What the answer says of the ignored fields.
    pub(super) fn into_warnings(self) -> Vec<String> {
        let ignored = self.ignored.into_iter();
        ignored
            .map(|(name, problem)| format!("The field `{name}` was ignored: {problem}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python_json::parse;

    fn metadata(text: &str) -> Result<Metadata, String> {
        let document = parse(text.as_bytes()).unwrap();
        check_metadata(document.root().field("m")).map_err(|error| {
            assert_eq!(error.code, ErrorCode::InvalidParameter);
            error.message
        })
    }

    #[test]
    fn metadata_is_an_object_of_a_few_short_strings() {
        let many = |number: usize| {
            let members: Vec<String> = (0..number).map(|key| format!("\"k{key}\": \"v\"")).collect();
            format!("{{\"m\": {{{}}}}}", members.join(", "))
        };
        let of = |key: usize, value: usize| {
            format!(
                "{{\"m\": {{\"{}\": \"{}\"}}}}",
                "ж".repeat(key),
                "ж".repeat(value)
            )
        };
        for (text, keys) in [
            ("{}".to_owned(), 0),
            ("{\"m\": null}".into(), 0),
            ("{\"m\": {}}".into(), 0),
            ("{\"m\": {\"a\": 1, \"a\": \"\"}}".into(), 1),
            (many(16), 16),
            (of(64, 512), 1),
        ] {
            assert_eq!(metadata(&text).unwrap().len(), keys, "{text}");
        }
        for (text, problem) in [
            ("{\"m\": []}".to_owned(), "must be an object of strings"),
            ("{\"m\": \"a\"}".into(), "must be an object of strings"),
            (
                "{\"m\": {\"a\": 1}}".into(),
                "`metadata.a` is a number; it must be a string",
            ),
            ("{\"m\": {\"a\": null}}".into(), "`metadata.a` is null"),
            ("{\"m\": {\"a\": {}}}".into(), "`metadata.a` is an object"),
            ("{\"m\": {\"\": \"a\"}}".into(), "a key of 0 characters"),
            ("{\"m\": {\"a\": \"\\ud800\"}}".into(), "half of a surrogate pair"),
            ("{\"m\": {\"\\ud800\": \"a\"}}".into(), "half of a surrogate pair"),
            ("{\"m\": {\"a\": \"\\u0000\"}}".into(), "a NUL"),
            ("{\"m\": {\"\\u0000\": \"a\"}}".into(), "a NUL"),
            (many(17), "more than 16 keys"),
            (of(65, 1), "a key of 65 characters"),
            (of(1, 513), "has 513 characters"),
        ] {
            let error = metadata(&text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
