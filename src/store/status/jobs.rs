//! Jobs and their failed lots.

use rusqlite::Row;

use super::{Progress, row, rows};
use crate::base::clock::Timestamp;
use crate::domain::job::{JobStatus, Mode};
use crate::store::predicates::LIVE_JOB;
use crate::store::{Stored, View};

/// A job in a list.
#[derive(Clone, Debug)]
pub struct JobSummary {
    /// Its id.
    pub id: String,
    /// The client that sent it.
    pub client: String,
    /// Its state.
    pub status: JobStatus,
    /// Lots that are processed, failed ones included.
    pub lots: Progress,
    /// Requests that are not settled.
    pub open_requests: u64,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it became final.
    pub completed_at: Option<Timestamp>,
}

impl JobSummary {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            client: row.get("client")?,
            status: row.get("status")?,
            lots: lot_progress(row)?,
            open_requests: row.get::<_, u64>("open_vision")? + row.get::<_, u64>("open_translations")?,
            created_at: row.get("created_at")?,
            completed_at: row.get("completed_at")?,
        })
    }
}

fn lot_progress(row: &Row<'_>) -> rusqlite::Result<Progress> {
    Ok(Progress {
        done: row.get("processed_lots")?,
        failed: row.get("failed_lots")?,
        all: row.get("total_lots")?,
    })
}

/// Jobs that are not final, newest first.
pub fn active_jobs(view: &View) -> Stored<Vec<JobSummary>> {
    rows(
        view,
        &format!("SELECT * FROM batch_jobs WHERE {LIVE_JOB} ORDER BY seq DESC LIMIT 25"),
        [],
        JobSummary::read,
    )
}

/// The newest jobs that are final.
pub fn ended_jobs(view: &View, limit: u32) -> Stored<Vec<JobSummary>> {
    rows(
        view,
        "SELECT * FROM batch_jobs WHERE completed_at IS NOT NULL ORDER BY seq DESC LIMIT ?",
        [limit],
        JobSummary::read,
    )
}

/// The jobs that a batch works for, newest first.
pub fn jobs_of_batch(view: &View, batch: i64) -> Stored<Vec<JobSummary>> {
    rows(
        view,
        "SELECT j.* FROM batch_links k JOIN batch_jobs j ON j.seq = k.job WHERE k.batch_id = ?
         ORDER BY j.seq DESC LIMIT 100",
        [batch],
        JobSummary::read,
    )
}

/// A job by itself.
#[derive(Clone, Debug)]
pub struct JobDetails {
    /// What a list has of it.
    pub summary: JobSummary,
    /// Vision requests that are not settled.
    pub open_vision: u64,
    /// Translation requests that are not settled.
    pub open_translations: u64,
    /// Its languages, separated by commas.
    pub languages: String,
    /// How it is answered.
    pub mode: Mode,
    /// Where it comes from: `api` or `import`.
    pub origin: String,
    /// The webhook of the whole job.
    pub webhook_url: Option<String>,
    /// Why it failed or was cancelled.
    pub error: Option<String>,
}

/// The client's own values of a job, by key.
pub fn metadata_of_job(view: &View, id: &str) -> Stored<Vec<(String, String)>> {
    rows(
        view,
        "SELECT m.key, m.value FROM batch_jobs j JOIN job_metadata m ON m.job = j.seq WHERE j.id = ? ORDER BY m.key",
        [id],
        |row| Ok((row.get("key")?, row.get("value")?)),
    )
}

/// The job of that id.
pub fn job(view: &View, id: &str) -> Stored<Option<JobDetails>> {
    row(
        view,
        "SELECT *, (SELECT group_concat(value, ', ') FROM json_each(languages)) AS language_list
         FROM batch_jobs WHERE id = ?",
        [id],
        |row| {
            Ok(JobDetails {
                summary: JobSummary::read(row)?,
                open_vision: row.get("open_vision")?,
                open_translations: row.get("open_translations")?,
                languages: row.get("language_list")?,
                mode: row.get("processing_mode")?,
                origin: row.get("origin")?,
                webhook_url: row.get("webhook_url")?,
                error: row.get("error_message")?,
            })
        },
    )
}
