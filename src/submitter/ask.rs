//! Asking OpenAI what it has, before anything is created: after each start, and for a create whose
//! answer was lost.

use super::Submitter;
use crate::batch::BatchState;
use crate::clock::Moment;
use crate::openai::listing::batches_back_to;
use crate::step::{Next, StepError, backoff};
use crate::store::alerts;
use crate::store::batches::{self, BatchRow, Known};
use crate::trouble::{self, CREATES, OPENAI};

/// How far behind OpenAI's newest time in the store the comparison after a start begins, seconds.
const BACK: i64 = 3600;
/// The same where the store has none yet, behind our own clock's time of the database.
const BACK_OF_NEW: i64 = 24 * 3600;

impl Submitter {
    /// After a start: whether OpenAI has batches of this database that it knows nothing of. Then
    /// the store is older than the world (a restored backup), and all creates stop.
    pub(super) fn compare(&mut self, now: Moment) -> Result<Next, StepError> {
        let since = self.store.read(|view| {
            let newest = batches::newest_openai_time(view)?.map(|time| time - BACK);
            Ok(newest.unwrap_or(batches::database_made_at(view)?.seconds() - BACK_OF_NEW))
        })?;
        let listed = match batches_back_to(self.api.as_ref(), since) {
            Ok(listed) => listed,
            Err(error) => {
                log::warn!("comparison with OpenAI's batches put off error={error:?}");
                self.compare_at =
                    now.steady + backoff(self.config.openai.retry_interval, 1, error.retry_after());
                if error.is_account_trouble() {
                    self.store.write(now.wall, |tx| {
                        trouble::pause_openai(tx, &error, self.longest_wait())
                    })?;
                }
                return Ok(Next::again());
            }
        };
        let unheard = self.store.write(now.wall, |tx| {
            trouble::is_over(tx, OPENAI)?;
            let mut unheard = Vec::new();
            for remote in &listed {
                if batches::recognise(tx, self.store.database_id(), remote)? == Known::Unheard {
                    unheard.push(remote.id.as_str());
                }
            }
            if unheard.is_empty() {
                trouble::is_over(tx, CREATES)?;
            } else {
                let reason = format!(
                    "OpenAI has {} batches of this database that it knows nothing of ({} among them): it is older than \
                     the world, as after the restore of a backup. Nothing is created until `batchkeeper recover --apply` \
                     has taken them up; if this is a copy that is to live beside the original, make it another one with \
                     `batchkeeper recover --new-identity`",
                    unheard.len(),
                    unheard[0]
                );
                alerts::pause(tx, CREATES, &reason, None)?;
                alerts::open(tx, "restored_database", CREATES, &reason)?;
            }
            Ok(unheard.len())
        })?;
        log::info!(
            "compared with OpenAI batches={} unheard={unheard}",
            listed.len()
        );
        self.compared = true;
        Ok(Next::again())
    }

    /// Looks for the batch of a create whose answer was lost. Only this batch waits meanwhile.
    pub(super) fn ask(&mut self, row: &BatchRow, now: Moment) -> Result<Next, StepError> {
        let settled = self.asking.waited(row.id, now) >= self.config.openai.settling_time;
        let listed = match batches_back_to(self.api.as_ref(), row.input_file_time.unwrap_or(0)) {
            Ok(listed) => listed,
            Err(error) => return self.failed(row, now, &error, ""),
        };
        let found = self.store.write(now.wall, |tx| {
            trouble::is_over(tx, OPENAI)?;
            for remote in &listed {
                batches::recognise(tx, self.store.database_id(), remote)?;
            }
            Ok(batches::get(tx, row.id)?.state != BatchState::Creating)
        })?;
        if found {
            self.asking.end(row.id);
            super::input::remove(&self.spool, &row.key)?;
            return Ok(Next::again());
        }
        if settled {
            log::warn!(
                "batch={} not found at OpenAI after the settling time",
                row.id
            );
            self.store
                .write(now.wall, |tx| batches::not_created(tx, row.id))?;
            self.asking.end(row.id);
            return self.create(row, now);
        }
        let wait = self
            .config
            .openai
            .retry_interval
            .min(self.config.openai.settling_time);
        self.store.write(now.wall, |tx| {
            batches::look_again(tx, row.id, now.wall + wait)
        })?;
        Ok(Next::again())
    }
}
