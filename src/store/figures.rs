//! The figures of /metrics and of the status page's head. Their cost depends on what is open, not on the size
//! of the tables.

use std::fs;
use std::str::FromStr;

use super::files::beside;
use super::money::{self, ModelUsage};
use super::predicates::LIVE_JOB;
use super::{Store, Stored, View, alerts};
use crate::base::clock::Timestamp;
use crate::domain::alert::{AlertKind, PauseScope};
use crate::domain::batch::{BatchState, Stage};
use crate::domain::job::{JobStatus, RequestState};

/// The figures of one moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The number of jobs in each status that has any.
    pub jobs: Vec<(JobStatus, u64)>,
    /// The number of batches in each state that has any.
    pub batches: Vec<(BatchState, u64)>,
    /// The number of webhook deliveries in each state that has any.
    pub deliveries: Vec<(String, u64)>,
    /// The number of requests of live jobs, by their state.
    pub requests: Vec<(RequestState, u64)>,
    /// The waiting requests of live jobs, by what they wait for.
    pub waiting: Vec<WaitingRequests>,
    /// Since when the oldest of the first waiting requests of live jobs waits.
    pub waiting_since: Option<Timestamp>,
    /// Since when the oldest due delivery is due.
    pub due_since: Option<Timestamp>,
    /// The number of open alerts of each kind.
    pub alerts: Vec<(AlertKind, u64)>,
    /// The usage of each model.
    pub usage: Vec<ModelUsage>,
    /// The scopes that are paused.
    pub pauses: Vec<PauseScope>,
    /// The counters that only grow: what is counted, its label, its number.
    pub counters: Vec<(String, String, u64)>,
}

/// The waiting requests of live jobs that have one stage and wait for one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingRequests {
    /// The stage.
    pub stage: Stage,
    /// Whether their lots' images are checked first.
    pub images_due: bool,
    /// Whether they wait after a failure.
    pub is_after_failure: bool,
    /// How many there are.
    pub number: u64,
    /// When the first of those after a failure is due.
    pub retry_at: Option<Timestamp>,
}

/// The figures of now.
pub fn figures(view: &View) -> Stored<Figures> {
    let (requests, waiting) = requests(view)?;
    Ok(Figures {
        jobs: jobs(view)?,
        batches: parsed(state_counts(view, "batches")?),
        deliveries: state_counts(view, "deliveries")?,
        requests,
        waiting,
        waiting_since: waiting_since(view)?,
        due_since: due_since(view)?,
        alerts: alerts::count_open(view)?,
        usage: money::usage_by_model(view)?,
        pauses: pauses(view)?,
        counters: counters(view)?,
    })
}

/// The number of jobs in each status that has any.
pub fn jobs(view: &View) -> Stored<Vec<(JobStatus, u64)>> {
    Ok(parsed(state_counts(view, "jobs")?))
}

fn state_counts(view: &View, what: &str) -> Stored<Vec<(String, u64)>> {
    let mut query =
        view.prepare_cached("SELECT state, number FROM state_counts WHERE what = ? AND number > 0")?;
    let rows = query.query_map([what], |row| Ok((row.get("state")?, row.get("number")?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn parsed<T: FromStr>(counts: Vec<(String, u64)>) -> Vec<(T, u64)> {
    let counts = counts.into_iter();
    counts
        .filter_map(|(state, number)| Some((state.parse().ok()?, number)))
        .collect()
}

/// The requests by state, and the waiting ones in detail.
type OpenRequests = (Vec<(RequestState, u64)>, Vec<WaitingRequests>);

fn requests(view: &View) -> Stored<OpenRequests> {
    let mut query = view.prepare_cached(&format!(
        "SELECT r.state, r.stage, r.images_due, r.retry_at IS NOT NULL AS is_after_failure, count(*) AS number,
                min(r.retry_at) AS retry_at
         FROM batch_jobs j JOIN requests r ON r.job = j.seq
         WHERE j.{LIVE_JOB} GROUP BY 1, 2, 3, 4"
    ))?;
    let mut requests: Vec<(RequestState, u64)> = Vec::new();
    let mut waiting = Vec::new();
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (state, number) = (row.get("state")?, row.get("number")?);
        match requests.iter_mut().find(|(known, _)| *known == state) {
            Some((_, sum)) => *sum += number,
            None => requests.push((state, number)),
        }
        if state == RequestState::Waiting {
            waiting.push(WaitingRequests {
                stage: row.get("stage")?,
                images_due: row.get("images_due")?,
                is_after_failure: row.get("is_after_failure")?,
                number,
                retry_at: view.readable_value(row.get("retry_at"))?,
            });
        }
    }
    Ok((requests, waiting))
}

fn waiting_since(view: &View) -> Stored<Option<Timestamp>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT min((SELECT r.since FROM requests r WHERE r.job = j.seq AND r.state = 'waiting' LIMIT 1)) AS since
         FROM batch_jobs j WHERE j.{LIVE_JOB}"
    ))?;
    view.readable_value(query.query_row([], |row| row.get("since")))
}

fn due_since(view: &View) -> Stored<Option<Timestamp>> {
    let mut query =
        view.prepare_cached("SELECT min(next_at) AS since FROM webhook_deliveries WHERE state = 'due'")?;
    view.readable_value(query.query_row([], |row| row.get("since")))
}

fn pauses(view: &View) -> Stored<Vec<PauseScope>> {
    let mut query = view.prepare_cached("SELECT scope FROM pauses ORDER BY scope")?;
    let rows = query.query_map([], |row| row.get("scope"))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn counters(view: &View) -> Stored<Vec<(String, String, u64)>> {
    let mut query = view.prepare_cached("SELECT what, label, number FROM counters")?;
    let rows = query.query_map([], |row| {
        Ok((row.get("what")?, row.get("label")?, row.get("number")?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Store {
    /// The sizes of the database's file and of its WAL, in bytes.
    pub fn bytes(&self) -> (u64, u64) {
        let length = |suffix: &str| {
            let path = beside(&self.path, suffix);
            fs::metadata(path).map_or(0, |file| file.len())
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
