//! Cancels a job: its waiting requests are cancelled, and what its batches still bring is stored, since it is
//! paid for, and changes nothing.

use rusqlite::params;

use super::jobs::JobRow;
use super::predicates::LIVE_JOB;
use super::{Stored, Tx, events, moved, settle};
use crate::base::fields::Fields;

/// Cancels a job that is not final, and makes its webhook deliveries due. A batch that is not sealed loses
/// the job's requests. A sealed one keeps them, and the poller cancels it at OpenAI if no other job needs it.
pub fn cancel(tx: &Tx<'_>, job: &JobRow, reason: &str) -> Stored<()> {
    let changed = tx.execute(
        &format!(
            "UPDATE batch_jobs SET status = 'cancelled', error_message = ?, completed_at = ?, updated_at = ?,
                    open_vision = 0, open_translations = 0
             WHERE seq = ? AND {LIVE_JOB}"
        ),
        params![reason, tx.now, tx.now, job.seq],
    )?;
    moved(changed, || format!("job {} is final already", job.id))?;
    let lots = settle::cancel_lots(tx, job)?;
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
    // Its batches are polled soon: one that no job needs is cancelled at OpenAI.
    tx.execute(
        "UPDATE openai_batches SET next_at = ? WHERE state = 'submitted' AND next_at > ?
           AND id IN (SELECT batch_id FROM batch_links WHERE job = ?)",
        params![tx.now, tx.now, job.seq],
    )?;
    events::record(
        tx,
        Some(&job.id),
        None,
        "cancelled",
        Fields::new().with("lots", lots).with("reason", reason),
    )
}
