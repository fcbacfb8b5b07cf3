//! Figures for whoever asks every few seconds: what they cost depends on what is open, not on what
//! there ever was.

use super::money::{self, ModelUsage};
use super::{Store, Stored, View, alerts};
use crate::base::clock::Timestamp;
use crate::domain::alert::{AlertKind, PauseScope};
use crate::domain::batch::BatchState;
use crate::domain::job::{JobStatus, RequestState};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Jobs by their status; those that there are.
    pub jobs: Vec<(JobStatus, u64)>,
    /// Batches by their state.
    pub batches: Vec<(BatchState, u64)>,
    /// Webhook deliveries by their state.
    pub deliveries: Vec<(String, u64)>,
    /// Requests of jobs that are not final, by their state.
    pub requests: Vec<(RequestState, u64)>,
    /// Since when the first request in a queue waits; jobs' queues are looked at by their heads.
    pub waiting_since: Option<Timestamp>,
    /// Since when the delivery is due that is due for longest.
    pub due_since: Option<Timestamp>,
    /// Open alerts by their kind.
    pub alerts: Vec<(AlertKind, u64)>,
    /// What was used of each model.
    pub used: Vec<ModelUsage>,
    /// What is paused.
    pub pauses: Vec<PauseScope>,
    /// What only grows (`counters`): what is counted, its label, how often.
    pub sums: Vec<(String, String, u64)>,
}

/// The figures of now.
pub fn figures(view: &View) -> Stored<Figures> {
    Ok(Figures {
        jobs: jobs(view)?,
        batches: parsed(totals(view, "batches")?),
        deliveries: totals(view, "deliveries")?,
        requests: requests(view)?,
        waiting_since: waiting_since(view)?,
        due_since: due_since(view)?,
        alerts: alerts::count_open(view)?,
        used: money::usage_by_model(view)?,
        pauses: pauses(view)?,
        sums: sums(view)?,
    })
}

/// Jobs by their status, for the summary.
pub fn jobs(view: &View) -> Stored<Vec<(JobStatus, u64)>> {
    Ok(parsed(totals(view, "jobs")?))
}

/// A table's counts, which its triggers keep.
fn totals(view: &View, what: &str) -> Stored<Vec<(String, u64)>> {
    let mut query = view
        .prepare_cached("SELECT state, number FROM state_counts WHERE what = ? AND number > 0")?;
    let rows = query.query_map([what], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn parsed<T: std::str::FromStr>(counts: Vec<(String, u64)>) -> Vec<(T, u64)> {
    let counts = counts.into_iter();
    counts
        .filter_map(|(state, number)| Some((state.parse().ok()?, number)))
        .collect()
}

fn requests(view: &View) -> Stored<Vec<(RequestState, u64)>> {
    let mut query = view.prepare_cached(
        "SELECT r.state, count(*) FROM batch_jobs j JOIN requests r ON r.job = j.seq
         WHERE j.status IN ('pending', 'processing', 'translating') GROUP BY r.state",
    )?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn waiting_since(view: &View) -> Stored<Option<Timestamp>> {
    let mut query = view.prepare_cached(
        "SELECT min((SELECT r.since FROM requests r WHERE r.job = j.seq AND r.state = 'waiting' LIMIT 1))
         FROM batch_jobs j WHERE j.status IN ('pending', 'processing', 'translating')",
    )?;
    Ok(query.query_row([], |row| row.get(0))?)
}

fn due_since(view: &View) -> Stored<Option<Timestamp>> {
    let mut query =
        view.prepare_cached("SELECT min(next_at) FROM webhook_deliveries WHERE state = 'due'")?;
    Ok(query.query_row([], |row| row.get(0))?)
}

fn pauses(view: &View) -> Stored<Vec<PauseScope>> {
    let mut query = view.prepare_cached("SELECT scope FROM pauses ORDER BY scope")?;
    let rows = query.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn sums(view: &View) -> Stored<Vec<(String, String, u64)>> {
    let mut query = view.prepare_cached("SELECT what, label, number FROM counters")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Store {
    /// The bytes of the database's file and of its WAL.
    pub fn bytes(&self) -> (u64, u64) {
        let length = |suffix: &str| {
            let path = super::files::beside(&self.path, suffix);
            std::fs::metadata(path).map_or(0, |file| file.len())
        };
        (length(""), length("-wal"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_counts_follow_the_rows() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_seconds(1_795_400_000);
        let store = Store::open(&folder.path().join("a.db"), now).expect("a store");
        let write = |sql: &str| store.write(now, |tx| Ok(tx.execute(sql, [])?)).expect(sql);
        let counted = || store.read(jobs).expect("counts");
        write(
            "INSERT INTO batch_jobs (id, client, origin, processing_mode, status, languages, total_lots, created_at, updated_at)
             VALUES ('6908f1d2-39b9-4721-bb8a-dba18120df5f', 'default', 'api', 'batch', 'pending', '[]', 0,
                     '2026-11-24T00:00:00.000Z', '2026-11-24T00:00:00.000Z')",
        );
        assert_eq!(counted(), [(JobStatus::Pending, 1)]);
        write("UPDATE batch_jobs SET status = 'failed', completed_at = updated_at");
        assert_eq!(counted(), [(JobStatus::Failed, 1)]);
        write("DELETE FROM batch_jobs");
        assert_eq!(counted(), []);
    }
}
