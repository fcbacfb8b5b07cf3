//! The finisher: makes a job final once its last request is settled, and its webhooks due, in one
//! transaction. It also carries out, in chunks, what changes all lots of a job: a cancellation, a release of held
//! requests, a retry.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::domain::job::JobStatus;
use crate::store::{Store, job_changes, jobs};
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// Jobs finished in one tick.
const JOBS: u32 = 20;

/// The wait between two chunks of a change, so that other workers can write.
const WAIT: Duration = Duration::from_millis(20);

/// The finisher.
pub struct Finisher {
    store: Arc<Store>,
    config: Arc<Config>,
    /// Lots of one chunk of a change.
    lots: u32,
}

impl Finisher {
    /// Finishes the jobs of this store.
    pub fn new(store: Arc<Store>, config: Arc<Config>) -> Self {
        Self::with_chunks(store, config, job_changes::LOTS)
    }

    /// Finishes the jobs of this store, and changes up to `lots` lots of a job in one transaction.
    pub fn with_chunks(store: Arc<Store>, config: Arc<Config>, lots: u32) -> Self {
        Self { store, config, lots }
    }

    /// Changes the next lots of a job that is cancelled, released or retried.
    fn change_lots(&self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let Some(job) = self.store.read(job_changes::next)? else {
            return Ok(TickOutcome::idle(self.config.steps.idle));
        };
        self.store.write(now.wall, |tx| {
            job_changes::advance(tx, job.seq, self.lots, self.config.images.check)
        })?;
        Ok(TickOutcome::worked(WAIT))
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
            Topic::JobCancelled,
        ]
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        if self.store.read(|view| jobs::settled(view, 1))?.is_empty() {
            return self.change_lots(now);
        }
        self.store.write(now.wall, |tx| {
            for job in &jobs::settled(tx, JOBS)? {
                if job.failed_lots < job.total_lots {
                    jobs::finish(tx, job, JobStatus::Completed, None)?;
                    continue;
                }
                let first = jobs::first_failure(tx, &job.id)?.unwrap_or_default();
                let error = match job.total_lots {
                    1 => format!("the only lot failed: {first}"),
                    lots => format!("all {lots} lots failed; the first: {first}"),
                };
                jobs::finish(tx, job, JobStatus::Failed, Some(&error))?;
            }
            Ok(())
        })?;
        Ok(TickOutcome::again())
    }
}
