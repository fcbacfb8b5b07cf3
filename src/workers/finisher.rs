//! The finisher: makes a job final once its last request is settled, and its webhooks due, in one
//! transaction.

use std::sync::Arc;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::domain::job::JobStatus;
use crate::store::{Store, jobs};
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// Jobs finished in one tick.
const JOBS: u32 = 20;

/// The finisher.
pub struct Finisher {
    store: Arc<Store>,
    config: Arc<Config>,
}

impl Finisher {
    /// Finishes the jobs of this store.
    pub fn new(store: Arc<Store>, config: Arc<Config>) -> Self {
        Self { store, config }
    }
}

impl Worker for Finisher {
    fn name(&self) -> &'static str {
        "finisher"
    }

    fn notifies(&self) -> Option<Topic> {
        Some(Topic::JobFinished)
    }

    fn subscriptions(&self) -> &'static [Topic] {
        &[
            Topic::SynchronousJobStored,
            Topic::ImagesChecked,
            Topic::BatchSubmitted,
            Topic::ResultsIngested,
            Topic::SynchronousCallEnded,
        ]
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        if self.store.read(|view| jobs::settled(view, 1))?.is_empty() {
            return Ok(TickOutcome::idle(self.config.steps.idle));
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
        Ok(TickOutcome::again())
    }
}
