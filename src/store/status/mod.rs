//! The rows of the operators' pages. The cost of each query depends on what is open and on its limit, not on
//! the size of the tables.

mod activity;
mod batches;
mod costs;
mod intervals;
mod jobs;
pub mod listing;
mod lot;
mod search;
mod waiting;
mod webhooks;

use rusqlite::{OptionalExtension, Params, Row};

use super::{Stored, View};

pub use activity::{Costs, Event, costs_of_batch, costs_of_job, events_of_batch, events_of_job};
pub use batches::{
    BatchDetails, BatchSummary, LineOutcome, active_batches, batch, batches_of_job, lines_by_outcome,
};
pub use costs::{CostGroup, GroupCosts, JobCosts, costs_by, newest_job_costs};
pub use intervals::{Interval, intervals};
pub use jobs::{JobDetails, JobSummary, active_jobs, ended_jobs, job, jobs_of_batch, metadata_of_job};
pub use lot::{LotAttempt, LotDetails, LotRequest, attempts_of_lot, lot, requests_of_lot};
pub use search::{Found, MOST_FOUND, search};
pub use waiting::{
    FailingReceiver, Obstacle, PausedScope, active_lines, batch_obstacles, count_failing_receivers,
    failing_receivers, paused_scopes, queued_since,
};
pub use webhooks::{Delivery, DeliveryAttempt, attempts_of_job, deliveries, delivery};

/// A number of things that are done, and the number of all of them.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// How many are done, failed ones included.
    pub done: u64,
    /// How many of these failed.
    pub failed: u64,
    /// How many there are.
    pub all: u64,
}

fn rows<T>(
    view: &View,
    sql: &str,
    params: impl Params,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Stored<Vec<T>> {
    let mut query = view.prepare_cached(sql)?;
    let rows = query.query_map(params, read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn row<T>(
    view: &View,
    sql: &str,
    params: impl Params,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Stored<Option<T>> {
    let mut query = view.prepare_cached(sql)?;
    Ok(query.query_row(params, read).optional()?)
}
