//! Synchronous calls that are planned: the rows of `synchronous_calls` before they are begun.

use rusqlite::params;

use super::{Stored, Tx};
use crate::base::clock::Timestamp;

/// Plans a call of a claimed request.
pub(super) fn plan(tx: &Tx<'_>, request: i64, at: Timestamp) -> Stored<()> {
    tx.prepare_cached("INSERT INTO synchronous_calls (request_id, next_at) VALUES (?, ?)")?
        .execute(params![request, at])?;
    Ok(())
}

/// Drops the planned call of a claimed request. False if there is none.
pub(super) fn drop_planned(tx: &Tx<'_>, request: i64) -> Stored<bool> {
    let dropped = tx
        .prepare_cached("DELETE FROM synchronous_calls WHERE request_id = ? AND started_at IS NULL")?
        .execute([request])?;
    Ok(dropped > 0)
}
