//! Retention: removes the texts, lots, requests and lines of jobs that ended long ago, a chunk at a time, so
//! that no other write waits long. A job is cleaned only after its batches are ingested and its webhooks are
//! delivered or abandoned. Its row stays. Old signatures, image checks and figures are removed, too. When
//! nothing is left to remove, free pages go back to the disk.
//!
//! Nothing is removed for its age unless the machine's clock is confirmed. A job whose removal has begun, or which an
//! operator deletes, needs no clock.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Moment, Timestamp};
use crate::config::Config;
use crate::openai::BatchApi;
use crate::store::{Store, Stored, View, free_space, retention};
use crate::workers::clock;
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// Lots of one transaction: about 20 ms if each has a description and ten translations.
const LOTS: u32 = 30;
/// The wait between two chunks, so that other workers can write.
const WAIT: Duration = Duration::from_millis(50);

/// Retention.
pub struct Retention {
    store: Arc<Store>,
    api: Arc<dyn BatchApi>,
    config: Arc<Config>,
}

impl Retention {
    /// Cleans this store. The answers of `api` confirm the clock.
    pub fn new(store: Arc<Store>, api: Arc<dyn BatchApi>, config: Arc<Config>) -> Self {
        Self { store, api, config }
    }

    /// Removes a chunk of a job whose removal has begun; gives whether there was one.
    fn remove_begun(&self, now: Timestamp) -> Stored<bool> {
        let begun = self.store.read(retention::next_begun)?;
        if let Some(job) = &begun {
            self.store.write(now, |tx| retention::clean(tx, job, LOTS))?;
        }
        Ok(begun.is_some())
    }

    /// Removes a chunk of what is old; gives whether there was anything.
    fn remove_old(&self, now: Timestamp) -> Stored<bool> {
        let age = self.config.retention.results;
        let expired = match age.is_zero() {
            true => None,
            false => {
                let before = now.before(age);
                self.store.read(|view| retention::next_expired(view, before))?
            }
        };
        if let Some(job) = expired {
            self.store.write(now, |tx| retention::clean(tx, &job, LOTS))?;
            return Ok(true);
        }
        let is_old = |view: &View| retention::has_old_rows(view, now);
        match self.store.read(is_old)? {
            true => self.store.write(now, retention::delete_old_rows).map(|()| true),
            false => Ok(false),
        }
    }
}

impl Worker for Retention {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let idle = TickOutcome::idle(self.config.steps.idle);
        if self.remove_begun(now.wall)? {
            return Ok(TickOutcome::idle(WAIT));
        }
        let may_delete = clock::prepare_deletion_by_age(&self.store, self.api.as_ref(), now)?;
        if may_delete && self.remove_old(now.wall)? {
            return Ok(TickOutcome::idle(WAIT));
        }
        if self.store.read(free_space::has_surplus_pages)? {
            self.store.write(now.wall, free_space::give_back_pages)?;
        } else {
            return Ok(idle);
        }
        Ok(TickOutcome::idle(WAIT))
    }
}
