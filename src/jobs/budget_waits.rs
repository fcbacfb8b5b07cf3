//! Requests that wait because a budget does not pay for one more line.

use std::collections::BTreeSet;

use super::reservation;
use crate::base::clock::Timestamp;
use crate::config::Config;
use crate::domain::batch::Stage;
use crate::domain::decide::audit::is_budget_exhausted;
use crate::domain::job::Mode;
use crate::store::money::{self, BudgetUse};
use crate::store::requests::{self, JobQueue, QueueFilter};
use crate::store::{Stored, View};

/// Requests of a job are counted up to this number.
const COUNT_TO: u32 = 1_000_000;

/// A budget, and the requests that wait for it.
#[derive(Clone, Debug)]
pub struct BudgetWait {
    /// The budget.
    pub budget: BudgetUse,
    /// Number of requests that wait.
    pub requests: u64,
    /// Since when the first of them waits.
    pub since: Option<Timestamp>,
    jobs: BTreeSet<i64>,
}

impl BudgetWait {
    /// Whether requests wait for the budget.
    pub fn has_requests(&self) -> bool {
        self.requests > 0
    }

    /// Whether requests of a job wait for the budget.
    pub fn has_job(&self, job: i64) -> bool {
        self.jobs.contains(&job)
    }

    fn add(&mut self, queue: &JobQueue) {
        self.requests += u64::from(queue.length);
        self.since = Some(self.since.map_or(queue.since, |since| since.min(queue.since)));
        self.jobs.insert(queue.job);
    }

    /// Whether the budget pays for no line of a queue.
    fn stops(&self, queue: &JobQueue, exhausted: bool) -> bool {
        exhausted
            && self
                .budget
                .client
                .as_ref()
                .is_none_or(|client| *client == queue.client)
    }
}

/// Every budget with the requests that wait for it.
#[derive(Clone, Debug, Default)]
pub struct BudgetWaits {
    /// Every budget.
    pub budgets: Vec<BudgetWait>,
    /// Number of requests that wait for a budget. One that waits for two counts once.
    pub requests: u64,
}

/// Reads every budget and the requests that wait for it.
///
/// # Errors
/// The store's.
pub fn budget_waits(view: &View, config: &Config, now: Timestamp) -> Stored<BudgetWaits> {
    budget_waits_of(view, config, &[Stage::Vision, Stage::Translation], now)
}

/// Reads every budget and the requests of some stages that wait for it.
///
/// # Errors
/// The store's.
pub fn budget_waits_of(
    view: &View,
    config: &Config,
    stages: &[Stage],
    now: Timestamp,
) -> Stored<BudgetWaits> {
    let uses = money::budget_uses(view, &config.spending_limits(), now)?;
    let no_wait = |budget| BudgetWait {
        budget,
        requests: 0,
        since: None,
        jobs: BTreeSet::new(),
    };
    let mut waits = BudgetWaits {
        budgets: uses.into_iter().map(no_wait).collect(),
        requests: 0,
    };
    if waits.budgets.is_empty() {
        return Ok(waits);
    }
    for stage in stages {
        add_stage(view, config, *stage, now, &mut waits)?;
    }
    Ok(waits)
}

fn add_stage(
    view: &View,
    config: &Config,
    stage: Stage,
    now: Timestamp,
    waits: &mut BudgetWaits,
) -> Stored<()> {
    let parameters = config.parameters(stage);
    let line = reservation::cost_of_line(view, stage, Mode::Batch, &parameters, now)?.unwrap_or_default();
    let exhausted: Vec<bool> = waits
        .budgets
        .iter()
        .map(|wait| is_budget_exhausted(wait.budget.left(), line))
        .collect();
    if !exhausted.contains(&true) {
        return Ok(());
    }
    let caps = requests::caps(view, stage)?.into_iter().map(Some);
    for cap in caps.chain([None]) {
        let filter = QueueFilter {
            stage,
            cap,
            unfailed: false,
        };
        for queue in requests::queues(view, filter, COUNT_TO)? {
            let mut is_stopped = false;
            for (wait, exhausted) in waits.budgets.iter_mut().zip(&exhausted) {
                if wait.stops(&queue, *exhausted) {
                    wait.add(&queue);
                    is_stopped = true;
                }
            }
            waits.requests += u64::from(is_stopped) * u64::from(queue.length);
        }
    }
    Ok(())
}
