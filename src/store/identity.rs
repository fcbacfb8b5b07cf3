//! The identity of the database: OpenAI's batches carry it in their metadata.

use rusqlite::params;

use super::settle::{self, RetryRules};
use super::{Stored, Tx, batches};
use crate::domain::batch::BatchState;

/// Gives a copied database an identity of its own, and leaves the open work to the original: this database
/// neither asks OpenAI about it, nor ingests it, nor sends it. Gives the new id and the number of requests
/// that are held.
pub fn take_new_identity(tx: &Tx<'_>) -> Stored<(String, usize)> {
    let id = uuid::Uuid::new_v4().simple().to_string();
    tx.execute(
        "UPDATE instance SET database_id = ?, created_at = ?, creates = 0",
        params![id, tx.now],
    )?;
    let rules = RetryRules::default();
    let is_live = |state: &BatchState| !matches!(state, BatchState::Ingested | BatchState::Failed);
    let live: Vec<BatchState> = BatchState::ALL.iter().copied().filter(is_live).collect();
    for row in batches::in_states(tx, &live, u32::MAX)? {
        match row.state {
            BatchState::Planned => while !batches::unplan(tx, row.id, u32::MAX)? {},
            _ => settle::abandon(tx, row.id, "left to the original database", rules)?,
        }
    }
    tx.execute(
        "UPDATE synchronous_calls SET started_at = coalesce(started_at, ?1), ended_at = ?1,
             outcome = 'not_run',
                error = 'left to the original database'
         WHERE ended_at IS NULL",
        [tx.now],
    )?;
    // The original removes its batches' files at OpenAI.
    tx.execute(
        "UPDATE openai_batches SET cleaned_at = ? WHERE cleaned_at IS NULL",
        [tx.now],
    )?;
    tx.execute(
        "UPDATE requests SET state = 'held' WHERE state IN ('waiting', 'claimed')",
        [],
    )?;
    let held = "SELECT count(*) FROM requests WHERE state = 'held'";
    Ok((id, tx.query_row(held, [], |row| row.get(0))?))
}
