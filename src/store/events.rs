//! `events`: what happened to jobs and batches, and when.

use std::fmt::Display;

use log::Level;
use rusqlite::params;

use super::{Stored, Tx};

/// Stores an event of a job, a batch or both, and logs it once the transaction is committed.
pub fn record(
    tx: &Tx<'_>,
    job: Option<&str>,
    batch: Option<i64>,
    kind: &str,
    detail: &str,
) -> Stored<()> {
    tx.execute(
        "INSERT INTO events (at, job_id, batch_id, kind, detail) VALUES (?, ?, ?, ?, ?)",
        params![tx.now, job, batch, kind, detail],
    )?;
    let line = format!(
        "event={kind}{}{}{}",
        field(" job=", job),
        field(" batch=", batch),
        field(" ", Some(detail).filter(|detail| !detail.is_empty()))
    );
    tx.log_after_commit(Level::Info, line);
    Ok(())
}

fn field<T: Display>(name: &str, value: Option<T>) -> String {
    value
        .map(|value| format!("{name}{value}"))
        .unwrap_or_default()
}
