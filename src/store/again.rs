//! An operator sends failed lots of a final job again: they are paid anew.

use rusqlite::params;

use super::jobs::JobRow;
use super::{StoreError, Stored, Tx, View, alerts};
use crate::job::JobStatus;

/// What sending a job's failed lots again would take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Lots that have something to send.
    pub lots: u32,
    /// Descriptions to ask for.
    pub vision: u32,
    /// Translations to ask for beside those that new descriptions bring about.
    pub translations: u32,
}

/// The requests of a job's failed lots; one that had no usable image has none.
const FAILED: &str = "requests.state = 'failed' AND requests.lot IN
    (SELECT id FROM batch_lots WHERE batch_job_id = ? AND status = 'failed')";

/// What sending a job's failed lots again takes, in requests.
pub fn cost(view: &View, job: &JobRow) -> Stored<Cost> {
    let mut query = view.prepare_cached(&format!(
        "SELECT count(DISTINCT lot), coalesce(sum(stage = 'vision'), 0), coalesce(sum(stage = 'translation'), 0)
         FROM requests WHERE {FAILED}"
    ))?;
    Ok(query.query_row([&job.id], |row| {
        Ok(Cost {
            lots: row.get(0)?,
            vision: row.get(1)?,
            translations: row.get(2)?,
        })
    })?)
}

/// Opens a final job again for its failed lots. Its webhooks tell of the new end under ids of their
/// own; one that had not reached its receiver yet is left to them.
///
/// # Errors
/// [`StoreError::Conflict`] where the job did not end, or a batch of it is not taken in yet.
pub fn retry_failed_lots(tx: &Tx<'_>, job: &JobRow, check_images: bool) -> Stored<Cost> {
    if !matches!(job.status, JobStatus::Completed | JobStatus::Failed) {
        let message = format!(
            "job {} is {}: it has no failed lots to send again",
            job.id, job.status
        );
        return Err(StoreError::Conflict(message));
    }
    if job.cleaning_since.is_some() {
        let message = format!(
            "job {} was cleaned after its time (retention.results): its lots are gone, its client must send them again",
            job.id
        );
        return Err(StoreError::Conflict(message));
    }
    let running: bool = tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM batch_links k JOIN openai_batches b ON b.id = k.batch_id
                        WHERE k.job = ? AND b.state NOT IN ('ingested', 'failed'))",
        [job.seq],
        |row| row.get(0),
    )?;
    if running {
        let message = format!("a batch of job {} is not taken in yet: wait for it", job.id);
        return Err(StoreError::Conflict(message));
    }
    let cost = cost(tx, job)?;
    if cost.lots == 0 {
        return Ok(cost);
    }
    tx.execute(
        "DELETE FROM lot_translations WHERE text IS NULL AND lot IN
                (SELECT id FROM batch_lots WHERE batch_job_id = ? AND status = 'failed')",
        [&job.id],
    )?;
    tx.execute(
        &format!(
            "UPDATE batch_lots SET status = 'pending', error_message = NULL, processed_at = NULL, missing_images = NULL
             WHERE id IN (SELECT lot FROM requests WHERE {FAILED})"
        ),
        [&job.id],
    )?;
    tx.execute(
        "UPDATE requests SET state = 'waiting', attempts = 0, raised = 0, image_rounds = 0, since = ?1,
                images_due = CASE WHEN stage = 'vision' THEN ?2 ELSE 0 END
         WHERE job = ?3 AND state = 'failed' AND lot IN
               (SELECT id FROM batch_lots WHERE batch_job_id = ?4 AND status = 'pending')",
        params![tx.now, check_images, job.seq, job.id],
    )?;
    let status = match cost.vision {
        0 => JobStatus::Translating,
        _ => JobStatus::Pending,
    };
    tx.execute(
        "UPDATE batch_jobs SET status = ?, completed_at = NULL, error_message = NULL, updated_at = ?,
                processed_lots = processed_lots - ?3, failed_lots = failed_lots - ?3, open_vision = ?4,
                open_translations = ?5
         WHERE seq = ?6",
        params![status, tx.now, cost.lots, cost.vision, cost.translations, job.seq],
    )?;
    tx.execute(
        "UPDATE webhook_deliveries SET state = 'failed', next_at = NULL, under_way = 0,
                error_message = 'the job was sent on before it was reached'
         WHERE batch_job_id = ? AND state = 'due'",
        [&job.id],
    )?;
    tx.execute(
        "INSERT INTO webhook_deliveries (batch_job_id, url, host, state, again, created_at)
         SELECT batch_job_id, url, host, 'scheduled', max(again) + 1, ? FROM webhook_deliveries
         WHERE batch_job_id = ? GROUP BY url",
        params![tx.now, job.id],
    )?;
    let detail = format!(
        "lots={} vision={} translations={}",
        cost.lots, cost.vision, cost.translations
    );
    alerts::event(tx, Some(&job.id), None, "retried", &detail)?;
    Ok(cost)
}
