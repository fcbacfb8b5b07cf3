//! Jobs whose requests no batch answers, as after an import or a change of the database's identity.

use std::collections::HashMap;

use super::predicates::LIVE_JOB;
use super::{Stored, View};
use crate::base::clock::Timestamp;
use crate::domain::batch::CustomId;

/// A job that waits for a batch which this database does not know.
#[derive(Clone, Debug)]
pub struct OrphanedJob {
    /// Its UUID.
    pub id: String,
    /// Whether requests of it are held.
    pub is_held: bool,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Languages wanted.
    pub languages: Vec<String>,
    /// Batches that the earlier service's row names; OpenAI has not confirmed them.
    pub batches: Vec<String>,
    /// The ids of its lots.
    pub lots: Vec<String>,
}

/// The open jobs that have held requests, and the imported jobs that wait for descriptions: the earlier
/// service may have had their translations as well. With `only`, the job of that id, whatever its state.
pub fn orphaned_jobs(view: &View, only: Option<&str>) -> Stored<Vec<OrphanedJob>> {
    let mut query = view.prepare(&format!(
        "SELECT id, created_at, languages, coalesce(legacy_batches, '[]') AS batches, is_held FROM
            (SELECT *, EXISTS (SELECT 1 FROM requests r WHERE r.job = j.seq AND r.state = 'held') AS is_held
             FROM batch_jobs j)
         WHERE CASE WHEN ?1 IS NULL
                    THEN {LIVE_JOB}
                         AND (is_held OR origin = 'import' AND open_vision > 0)
                    ELSE id = ?1 END
         ORDER BY created_at"
    ))?;
    let mut lots = view.prepare("SELECT lot_id FROM batch_lots WHERE batch_job_id = ? ORDER BY position")?;
    let mut orphans = Vec::new();
    let mut rows = query.query([only])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get("id")?;
        let lots = lots
            .query_map([&id], |row| row.get("lot_id"))?
            .collect::<Result<_, _>>()?;
        orphans.push(OrphanedJob {
            created_at: row.get("created_at")?,
            languages: serde_json::from_str(&row.get::<_, String>("languages")?)?,
            batches: serde_json::from_str(&row.get::<_, String>("batches")?)?,
            is_held: row.get("is_held")?,
            lots,
            id,
        });
    }
    Ok(orphans)
}

/// The number of custom ids of our own scheme whose job this database does not have.
pub fn count_lines_without_job(view: &View, custom_ids: &[String]) -> Stored<usize> {
    let mut exists = view.prepare_cached("SELECT EXISTS (SELECT 1 FROM batch_jobs WHERE id = ?)")?;
    let mut is_known: HashMap<String, bool> = HashMap::new();
    let mut missing = 0;
    for id in custom_ids.iter().filter_map(|id| id.parse::<CustomId>().ok()) {
        let known = match is_known.get(&id.job) {
            Some(known) => *known,
            None => {
                let known = exists.query_row([&id.job], |row| row.get(0))?;
                is_known.insert(id.job, known);
                known
            }
        };
        missing += usize::from(!known);
    }
    Ok(missing)
}
