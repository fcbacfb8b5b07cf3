//! Closed alerts, obstacles, events, and what jobs and batches cost.

use rusqlite::Row;

use super::{row, rows};
use crate::base::clock::Timestamp;
use crate::domain::usage::TokenUsage;
use crate::store::alerts::AlertRow;
use crate::store::columns::token_usage;
use crate::store::predicates::LIVE_BATCH;
use crate::store::{Stored, View};

/// Alerts that are closed, newest first.
pub fn closed_alerts(view: &View) -> Stored<Vec<AlertRow>> {
    rows(
        view,
        "SELECT * FROM alerts WHERE closed_at IS NOT NULL ORDER BY id DESC LIMIT 100",
        [],
        AlertRow::read,
    )
}

/// Why some work waits.
#[derive(Clone, Debug)]
pub struct Obstacle {
    /// The pause, the receiver or the batch.
    pub what: String,
    /// Why.
    pub why: String,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When the pause ends, or when the next attempt is made.
    pub until: Option<Timestamp>,
}

/// Pauses, failing receivers, and batches whose last call failed.
pub fn obstacles(view: &View) -> Stored<Vec<Obstacle>> {
    rows(
        view,
        &format!("SELECT 'Paused: ' || scope AS what, reason AS why, since, until FROM pauses
         UNION ALL
         SELECT 'Webhooks to ' || host, failures || ' attempts in a row failed', since, NULL
         FROM (SELECT * FROM failing_receivers ORDER BY since LIMIT 10)
         UNION ALL
         SELECT 'Batch ' || id, 'the answer to its creation was lost; OpenAI is asked whether it has it',
                input_file_since, next_at
         FROM openai_batches WHERE state = 'creating' AND failures > 0 AND {LIVE_BATCH}
         UNION ALL
         SELECT 'Batch ' || id, failures || ' calls in a row failed' || coalesce(': ' || error, ''), created_at, next_at
         FROM openai_batches WHERE state IN ('sealed', 'uploaded', 'submitted', 'ended') AND failures > 0
           AND {LIVE_BATCH}
         LIMIT 50"),
        [],
        |row| {
            Ok(Obstacle {
                what: row.get("what")?,
                why: row.get("why")?,
                since: row.get("since")?,
                until: row.get("until")?,
            })
        },
    )
}

/// How many requests of jobs that are not final wait for the check of their images; 1000 at most.
pub fn images_due(view: &View) -> Stored<u64> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM requests WHERE images_due = 1 LIMIT 1000)";
    Ok(view.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// How many lines there are in batches that are neither ingested nor failed.
pub fn active_lines(view: &View) -> Stored<u64> {
    let sql = &format!("SELECT coalesce(sum(lines), 0) FROM openai_batches WHERE {LIVE_BATCH}");
    Ok(view.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// An event of a job or batch.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it happened.
    pub at: Timestamp,
    /// The batch that it is about.
    pub batch: Option<i64>,
    /// What happened.
    pub kind: String,
    /// More about it.
    pub detail: String,
}

impl Event {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            at: row.get("at")?,
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
        "SELECT id, at, NULL AS batch_id, kind, detail FROM events WHERE job_id = ?1
         UNION ALL
         SELECT e.id, e.at, e.batch_id, e.kind, e.detail
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
        "SELECT at, batch_id, kind, detail FROM events WHERE batch_id = ? ORDER BY id DESC LIMIT 200",
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
