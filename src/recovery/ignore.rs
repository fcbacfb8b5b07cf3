//! `recover --ignore`: leaves one batch alone that carries this database's id and that this program did not make.
//!
//! Such a batch stops all creates, as after a restore, and has no line that could be linked. After a restore the
//! batch may be this database's own. So its input must show that it is not, or an operator repeats its id.

use super::RecoveryError;
use super::evidence::{ids_of_input, ids_of_results};
use super::reconcile;
use super::recover::Recovery;
use crate::base::clock::Timestamp;
use crate::domain::alert::PauseScope;
use crate::domain::decide::ignored_batch::{IgnoreDecision, ReadInput, decide};
use crate::openai::Batch;
use crate::store::alerts;
use crate::store::batches::{self, ignored};

/// A batch that may be ignored, and why.
#[derive(Clone, Debug)]
pub struct IgnorableBatch {
    /// The batch at OpenAI.
    pub batch: Batch,
    /// What shows that it is not this database's.
    pub evidence: String,
}

impl Recovery {
    /// Looks at a batch that is to be ignored. `unread` is the id that the operator repeats if the batch's input
    /// cannot be read. Changes nothing.
    ///
    /// # Errors
    /// When the batch has its row, does not carry this database's id, may be this database's own, or OpenAI cannot
    /// be asked.
    pub fn examine(&self, id: &str, unread: Option<&str>) -> Result<IgnorableBatch, RecoveryError> {
        let name = || id.to_owned();
        if let Some(row) = self.store.read(|view| batches::by_openai_id(view, id))? {
            return Err(RecoveryError::BatchIsKnown {
                batch: name(),
                row: row.id,
            });
        }
        let batch = self.api.batch(id).map_err(|error| RecoveryError::Batch {
            batch: name(),
            error: Box::new(error),
        })?;
        if !self.is_own(&batch) {
            return Err(RecoveryError::NotOwn(name()));
        }
        let api = self.api.as_ref();
        let input = match ids_of_input(api, &batch) {
            Ok(Some(ids)) => ReadInput::Read { ids },
            Ok(None) => ReadInput::Unread {
                reason: "OpenAI has no such file".to_owned(),
                ids_of_results: ids_of_results(api, &batch).ok().flatten().unwrap_or_default(),
            },
            Err(error) => ReadInput::Unread {
                reason: error.to_string(),
                ids_of_results: ids_of_results(api, &batch).ok().flatten().unwrap_or_default(),
            },
        };
        match decide(&input, self.has_lines(&batch)?, unread == Some(id)) {
            IgnoreDecision::Ignore { evidence } => Ok(IgnorableBatch { batch, evidence }),
            IgnoreDecision::IsOurs { evidence } => Err(RecoveryError::IsOurs {
                batch: name(),
                evidence,
            }),
            IgnoreDecision::Confirm { reason } => Err(RecoveryError::InputUnread {
                batch: name(),
                lines: batch.counts.total,
                reason,
            }),
        }
    }

    /// Records that a batch is ignored from now on, and ends the stop of creates if no other batch causes it. Gives
    /// whether creates are still stopped.
    ///
    /// # Errors
    /// The store's, or when OpenAI's batches cannot be listed: the batch is ignored all the same.
    pub fn ignore(&self, ignorable: &IgnorableBatch, now: Timestamp) -> Result<bool, RecoveryError> {
        let IgnorableBatch { batch, evidence } = ignorable;
        self.store.write(now, |tx| ignored::add(tx, batch, evidence))?;
        let is_own = |batch: &Batch| self.is_own(batch);
        let others = self.survey()?;
        if !others
            .iter()
            .any(|other| other.batch.as_ref().is_some_and(is_own))
        {
            self.store.write(now, reconcile::resume_creates)?;
        }
        let pause = self
            .store
            .read(|view| alerts::paused(view, &PauseScope::Creates))?;
        Ok(pause.is_some())
    }
}
