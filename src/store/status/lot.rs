//! One lot: its text, its images, its answers in every language, and each attempt at them.

use rusqlite::{Row, params};

use super::{row, rows};
use crate::base::clock::Timestamp;
use crate::domain::batch::Stage;
use crate::domain::job::RequestState;
use crate::domain::money::Money;
use crate::domain::usage::TokenUsage;
use crate::store::columns::token_usage;
use crate::store::{Stored, View, money};

/// What only the page of a lot shows; its results are read as for clients.
#[derive(Clone, Debug)]
pub struct LotDetails {
    /// Its row.
    pub row: i64,
    /// The seller's text.
    pub additional_info: String,
    /// The webhook of the lot alone.
    pub webhook_url: Option<String>,
}

/// The lot at a position of a job.
pub fn lot(view: &View, job: &str, position: u32) -> Stored<Option<LotDetails>> {
    row(
        view,
        "SELECT id, additional_info, webhook_url FROM batch_lots WHERE batch_job_id = ? AND position = ?",
        params![job, position],
        |row| {
            Ok(LotDetails {
                row: row.get("id")?,
                additional_info: row.get("additional_info")?,
                webhook_url: row.get("webhook_url")?,
            })
        },
    )
}

/// An answer that is wanted for a lot.
#[derive(Clone, Debug)]
pub struct LotRequest {
    /// Its row.
    pub id: i64,
    /// What it asks for.
    pub stage: Stage,
    /// The language; empty in the vision stage.
    pub language: String,
    /// Its state.
    pub state: RequestState,
    /// Whether the lot's images are checked before it is sent.
    pub images_due: bool,
    /// Since when it waits.
    pub since: Timestamp,
    /// When it is sent after a failure.
    pub retry_at: Option<Timestamp>,
}

/// The requests of a lot: first that for the description, then the translations by language.
pub fn requests_of_lot(view: &View, lot: i64) -> Stored<Vec<LotRequest>> {
    rows(
        view,
        "SELECT id, stage, language, state, images_due, since, retry_at FROM requests WHERE lot = ?
         ORDER BY stage = 'translation', language",
        [lot],
        |row| {
            Ok(LotRequest {
                id: row.get("id")?,
                stage: row.get("stage")?,
                language: row.get("language")?,
                state: row.get("state")?,
                images_due: row.get("images_due")?,
                since: row.get("since")?,
                retry_at: row.get("retry_at")?,
            })
        },
    )
}

/// One attempt at a request of a lot, in a batch or by a synchronous call.
#[derive(Clone, Debug)]
pub struct LotAttempt {
    /// The stage of its request.
    pub stage: Stage,
    /// The language; empty in the vision stage.
    pub language: String,
    /// The batch; `None` for a synchronous call.
    pub batch: Option<i64>,
    /// When it was made.
    pub at: Timestamp,
    /// Its outcome; `None` if that is not known yet.
    pub outcome: Option<String>,
    /// OpenAI's error.
    pub error: Option<String>,
    /// Its tokens.
    pub usage: TokenUsage,
    /// What it cost; `None` if its model has no price, or its tokens are unknown.
    pub cost: Option<Money>,
    model: String,
    is_usage_unknown: bool,
}

impl LotAttempt {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            stage: row.get("stage")?,
            language: row.get("language")?,
            batch: row.get("batch_id")?,
            at: row.get("at")?,
            outcome: row.get("outcome")?,
            error: row.get("error")?,
            usage: token_usage(row, "")?,
            cost: None,
            model: row.get("model")?,
            is_usage_unknown: row.get("usage_unknown")?,
        })
    }
}

/// Every attempt at the requests of a lot, oldest first.
pub fn attempts_of_lot(view: &View, lot: i64) -> Stored<Vec<LotAttempt>> {
    let mut attempts = rows(
        view,
        "SELECT r.stage, r.language, l.batch_id, coalesce(b.submitted_at, b.created_at) AS at, b.model, l.outcome,
                l.error, l.input_tokens, l.cached_tokens, l.output_tokens, l.reasoning_tokens, l.usage_unknown
         FROM requests r JOIN batch_lines l ON l.request_id = r.id JOIN openai_batches b ON b.id = l.batch_id
         WHERE r.lot = ?1
         UNION ALL
         SELECT r.stage, r.language, NULL, coalesce(d.started_at, d.next_at), coalesce(d.model, ''), d.outcome,
                d.error, d.input_tokens, d.cached_tokens, d.output_tokens, d.reasoning_tokens, d.usage_unknown
         FROM requests r JOIN synchronous_calls d ON d.request_id = r.id WHERE r.lot = ?1
         ORDER BY 4 LIMIT 200",
        [lot],
        LotAttempt::read,
    )?;
    for attempt in &mut attempts {
        let mode = if attempt.batch.is_some() {
            "batch"
        } else {
            "synchronous"
        };
        let rates = money::rates(view, &attempt.model, mode, &attempt.at.to_day_text())?;
        let known = rates.filter(|_| !attempt.is_usage_unknown);
        attempt.cost = known.map(|rates| rates.cost(attempt.usage));
    }
    Ok(attempts)
}
