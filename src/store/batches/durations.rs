//! How long batches took.

use std::time::Duration;

use rusqlite::params;

use crate::base::clock::Timestamp;
use crate::domain::batch::Stage;
use crate::store::{Stored, View};

/// How long each of the last `limit` ingested batches of a stage took, from its row to the end of its ingestion.
pub fn last_durations(view: &View, stage: Stage, limit: u32) -> Stored<Vec<Duration>> {
    let mut query = view.prepare_cached(
        "SELECT created_at, ingested_at FROM openai_batches INDEXED BY openai_batches_by_stage
         WHERE stage = ? AND state = 'ingested' AND ingested_at IS NOT NULL ORDER BY id DESC LIMIT ?",
    )?;
    let rows = query.query_and_then(params![stage, limit], |row| {
        let (created, ingested): (Timestamp, Timestamp) = (row.get("created_at")?, row.get("ingested_at")?);
        Ok(ingested.since(created))
    })?;
    view.readable(rows).collect()
}
