//! What came of a job, as JSON: in answers to polls and in webhooks alike. Lots are read by pages,
//! each in a short transaction, so that memory does not grow with the job.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::base::clock::Timestamp;
use crate::domain::html::paragraphs;
use crate::domain::job::{JobStatus, LotStatus, VERSION, is_english};
use crate::python_json::canonical_value;
use crate::store::jobs::JobRow;
use crate::store::lots::{self, LotFilter, LotRow};
use crate::store::{Store, Stored};

/// Lots of one page.
const PAGE: u32 = 100;

/// One lot, in the form of `results.lots`. Its members are in the order of canonical JSON.
#[derive(Serialize)]
pub struct Lot<'a> {
    descriptions: Vec<Description<'a>>,
    error_message: Option<&'a str>,
    lot_id: &'a str,
    missing_images: &'a [String],
    processed_at: Option<String>,
    processed_images: usize,
    status: &'a str,
}

/// A lot in one language: HTML, or why there is none.
#[derive(Serialize)]
struct Description<'a> {
    damages: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    language: &'a str,
}

impl<'a> Lot<'a> {
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
            processed_at: lot.processed_at.map(Timestamp::to_seconds_text),
            processed_images: lot.images_processed(),
            status: lot.status.as_str(),
        }
    }

    /// The same as a value.
    pub fn value(&self) -> Value {
        json!(self)
    }
}

impl<'a> Description<'a> {
    fn new(lot: &'a LotRow, language: &'a str) -> Self {
        let text = if is_english(language) {
            lot.vision_result.as_deref().ok_or_else(|| no_text(lot))
        } else {
            match lot.translations.get(language) {
                Some(Ok(text)) => Ok(text.as_str()),
                Some(Err(error)) => Err(error.as_str()),
                None => Err(no_text(lot)),
            }
        };
        Self {
            damages: text.ok().map(paragraphs),
            error: text.err(),
            language,
        }
    }
}

fn no_text(lot: &LotRow) -> &str {
    let waiting = match lot.status {
        LotStatus::Pending => "not finished yet",
        LotStatus::Cancelled => "the job was cancelled before",
        LotStatus::Completed | LotStatus::Failed => "no text",
    };
    lot.error_message.as_deref().unwrap_or(waiting)
}

/// `processing_summary`.
pub fn summary(job: &JobRow, images: u64) -> Value {
    let took = job
        .completed_at
        .unwrap_or(job.updated_at)
        .since(job.created_at);
    json!({
        "total_lots": job.total_lots,
        "processed_lots": job.processed_lots,
        "failed_lots": job.failed_lots,
        "total_images_processed": images,
        "total_processing_time": in_words(took),
    })
}

/// A duration for people, in its largest unit: `45 minutes`.
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

/// What a webhook tells of, apart from its lots.
fn webhook_head(job: &JobRow, images: u64) -> Map<String, Value> {
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
        (
            "result_url",
            json!(format!("/api/v1/batch-results/{}", job.id)),
        ),
        ("processing_summary", summary(job, images)),
        ("error_message", json!(job.error_message)),
        ("version", json!(VERSION)),
    ] {
        head.insert(name.to_owned(), value);
    }
    head
}

/// The body of a final job's webhook to `url`: canonical JSON, with that URL's lots, or without
/// them and `lots_truncated` where it would be longer than `max` bytes.
///
/// # Errors
/// The store's.
pub fn webhook_body(store: &Store, job: &JobRow, url: &str, max: u64) -> Stored<Vec<u8>> {
    let images = store.read(|view| lots::images_processed(view, &job.id))?;
    let head = webhook_head(job, images);
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let mut lots_text = vec![b'['];
    let mut position = Some(0);
    while let Some(from) = position {
        let page =
            store.read(|view| lots::page(view, &job.id, LotFilter::Webhook(url), from, PAGE))?;
        position = page
            .last()
            .filter(|_| page.len() == PAGE as usize)
            .map(|last| last.position + 1);
        for row in &page {
            if lots_text.len() > 1 {
                lots_text.push(b',');
            }
            canonical_value(&Lot::new(&job.languages, row).value(), &mut |bytes| {
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
    let (before, after): (Map<_, _>, Map<_, _>) = head
        .into_iter()
        .partition(|(name, _)| name.as_str() < "lots");
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
    canonical_value(value, &mut |bytes| text.extend_from_slice(bytes));
    text
}

/// What stands around a job's lots, and how each of them is written.
pub struct Frame {
    before: String,
    after: String,
    lot: WriteLot,
}

/// Writes one lot of a job as JSON.
type WriteLot = fn(&JobRow, &LotRow, &mut Vec<u8>) -> serde_json::Result<()>;

impl Frame {
    /// `head`'s members (it is an object), then `opening`, the lots, and `closing`.
    pub fn new(head: &Value, opening: &str, closing: String, lot: WriteLot) -> Self {
        let head = head.to_string();
        let head = head.strip_suffix('}').unwrap_or(&head);
        let comma = if head.len() > 1 { "," } else { "" };
        Self {
            before: format!("{head}{comma}{opening}"),
            after: closing,
            lot,
        }
    }

    /// `head`'s members, then the contract's `results`.
    pub fn results(head: &Value) -> Self {
        let opening = format!("\"results\":{{\"version\":\"{VERSION}\",\"lots\":[");
        Self::new(head, &opening, "]}}".into(), |job, row, to| {
            serde_json::to_writer(to, &Lot::new(&job.languages, row))
        })
    }
}

/// A job's results while they are read, page by page.
pub struct ResultsReader {
    store: Arc<Store>,
    job: JobRow,
    frame: Frame,
    position: u32,
    left: u32,
    any: bool,
    done: bool,
    pending: Vec<u8>,
    sent: usize,
}

impl ResultsReader {
    /// Streams up to `limit` lots from the `offset`-th on.
    pub fn new(store: Arc<Store>, job: JobRow, mut frame: Frame, offset: u32, limit: u32) -> Self {
        let pending = std::mem::take(&mut frame.before).into_bytes();
        Self {
            store,
            job,
            frame,
            position: offset,
            left: limit,
            any: false,
            done: false,
            pending,
            sent: 0,
        }
    }

    fn next_page(&mut self) -> Stored<()> {
        self.pending.clear();
        self.sent = 0;
        let want = self.left.min(PAGE);
        let page = if want == 0 {
            Vec::new()
        } else {
            self.store
                .read(|view| lots::page(view, &self.job.id, LotFilter::All, self.position, want))?
        };
        for row in &page {
            if self.any {
                self.pending.push(b',');
            }
            self.any = true;
            (self.frame.lot)(&self.job, row, &mut self.pending)?;
            self.position = row.position + 1;
        }
        let read = u32::try_from(page.len()).unwrap_or(want);
        self.left -= read;
        if read < want || want == 0 {
            self.pending.extend_from_slice(self.frame.after.as_bytes());
            self.done = true;
        }
        Ok(())
    }
}

impl Read for ResultsReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.sent == self.pending.len() && !self.done {
            self.next_page().map_err(io::Error::other)?;
        }
        let bytes = &self.pending[self.sent..];
        let length = bytes.len().min(into.len());
        into[..length].copy_from_slice(&bytes[..length]);
        self.sent += length;
        Ok(length)
    }
}
