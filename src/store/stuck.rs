//! Stalled work, as causes of alerts.

use rusqlite::{Row, params};

use super::batches::{self, BatchRow};
use super::predicates::{LIVE_BATCH, LIVE_JOB};
use super::{Stored, View};
use crate::base::clock::Timestamp;
use crate::domain::alert::{AlertCause, AlertSubject};
use crate::domain::batch::Stage;
use crate::domain::decide::audit::RecentLines;
use crate::domain::openai::Identity;

/// The most stalled jobs, and stalled batches, that are reported: a person reads them. Kinds of alerts that
/// other workers open as well have no such limit: the auditor would close what they opened.
const MOST_REPORTED: u32 = 20;
/// The most alerts that one message repeats.
const MOST_OBSTACLES: u32 = 3;
/// The time that OpenAI has for a batch whose row does not say when its window closes, in seconds.
const WINDOW: i64 = 24 * 3600;

/// Jobs with a request that has waited since before `before`.
pub fn stalled_jobs(view: &View, before: Timestamp) -> Stored<Vec<AlertCause>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT j.id, min(r.since) AS since, count(*) AS number
         FROM batch_jobs j JOIN requests r ON r.job = j.seq AND r.state = 'waiting' AND r.retry_at IS NULL
         WHERE j.{LIVE_JOB} AND r.since < ? GROUP BY j.seq LIMIT ?"
    ))?;
    let obstacle = obstacle(view)?;
    let cause = |row: &Row<'_>| {
        let id: String = row.get("id")?;
        let (since, number): (String, u64) = (row.get("since")?, row.get("number")?);
        let message = format!(
            "{number} requests of job {id} have waited since {since}. What they wait for: {obstacle}. Look at it: \
             batchkeeper jobs show {id}"
        );
        let subject = AlertSubject::Named(id);
        Ok(AlertCause { subject, message })
    };
    Ok(query
        .query_map(params![before, MOST_REPORTED], cause)?
        .collect::<Result<_, _>>()?)
}

/// What keeps requests and batches from being sent: the open alerts that stop them, or what else the database says.
fn obstacle(view: &View) -> Stored<String> {
    let mut query = view.prepare_cached(
        "SELECT message FROM alerts WHERE closed_at IS NULL
           AND (kind IN ('openai_account', 'restored_database', 'listing_fails', 'model_refused', 'model_fails', 'disk_low',
                         'budget_100') OR kind = 'paused' AND subject = 'submissions')
         ORDER BY id LIMIT ?",
    )?;
    let stopped: Vec<String> = query
        .query_map([MOST_OBSTACLES], |row| row.get("message"))?
        .collect::<Result<_, _>>()?;
    Ok(match stopped.is_empty() {
        false => stopped.join("; "),
        true if !batches::is_compared(view)? => "OpenAI's list of batches, which is not compared with the \
            database since the start. Why: journalctl -u batchkeeper"
            .to_owned(),
        true => {
            "another batch of the model, or the check of images; no alert explains it. Look at all batches: \
            batchkeeper batches"
                .to_owned()
        }
    })
}

/// Batches that have not moved since before `before`: on their way to OpenAI, not polled, or not ingested.
pub fn stalled_batches(view: &View, before: Timestamp) -> Stored<Vec<AlertCause>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT b.id, b.state, CASE b.state WHEN 'submitted' THEN b.next_at
             ELSE coalesce(b.ended_at, b.created_at) END
                    AS since,
                b.error
         FROM openai_batches b WHERE b.{LIVE_BATCH} AND b.abandoned_at IS NULL AND since < ? LIMIT ?"
    ))?;
    let obstacle = obstacle(view)?;
    let cause = |row: &Row<'_>| {
        let (id, state): (i64, String) = (row.get("id")?, row.get("state")?);
        let (since, error): (String, Option<String>) = (row.get("since")?, row.get("error")?);
        let error = error.as_ref().unwrap_or(&obstacle);
        let what = match state.as_str() {
            "submitted" => "should have been polled at",
            _ => "has not moved on since",
        };
        let message = format!(
            "batch {id} is {state} and {what} {since}: {error}. Look at it: batchkeeper batches show {id}"
        );
        let subject = AlertSubject::Batch(id);
        Ok(AlertCause { subject, message })
    };
    Ok(query
        .query_map(params![before, MOST_REPORTED], cause)?
        .collect::<Result<_, _>>()?)
}

/// Batches that have not ended, as far as is known, and whose window closed before `before`.
pub fn overdue_batches(view: &View, before: Timestamp) -> Stored<Vec<AlertCause>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT b.id, b.openai_batch_id, coalesce(b.openai_status, 'unknown') AS status,
                coalesce(b.error, '') AS error
         FROM openai_batches b
         WHERE b.state = 'submitted' AND b.{LIVE_BATCH} AND b.abandoned_at IS NULL
           AND NOT (coalesce(b.openai_status, '') IN ('completed', 'failed', 'expired', 'cancelled')
               AND b.failures = 0)
           AND coalesce(b.openai_expires, b.openai_time + ?) < ?"
    ))?;
    let cause = |row: &Row<'_>| {
        let (id, openai_id): (i64, String) = (row.get("id")?, row.get("openai_batch_id")?);
        let (status, error): (String, String) = (row.get("status")?, row.get("error")?);
        let error = match error.as_str() {
            "" => String::new(),
            error => format!(" (the last call: {error})"),
        };
        let message = format!(
            "batch {openai_id} is past its window and still {status}{error}; it is not sent again before it \
             ends. If it is lost for good: batchkeeper batches abandon {id}"
        );
        let subject = AlertSubject::Batch(id);
        Ok(AlertCause { subject, message })
    };
    let parameters = params![WINDOW, before.seconds()];
    Ok(query.query_map(parameters, cause)?.collect::<Result<_, _>>()?)
}

/// Batches that have not ended, as far as is known, and whose window closes between two times in seconds.
pub fn expiring_batches(view: &View, (from, to): (i64, i64)) -> Stored<Vec<AlertCause>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT b.id, b.openai_batch_id, b.openai_completed + b.openai_failed AS done, b.lines,
                strftime('%Y-%m-%dT%H:%M:%SZ', coalesce(b.openai_expires, b.openai_time + ?1), 'unixepoch') AS closes_at
         FROM openai_batches b
         WHERE b.state = 'submitted' AND b.{LIVE_BATCH} AND b.abandoned_at IS NULL
           AND coalesce(b.openai_status, '') NOT IN ('completed', 'failed', 'expired', 'cancelled')
           AND coalesce(b.openai_expires, b.openai_time + ?1) BETWEEN ?2 AND ?3"
    ))?;
    let cause = |row: &Row<'_>| {
        let (id, openai_id): (i64, String) = (row.get("id")?, row.get("openai_batch_id")?);
        let (done, lines): (u64, u64) = (row.get("done")?, row.get("lines")?);
        let closes_at: String = row.get("closes_at")?;
        let message = format!(
            "batch {openai_id} has not ended, and OpenAI's window for it closes at {closes_at}; {done} of its {lines} \
             lines are done. Lines without an answer are sent again in another batch after it, and are not billed \
             twice. Nothing has to be done; look at it: batchkeeper batches show {id}"
        );
        let subject = AlertSubject::Batch(id);
        Ok(AlertCause { subject, message })
    };
    Ok(query
        .query_map([WINDOW, from, to], cause)?
        .collect::<Result<_, _>>()?)
}

/// The lines that were ingested since a time.
pub fn recent_lines(view: &View, since: Timestamp) -> Stored<RecentLines> {
    let mut query = view.prepare_cached(
        "SELECT coalesce(sum(number) FILTER (WHERE what = 'lines_answered'), 0) AS answered,
                coalesce(sum(number) FILTER (WHERE what = 'lines_failed'), 0) AS failed
         FROM minute_stats WHERE minute >= substr(?, 1, 16)",
    )?;
    Ok(query.query_row([since], |row| {
        Ok(RecentLines {
            answered: row.get("answered")?,
            failed: row.get("failed")?,
        })
    })?)
}

/// Batches that OpenAI may have under another account than `identity`, and that must still be asked about.
pub fn batches_of_other_identity(view: &View, identity: &Identity) -> Stored<Vec<BatchRow>> {
    batches::find_all(
        view,
        "state NOT IN ('ingested', 'failed') AND state NOT IN ('planned', 'sealed') AND abandoned_at IS NULL
         AND (base_url, organization, project) <> (?, ?, ?)
         AND (state <> 'ended' OR output_file_id IS NOT NULL AND output_bytes IS NULL
                               OR error_file_id IS NOT NULL AND error_bytes IS NULL)",
        params![identity.base_url, identity.organization, identity.project],
    )
}

/// Batches with OpenAI's id that work for a job which names no batch of that stage.
pub fn unlinked_batches(view: &View) -> Stored<Vec<i64>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT DISTINCT b.id FROM batch_jobs j JOIN batch_links k ON k.job = j.seq
                JOIN openai_batches b ON b.id = k.batch_id
         WHERE j.{LIVE_JOB} AND b.openai_batch_id IS NOT NULL
           AND CASE b.stage WHEN 'vision' THEN j.openai_batch_id
               ELSE j.openai_translation_batch_id END IS NULL
         ORDER BY b.id"
    ))?;
    let rows = query.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether a request of one of the stages waits to be sent, or a batch of the model (of any, if `None`) is
/// live.
pub fn has_work(view: &View, model: Option<&str>, stages: &[Stage]) -> Stored<bool> {
    let mut waiting = view.prepare_cached(&format!(
        "SELECT EXISTS (SELECT 1 FROM batch_jobs j
                        JOIN requests r ON r.job = j.seq AND r.state = 'waiting' AND r.stage = ?
                            WHERE j.{LIVE_JOB})"
    ))?;
    for stage in stages {
        if waiting.query_row([stage], |row| row.get(0))? {
            return Ok(true);
        }
    }
    let mut live = view.prepare_cached(&format!(
        "SELECT EXISTS (SELECT 1 FROM openai_batches b
                        WHERE b.model = coalesce(?, b.model) AND b.{LIVE_BATCH})"
    ))?;
    Ok(live.query_row([model], |row| row.get(0))?)
}

/// The notifications that should have reached their receiver before `before`, and those that were abandoned
/// after `abandoned_after`, as one cause for each receiver.
pub fn failed_notifications(
    view: &View,
    before: Timestamp,
    abandoned_after: Timestamp,
) -> Stored<Vec<AlertCause>> {
    let mut query = view.prepare_cached(
        "SELECT n.receiver, count(*) AS number, max(n.error_message) AS error FROM alert_notices n
         WHERE n.state = 'due' AND n.attempts > 0 AND n.created_at < ? OR n.state = 'failed'
             AND n.created_at > ?
         GROUP BY n.receiver",
    )?;
    let cause = |row: &Row<'_>| {
        let (receiver, number): (String, u64) = (row.get("receiver")?, row.get("number")?);
        let error: Option<String> = row.get("error")?;
        let what = match number {
            1 => "1 alert notification has".to_owned(),
            number => format!("{number} alert notifications have"),
        };
        let message = format!(
            "{what} not reached {receiver}: {}. Try it: batchkeeper alerts test",
            error.unwrap_or_default()
        );
        let subject = AlertSubject::notifications_to(&receiver);
        Ok(AlertCause { subject, message })
    };
    Ok(query
        .query_map([before, abandoned_after], cause)?
        .collect::<Result<_, _>>()?)
}
