//! The rows of the status page. The cost of each query depends on what is open and on its limit, not on
//! the size of the tables.

mod activity;
mod batches;
mod intervals;
mod jobs;
mod webhooks;

use rusqlite::{OptionalExtension, Params, Row};

use super::{Stored, View};

pub use activity::{
    Costs, Event, Obstacle, active_lines, closed_alerts, costs_of_batch, costs_of_job, events_of_batch,
    events_of_job, images_due, obstacles,
};
pub use batches::{
    BatchDetails, BatchSummary, LineOutcome, active_batches, batch, batches, batches_of_job, lines_by_outcome,
};
pub use intervals::{Interval, intervals};
pub use jobs::{FailedLot, JobDetails, JobSummary, active_jobs, ended_jobs, failed_lots, job, jobs_of_batch};
pub use webhooks::{Delivery, DeliveryAttempt, attempts_of_job, deliveries};

/// A number of things that are done, and the number of all of them.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// How many are done.
    pub done: u64,
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
