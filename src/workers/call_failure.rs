//! Applies the decision on a failed call to OpenAI: pauses the account, or puts the batch off and opens the
//! alert.

use crate::base::clock::Moment;
use crate::domain::alert::{AlertKind, AlertSubject};
use crate::domain::decide::failed_call::{CallEvidence, CallPurpose, FailedCall, FailedCallDecision};
use crate::openai::CallError;
use crate::store::batches::{self, BatchRow};
use crate::store::{Store, StoreError, Stored, Tx, alerts, calls};
use crate::workers::pauses;
use crate::workers::worker::{SET_ASIDE, TickOutcome, WorkerError};

/// Applies what follows from a failed call that was made for no single batch.
pub fn apply(tx: &Tx<'_>, call: &FailedCall<'_>) -> Stored<()> {
    match call.decide(CallEvidence::default()) {
        FailedCallDecision::PauseAccount { scope, wait, .. } => {
            pauses::pause_account(tx, scope, call.error, wait)
        }
        FailedCallDecision::Retry { .. } => Ok(()),
    }
}

/// Applies what follows from a failed call for a batch: the batch is looked at again later.
pub fn apply_to_batch(tx: &Tx<'_>, row: &BatchRow, call: &FailedCall<'_>) -> Stored<()> {
    let evidence = match call.purpose.kind() {
        Some(kind) => calls::evidence(tx, kind, row.id)?,
        None => CallEvidence::default(),
    };
    if let Some(kind) = call.purpose.kind().filter(|_| call.is_refused()) {
        calls::record_refusal(tx, kind, row.id, call.may_be_accounts())?;
    }
    match call.decide(evidence) {
        FailedCallDecision::PauseAccount {
            scope,
            wait,
            batch_wait,
        } => {
            batches::postpone(tx, row.id, tx.now + batch_wait, &reason(row, call))?;
            pauses::pause_account(tx, scope, call.error, wait)
        }
        FailedCallDecision::Retry { wait, alert } => {
            if let Some(kind) = alert {
                let message = alert_message(row, call, evidence, kind);
                alerts::open(tx, kind, &AlertSubject::Batch(row.id), &message)?;
            }
            batches::postpone(tx, row.id, tx.now + wait, &reason(row, call))
        }
    }
}

/// Sets a batch aside if a row of it cannot be read, so that the other batches go on.
pub fn set_aside_unreadable(
    store: &Store,
    row: &BatchRow,
    now: Moment,
    tick: Result<TickOutcome, WorkerError>,
) -> Result<TickOutcome, WorkerError> {
    let Err(WorkerError::Store(StoreError::Unreadable(error))) = tick else {
        return tick;
    };
    let reason = format!("a row of it cannot be read: {error}. See: batchkeeper doctor");
    store.write(now.wall, |tx| {
        batches::postpone(tx, row.id, tx.now + SET_ASIDE, &reason)
    })?;
    Ok(TickOutcome::again())
}

/// The text that is stored with the batch.
fn reason(row: &BatchRow, call: &FailedCall<'_>) -> String {
    match call.purpose {
        CallPurpose::Upload | CallPurpose::Create | CallPurpose::FindCreated => {
            let what = match call.error {
                CallError::Refused(_) => "OpenAI refuses",
                CallError::NotSent { .. } | CallError::Unknown { .. } => "no answer from OpenAI for",
                CallError::Unreadable { .. } => "no answer from OpenAI that can be understood for",
            };
            format!("{what} batch {} ({}): {}", row.id, row.stage, call.error)
        }
        _ => call.error.to_string(),
    }
}

/// The text of the alert.
fn alert_message(row: &BatchRow, call: &FailedCall<'_>, evidence: CallEvidence, kind: AlertKind) -> String {
    let (id, error) = (row.id, call.error);
    let openai_id = row.openai_batch_id.as_deref().unwrap_or_default();
    match (kind, call.purpose) {
        (AlertKind::BatchGone, _) if !evidence.has_other_succeeded => format!(
            "OpenAI says that there is no batch {openai_id}: {error}. No other batch could be read since, so the key may be \
             of another project: check openai.api_key_file first. It is asked again; if it is lost for good, \
             `batchkeeper batches abandon {id}` sends its requests again"
        ),
        (AlertKind::BatchRefused, _) => format!(
            "OpenAI refuses to show batch {openai_id}: {error}. It is asked again, and may run meanwhile; \
             if it is lost for good, `batchkeeper batches abandon {id}` sends its requests again"
        ),
        (AlertKind::BatchGone, _) => format!(
            "OpenAI says that there is no batch {openai_id}: {error}. It is asked again; if it is lost for good, \
             `batchkeeper batches abandon {id}` sends its requests again"
        ),
        (AlertKind::UnknownState, _) => format!(
            "OpenAI's answer about batch {openai_id} cannot be understood: {error}. It is asked on. Look at it: batchkeeper \
             batches show {id}; if it is lost for good: batchkeeper batches abandon {id}"
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
