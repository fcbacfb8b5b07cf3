//! Work that stands still: what the auditor tells a person of.

use rusqlite::{Row, params};

use super::batches::{self, BatchRow};
use super::{Stored, View};
use crate::base::clock::Timestamp;
use crate::domain::alert::{AlertCause, AlertSubject};
use crate::domain::batch::Stage;
use crate::domain::openai::Identity;

/// Of jobs and of submissions that stand still so many are told of at once: a person reads them. What
/// others tell of too, batch by batch, is told of whole, or each would end what the other began.
const MOST: u32 = 20;
/// OpenAI's window where a batch's row does not say when it closes, seconds.
const WINDOW: i64 = 24 * 3600;

/// Jobs with a request that waits since before `before`.
pub fn jobs(view: &View, before: Timestamp) -> Stored<Vec<AlertCause>> {
    let mut query = view.prepare_cached(
        "SELECT j.id, min(r.since), count(*) FROM batch_jobs j JOIN requests r ON r.job = j.seq AND r.state = 'waiting'
         WHERE j.status IN ('pending', 'processing', 'translating') AND r.since < ? GROUP BY j.seq LIMIT ?",
    )?;
    let told = |row: &Row<'_>| {
        let (id, since, number): (String, String, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let message = format!(
            "{number} requests of job {id} wait since {since}; what holds them: batchkeeper alerts"
        );
        let subject = AlertSubject::Named(id);
        Ok(AlertCause { subject, message })
    };
    Ok(query
        .query_map(params![before, MOST], told)?
        .collect::<Result<_, _>>()?)
}

/// Submissions that stand still since before `before`: on their way to OpenAI, there and not asked
/// about, or ended and not taken in.
pub fn submissions(view: &View, before: Timestamp) -> Stored<Vec<AlertCause>> {
    let mut query = view.prepare_cached(
        "SELECT id, state, CASE state WHEN 'submitted' THEN next_at ELSE coalesce(ended_at, created_at) END AS since,
                coalesce(error, 'no reason is stored')
         FROM openai_batches
         WHERE state NOT IN ('ingested', 'failed') AND since < ? LIMIT ?",
    )?;
    let told = |row: &Row<'_>| {
        let (id, state, since, error): (i64, String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let what = match state.as_str() {
            "submitted" => "should have been asked about at",
            _ => "has not moved on since",
        };
        let message = format!(
            "batch {id} is {state} and {what} {since}: {error}. Look at it: batchkeeper batches show {id}"
        );
        let subject = AlertSubject::Batch(id);
        Ok(AlertCause { subject, message })
    };
    Ok(query
        .query_map(params![before, MOST], told)?
        .collect::<Result<_, _>>()?)
}

/// Batches that OpenAI should have ended before `before`, and has not as far as is known.
pub fn overdue(view: &View, before: Timestamp) -> Stored<Vec<AlertCause>> {
    let mut query = view.prepare_cached(
        "SELECT id, openai_batch_id, coalesce(openai_status, 'unknown'), coalesce(error, '') FROM openai_batches
         WHERE state = 'submitted' AND state NOT IN ('ingested', 'failed')
           AND NOT (coalesce(openai_status, '') IN ('completed', 'failed', 'expired', 'cancelled') AND failures = 0)
           AND coalesce(openai_expires, openai_time + ?) < ?",
    )?;
    let told = |row: &Row<'_>| {
        let (id, remote, status, error): (i64, String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let error = match error.as_str() {
            "" => String::new(),
            error => format!(" (the last call: {error})"),
        };
        let message = format!(
            "batch {remote} is past its window and still {status}{error}; it is not sent again before it ends. If it is \
             lost for good: batchkeeper batches give-up {id}"
        );
        let subject = AlertSubject::Batch(id);
        Ok(AlertCause { subject, message })
    };
    let of = params![WINDOW, before.seconds()];
    Ok(query.query_map(of, told)?.collect::<Result<_, _>>()?)
}

/// Submissions that OpenAI may know under another account than `identity`, and has yet to be asked
/// about.
pub fn of_other_identity(view: &View, identity: &Identity) -> Stored<Vec<BatchRow>> {
    batches::some(
        view,
        "state NOT IN ('ingested', 'failed') AND state NOT IN ('planned', 'sealed')
         AND (base_url, organization, project) <> (?, ?, ?)
         AND (state <> 'ended' OR output_file_id IS NOT NULL AND output_bytes IS NULL
                               OR error_file_id IS NOT NULL AND error_bytes IS NULL)",
        params![identity.base_url, identity.organization, identity.project],
    )
}

/// Batches with OpenAI's id that a job works with and does not name, though none of that stage is
/// named by it.
pub fn unlinked(view: &View) -> Stored<Vec<i64>> {
    let mut query = view.prepare_cached(
        "SELECT DISTINCT b.id FROM batch_jobs j JOIN batch_links k ON k.job = j.seq JOIN openai_batches b ON b.id = k.batch_id
         WHERE j.status IN ('pending', 'processing', 'translating') AND b.openai_batch_id IS NOT NULL
           AND CASE b.stage WHEN 'vision' THEN j.openai_batch_id ELSE j.openai_translation_batch_id END IS NULL
         ORDER BY b.id",
    )?;
    let rows = query.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether a request of one of the stages waits to be sent, or a batch of the model (none: of any) is under way.
pub fn is_wanted(view: &View, model: Option<&str>, stages: &[Stage]) -> Stored<bool> {
    let mut waiting = view.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM batch_jobs j JOIN requests r ON r.job = j.seq AND r.state = 'waiting' AND r.stage = ?
                        WHERE j.status IN ('pending', 'processing', 'translating'))",
    )?;
    for stage in stages {
        if waiting.query_row([stage], |row| row.get(0))? {
            return Ok(true);
        }
    }
    let mut under_way = view.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM openai_batches WHERE model = coalesce(?, model) AND state NOT IN ('ingested', 'failed'))",
    )?;
    Ok(under_way.query_row([model], |row| row.get(0))?)
}

/// What should have been told of alerts since before `before`, and was not; or was given up after
/// `given_up_after`.
pub fn notices(
    view: &View,
    before: Timestamp,
    given_up_after: Timestamp,
) -> Stored<Vec<AlertCause>> {
    let mut query = view.prepare_cached(
        "SELECT count(*), max(n.error_message) FROM alert_notices n
         WHERE n.state = 'due' AND n.attempts > 0 AND n.created_at < ? OR n.state = 'failed' AND n.created_at > ?",
    )?;
    let (number, error): (u64, Option<String>) = query
        .query_row([before, given_up_after], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if number == 0 {
        return Ok(Vec::new());
    }
    let message = format!(
        "{number} alerts could not be told to alerts.webhook_url: {}. They are here: batchkeeper alerts",
        error.unwrap_or_default()
    );
    let subject = AlertSubject::Notifications;
    Ok(vec![AlertCause { subject, message }])
}
