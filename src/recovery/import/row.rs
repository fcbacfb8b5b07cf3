//! Reads a job and a lot from a row of the dump.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::base::clock::Timestamp;
use crate::domain::job::JobStatus;
use crate::domain::legacy::{LegacyJob, LegacyLot};

fn text_of<'r>(row: &'r Map<String, Value>, column: &str) -> Option<&'r str> {
    row.get(column)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// The value of a JSON column, which may be a text that holds JSON.
fn json_of(row: &Map<String, Value>, column: &str) -> Value {
    match row.get(column) {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
        Some(value) => value.clone(),
        None => Value::Null,
    }
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Image URLs: texts, or objects as in a submission.
fn images(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    let url = |item: &Value| Some(item.as_str().or(item["url"].as_str())?.to_owned());
    items.filter_map(url).collect()
}

pub(super) fn read_job(row: &Map<String, Value>) -> Result<LegacyJob, String> {
    let id = text_of(row, "id").ok_or("it has no id")?.to_lowercase();
    uuid::Uuid::parse_str(&id)
        .ok()
        .filter(|_| id.len() == 36)
        .ok_or("its id is no UUID")?;
    let status = text_of(row, "status").ok_or("it has no status")?;
    let status = status
        .to_lowercase()
        .parse::<JobStatus>()
        .map_err(|error| format!("{:?} is no status of a job", error.text))?;
    let created_at = time(text_of(row, "created_at").ok_or("it has no created_at")?)?;
    let updated_at = text_of(row, "updated_at").map_or(Ok(created_at), time)?;
    let mut batches = Vec::new();
    for column in [
        "openai_vision_batch_id",
        "openai_batch_id",
        "openai_translation_batch_id",
    ] {
        if let Some(batch) = text_of(row, column).filter(|batch| !batches.iter().any(|known| known == batch))
        {
            batches.push(batch.to_owned());
        }
    }
    let mut languages = texts(&json_of(row, "languages"));
    if languages.is_empty() {
        languages.push("en".to_owned());
    }
    Ok(LegacyJob {
        id,
        status,
        created_at,
        updated_at,
        batches,
        languages,
        webhook_url: text_of(row, "webhook_url").map(str::to_owned),
        error_message: text_of(row, "error_message").map(str::to_owned),
        total_lots: row
            .get("total_lots")
            .and_then(Value::as_u64)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        lots: Vec::new(),
    })
}

pub(super) fn read_lot(row: &Map<String, Value>) -> Result<LegacyLot, String> {
    let translations = match json_of(row, "translations") {
        Value::Object(texts) => texts
            .into_iter()
            .filter_map(|(language, text)| {
                Some((language, text.as_str().filter(|text| is_text(text))?.to_owned()))
            })
            .collect(),
        _ => BTreeMap::new(),
    };
    let description = text_of(row, "vision_result");
    Ok(LegacyLot {
        lot_id: lot_id(row).ok_or("it has no lot_id")?,
        additional_info: text_of(row, "additional_info").unwrap_or("").to_owned(),
        images: images(&json_of(row, "image_urls")),
        missing_images: texts(&json_of(row, "missing_images")),
        vision_result: description.filter(|text| is_text(text)).map(str::to_owned),
        is_misdescribed: description.is_some_and(|text| !is_text(text)),
        translations,
        error_message: text_of(row, "error_message").map(str::to_owned),
    })
}

/// A lot's id. An integer is read as its text, as in a submission.
fn lot_id(row: &Map<String, Value>) -> Option<String> {
    match row.get("lot_id") {
        Some(Value::Number(number)) if !number.is_f64() => Some(number.to_string()),
        _ => text_of(row, "lot_id").map(str::to_owned),
    }
}

/// Whether a description is a text. The earlier service sometimes stored the formatting options of the answer
/// in its place.
fn is_text(text: &str) -> bool {
    let packed: String = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| if c == '\'' { '"' } else { c })
        .collect();
    !packed.is_empty() && !packed.starts_with("{\"format\":{\"type\":")
}

/// A time of the earlier service's tables: in UTC, without a zone, with `T` or a space between date and time.
fn time(text: &str) -> Result<Timestamp, String> {
    let text = text.trim().replacen(' ', "T", 1);
    let zoned = text.parse().or_else(|_| format!("{text}Z").parse::<Timestamp>());
    zoned.map_err(|_| format!("{text:?} is no time"))
}
