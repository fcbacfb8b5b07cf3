//! The lots of a cancelled job end: with the texts that they have, or without one.

use rusqlite::params;

use super::languages::{JobLanguages, lacks_outcome};
use super::tally::count_finished_lot;
use crate::domain::job::LotStatus;
use crate::store::predicates::OPEN_REQUEST;
use crate::store::{Stored, Tx};

/// Why a lot of a cancelled job has no text in a language.
pub(in crate::store) const CANCELLED: &str = "the job was cancelled before";

/// Cancels the open requests of a lot, which leave every batch that is not sealed, and ends the lot.
pub(in crate::store) fn cancel_lot(tx: &Tx<'_>, job: i64, lot: i64, languages: &JobLanguages) -> Stored<()> {
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
    Ok(())
}
