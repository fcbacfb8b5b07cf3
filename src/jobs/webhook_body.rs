//! The body of a webhook. Lots are read page by page, each page in a short transaction.

use serde_json::{Map, Value, json};

use super::PAGE;
use super::lot_json::{LotJson, metadata_member, processing_summary};
use crate::domain::job::{JobStatus, VERSION};
use crate::python_json::write_canonical_value;
use crate::store::jobs::JobRow;
use crate::store::lots::{self, LotFilter};
use crate::store::{Store, Stored};

/// The members of a webhook without its lots.
fn head_of(job: &JobRow, images: u64) -> Map<String, Value> {
    let completed_lots = job.processed_lots - job.failed_lots;
    let at = job.completed_at.unwrap_or(job.updated_at).to_seconds_text();
    let mut head = Map::new();
    for (name, value) in [
        ("event", json!(job.status.event())),
        ("job_id", json!(job.id)),
        ("status", json!(job.status.as_str())),
        ("timestamp", json!(at)),
        ("completed_at", json!(at)),
        ("total_lots", json!(job.total_lots)),
        ("completed_lots", json!(completed_lots)),
        ("failed_lots", json!(job.failed_lots)),
        (
            "results_available",
            json!(job.status == JobStatus::Completed || completed_lots > 0),
        ),
        ("result_url", json!(format!("/api/v1/batch-results/{}", job.id))),
        ("processing_summary", processing_summary(job, images)),
        ("error_message", json!(job.error_message)),
        ("version", json!(VERSION)),
    ] {
        head.insert(name.to_owned(), value);
    }
    head.extend(metadata_member(job));
    head
}

/// The body of a final job's webhook to `url`, as canonical JSON with the lots of that URL. A body longer
/// than `max` bytes has `lots_truncated` in their place.
///
/// # Errors
/// The store's.
pub fn webhook_body(store: &Store, job: &JobRow, url: &str, max: u64) -> Stored<Vec<u8>> {
    let images = store.read(|view| lots::images_processed(view, &job.id))?;
    let head = head_of(job, images);
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let mut lots_text = vec![b'['];
    let mut position = Some(0);
    while let Some(from) = position {
        let page = store.read(|view| lots::page(view, &job.id, LotFilter::Webhook(url), from, PAGE))?;
        position = page
            .last()
            .filter(|_| page.len() == PAGE as usize)
            .map(|last| last.position + 1);
        for row in &page {
            if lots_text.len() > 1 {
                lots_text.push(b',');
            }
            write_canonical_value(&LotJson::new(&job.languages, row).to_value(), &mut |bytes| {
                lots_text.extend_from_slice(bytes)
            });
        }
        if lots_text.len() > max {
            return Ok(without_lots(head));
        }
    }
    lots_text.push(b']');
    if canonical(&Value::Object(head.clone())).len() + b",\"lots\":".len() + lots_text.len() > max {
        return Ok(without_lots(head));
    }
    // `lots` goes where canonical JSON sorts it; its value is canonical already.
    let (before, after): (Map<_, _>, Map<_, _>) =
        head.into_iter().partition(|(name, _)| name.as_str() < "lots");
    let (before, after) = (
        canonical(&Value::Object(before)),
        canonical(&Value::Object(after)),
    );
    let mut body = before[..before.len() - 1].to_vec();
    body.extend_from_slice(b",\"lots\":");
    body.append(&mut lots_text);
    body.push(b',');
    body.extend_from_slice(&after[1..]);
    Ok(body)
}

fn without_lots(mut head: Map<String, Value>) -> Vec<u8> {
    head.insert("lots_truncated".into(), json!(true));
    canonical(&Value::Object(head))
}

fn canonical(value: &Value) -> Vec<u8> {
    let mut text = Vec::new();
    write_canonical_value(value, &mut |bytes| text.extend_from_slice(bytes));
    text
}
