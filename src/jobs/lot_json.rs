//! The JSON of a lot and of a job's summary, as answers and webhooks have them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::domain::html::paragraphs;
use crate::domain::job::{LotStatus, is_english};
use crate::store::jobs::JobRow;
use crate::store::lots::LotRow;

/// A lot as `results.lots` has it. Its members are in the order of canonical JSON.
#[derive(Serialize)]
pub struct LotJson<'a> {
    descriptions: Vec<Description<'a>>,
    error_message: Option<&'a str>,
    lot_id: &'a str,
    missing_images: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    missing_reasons: BTreeMap<&'a str, &'a str>,
    processed_at: Option<String>,
    processed_images: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    status: &'a str,
}

/// The text of a lot in one language, as HTML, or why there is none.
#[derive(Serialize)]
struct Description<'a> {
    damages: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    language: &'a str,
}

impl<'a> LotJson<'a> {
    /// The lot in these languages.
    pub fn new(languages: &'a [String], lot: &'a LotRow) -> Self {
        Self {
            descriptions: languages
                .iter()
                .map(|language| Description::new(lot, language))
                .collect(),
            error_message: lot.error_message.as_deref(),
            lot_id: &lot.lot_id,
            missing_images: &lot.missing_images,
            missing_reasons: lot.missing_reasons(),
            processed_at: lot.processed_at.map(Timestamp::to_seconds_text),
            processed_images: lot.images_processed(),
            reference: lot.reference.as_deref(),
            status: lot.status.as_str(),
        }
    }

    /// The lot as a JSON value.
    pub fn to_value(&self) -> Value {
        json!(self)
    }
}

impl<'a> Description<'a> {
    fn new(lot: &'a LotRow, language: &'a str) -> Self {
        let text = if is_english(language) {
            lot.vision_result
                .as_deref()
                .ok_or_else(|| reason_without_text(lot))
        } else {
            match lot.translations.get(language) {
                Some(Ok(text)) => Ok(text.as_str()),
                Some(Err(error)) => Err(error.as_str()),
                None => Err(reason_without_text(lot)),
            }
        };
        Self {
            damages: text.ok().map(paragraphs),
            error: text.err(),
            language,
        }
    }
}

fn reason_without_text(lot: &LotRow) -> &str {
    let reason = match lot.status {
        LotStatus::Pending => "not finished yet",
        LotStatus::Cancelled => "the job was cancelled before",
        LotStatus::Completed | LotStatus::Failed => "no text",
    };
    lot.error_message.as_deref().unwrap_or(reason)
}

/// The member with the client's own values of a job; `None` if it has none.
pub fn metadata_member(job: &JobRow) -> Option<(String, Value)> {
    (!job.metadata.is_empty()).then(|| ("metadata".into(), json!(job.metadata)))
}

/// The member `processing_summary` of a job.
pub fn processing_summary(job: &JobRow, images: u64) -> Value {
    let took = job.completed_at.unwrap_or(job.updated_at).since(job.created_at);
    json!({
        "total_lots": job.total_lots,
        "processed_lots": job.processed_lots,
        "failed_lots": job.failed_lots,
        "total_images_processed": images,
        "total_processing_time": duration_text(took),
    })
}

/// A duration for people, in its largest unit: `45 minutes`.
pub fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}
