//! `events`: what happened to jobs and batches, and when.

use log::Level;
use rusqlite::params;

use super::{Stored, Tx};
use crate::base::fields::Fields;

/// Stores an event of a job, a batch or both, and logs it once the transaction is committed.
pub fn record(tx: &Tx<'_>, job: Option<&str>, batch: Option<i64>, kind: &str, detail: Fields) -> Stored<()> {
    tx.execute(
        "INSERT INTO events (at, job_id, batch_id, kind, detail) VALUES (?, ?, ?, ?, ?)",
        params![tx.now, job, batch, kind, detail.to_string()],
    )?;
    let fields = Fields::new()
        .with("event", kind)
        .with_some("job", job)
        .with_some("batch", batch);
    tx.log_after_commit(Level::Info, fields.followed_by(detail));
    Ok(())
}
