//! Reads OpenAI's JSON objects. It accepts the deviations that were seen in recorded traffic.

use std::collections::BTreeMap;

use serde_json::Value;

use super::api::Page;
use crate::base::clock::Timestamp;
use crate::domain::openai::{Batch, BatchError, BatchStatus, FileObject, RequestCounts, without_secrets};
use crate::domain::usage::TokenUsage;

/// A string that is not empty. `None` for null, an absent member, an empty string, and `{}`, which R writes
/// for null.
pub(super) fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The longest id, name or word that is kept, in bytes.
const MAX_WORD: usize = 256;
/// The longest message that is kept, in characters.
const MAX_MESSAGE: usize = 500;
/// The most lines of a batch, so the most of its errors that are kept.
const MAX_ERRORS: usize = 50_000;
/// The most pairs of a batch's metadata.
const MAX_METADATA: usize = 16;
/// The longest value of a batch's metadata, in characters.
const MAX_METADATA_VALUE: usize = 512;

/// An id or a name. A longer one is not cut, since it would be another one then: it has no value. Nor has one with
/// control characters.
fn word(value: &Value) -> Option<String> {
    text(value).filter(|word| word.len() <= MAX_WORD && !word.contains(char::is_control))
}

/// A time in seconds of the years 1970 to 9999. Compatible servers also send a text of ISO 8601, or the seconds as a
/// text.
fn time(value: &Value) -> Option<i64> {
    let seconds = match value {
        Value::String(text) => time_text(text.trim())?,
        value => integer(value)?,
    };
    (Timestamp::from_seconds(seconds).seconds() == seconds).then_some(seconds)
}

/// A time as text. One without an offset is of UTC, as Python writes it.
fn time_text(text: &str) -> Option<i64> {
    let time = |text: &str| Some(text.parse::<Timestamp>().ok()?.seconds());
    time(text)
        .or_else(|| time(&format!("{text}Z")))
        .or_else(|| text.parse().ok())
}

/// A text for people, cut to its longest length.
fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}

/// A string that is not empty, or a number as text: proxies in front of OpenAI write error codes as numbers.
pub(super) fn text_or_number(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        _ => text(value),
    }
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        // Some compatible servers send fractions, such as 1795400000.25.
        let seconds = value.as_f64()?;
        format!("{seconds:.0}").parse().ok()
    })
}

fn count(value: &Value) -> Option<u64> {
    integer(value).and_then(|number| u64::try_from(number).ok())
}

impl FileObject {
    /// Reads a File object. `None` if it has no id, or `object` names another kind. Some compatible servers write the
    /// size 0 for every file, so 0 means that the size is not known.
    pub fn from_json(value: &Value) -> Option<Self> {
        Some(Self {
            id: object_id(value, "file")?,
            bytes: count(&value["bytes"]).filter(|bytes| *bytes > 0),
            created_at: time(&value["created_at"]).unwrap_or(0),
            filename: word(&value["filename"]).unwrap_or_default(),
        })
    }
}

impl Batch {
    /// Reads a Batch object. `None` if it has no id or no status, or `object` names another kind. An unknown
    /// status is kept as text.
    pub fn from_json(value: &Value) -> Option<Self> {
        let stated = cut(&text(&value["status"])?, MAX_WORD);
        let status = status(&stated);
        Some(Self {
            id: object_id(value, "batch")?,
            status,
            status_text: status.map_or(stated, |status| status.as_str().to_owned()),
            input_file_id: word(&value["input_file_id"]).unwrap_or_default(),
            output_file_id: word(&value["output_file_id"]),
            error_file_id: word(&value["error_file_id"]),
            created_at: time(&value["created_at"]).unwrap_or(0),
            expires_at: time(&value["expires_at"]),
            model: word(&value["model"]),
            counts: counts(&value["request_counts"]),
            usage: usage(&value["usage"]),
            errors: batch_errors(&value["errors"]),
            metadata: metadata(&value["metadata"]),
        })
    }
}

/// The id of an object of a kind. `None` if `object` names another kind of OpenAI's. Compatible servers have names of
/// their own.
fn object_id(value: &Value, kind: &str) -> Option<String> {
    const KINDS: [&str; 6] = ["batch", "error", "file", "list", "model", "response"];
    match text(&value["object"]) {
        Some(object) if object != kind && KINDS.contains(&object.as_str()) => None,
        _ => word(&value["id"]),
    }
}

/// The status in OpenAI's words. Compatible servers have other spellings, and words of their own.
fn status(text: &str) -> Option<BatchStatus> {
    let text = text.trim().to_ascii_lowercase().replace(['-', ' '], "_");
    match text.as_str() {
        "created" | "pending" | "queued" | "scheduled" | "scheduling" | "submitted" => {
            Some(BatchStatus::Validating)
        }
        "processing" | "progress" | "running" | "started" => Some(BatchStatus::InProgress),
        "succeeded" | "success" => Some(BatchStatus::Completed),
        "timeout_exceeded" => Some(BatchStatus::Expired),
        "canceled" => Some(BatchStatus::Cancelled),
        "canceling" | "cancellation_requested" => Some(BatchStatus::Cancelling),
        text => text.parse().ok(),
    }
}

fn counts(value: &Value) -> RequestCounts {
    let field = |name: &str| count(&value[name]).unwrap_or(0);
    RequestCounts {
        total: field("total"),
        completed: field("completed"),
        failed: field("failed"),
    }
}

/// The tokens of a whole batch, as they are stated. `None` if all numbers are zero, which means that they are not
/// known yet. A number that is no count is read as the largest one, which no batch can have.
fn usage(value: &Value) -> Option<TokenUsage> {
    let tokens = |value: &Value| match value {
        Value::Number(_) => Some(count(value).unwrap_or(u64::MAX)),
        _ => None,
    };
    let tokens = TokenUsage {
        input: tokens(&value["input_tokens"])?,
        cached: tokens(&value["input_tokens_details"]["cached_tokens"]).unwrap_or(0),
        output: tokens(&value["output_tokens"])?,
        reasoning: tokens(&value["output_tokens_details"]["reasoning_tokens"]).unwrap_or(0),
    };
    (tokens != TokenUsage::ZERO).then_some(tokens)
}

fn batch_errors(value: &Value) -> Vec<BatchError> {
    let list = value["data"].as_array().or_else(|| value.as_array());
    list.into_iter()
        .flatten()
        .filter(|entry| entry.is_object())
        .take(MAX_ERRORS)
        .map(|entry| BatchError {
            code: text_or_number(&entry["code"]).map(|code| cut(&code, MAX_WORD)),
            message: text(&entry["message"]).map(|message| without_secrets(&cut(&message, MAX_MESSAGE))),
            param: text(&entry["param"]).map(|param| cut(&param, MAX_WORD)),
            line: count(&entry["line"]),
        })
        .collect()
}

/// The string values of a metadata object, which may be null. Longer and further pairs than OpenAI allows are left
/// out.
pub(super) fn metadata(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .filter(|(key, value)| key.len() <= MAX_WORD && value.chars().count() <= MAX_METADATA_VALUE)
        .take(MAX_METADATA)
        .collect()
}

/// Reads a page of a listing, in its order: a list object, or the bare array that some compatible servers send. `None`
/// if one element is malformed: it may be the one that the caller looks for, and the caller takes its absence as
/// evidence.
pub(super) fn page<T>(value: &Value, element: impl Fn(&Value) -> Option<T>) -> Option<Page<T>> {
    let data = value.as_array().or_else(|| value["data"].as_array())?;
    Some(Page {
        has_more: value["has_more"].as_bool(),
        data: data.iter().map(element).collect::<Option<Vec<T>>>()?,
        date: None,
    })
}

mod batch_page;

pub(super) use batch_page::batches_without_errors;

#[cfg(test)]
mod tests;
