//! `batches resolve`: an operator says whether a create that was not answered has made a batch, where the server lists
//! none.

use super::RecoveryError;
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::alert::{AlertKind, AlertSubject};
use crate::domain::batch::BatchState;
use crate::openai::{Batch, BatchApi};
use crate::store::batches::{self, BatchRow, META_SUBMISSION, ignored};
use crate::store::{Store, Stored, Tx, View, alerts, events};

/// Links a batch to the row whose create was not answered. The server is asked for it first: its input file and its
/// metadata, as far as they are shown, must be the row's.
///
/// # Errors
/// When the row does not wait for an operator, the server does not show the batch, or the batch is another one.
pub fn resolve_created(
    store: &Store,
    api: &dyn BatchApi,
    row: i64,
    batch: &str,
    now: Timestamp,
) -> Result<(), RecoveryError> {
    let name = || batch.to_owned();
    let remote = api.batch(batch).map_err(|error| RecoveryError::Batch {
        batch: name(),
        error: Box::new(error),
    })?;
    let found = store.read(|view| unanswered(view, api, row))?;
    let found = found.ok_or(RecoveryError::NotUnanswered(row))?;
    if let Some(known) = store.read(|view| batches::by_openai_id(view, batch))? {
        return Err(RecoveryError::BatchIsKnown {
            batch: name(),
            row: known.id,
        });
    }
    let is_ignored = store.read(|view| ignored::is_ignored(view, batch))?;
    if is_ignored || !is_made_of(&remote, &found) {
        return Err(RecoveryError::AnotherBatch { batch: name(), row });
    }
    Ok(store.write(now, |tx| {
        if unanswered(tx, api, row)?.is_none() {
            return Err(changed(row));
        }
        batches::mark_submitted(tx, row, &remote)?;
        record(tx, row, Fields::new().with("created", batch))
    })?)
}

/// Has a batch created again whose create was not answered.
///
/// # Errors
/// When the row does not wait for an operator.
pub fn resolve_not_created(
    store: &Store,
    api: &dyn BatchApi,
    row: i64,
    now: Timestamp,
) -> Result<(), RecoveryError> {
    if store.read(|view| unanswered(view, api, row))?.is_none() {
        return Err(RecoveryError::NotUnanswered(row));
    }
    Ok(store.write(now, |tx| {
        if unanswered(tx, api, row)?.is_none() {
            return Err(changed(row));
        }
        batches::mark_not_created(tx, row)?;
        batches::set_next_check(tx, row, tx.now)?;
        record(tx, row, Fields::new().with_text("not created"))
    })?)
}

/// The row, if it waits for an operator. The alert says that no call for it is running any more.
fn unanswered(view: &View, api: &dyn BatchApi, row: i64) -> Stored<Option<BatchRow>> {
    let found = batches::get(view, row)?;
    let reported = alerts::open_subjects(view, AlertKind::CreateUnclear)?;
    let is_reported = reported.contains(&AlertSubject::Batch(row));
    let waits = found.state == BatchState::Creating && is_reported && found.identity == *api.identity();
    Ok(waits.then_some(found))
}

/// Whether a batch was made from the row's input. What the server does not show speaks against nothing.
fn is_made_of(remote: &Batch, row: &BatchRow) -> bool {
    let has_input =
        remote.input_file_id.is_empty() || Some(&remote.input_file_id) == row.input_file_id.as_ref();
    let has_key = remote
        .metadata
        .get(META_SUBMISSION)
        .is_none_or(|key| *key == row.key);
    has_input && has_key
}

fn record(tx: &Tx<'_>, row: i64, detail: Fields) -> Stored<()> {
    alerts::close_all(tx, &AlertSubject::Batch(row))?;
    events::record(tx, None, Some(row), "resolved", detail)
}

fn changed(row: i64) -> crate::store::StoreError {
    crate::store::StoreError::Conflict(format!("batch {row} has changed meanwhile; look at it again"))
}
