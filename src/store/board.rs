//! What the operator's page shows. It is asked for every few seconds, on a database of millions of lots:
//! counters that rows hold, indexed rows, and never more of them than a person reads.

use rusqlite::params;

use super::inspect::{Table, table};
use super::{Stored, View};
use crate::clock::Timestamp;

/// Jobs that are not final, oldest first, with what their requests are at. `waiting_since`: of the
/// head of its queue.
pub fn active_jobs(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT j.id, j.client, j.processing_mode AS mode, j.status, j.total_lots, j.processed_lots, j.failed_lots,
                j.open_vision, j.open_translations, j.created_at,
                EXISTS (SELECT 1 FROM requests r WHERE r.job = j.seq AND r.state = 'held') AS held,
                EXISTS (SELECT 1 FROM requests r WHERE r.job = j.seq AND r.images_due = 1) AS checking,
                EXISTS (SELECT 1 FROM requests r WHERE r.job = j.seq AND r.state = 'claimed') AS sent,
                (SELECT r.since FROM requests r WHERE r.job = j.seq AND r.state = 'waiting' LIMIT 1) AS waiting_since
         FROM batch_jobs j WHERE j.status IN ('pending', 'processing', 'translating') ORDER BY j.seq LIMIT 30",
        [],
    )
}

/// The newest final jobs.
pub fn ended_jobs(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT id, client, status, total_lots, processed_lots, failed_lots, created_at, completed_at
         FROM batch_jobs WHERE completed_at IS NOT NULL ORDER BY seq DESC LIMIT 15",
        [],
    )
}

const BATCH: &str = "id, stage, state, openai_batch_id, openai_status, model, lines, openai_completed AS completed, \
    openai_failed AS failed, failures, error, next_at, created_at, submitted_at, ended_at, ingested_at";

/// Batches that are not over, oldest first.
pub fn live_batches(view: &View) -> Stored<Table> {
    let sql = format!(
        "SELECT {BATCH} FROM openai_batches WHERE state NOT IN ('ingested', 'failed') ORDER BY id LIMIT 40"
    );
    table(view, &sql, [])
}

/// The newest batches that are over.
pub fn ended_batches(view: &View) -> Stored<Table> {
    let sql = format!(
        "SELECT {BATCH} FROM openai_batches WHERE state IN ('ingested', 'failed') ORDER BY id DESC LIMIT 15"
    );
    table(view, &sql, [])
}

/// Webhooks that are due, the next one first.
pub fn due_webhooks(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT id, batch_job_id AS job, host, attempts, response_status AS answer, error_message AS error, under_way, next_at
         FROM webhook_deliveries WHERE state = 'due' ORDER BY next_at LIMIT 20",
        [],
    )
}

/// Receivers whose last attempt failed.
pub fn failing_receivers(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT host, failures, since FROM failing_receivers ORDER BY since LIMIT 20",
        [],
    )
}

/// What is paused, and why.
pub fn pauses(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT scope, reason, since, until FROM pauses ORDER BY scope",
        [],
    )
}

/// What happened since `from`, by spans of so many minutes: of each kind and span that has any.
pub fn pace(view: &View, from: Timestamp, span: u32) -> Stored<Table> {
    table(
        view,
        "SELECT what, unixepoch(minute) / (?2 * 60) * (?2 * 60) AS at, sum(number) AS number, sum(seconds) AS seconds,
                max(longest) AS longest
         FROM minutes WHERE minute >= substr(?1, 1, 16) GROUP BY 1, 2 ORDER BY 2",
        params![from, span],
    )
}

/// What was paid for so far, by model. Where prices are known, this is where they come in.
pub fn spend(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT label AS model,
                sum(number) FILTER (WHERE what = 'tokens_input') AS input_tokens,
                sum(number) FILTER (WHERE what = 'tokens_cached') AS cached_tokens,
                sum(number) FILTER (WHERE what = 'tokens_output') AS output_tokens,
                sum(number) FILTER (WHERE what = 'tokens_reasoning') AS reasoning_tokens
         FROM sums WHERE what IN ('tokens_input', 'tokens_cached', 'tokens_output', 'tokens_reasoning')
         GROUP BY label ORDER BY label LIMIT 20",
        [],
    )
}

/// How many of a job's lots are in each state.
pub fn lots_of(view: &View, job: &str) -> Stored<Table> {
    table(
        view,
        "SELECT status, count(*) AS lots FROM batch_lots WHERE batch_job_id = ? GROUP BY status",
        [job],
    )
}

/// How many of a job's requests are in each state.
pub fn requests_of(view: &View, job: &str) -> Stored<Table> {
    table(
        view,
        "SELECT r.stage, r.state, count(*) AS requests FROM requests r
         WHERE r.job = (SELECT seq FROM batch_jobs WHERE id = ?) GROUP BY r.state, r.stage ORDER BY r.stage DESC, r.state",
        [job],
    )
}

/// The first of a job's failed lots.
pub fn failed_lots_of(view: &View, job: &str) -> Stored<Table> {
    table(
        view,
        "SELECT position, lot_id, error_message AS error FROM batch_lots
         WHERE batch_job_id = ? AND status = 'failed' LIMIT 20",
        [job],
    )
}

/// The newest batches that work or worked for a job.
pub fn batches_of(view: &View, job: &str) -> Stored<Table> {
    let sql = format!(
        "SELECT {BATCH} FROM batch_links k JOIN openai_batches b ON b.id = k.batch_id
         WHERE k.job = (SELECT seq FROM batch_jobs WHERE id = ?) ORDER BY b.id DESC LIMIT 50"
    );
    table(view, &sql, [job])
}

/// A job's webhooks, each attempt a row.
pub fn webhooks_of(view: &View, job: &str) -> Stored<Table> {
    table(
        view,
        "SELECT d.id, d.url, d.state, d.next_at, a.attempt, a.started_at, a.ended_at,
                a.response_status AS answer, a.error_message AS error
         FROM webhook_deliveries d LEFT JOIN delivery_attempts a ON a.delivery_id = d.id
         WHERE d.batch_job_id = ? ORDER BY d.id, a.attempt LIMIT 100",
        [job],
    )
}

/// What came back for a batch's lines, and the first words of why, commonest first.
pub fn lines_of(view: &View, batch: i64) -> Stored<Table> {
    table(
        view,
        "SELECT coalesce(outcome, 'not read yet') AS outcome, substr(error, 1, 300) AS error, count(*) AS lines
         FROM batch_lines WHERE batch_id = ? GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 20",
        [batch],
    )
}

/// What a batch cost.
pub fn cost_of(view: &View, batch: i64) -> Stored<Table> {
    table(view, "SELECT * FROM v_costs WHERE batch_id = ?", [batch])
}

/// The first of the jobs that a batch works for.
pub fn jobs_of(view: &View, batch: i64) -> Stored<Table> {
    table(
        view,
        "SELECT j.id, j.client, j.status, j.total_lots, j.processed_lots, j.failed_lots, j.created_at, j.completed_at
         FROM batch_links k JOIN batch_jobs j ON j.seq = k.job WHERE k.batch_id = ? ORDER BY k.job LIMIT 50",
        [batch],
    )
}
