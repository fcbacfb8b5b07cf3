//! Batches and their lines.

use rusqlite::Row;

use super::{Progress, row, rows};
use crate::base::clock::Timestamp;
use crate::domain::batch::{BatchState, Stage};
use crate::store::predicates::LIVE_BATCH;
use crate::store::{Stored, View};

/// A batch in a list.
#[derive(Clone, Debug)]
pub struct BatchSummary {
    /// Its id here.
    pub id: i64,
    /// What its requests ask for.
    pub stage: Stage,
    /// Its state here.
    pub state: BatchState,
    /// Its status at OpenAI.
    pub openai_status: Option<String>,
    /// Its id at OpenAI.
    pub openai_id: Option<String>,
    /// Lines that OpenAI has done, failed ones included.
    pub lines: Progress,
    /// When it was created here.
    pub created_at: Timestamp,
    /// When OpenAI accepted it.
    pub submitted_at: Option<Timestamp>,
    /// When all of its lines were ingested.
    pub ingested_at: Option<Timestamp>,
}

impl BatchSummary {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let failed_lines = row.get("openai_failed")?;
        Ok(Self {
            id: row.get("id")?,
            stage: row.get("stage")?,
            state: row.get("state")?,
            openai_status: row.get("openai_status")?,
            openai_id: row.get("openai_batch_id")?,
            lines: Progress {
                done: row.get::<_, u64>("openai_completed")? + failed_lines,
                failed: failed_lines,
                all: row.get("lines")?,
            },
            created_at: row.get("created_at")?,
            submitted_at: row.get("submitted_at")?,
            ingested_at: row.get("ingested_at")?,
        })
    }
}

/// Batches that are neither ingested nor failed, newest first.
pub fn active_batches(view: &View) -> Stored<Vec<BatchSummary>> {
    rows(
        view,
        &format!("SELECT * FROM openai_batches WHERE {LIVE_BATCH} ORDER BY id DESC LIMIT 25"),
        [],
        BatchSummary::read,
    )
}

/// The batches that work or worked for a job, newest first.
pub fn batches_of_job(view: &View, job: &str) -> Stored<Vec<BatchSummary>> {
    rows(
        view,
        "SELECT b.* FROM batch_jobs j JOIN batch_links k ON k.job = j.seq JOIN openai_batches b ON b.id = k.batch_id
         WHERE j.id = ? ORDER BY b.id DESC LIMIT 100",
        [job],
        BatchSummary::read,
    )
}

/// A batch by itself.
#[derive(Clone, Debug)]
pub struct BatchDetails {
    /// What a list has of it.
    pub summary: BatchSummary,
    /// The model.
    pub model: String,
    /// The key that travels in its metadata and in the name of its input file.
    pub submission_key: String,
    /// OpenAI's id of its input file.
    pub input_file: Option<String>,
    /// OpenAI's id of its output file.
    pub output_file: Option<String>,
    /// OpenAI's id of its error file.
    pub error_file: Option<String>,
    /// The batch that has the same submission key.
    pub duplicate_of: Option<i64>,
    /// When OpenAI's window for it ends.
    pub expires_at: Option<Timestamp>,
    /// When it ended at OpenAI.
    pub ended_at: Option<Timestamp>,
    /// When its files at OpenAI were removed.
    pub cleaned_at: Option<Timestamp>,
    /// Calls that failed since the last one that succeeded.
    pub failed_calls: u64,
    /// Why it failed, or why its last call did.
    pub error: Option<String>,
}

/// The batch of that id.
pub fn batch(view: &View, id: i64) -> Stored<Option<BatchDetails>> {
    row(view, "SELECT * FROM openai_batches WHERE id = ?", [id], |row| {
        Ok(BatchDetails {
            summary: BatchSummary::read(row)?,
            model: row.get("model")?,
            submission_key: row.get("submission_key")?,
            input_file: row.get("input_file_id")?,
            output_file: row.get("output_file_id")?,
            error_file: row.get("error_file_id")?,
            duplicate_of: row.get("duplicate_of")?,
            expires_at: row
                .get::<_, Option<i64>>("openai_expires")?
                .map(Timestamp::from_seconds),
            ended_at: row.get("ended_at")?,
            cleaned_at: row.get("cleaned_at")?,
            failed_calls: row.get("failures")?,
            error: row.get("error")?,
        })
    })
}

/// The lines of a batch that have one outcome.
#[derive(Clone, Debug)]
pub struct LineOutcome {
    /// The outcome; `None` for lines that are not ingested yet.
    pub outcome: Option<String>,
    /// How many lines have it.
    pub lines: u64,
    /// How many of them settled their request.
    pub settled: u64,
    /// The error of one of them.
    pub error: Option<String>,
}

/// The lines of a batch by their outcome, the most frequent first.
pub fn lines_by_outcome(view: &View, batch: i64) -> Stored<Vec<LineOutcome>> {
    rows(
        view,
        "SELECT outcome, count(*) AS lines, sum(settled) AS settled, min(error) AS error
         FROM batch_lines WHERE batch_id = ? GROUP BY outcome ORDER BY 2 DESC",
        [batch],
        |row| {
            Ok(LineOutcome {
                outcome: row.get("outcome")?,
                lines: row.get("lines")?,
                settled: row.get("settled")?,
                error: row.get("error")?,
            })
        },
    )
}
