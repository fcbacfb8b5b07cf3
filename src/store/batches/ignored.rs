//! `ignored_batches`: batches that carry this database's id and that an operator has said it did not make.

use rusqlite::params;

use crate::domain::openai::Batch;
use crate::store::inspect::{self, Table};
use crate::store::{Stored, Tx, View};

/// Stores that a batch is ignored, and why. A second time changes nothing.
pub fn add(tx: &Tx<'_>, batch: &Batch, evidence: &str) -> Stored<()> {
    tx.execute(
        "INSERT OR IGNORE INTO ignored_batches (openai_batch_id, openai_time, evidence, ignored_at)
         VALUES (?, ?, ?, ?)",
        params![batch.id, batch.created_at, evidence, tx.now],
    )?;
    Ok(())
}

/// Whether a batch is ignored.
pub fn is_ignored(view: &View, id: &str) -> Stored<bool> {
    let mut query =
        view.prepare_cached("SELECT EXISTS (SELECT 1 FROM ignored_batches WHERE openai_batch_id = ?)")?;
    Ok(query.query_row([id], |row| row.get(0))?)
}

/// Every ignored batch.
pub fn list(view: &View) -> Stored<Table> {
    inspect::table(
        view,
        "SELECT openai_batch_id, ignored_at, evidence FROM ignored_batches ORDER BY ignored_at, openai_batch_id",
        [],
    )
}
