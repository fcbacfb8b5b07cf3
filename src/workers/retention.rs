//! Retention: removes the texts, lots, requests and lines of jobs that ended long ago, a chunk at a time, so
//! that no other write waits long. A job is cleaned only after its batches are ingested and its webhooks are
//! delivered or abandoned. Its row stays. When nothing is left to remove, free pages go back to the disk.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::store::{Store, free_space, retention};
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// Lots of one transaction: about 20 ms if each has a description and ten translations.
const LOTS: u32 = 30;
/// The wait between two chunks, so that other workers can write.
const WAIT: Duration = Duration::from_millis(50);

/// Retention.
pub struct Retention {
    store: Arc<Store>,
    config: Arc<Config>,
}

impl Retention {
    /// Cleans this store.
    pub fn new(store: Arc<Store>, config: Arc<Config>) -> Self {
        Self { store, config }
    }
}

impl Worker for Retention {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let idle = TickOutcome::idle(self.config.steps.idle);
        let age = self.config.retention.results;
        let expired = match age.is_zero() {
            true => None,
            false => {
                let before = now.wall.before(age);
                self.store.read(|view| retention::next_expired(view, before))?
            }
        };
        if let Some(job) = expired {
            self.store
                .write(now.wall, |tx| retention::clean(tx, &job, LOTS))?;
        } else if self.store.read(free_space::has_surplus_pages)? {
            self.store.write(now.wall, free_space::give_back_pages)?;
        } else {
            return Ok(idle);
        }
        Ok(TickOutcome::idle(WAIT))
    }
}
