//! Cancels a job: its waiting requests are cancelled, and what its batches still bring is stored, since it is
//! paid for, and changes nothing.

use rusqlite::params;

use super::jobs::JobRow;
use super::predicates::LIVE_JOB;
use super::{Stored, Tx, events, job_changes, moved};
use crate::base::fields::Fields;
use crate::domain::job::JobChange;

/// The reason that is stored with a job that an operator cancels.
pub const BY_OPERATOR: &str = "cancelled by the operator";

/// Cancels a job that is not final: it is final at once, up to `lots` of its lots are cancelled with it, and
/// the finisher cancels the others. Then its webhook deliveries are due. A batch that is not sealed loses
/// the job's requests. A sealed one keeps them, and the poller cancels it at OpenAI if no other job needs it.
pub fn cancel(tx: &Tx<'_>, job: &JobRow, reason: &str, lots: u32) -> Stored<()> {
    let changed = tx.execute(
        &format!(
            "UPDATE batch_jobs SET status = 'cancelled', error_message = ?, completed_at = ?, updated_at = ?,
                    open_vision = 0, open_translations = 0
             WHERE seq = ? AND {LIVE_JOB}"
        ),
        params![reason, tx.now, tx.now, job.seq],
    )?;
    moved(changed, || format!("job {} is final already", job.id))?;
    // Its batches are polled soon: one that no job needs is cancelled at OpenAI.
    tx.execute(
        "UPDATE openai_batches SET next_at = ? WHERE state = 'submitted' AND next_at > ?
           AND id IN (SELECT batch_id FROM batch_links WHERE job = ?)",
        params![tx.now, tx.now, job.seq],
    )?;
    let detail = Fields::new().with("lots", job.total_lots).with("reason", reason);
    events::record(tx, Some(&job.id), None, "cancelled", detail)?;
    job_changes::begin(tx, job.seq, JobChange::Cancel, lots, false)
}
