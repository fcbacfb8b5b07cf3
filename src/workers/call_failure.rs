//! Applies the decision on a failed call to OpenAI: pauses the account, or puts the batch off and opens the
//! alert.

use crate::domain::alert::{AlertKind, AlertSubject};
use crate::domain::decide::failed_call::{CallPurpose, FailedCall, FailedCallDecision};
use crate::openai::CallError;
use crate::store::batches::{self, BatchRow};
use crate::store::{Stored, Tx, alerts};
use crate::workers::pauses;

/// Applies what follows from a failed call that was made for no single batch.
pub fn apply(tx: &Tx<'_>, call: &FailedCall<'_>) -> Stored<()> {
    match call.decide() {
        FailedCallDecision::PauseAccount { scope, wait } => {
            pauses::pause_account(tx, scope, call.error, wait)
        }
        FailedCallDecision::Retry { .. } => Ok(()),
    }
}

/// Applies what follows from a failed call for a batch: the batch is looked at again later.
pub fn apply_to_batch(tx: &Tx<'_>, row: &BatchRow, call: &FailedCall<'_>) -> Stored<()> {
    match call.decide() {
        FailedCallDecision::PauseAccount { scope, wait } => {
            batches::set_next_check(tx, row.id, tx.now + wait)?;
            pauses::pause_account(tx, scope, call.error, wait)
        }
        FailedCallDecision::Retry { wait, alert } => {
            if let Some(kind) = alert {
                let message = alert_message(row, call, kind);
                alerts::open(tx, kind, &AlertSubject::Batch(row.id), &message)?;
            }
            batches::postpone(tx, row.id, tx.now + wait, &reason(row, call))
        }
    }
}

/// The text that is stored with the batch.
fn reason(row: &BatchRow, call: &FailedCall<'_>) -> String {
    match call.purpose {
        CallPurpose::Upload | CallPurpose::Create | CallPurpose::FindCreated => {
            let what = match call.error {
                CallError::Refused(_) => "OpenAI refuses",
                CallError::NotSent { .. } | CallError::Unknown { .. } => "no answer from OpenAI for",
            };
            format!("{what} batch {} ({}): {}", row.id, row.stage, call.error)
        }
        _ => call.error.to_string(),
    }
}

/// The text of the alert.
fn alert_message(row: &BatchRow, call: &FailedCall<'_>, kind: AlertKind) -> String {
    let (id, error) = (row.id, call.error);
    let openai_id = row.openai_batch_id.as_deref().unwrap_or_default();
    match (kind, call.purpose) {
        (AlertKind::BatchGone, _) => format!(
            "OpenAI says that there is no batch {openai_id}: {error}. It is asked again; if it is lost for good, \
             `batchkeeper batches abandon {id}` sends its requests again"
        ),
        (AlertKind::BatchOverdue, _) => format!(
            "batch {openai_id} is past its window, and how it ended cannot be learned: {error}. It is asked on; if it \
             is lost for good, `batchkeeper batches abandon {id}` sends its requests again"
        ),
        (_, CallPurpose::Download { file }) => format!(
            "the {file} file {} of batch {id} cannot be fetched: {error}. It is tried on; if it is lost for good, \
             `batchkeeper batches abandon {id}` sends the unanswered requests again",
            row.file(file).id.as_deref().unwrap_or_default()
        ),
        _ => format!("{}. Look at it: batchkeeper batches show {id}", reason(row, call)),
    }
}
