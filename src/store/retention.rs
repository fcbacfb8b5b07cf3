//! Removes the lots, texts, requests, lines and metadata of expired jobs, a chunk at a time. The job's row and the sums
//! of its lines stay.

use std::time::Duration;

use rusqlite::{OptionalExtension, params, params_from_iter};

use super::predicates::LIVE_BATCH;
use super::{Stored, Tx, View, events};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::decide::missing_images::KEPT as IMAGE_CHECK_RETENTION;

/// A final job whose texts are to be deleted.
#[derive(Clone, Debug)]
pub struct ExpiredJob {
    /// Its row.
    pub seq: i64,
    /// Its UUID.
    pub id: String,
}

/// What keeps the texts of job `j`: the condition, and the reason for people. Without any of them the job is final and
/// reported: no batch or synchronous call may still answer it, no webhook is due, and the operator has decided over
/// each webhook that did not arrive.
fn obstacles() -> [(String, &'static str); 6] {
    [
        ("j.completed_at IS NULL".to_owned(), "it has not ended"),
        (
            "j.pending_change IS NOT NULL".to_owned(),
            "a change of its lots is not complete",
        ),
        (
            format!(
                "EXISTS (SELECT 1 FROM batch_links k JOIN openai_batches b ON b.id = k.batch_id
                         WHERE k.job = j.seq AND b.{LIVE_BATCH})"
            ),
            "a batch with its lines is not ingested yet",
        ),
        (
            "EXISTS (SELECT 1 FROM webhook_deliveries d
                     WHERE d.batch_job_id = j.id AND d.state IN ('scheduled', 'due'))"
                .to_owned(),
            "a webhook is still due; wait for it, or abandon it (batchkeeper webhooks)",
        ),
        (
            "EXISTS (SELECT 1 FROM webhook_deliveries d JOIN alerts a ON a.kind = 'webhook_failed'
                            AND a.subject = 'delivery:' || d.id AND a.closed_at IS NULL
                     WHERE d.batch_job_id = j.id AND d.state = 'failed')"
                .to_owned(),
            "a webhook did not arrive; resend or abandon it (batchkeeper webhooks)",
        ),
        (
            "EXISTS (SELECT 1 FROM synchronous_calls c JOIN requests r ON r.id = c.request_id
                     WHERE r.job = j.seq AND c.ended_at IS NULL)"
                .to_owned(),
            "a synchronous call of it has no answer yet",
        ),
    ]
}

/// Nothing keeps the texts of job `j`.
fn is_over() -> String {
    obstacles()
        .map(|(condition, _)| format!("NOT ({condition})"))
        .join(" AND ")
}

/// Why the texts of a job cannot be deleted now; `None` if they can.
pub fn obstacle(view: &View, job: i64) -> Stored<Option<&'static str>> {
    for (condition, reason) in obstacles() {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM batch_jobs j WHERE j.seq = ? AND {condition})");
        if view.prepare_cached(&sql)?.query_row([job], |row| row.get(0))? {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

/// Begins to delete the texts of a job before its time, because an operator asks for it. Gives whether that is
/// possible now; [`obstacle`] says why not.
pub fn request_deletion(tx: &Tx<'_>, job: &ExpiredJob, lots: u64) -> Stored<bool> {
    let has_begun = begin(tx, job)?;
    if has_begun {
        let detail = Fields::new().with("lots", lots);
        events::record(tx, Some(&job.id), None, "deletion_requested", detail)?;
    }
    Ok(has_begun)
}

/// Cleaning has begun, and is not complete.
const IS_BEING_CLEANED: &str = "j.cleaning_since IS NOT NULL AND j.cleaned_at IS NULL ORDER BY j.seq";

/// The job ended before `?1`, and was imported before `?1` if it was imported. OpenAI made its batches before
/// `?1`, too: our clock may have been behind when the job ended.
const IS_EXPIRED: &str = "j.cleaning_since IS NULL AND j.completed_at < ?1
    AND j.completed_at GLOB '????-??-??T*Z'
    AND (j.origin <> 'import' OR NOT EXISTS (SELECT 1 FROM events e
                                             WHERE e.job_id = j.id AND e.kind = 'imported' AND e.at >= ?1))
    AND NOT EXISTS (SELECT 1 FROM batch_links k JOIN openai_batches b ON b.id = k.batch_id
                    WHERE k.job = j.seq AND b.openai_time >= unixepoch(?1))
    ORDER BY j.completed_at";

/// The job whose cleaning has begun, if there is one.
pub fn next_begun(view: &View) -> Stored<Option<ExpiredJob>> {
    next(view, IS_BEING_CLEANED, None)
}

/// The job that ended first before `before`, if it can be cleaned.
pub fn next_expired(view: &View, before: Timestamp) -> Stored<Option<ExpiredJob>> {
    next(view, IS_EXPIRED, Some(before))
}

fn next(view: &View, condition: &str, parameter: Option<Timestamp>) -> Stored<Option<ExpiredJob>> {
    let is_over = is_over();
    let mut query = view.prepare_cached(&format!(
        "SELECT j.seq, j.id FROM batch_jobs j WHERE {is_over} AND {condition} LIMIT 1"
    ))?;
    let job = query.query_row(params_from_iter(parameter), |row| {
        Ok(ExpiredJob {
            seq: row.get("seq")?,
            id: row.get("id")?,
        })
    });
    Ok(job.optional()?)
}

/// How long the signature of a POST is kept. That is far longer than a signature is fresh: if the clock is
/// set back by less than this, no old signature is accepted again.
const SIGNATURE_RETENTION: Duration = Duration::from_hours(24);
/// How long figures are kept by the minute. After that, those of an hour are added up.
const MINUTES_RETENTION: Duration = Duration::from_hours(8 * 24);
/// How long figures are kept: the chart of a month needs them.
const FIGURES_RETENTION: Duration = Duration::from_hours(31 * 24);

/// Rows that are older than `?1`: their table, their condition, and how long they are kept.
const OLD_ROWS: [(&str, &str, Duration); 3] = [
    (
        "idempotency_keys",
        "kind = 'signature' AND used_at < ?1 AND used_at GLOB '????-??-??T*Z'",
        SIGNATURE_RETENTION,
    ),
    ("image_checks", "checked_at < ?1", IMAGE_CHECK_RETENTION),
    ("minute_stats", "minute < substr(?1, 1, 16)", FIGURES_RETENTION),
];
/// The most rows of a table that one transaction deletes.
const CHUNK_ROWS: u32 = 500;

/// The figures of minutes whose hour is added up: those before minute `?1`. The row of an hour is that of its first
/// minute.
const MERGED_MINUTES: &str = "minute < substr(?1, 1, 16) AND substr(minute, 15, 2) <> '00'";

/// Whether [`delete_old_rows`] has something to delete or to add up.
pub fn has_old_rows(view: &View, now: Timestamp) -> Stored<bool> {
    for (table, condition, age) in OLD_ROWS {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {condition})");
        if view
            .prepare_cached(&sql)?
            .query_row([now.before(age)], |row| row.get(0))?
        {
            return Ok(true);
        }
    }
    let mut minutes = view.prepare_cached(&format!(
        "SELECT EXISTS (SELECT 1 FROM minute_stats WHERE {MERGED_MINUTES})"
    ))?;
    Ok(minutes.query_row([now.before(MINUTES_RETENTION)], |row| row.get(0))?)
}

/// Adds the figures of old minutes up to those of their hours, a chunk of them.
fn merge_minutes(tx: &Tx<'_>) -> Stored<()> {
    let before = tx.now.before(MINUTES_RETENTION);
    let chunk = format!("FROM minute_stats WHERE {MERGED_MINUTES} ORDER BY minute, what LIMIT {CHUNK_ROWS}");
    tx.execute(
        &format!(
            "INSERT INTO minute_stats (minute, what, number, millis)
             SELECT substr(minute, 1, 14) || '00', what, sum(number), sum(millis) FROM (SELECT * {chunk})
             WHERE TRUE GROUP BY 1, 2
             ON CONFLICT DO UPDATE SET number = number + excluded.number, millis = millis + excluded.millis"
        ),
        [before],
    )?;
    tx.execute(
        &format!("DELETE FROM minute_stats WHERE (minute, what) IN (SELECT minute, what {chunk})"),
        [before],
    )?;
    Ok(())
}

/// Deletes old signatures, image checks and figures, and adds up the figures of old minutes, a chunk of each.
pub fn delete_old_rows(tx: &Tx<'_>) -> Stored<()> {
    merge_minutes(tx)?;
    for (table, condition, age) in OLD_ROWS {
        let key = match table {
            "idempotency_keys" => "client, kind, key",
            "image_checks" => "url",
            _ => "minute, what",
        };
        let chunk = format!("SELECT {key} FROM {table} WHERE {condition} LIMIT {CHUNK_ROWS}");
        tx.execute(
            &format!("DELETE FROM {table} WHERE ({key}) IN ({chunk})"),
            [tx.now.before(age)],
        )?;
    }
    Ok(())
}

/// The lots of a chunk: of job `?1` up to position `?2`.
const CHUNK: &str = "SELECT id FROM batch_lots WHERE batch_job_id = ?1 AND position <= ?2";

/// Marks the cleaning of a job as begun, and removes the client's own values of it; gives whether that is possible now.
fn begin(tx: &Tx<'_>, job: &ExpiredJob) -> Stored<bool> {
    let is_over = is_over();
    let begun = tx
        .prepare_cached(&format!(
            "UPDATE batch_jobs AS j SET cleaning_since = coalesce(cleaning_since, ?) WHERE seq = ?
                 AND {is_over}"
        ))?
        .execute(params![tx.now, job.seq])?;
    if begun == 1 {
        tx.prepare_cached("DELETE FROM job_metadata WHERE job = ?")?
            .execute([job.seq])?;
    }
    Ok(begun == 1)
}

/// Removes up to `lots` lots of a job with all that belongs to them. A job that an operator has reopened
/// stays.
pub fn clean(tx: &Tx<'_>, job: &ExpiredJob, lots: u32) -> Stored<()> {
    if !begin(tx, job)? {
        return Ok(());
    }
    let last: Option<i64> = tx
        .prepare_cached(
            "SELECT max(position) FROM
                (SELECT position FROM batch_lots WHERE batch_job_id = ? ORDER BY position LIMIT ?)",
        )?
        .query_row(params![job.id, lots], |row| row.get(0))?;
    match last {
        Some(last) => clean_chunk(tx, job, last),
        None => {
            tx.execute(
                "UPDATE batch_jobs SET cleaned_at = ? WHERE seq = ?",
                params![tx.now, job.seq],
            )?;
            events::record(tx, Some(&job.id), None, "cleaned", Fields::new())
        }
    }
}

/// Sums of the lines or calls `w` of a chunk.
const SUMS: &str =
    "count(*), coalesce(sum(w.outcome = 'answered'), 0), sum(w.input_tokens), sum(w.cached_tokens),
    sum(w.output_tokens), sum(w.reasoning_tokens), sum(w.usage_unknown)";

/// Adds the sums of a chunk to those of earlier ones.
const ADD_SUMS: &str =
    "ON CONFLICT (job, coalesce(batch_id, 0)) DO UPDATE SET lines = lines + excluded.lines,
    answered = answered + excluded.answered, input_tokens = input_tokens + excluded.input_tokens,
    cached_tokens = cached_tokens + excluded.cached_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
    usage_unknown = usage_unknown + excluded.usage_unknown";

/// Removes the lots of a job up to position `last`, and keeps the sums of their lines and calls.
fn clean_chunk(tx: &Tx<'_>, job: &ExpiredJob, last: i64) -> Stored<()> {
    for sql in [
        format!(
            "INSERT INTO cleaned_work SELECT r.job, w.batch_id, NULL, {SUMS}
             FROM requests r JOIN batch_lines w ON w.request_id = r.id WHERE r.lot IN ({CHUNK})
             GROUP BY r.job, w.batch_id {ADD_SUMS}"
        ),
        format!(
            "INSERT INTO cleaned_work SELECT r.job, NULL, min(w.started_at), {SUMS}
             FROM requests r JOIN synchronous_calls w ON w.request_id = r.id
             WHERE w.started_at IS NOT NULL AND r.lot IN ({CHUNK}) GROUP BY r.job {ADD_SUMS}"
        ),
        format!(
            "DELETE FROM batch_lines WHERE request_id IN (SELECT id FROM requests WHERE lot IN ({CHUNK}))"
        ),
        format!(
            "DELETE FROM synchronous_calls
             WHERE request_id IN (SELECT id FROM requests WHERE lot IN ({CHUNK}))"
        ),
        format!("DELETE FROM requests WHERE lot IN ({CHUNK})"),
        format!("DELETE FROM lot_translations WHERE lot IN ({CHUNK})"),
        "DELETE FROM batch_lots WHERE batch_job_id = ?1 AND position <= ?2".to_owned(),
    ] {
        tx.prepare_cached(&sql)?.execute(params![job.id, last])?;
    }
    Ok(())
}
