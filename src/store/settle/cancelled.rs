//! The lots of a cancelled job end: with the texts that they have, or without one.

use rusqlite::params;

use super::request::{JobLanguages, lacks_outcome};
use super::tally::count_finished_lot;
use crate::domain::job::LotStatus;
use crate::store::jobs::JobRow;
use crate::store::predicates::OPEN_REQUEST;
use crate::store::{Stored, Tx};

/// Why a lot of a cancelled job has no text in a language.
const CANCELLED: &str = "the job was cancelled before";

/// Ends the pending lots of a cancelled job. Returns how many of them have no text that was asked for.
pub(in crate::store) fn cancel_lots(tx: &Tx<'_>, job: &JobRow) -> Stored<usize> {
    let languages = JobLanguages::get(tx, job.seq)?;
    let mut pending =
        tx.prepare_cached("SELECT id FROM batch_lots WHERE batch_job_id = ? AND status = 'pending'")?;
    let pending: Vec<i64> = pending
        .query_map([&job.id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut cancelled = 0;
    for lot in pending {
        if cancel_lot(tx, job.seq, lot, &languages)? == LotStatus::Cancelled {
            cancelled += 1;
        }
    }
    Ok(cancelled)
}

/// Cancels the open requests of a lot, which leave every batch that is not sealed, and ends the lot.
fn cancel_lot(tx: &Tx<'_>, job: i64, lot: i64, languages: &JobLanguages) -> Stored<LotStatus> {
    tx.prepare_cached(
        "DELETE FROM batch_lines WHERE request_id IN (SELECT id FROM requests WHERE lot = ?)
            AND (SELECT state FROM openai_batches b WHERE b.id = batch_id) = 'planned'",
    )?
    .execute([lot])?;
    tx.prepare_cached(&format!(
        "UPDATE requests SET state = 'cancelled', images_due = 0, batch_cap = NULL
         WHERE lot = ? AND {OPEN_REQUEST}"
    ))?
    .execute([lot])?;
    let status = languages.texts_of(tx, lot)?.cancelled();
    let is_completed = status == LotStatus::Completed;
    let reason = (is_completed && lacks_outcome(tx, lot, &languages.0)?).then_some(CANCELLED);
    tx.prepare_cached(
        "UPDATE batch_lots SET status = ?, processed_at = ?, error_message = coalesce(?, error_message)
         WHERE id = ?",
    )?
    .execute(params![status, tx.now, reason, lot])?;
    if is_completed {
        count_finished_lot(tx, job, false);
    }
    Ok(status)
}
