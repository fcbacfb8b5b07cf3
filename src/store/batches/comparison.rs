//! How far OpenAI's listings have shown the project's batches, and whether they were compared with the
//! database since the daemon started.

use crate::base::clock::Timestamp;
use crate::store::{Stored, Tx, View};

/// The time (OpenAI's clock, in seconds) up to which complete listings have shown every batch of the project.
pub fn listed_until(view: &View) -> Stored<Option<i64>> {
    Ok(view.query_row("SELECT listed_until FROM instance", [], |row| row.get(0))?)
}

/// Stores that a complete listing has shown every batch of the project up to that time of OpenAI's.
pub fn mark_listed(tx: &Tx<'_>, to: i64) -> Stored<()> {
    tx.execute(
        "UPDATE instance SET listed_until = ?1 WHERE listed_until IS NULL OR listed_until < ?1",
        [to],
    )?;
    Ok(())
}

/// When this database was made.
pub fn database_made_at(view: &View) -> Stored<Timestamp> {
    Ok(view.query_row("SELECT created_at FROM instance", [], |row| row.get(0))?)
}

/// Whether OpenAI's batches were compared with this database since the daemon started. Before that,
/// the database may be an older one that was put back.
pub fn is_compared(view: &View) -> Stored<bool> {
    let mut query = view.prepare_cached("SELECT compared_at IS NOT NULL FROM instance")?;
    Ok(query.query_row([], |row| row.get(0))?)
}

/// Stores that OpenAI's batches were compared with this database.
pub fn mark_compared(tx: &Tx<'_>) -> Stored<()> {
    tx.execute("UPDATE instance SET compared_at = ?", [tx.now])?;
    Ok(())
}

/// Forgets the comparison of an earlier process. A daemon does so before its workers start, as the
/// database may have been replaced meanwhile.
pub fn clear_compared(tx: &Tx<'_>) -> Stored<()> {
    tx.execute("UPDATE instance SET compared_at = NULL", [])?;
    Ok(())
}
