//! Retention: the texts, lots, requests and lines of jobs that ended long ago go, a chunk at a time, so
//! that nobody waits for it. Never before the job's batches are taken in and its webhooks are
//! delivered or given up; what remains says that there was the job and what it came to. Where nothing
//! is left to remove, the room goes back to the disk.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::store::{Store, free_space, retention};
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// Lots of one transaction: some 20 ms where each has its description and ten translations.
const LOTS: u32 = 30;
/// Between two chunks, so that others come to write.
const BREATH: Duration = Duration::from_millis(50);

/// See the module.
pub struct Retention {
    store: Arc<Store>,
    config: Arc<Config>,
}

impl Retention {
    /// A step that cleans.
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
        let old = match age.is_zero() {
            true => None,
            false => {
                let before = now.wall.before(age);
                self.store.read(|view| retention::next(view, before))?
            }
        };
        if let Some(old) = old {
            self.store
                .write(now.wall, |tx| retention::clean(tx, &old, LOTS))?;
        } else if self.store.read(free_space::has_surplus_pages)? {
            self.store.write(now.wall, free_space::give_back_pages)?;
        } else {
            return Ok(idle);
        }
        Ok(TickOutcome::idle(BREATH))
    }
}
