//! What the lines of a batch, and the newest lines of its model, are.

use std::time::Duration;

use rusqlite::params;

use super::BatchRow;
use crate::base::clock::Timestamp;
use crate::domain::alert::PauseScope;
use crate::domain::batch::Outcome;
use crate::domain::decide::batch_verdict::{BatchLines, BatchVerdict, JobLines, LineCounts, RecentLines};
use crate::store::predicates::{LIVE_BATCH, LIVE_JOB};
use crate::store::{Stored, Tx, View};

/// Lines are recent for this long.
const RECENT: Duration = Duration::from_hours(6);
/// The most batches whose lines are counted.
const BATCHES: u32 = 100;

/// The lines of a batch whose files are read. `unread` is the outcome of a line that is in no file.
pub fn batch_lines(view: &View, batch: i64, unread: Outcome) -> Stored<BatchLines> {
    let first = first_lines(view, batch, unread)?;
    let mut query = view.prepare_cached(
        "SELECT count(*) AS lines, coalesce(sum(coalesce(outcome, ?2) = 'passing'), 0) AS failed,
                coalesce(sum(outcome IN ('answered', 'refused', 'truncated', 'filtered')), 0) AS ran,
                min(setting) AS setting,
                min(CASE WHEN setting IS NOT NULL THEN error END) AS setting_error
         FROM batch_lines WHERE batch_id = ?1 AND outcome IS NOT 'not_run'",
    )?;
    Ok(query.query_row(params![batch, unread], |row| {
        Ok(BatchLines {
            first,
            all: LineCounts {
                lines: row.get("lines")?,
                failed: row.get("failed")?,
            },
            ran: row.get("ran")?,
            setting: row.get("setting")?,
            setting_error: row.get("setting_error")?,
        })
    })?)
}

/// The lines of a batch whose request was not sent before, by job.
fn first_lines(view: &View, batch: i64, unread: Outcome) -> Stored<Vec<JobLines>> {
    let mut query = view.prepare_cached(
        "SELECT r.job, j.client, count(*) AS lines, sum(coalesce(l.outcome, ?2) = 'passing') AS failed
         FROM batch_lines l JOIN requests r ON r.id = l.request_id JOIN batch_jobs j ON j.seq = r.job
         WHERE l.batch_id = ?1 AND l.outcome IS NOT 'not_run'
           AND NOT EXISTS (SELECT 1 FROM batch_lines e WHERE e.request_id = l.request_id AND e.batch_id < l.batch_id
                                                         AND e.outcome IS NOT 'not_run')
         GROUP BY r.job",
    )?;
    let rows = query.query_map(params![batch, unread], |row| {
        Ok(JobLines {
            job: row.get("job")?,
            client: row.get("client")?,
            counts: LineCounts {
                lines: row.get("lines")?,
                failed: row.get("failed")?,
            },
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The newest lines of a batch's model, its own first, as many as tell whether the model fails. Lines before the
/// end of its last outage do not count.
pub fn recent_lines(
    view: &View,
    row: &BatchRow,
    own: &BatchLines,
    clients: usize,
    now: Timestamp,
) -> Stored<RecentLines> {
    let mut recent = RecentLines {
        jobs: own.first.clone(),
    };
    let mut query = view.prepare_cached(
        "SELECT id, verdict FROM openai_batches
         WHERE model = ? AND state = 'ingested' AND ingested_at > ? AND openai_status IS NOT 'cancelled' AND id <> ?
         ORDER BY ingested_at DESC, id DESC LIMIT ?",
    )?;
    let mut rows = query.query(params![row.model, now.before(RECENT), row.id, BATCHES])?;
    while !recent.is_enough(clients) {
        let Some(older) = rows.next()? else { break };
        if older.get::<_, Option<BatchVerdict>>("verdict")? == Some(BatchVerdict::Recovered) {
            break;
        }
        // Each of its lines has an outcome.
        recent.add(first_lines(view, older.get("id")?, Outcome::Missing)?);
    }
    Ok(recent)
}

/// How many clients have work.
pub fn clients_with_work(view: &View) -> Stored<usize> {
    let mut query = view.prepare_cached(&format!(
        "SELECT count(DISTINCT client) FROM batch_jobs WHERE {LIVE_JOB} AND open_vision + open_translations > 0"
    ))?;
    Ok(query.query_row([], |row| row.get(0))?)
}

/// Stores what the lines of a batch say together.
pub fn set_verdict(tx: &Tx<'_>, id: i64, verdict: BatchVerdict) -> Stored<()> {
    tx.prepare_cached("UPDATE openai_batches SET verdict = ? WHERE id = ? AND state = 'ended'")?
        .execute(params![verdict, id])?;
    Ok(())
}

/// When the first live batch after a row was planned that belongs to a paused model or stage; `None` if there is
/// none.
pub fn oldest_probe(view: &View, scope: &PauseScope, after: i64) -> Stored<Option<Timestamp>> {
    let (column, value) = match scope {
        PauseScope::Model(model) => ("model", model.as_str()),
        PauseScope::Stage(stage) => ("stage", stage.as_str()),
        _ => return Ok(None),
    };
    let mut query = view.prepare_cached(&format!(
        "SELECT min(created_at) FROM openai_batches WHERE {LIVE_BATCH} AND id > ? AND {column} = ?"
    ))?;
    Ok(query.query_row(params![after, value], |row| row.get(0))?)
}
