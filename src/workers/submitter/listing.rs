//! OpenAI's list of batches is compared with the database: after a start, before anything is created, and to find
//! the batches of creates whose answers were lost. A tick reads one page, so that other batches go on meanwhile.

use super::Submitter;
use crate::base::clock::Moment;
use crate::domain::alert::{AlertKind, AlertSubject};
use crate::domain::batch::BatchState;
use crate::domain::decide::backoff::backoff;
use crate::domain::decide::failed_call::{CallPurpose, FailedCall, is_account_refused, is_refused_for_good};
use crate::domain::decide::lost_create::{LostCreate, LostCreateDecision, SearchRules};
use crate::openai::CallError;
use crate::recovery::reconcile::{self, ListedPage, Reconciliation};
use crate::store::batches::{self, BatchRow};
use crate::store::{Stored, Tx, alerts};
use crate::workers::call_failure;
use crate::workers::spool::SpoolKind;
use crate::workers::worker::{TickOutcome, WorkerError};

/// The most creates whose answers were lost that one listing looks for.
const MOST_LOST: u32 = 1000;

impl Submitter {
    /// Compares OpenAI's batches with the database, a page at a time. If OpenAI has one of this database that
    /// the database does not know, the database is an older one that was put back, and all creates stop.
    pub(super) fn compare(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        self.list_page(now, CallPurpose::Compare)
    }

    /// Looks for the batch of a create whose answer was lost. One listing looks for all such batches.
    pub(super) fn find_created(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        let wait = self.list_at.saturating_sub(now.steady);
        // Others that are due come before the next page.
        self.store.write(now.wall, |tx| {
            batches::set_next_check(tx, row.id, now.wall + wait)
        })?;
        match wait.is_zero() {
            true => self.list_page(now, CallPurpose::FindCreated),
            false => Ok(TickOutcome::again()),
        }
    }

    /// Drops a listing that no create waits for any more.
    pub(super) fn drop_unneeded_listing(&mut self, now: Moment) -> Result<(), WorkerError> {
        if self.listing.is_some() && self.lost_rows()?.is_empty() {
            self.end_listing(now, |_| Ok(()))?;
        }
        Ok(())
    }

    fn list_page(&mut self, now: Moment, purpose: CallPurpose) -> Result<TickOutcome, WorkerError> {
        let lost = self.lost_rows()?;
        let create_timeout = self.config.openai.create_timeout;
        for row in &lost {
            let deadline = now.steady + create_timeout;
            let create = self.lost_creates.entry(row.id);
            create.or_insert_with(|| LostCreate::new(deadline));
        }
        let mut listing = match self.listing.take() {
            Some(listing) => listing,
            None => self.begin_listing(&lost, now)?,
        };
        let page = listing.read_page(self.api.as_ref(), &self.store, now)?;
        match page {
            ListedPage::Failed(error) => {
                self.put_listing_off(&listing, &lost, now, purpose, &error)?;
                self.listing = Some(listing);
            }
            ListedPage::Compared { linked, .. } => {
                for key in &linked {
                    self.spool.remove(key, SpoolKind::Input)?;
                }
                match listing.is_complete() {
                    true => self.use_complete(&listing, now)?,
                    false => {
                        self.store
                            .write(now.wall, |tx| self.report_long_listing(tx, &listing, now, false))?;
                        self.listing = Some(listing);
                    }
                }
            }
        }
        Ok(TickOutcome::again())
    }

    /// The batches of this account whose create's answer was lost.
    fn lost_rows(&self) -> Stored<Vec<BatchRow>> {
        let mut rows = self
            .store
            .read(|view| batches::in_states(view, &[BatchState::Creating], MOST_LOST))?;
        rows.retain(|row| row.identity == *self.api.identity());
        Ok(rows)
    }

    /// The time (OpenAI's clock, in seconds) back to which a listing must go to show the batch of a row.
    fn reach_of(&self, row: &BatchRow, now: Moment) -> i64 {
        let lag = i64::try_from(self.config.openai.settling_time.as_secs()).unwrap_or(i64::MAX);
        let input_made_at = row.input_file_time.unwrap_or(0);
        input_made_at.min(now.wall.seconds()).saturating_sub(lag)
    }

    fn begin_listing(&mut self, lost: &[BatchRow], now: Moment) -> Stored<Reconciliation> {
        self.listing_since.get_or_insert(now);
        let reach = match self.store.read(batches::is_compared)? {
            true => None,
            false => Some(self.store.read(reconcile::reach)?),
        };
        let reaches = lost.iter().map(|row| self.reach_of(row, now));
        let until = reaches.chain(reach).min().unwrap_or(0);
        Ok(Reconciliation::new(until, self.config.openai.settling_time, now))
    }

    /// A page cannot be read: the next call goes on at the same place, later.
    fn put_listing_off(
        &mut self,
        listing: &Reconciliation,
        lost: &[BatchRow],
        now: Moment,
        purpose: CallPurpose,
        error: &CallError,
    ) -> Result<(), WorkerError> {
        log::warn!(event = "listing_put_off", listed = listing.listing().batches(), error:%; "");
        // A refused account has an alert of its own.
        self.listing_error = (!is_account_refused(error)).then(|| error.to_string());
        let retry_interval = self.config.openai.retry_interval;
        let failures = listing.listing().failures().saturating_sub(1);
        self.list_at = now.steady + backoff(retry_interval, failures, error.retry_after());
        let call = FailedCall {
            purpose,
            error,
            failures,
            retry_interval,
        };
        self.store.write(now.wall, |tx| {
            match purpose {
                CallPurpose::Compare => call_failure::apply(tx, &call)?,
                _ => {
                    for row in lost {
                        call_failure::apply_to_batch(tx, row, &call)?;
                    }
                }
            }
            match is_account_refused(error) {
                true => Ok(()),
                false => self.report_long_listing(tx, listing, now, is_refused_for_good(error, failures)),
            }
        })?;
        Ok(())
    }

    /// Opens the alert if creates have waited for the list for longer than `alerts.stuck_after`, or the server refuses to
    /// list.
    fn report_long_listing(
        &self,
        tx: &Tx<'_>,
        listing: &Reconciliation,
        now: Moment,
        is_refused: bool,
    ) -> Stored<()> {
        let Some(since) = self.listing_since else {
            return Ok(());
        };
        let is_long = now.steady.saturating_sub(since.steady) > self.config.alerts.stuck_after;
        if !is_long && !is_refused {
            return Ok(());
        }
        let waiting = match batches::is_compared(tx)? {
            true => "batches whose create was not answered wait",
            false => "nothing is created after the start",
        };
        let cause = match &self.listing_error {
            Some(error) => format!("the last call that failed: {error}"),
            None => "the list is long".to_owned(),
        };
        let message = format!(
            "{waiting} until OpenAI's list of batches was read far enough, since {}; {} batches were listed, and {cause}. \
             The listing goes on by itself. If openai.base_url or the key is wrong, correct it and: systemctl restart \
             batchkeeper. What the server offers: batchkeeper check-config --probe-batch",
            since.wall,
            listing.listing().batches(),
        );
        alerts::open(tx, AlertKind::ListingFails, &listing_subject(), &message).map(drop)
    }

    /// Ends the listing and its alert, in the transaction of `apply`.
    fn end_listing(&mut self, now: Moment, apply: impl FnOnce(&Tx<'_>) -> Stored<()>) -> Stored<()> {
        self.listing = None;
        self.listing_since = None;
        self.listing_error = None;
        self.store.write(now.wall, |tx| {
            alerts::close(tx, AlertKind::ListingFails, &listing_subject())?;
            apply(tx)
        })
    }

    /// Applies what a complete listing proves.
    fn use_complete(&mut self, listing: &Reconciliation, now: Moment) -> Result<(), WorkerError> {
        let unknown = listing.unknown_batches();
        self.end_listing(now, batches::mark_compared)?;
        let listed = listing.listing().batches();
        log::info!(event = "compared", batches = listed, unheard = unknown; "");
        let lost = self.lost_rows()?;
        self.lost_creates
            .retain(|id, _| lost.iter().any(|row| row.id == *id));
        for row in &lost {
            if listing.listing().proof().until() <= self.reach_of(row, now) {
                self.apply_absence(row, listing, now)?;
            }
        }
        Ok(())
    }

    /// A complete listing does not have the batch of a lost create.
    fn apply_absence(
        &mut self,
        row: &BatchRow,
        listing: &Reconciliation,
        now: Moment,
    ) -> Result<(), WorkerError> {
        let Some(create) = self.lost_creates.get_mut(&row.id) else {
            return Ok(());
        };
        create.record_absence(listing.listing().began().steady);
        let create = *create;
        let rules = SearchRules {
            settling_time: self.config.openai.settling_time,
            retry_interval: self.config.openai.retry_interval,
        };
        let mut decision = create.decide(None, rules);
        if decision == LostCreateDecision::AskForInput {
            decision = match self.has_input(row) {
                Ok(has_input) => create.decide(Some(has_input), rules),
                Err(error) => {
                    return self
                        .fail_call(row, now, CallPurpose::FindCreated, &error)
                        .map(drop);
                }
            };
        }
        self.apply_lost(row, now, decision)
    }
}

fn listing_subject() -> AlertSubject {
    AlertSubject::Named("batches".to_owned())
}
