//! What work waits for: pauses, failing receivers, batches whose last call failed.

use rusqlite::params;

use super::rows;
use crate::base::clock::Timestamp;
use crate::domain::alert::PauseScope;
use crate::domain::batch::Stage;
use crate::store::predicates::{LIVE_BATCH, LIVE_JOB};
use crate::store::{Stored, View};

/// Why some work waits, or cannot go on.
#[derive(Clone, Debug)]
pub struct Obstacle {
    /// The work.
    pub what: String,
    /// Why.
    pub why: String,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When it goes on.
    pub until: Option<Timestamp>,
}

/// Batches whose create is in doubt, and batches whose last call failed.
pub fn batch_obstacles(view: &View) -> Stored<Vec<Obstacle>> {
    rows(
        view,
        &format!(
            "SELECT 'Batch ' || id AS what,
                    'the answer to its creation was lost; OpenAI is asked whether it has it' AS why,
                    input_file_since AS since, next_at AS until
             FROM openai_batches WHERE state = 'creating' AND failures > 0 AND {LIVE_BATCH}
             UNION ALL
             SELECT 'Batch ' || id, failures || ' calls in a row failed' || coalesce(': ' || error, ''), created_at,
                    next_at
             FROM openai_batches WHERE state IN ('sealed', 'uploaded', 'submitted', 'ended') AND failures > 0
               AND {LIVE_BATCH}
             LIMIT 50"
        ),
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

/// A scope that is paused.
#[derive(Clone, Debug)]
pub struct PausedScope {
    /// The scope.
    pub scope: PauseScope,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// When the pause ends; `None` if something must end it.
    pub until: Option<Timestamp>,
    /// Whether an open alert says the same.
    pub has_alert: bool,
}

/// The scopes that are paused.
pub fn paused_scopes(view: &View) -> Stored<Vec<PausedScope>> {
    rows(
        view,
        "SELECT scope, reason, since, until,
                EXISTS (SELECT 1 FROM alerts a WHERE a.subject = p.scope AND a.closed_at IS NULL) AS has_alert
         FROM pauses p ORDER BY since LIMIT 50",
        [],
        |row| {
            Ok(PausedScope {
                scope: row.get("scope")?,
                reason: row.get("reason")?,
                since: row.get("since")?,
                until: row.get("until")?,
                has_alert: row.get("has_alert")?,
            })
        },
    )
}

/// A receiver whose last attempt failed.
#[derive(Clone, Debug)]
pub struct FailingReceiver {
    /// Its host and port.
    pub host: String,
    /// Attempts since the last success.
    pub failures: u64,
    /// Since when.
    pub since: Timestamp,
    /// Deliveries that wait for it.
    pub due: u64,
    /// When the next attempt is made.
    pub next_at: Option<Timestamp>,
}

/// Receivers whose last attempt failed, the longest failing first.
pub fn failing_receivers(view: &View) -> Stored<Vec<FailingReceiver>> {
    rows(
        view,
        "SELECT f.host, f.failures, f.since,
                (SELECT count(*) FROM webhook_deliveries d WHERE d.host = f.host AND d.state = 'due') AS due,
                (SELECT min(next_at) FROM webhook_deliveries d WHERE d.host = f.host AND d.state = 'due') AS next_at
         FROM failing_receivers f ORDER BY f.since LIMIT 50",
        [],
        |row| {
            Ok(FailingReceiver {
                host: row.get("host")?,
                failures: row.get("failures")?,
                since: row.get("since")?,
                due: row.get("due")?,
                next_at: row.get("next_at")?,
            })
        },
    )
}

/// Number of receivers whose last attempt failed.
pub fn count_failing_receivers(view: &View) -> Stored<u64> {
    let mut query = view.prepare_cached("SELECT count(*) FROM failing_receivers")?;
    Ok(query.query_row([], |row| row.get(0))?)
}

/// Since when the oldest request waits that a batch of the stage could take now.
pub fn queued_since(view: &View, stage: Stage) -> Stored<Option<Timestamp>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT min((SELECT r.since FROM requests r
                     WHERE r.job = j.seq AND r.state = 'waiting' AND r.stage = ? AND r.images_due = 0
                       AND r.retry_at IS NULL LIMIT 1)) AS since
         FROM batch_jobs j WHERE j.{LIVE_JOB}"
    ))?;
    view.readable_value(query.query_row(params![stage], |row| row.get("since")))
}

/// How many lines there are in batches that are neither ingested nor failed.
pub fn active_lines(view: &View) -> Stored<u64> {
    let sql = &format!("SELECT coalesce(sum(lines), 0) FROM openai_batches WHERE {LIVE_BATCH}");
    Ok(view.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}
