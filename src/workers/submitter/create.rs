//! A batch is created, or found if the answer of its create was lost.

use super::Submitter;
use crate::base::clock::Moment;
use crate::domain::alert::{AlertKind, AlertSubject};
use crate::domain::decide::failed_call::{CallKind, CallPurpose};
use crate::domain::decide::failed_create::{self, FailedCreateDecision};
use crate::domain::decide::lost_create::LostCreateDecision;
use crate::domain::parameters::Parameters;
use crate::openai::{CallError, NewBatch};
use crate::store::batches::{self, BatchRow, META_DATABASE, META_SUBMISSION, ignored};
use crate::store::{StoreError, alerts, calls};
use crate::workers::doubtful_create::doubt_create;
use crate::workers::spool::SpoolKind;
use crate::workers::worker::{TickOutcome, WorkerError};
use crate::workers::{call_failure, pauses};

impl Submitter {
    /// Creates an uploaded batch. The row says so before the call.
    pub(super) fn create(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        if self.abandon_if_unwanted(row, now)? {
            return Ok(TickOutcome::again());
        }
        if !self.may_create()? {
            // Other batches may go on.
            self.store.write(now.wall, |tx| {
                batches::set_next_check(tx, row.id, now.wall + self.config.steps.idle)
            })?;
            return Ok(TickOutcome::again());
        }
        self.store
            .write(now.wall, |tx| batches::mark_creating(tx, row.id))?;
        if !self.config.openai.lists_batches() {
            self.store.record_creates()?;
        }
        self.send_create(row, now)
    }

    /// Sends the create whose intent is committed.
    fn send_create(&mut self, row: &BatchRow, now: Moment) -> Result<TickOutcome, WorkerError> {
        self.lost_creates.remove(&row.id);
        match self.api.create_batch(&self.new_batch(row)?) {
            Ok(remote) => {
                let is_linked = self.store.write(now.wall, |tx| {
                    let other = batches::by_openai_id(tx, &remote.id)?;
                    if other.is_some() || ignored::is_ignored(tx, &remote.id)? {
                        doubt_create(tx, row.id, &remote.id, &self.config.openai)?;
                        return Ok(false);
                    }
                    calls::record_success(tx, CallKind::Create, row.id)?;
                    pauses::clear_sending_pauses(tx)?;
                    alerts::close_all(tx, &AlertSubject::Batch(row.id))?;
                    batches::mark_submitted(tx, row.id, &remote)?;
                    Ok(true)
                })?;
                if is_linked {
                    self.spool.remove(&row.key, SpoolKind::Input)?;
                }
            }
            Err(error) => self.fail_create(row, now, &error)?,
        }
        Ok(TickOutcome::again())
    }

    fn new_batch(&self, row: &BatchRow) -> Result<NewBatch, WorkerError> {
        let parameters = Parameters::parse(row.stage, &row.parameters).map_err(StoreError::from)?;
        let mut metadata = vec![
            (META_DATABASE, self.store.database_id()),
            (META_SUBMISSION, &row.key),
            ("stage", row.stage.as_str()),
        ];
        metadata.extend(row.job_id.as_deref().map(|job| ("job", job)));
        Ok(NewBatch {
            endpoint: parameters.form().endpoint,
            input_file_id: row.input_file_id.clone().unwrap_or_default(),
            metadata: metadata
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        })
    }

    /// Stores that a create failed, and what follows.
    fn fail_create(&self, row: &BatchRow, now: Moment, error: &CallError) -> Result<(), WorkerError> {
        let decision = failed_create::decide(error, row.input_file_since, now.wall);
        self.store.write(now.wall, |tx| match decision {
            FailedCreateDecision::NotCreated { forget_input } => {
                batches::mark_not_created(tx, row.id)?;
                if forget_input {
                    batches::forget_input_file(tx, row.id)?;
                }
                let call = self.failed_call(row, CallPurpose::Create, error);
                call_failure::apply_to_batch(tx, row, &call)
            }
            FailedCreateDecision::Unknown => {
                let at = now.wall + self.config.openai.retry_interval;
                batches::postpone(tx, row.id, at, &error.to_string())
            }
        })?;
        Ok(())
    }

    /// Applies the decision on a lost create whose batch is not listed.
    pub(super) fn apply_lost(
        &mut self,
        row: &BatchRow,
        now: Moment,
        decision: LostCreateDecision,
    ) -> Result<(), WorkerError> {
        match decision {
            LostCreateDecision::LookAgain { wait } => self.store.write(now.wall, |tx| {
                batches::set_next_check(tx, row.id, now.wall + wait)
            })?,
            LostCreateDecision::CreateAgain => {
                log::warn!(
                    event = "not_found", batch = row.id; "not found at OpenAI after the settling time"
                );
                self.store.write(now.wall, |tx| {
                    batches::mark_not_created(tx, row.id)?;
                    batches::set_next_check(tx, row.id, now.wall)
                })?;
                self.lost_creates.remove(&row.id);
            }
            LostCreateDecision::AskForInput | LostCreateDecision::OtherProject => {
                let message = format!(
                    "batch {} may have been created, and OpenAI knows nothing of its input file {}: the key seems to be \
                     of another project. Put the former one back into openai.api_key_file and: systemctl restart \
                     batchkeeper. If that file was deleted and the batch was never made, its requests are sent again by: \
                     batchkeeper batches abandon {}",
                    row.id,
                    row.input_file_id.as_deref().unwrap_or_default(),
                    row.id
                );
                self.store.write(now.wall, |tx| {
                    self.report_stuck(tx, row, AlertKind::OtherProject, &message)
                })?;
            }
        }
        Ok(())
    }

    /// Whether OpenAI has the input file of a batch under the present key. If it does not, a listing without
    /// the batch proves nothing either.
    pub(super) fn has_input(&self, row: &BatchRow) -> Result<bool, CallError> {
        let id = row.input_file_id.as_deref().unwrap_or_default();
        match self.api.file(id) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
