//! Events, and what jobs and batches cost.

use rusqlite::Row;

use super::{row, rows};
use crate::base::clock::Timestamp;
use crate::domain::usage::TokenUsage;
use crate::store::columns::token_usage;
use crate::store::{Stored, View};

/// An event of a job or batch.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it happened.
    pub at: Timestamp,
    /// The job that it is about.
    pub job: Option<String>,
    /// The batch that it is about.
    pub batch: Option<i64>,
    /// What happened.
    pub kind: String,
    /// More about it.
    pub detail: String,
}

impl Event {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            at: row.get("at")?,
            job: row.get("job_id")?,
            batch: row.get("batch_id")?,
            kind: row.get("kind")?,
            detail: row.get("detail")?,
        })
    }
}

/// What happened to a job and to the batches that work for it, newest first.
pub fn events_of_job(view: &View, job: &str) -> Stored<Vec<Event>> {
    rows(
        view,
        "SELECT id, at, job_id, NULL AS batch_id, kind, detail FROM events WHERE job_id = ?1
         UNION ALL
         SELECT e.id, e.at, e.job_id, e.batch_id, e.kind, e.detail
         FROM batch_jobs j JOIN batch_links k ON k.job = j.seq JOIN events e ON e.batch_id = k.batch_id
         WHERE j.id = ?1 ORDER BY id DESC LIMIT 200",
        [job],
        Event::read,
    )
}

/// What happened to a batch, newest first.
pub fn events_of_batch(view: &View, batch: i64) -> Stored<Vec<Event>> {
    rows(
        view,
        "SELECT at, job_id, batch_id, kind, detail FROM events WHERE batch_id = ? ORDER BY id DESC LIMIT 200",
        [batch],
        Event::read,
    )
}

/// What a job or batch has cost.
#[derive(Clone, Debug)]
pub struct Costs {
    /// Requests that OpenAI answered.
    pub answered: u64,
    /// Tokens of all attempts.
    pub usage: TokenUsage,
    /// US dollars, or `unknown` for a model without a price.
    pub dollars: String,
    /// The estimate of a job, in the same form.
    pub estimated_dollars: Option<String>,
}

/// What a batch has cost, as `v_costs` has it.
pub fn costs_of_batch(view: &View, batch: i64) -> Stored<Option<Costs>> {
    row(view, "SELECT * FROM v_costs WHERE batch_id = ?", [batch], |row| {
        Ok(Costs {
            answered: row.get("answered")?,
            usage: token_usage(row, "")?,
            dollars: row.get("cost_usd")?,
            estimated_dollars: None,
        })
    })
}

/// What a job has cost and its estimate, as `v_job_costs` has them.
pub fn costs_of_job(view: &View, job: &str) -> Stored<Option<Costs>> {
    row(view, "SELECT * FROM v_job_costs WHERE job_id = ?", [job], |row| {
        Ok(Costs {
            answered: row.get("answers")?,
            usage: token_usage(row, "")?,
            dollars: row.get("cost_usd")?,
            estimated_dollars: row.get("estimated_usd")?,
        })
    })
}
