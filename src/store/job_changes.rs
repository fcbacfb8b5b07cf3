//! Changes of all lots of a job. One transaction marks the job; others work its lots off in chunks, so that no
//! write waits long. A process that ends in between goes on after a start.

use rusqlite::{OptionalExtension, Row, params};

use super::jobs::JobRow;
use super::predicates::LIVE_JOB;
use super::retry::{self, RetryScope};
use super::settle::{self, JobLanguages};
use super::{Stored, Tx, View, audit, events};
use crate::base::fields::Fields;
use crate::domain::job::{JobChange, LotStatus};

/// Lots of one transaction: some 10 ms if each has ten translations.
pub const LOTS: u32 = 30;

/// A job that is marked with a change.
#[derive(Clone, Debug)]
pub struct ChangingJob {
    /// Its row.
    pub seq: i64,
    /// Its UUID.
    pub id: String,
    /// The change.
    pub change: JobChange,
    /// The lots below this position are changed.
    pub changed_to: i64,
}

impl ChangingJob {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get("seq")?,
            id: row.get("id")?,
            change: row.get("pending_change")?,
            changed_to: row.get("changed_to")?,
        })
    }
}

/// A lot of a chunk.
pub(super) struct ChangingLot {
    pub(super) id: i64,
    pub(super) position: i64,
    pub(super) status: LotStatus,
}

/// A job that is marked with a change; `None` if there is none.
pub fn next(view: &View) -> Stored<Option<ChangingJob>> {
    let mut query = view.prepare_cached(
        "SELECT seq, id, pending_change, changed_to FROM batch_jobs WHERE pending_change IS NOT NULL LIMIT 1",
    )?;
    Ok(query.query_row([], ChangingJob::read).optional()?)
}

/// Number of held requests of a job that is not final.
pub fn count_held(view: &View, job: i64) -> Stored<u64> {
    let mut query = view.prepare_cached(&format!(
        "SELECT count(*) FROM requests r JOIN batch_jobs j ON j.seq = r.job
         WHERE r.job = ? AND r.state = 'held' AND j.{LIVE_JOB}"
    ))?;
    Ok(query.query_row([job], |row| row.get(0))?)
}

/// Releases the held requests of an orphan, as an operator demands: of up to `lots` lots with the mark, the finisher
/// those of the others. Returns their number. The images of their lots are checked first if `check_images`. A lot
/// without an image fails, as at its submission.
pub fn release(tx: &Tx<'_>, job: &JobRow, lots: u32, check_images: bool) -> Stored<usize> {
    let held = usize::try_from(count_held(tx, job.seq)?).unwrap_or(usize::MAX);
    if held > 0 {
        let detail = Fields::new().with("requests", held);
        events::record(tx, Some(&job.id), None, "released", detail)?;
        begin(tx, job.seq, JobChange::Release, lots, check_images)?;
    }
    Ok(held)
}

/// Marks a job with a change, and changes its first lots.
pub(super) fn begin(tx: &Tx<'_>, job: i64, change: JobChange, lots: u32, check_images: bool) -> Stored<()> {
    tx.execute(
        "UPDATE batch_jobs SET pending_change = ?, changed_to = 0 WHERE seq = ?",
        params![change, job],
    )?;
    advance(tx, job, lots, check_images)
}

/// Changes up to `lots` more lots of a marked job. The last chunk ends the mark. The images of lots that are sent are
/// checked first if `check_images`.
pub fn advance(tx: &Tx<'_>, job: i64, lots: u32, check_images: bool) -> Stored<()> {
    let job = tx
        .prepare_cached(
            "SELECT seq, id, pending_change, changed_to FROM batch_jobs
             WHERE seq = ? AND pending_change IS NOT NULL",
        )?
        .query_row([job], ChangingJob::read)
        .optional()?;
    let Some(job) = job else { return Ok(()) };
    let chunk = next_lots(tx, &job, lots)?;
    let last = chunk.last().map(|lot| lot.position);
    match job.change {
        JobChange::Cancel => cancel_lots(tx, &job, &chunk)?,
        JobChange::RetryLots => {
            retry::reopen_lots(tx, &job, RetryScope::FailedLots, &chunk, check_images)?;
        }
        JobChange::RetryTranslations => {
            retry::reopen_lots(tx, &job, RetryScope::FailedTranslations, &chunk, check_images)?;
        }
        JobChange::Release => {
            for lot in &chunk {
                settle::release_lot(tx, lot.id, check_images)?;
            }
        }
    }
    match last {
        Some(last) if chunk.len() >= lots as usize => tx.execute(
            "UPDATE batch_jobs SET changed_to = ? WHERE seq = ?",
            params![last + 1, job.seq],
        )?,
        _ => {
            if job.change == JobChange::Cancel {
                end_cancellation(tx, &job)?;
            }
            // Meanwhile no settled request moved the job on.
            tx.execute(
                "UPDATE batch_jobs SET pending_change = NULL,
                        status = CASE WHEN status IN ('pending', 'processing') AND open_vision = 0
                                      THEN 'translating' ELSE status END
                 WHERE seq = ?",
                [job.seq],
            )?
        }
    };
    Ok(())
}

fn next_lots(view: &View, job: &ChangingJob, lots: u32) -> Stored<Vec<ChangingLot>> {
    let mut query = view.prepare_cached(
        "SELECT id, position, status FROM batch_lots WHERE batch_job_id = ? AND position >= ?
         ORDER BY position LIMIT ?",
    )?;
    let lots = query.query_map(params![job.id, job.changed_to, lots], |row| {
        Ok(ChangingLot {
            id: row.get("id")?,
            position: row.get("position")?,
            status: row.get("status")?,
        })
    })?;
    Ok(lots.collect::<Result<_, _>>()?)
}

fn cancel_lots(tx: &Tx<'_>, job: &ChangingJob, lots: &[ChangingLot]) -> Stored<()> {
    let languages = JobLanguages::get(tx, job.seq)?;
    for lot in lots.iter().filter(|lot| lot.status == LotStatus::Pending) {
        settle::cancel_lot(tx, job.seq, lot.id, &languages)?;
    }
    Ok(())
}

/// Makes the webhook deliveries of a job due, all of whose lots are cancelled.
fn end_cancellation(tx: &Tx<'_>, job: &ChangingJob) -> Stored<()> {
    tx.execute(
        "DELETE FROM batch_links
         WHERE job = ? AND batch_id IN (SELECT id FROM openai_batches WHERE state = 'planned')",
        [job.seq],
    )?;
    tx.execute(
        "UPDATE webhook_deliveries SET state = 'due', next_at = ? WHERE batch_job_id = ?
             AND state = 'scheduled'",
        params![tx.now, job.id],
    )?;
    let outcome = tx.query_row(
        "SELECT total_lots, processed_lots, failed_lots FROM batch_jobs WHERE seq = ?",
        [job.seq],
        |row| {
            Ok(Fields::new()
                .with("status", "cancelled")
                .with("lots", row.get::<_, u32>("total_lots")?)
                .with("processed_lots", row.get::<_, u32>("processed_lots")?)
                .with("failed_lots", row.get::<_, u32>("failed_lots")?))
        },
    )?;
    audit::record_job_outcome(tx, &job.id, &outcome)
}
