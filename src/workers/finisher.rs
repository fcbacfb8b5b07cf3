//! The finisher: a job whose last request is settled becomes final, and its webhooks due, in one
//! transaction.

use std::sync::Arc;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::domain::job::JobStatus;
use crate::store::{Store, jobs};
use crate::workers::worker::{Next, Step, StepError};

/// Jobs finished in one tick.
const JOBS: u32 = 20;

/// See the module.
pub struct Finisher {
    store: Arc<Store>,
    config: Arc<Config>,
}

impl Finisher {
    /// A finisher.
    pub fn new(store: Arc<Store>, config: Arc<Config>) -> Self {
        Self { store, config }
    }
}

impl Step for Finisher {
    fn name(&self) -> &'static str {
        "finisher"
    }

    fn tick(&mut self, now: Moment) -> Result<Next, StepError> {
        if self.store.read(|view| jobs::settled(view, 1))?.is_empty() {
            return Ok(Next::idle(self.config.steps.idle));
        }
        self.store.write(now.wall, |tx| {
            for job in &jobs::settled(tx, JOBS)? {
                if job.failed_lots < job.total_lots {
                    jobs::finish(tx, job, JobStatus::Completed, None)?;
                    continue;
                }
                let first = jobs::first_failure(tx, &job.id)?.unwrap_or_default();
                let error = format!("all {} lots failed; the first: {first}", job.total_lots);
                jobs::finish(tx, job, JobStatus::Failed, Some(&error))?;
            }
            Ok(())
        })?;
        Ok(Next::again())
    }
}
