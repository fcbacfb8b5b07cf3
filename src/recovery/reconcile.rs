//! Compares OpenAI's listing with the store: links batches that carry a key of this database, and stops all
//! creates if the listing has a batch of this database that the store does not know.

use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::domain::openai::Batch;
use crate::store::batches::{self, ListedBatch};
use crate::store::{Store, Stored, Tx, View, alerts};

/// How far a listing must reach behind the newest of our batches in the listing before it, in seconds: much
/// longer than a listing lags.
const LISTING_OVERLAP: i64 = 3600;
/// How far the first listing must reach behind the creation of the database, in seconds: OpenAI's clock and
/// ours may differ.
const FIRST_LISTING_OVERLAP: i64 = 24 * 3600;

/// What a comparison with a listing found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Number of listed batches of this database that the store does not know.
    pub unknown_batches: usize,
    /// Keys of the submissions whose batch was found.
    pub linked: Vec<String>,
}

/// The time (OpenAI's clock, in seconds) back to which a listing must go. Such a listing shows every second
/// batch of a submission, and every batch that OpenAI made since the backup from which the store was
/// restored. Failed listings do not move it, and it stays behind a batch that the store does not know.
///
/// # Errors
/// The store's.
pub fn reach(view: &View) -> Stored<i64> {
    let after_last_listing = batches::listed_until(view)?.map(|time| time - LISTING_OVERLAP);
    let reach =
        after_last_listing.unwrap_or(batches::database_made_at(view)?.seconds() - FIRST_LISTING_OVERLAP);
    let unknown_batch = alerts::paused(view, &PauseScope::Creates)?.and_then(|pause| pause.openai_time);
    Ok(reach.min(unknown_batch.unwrap_or(reach)))
}

/// Compares every batch of a listing that goes back to `from` with the store, in one transaction.
///
/// # Errors
/// The store's.
pub fn compare_with_listing(tx: &Tx<'_>, store: &Store, listed: &[Batch], from: i64) -> Stored<Reconciled> {
    alerts::clear_pause(tx, &PauseScope::OpenAi)?;
    let is_complete = from <= reach(tx)?;
    let mut linked = Vec::new();
    let mut unknown = Vec::new();
    let mut newest = None;
    for batch in listed {
        match batches::link_listed(tx, store.database_id(), batch)? {
            ListedBatch::Foreign => continue,
            ListedBatch::Unknown => unknown.push(batch),
            ListedBatch::Linked(row) => linked.push(batches::get(tx, row)?.key),
            ListedBatch::Known | ListedBatch::Duplicate(_) => {}
        }
        newest = newest.max(Some(batch.created_at));
    }
    if let Some(newest) = newest.filter(|_| is_complete) {
        batches::mark_listed(tx, newest)?;
    }
    if let Some(oldest) = unknown.iter().min_by_key(|batch| batch.created_at) {
        stop_creates(tx, oldest, unknown.len())?;
    } else if is_complete && has_cause_of_stop(tx, listed)? {
        alerts::clear_pause(tx, &PauseScope::Creates)?;
    }
    Ok(Reconciled {
        unknown_batches: unknown.len(),
        linked,
    })
}

/// Whether a listing has the batch that stopped the creates; true if creates are not stopped. The listing of
/// another project does not have it, and proves nothing.
fn has_cause_of_stop(view: &View, listed: &[Batch]) -> Stored<bool> {
    let cause = alerts::paused(view, &PauseScope::Creates)?.and_then(|pause| pause.openai_time);
    Ok(cause.is_none_or(|time| listed.iter().any(|batch| batch.created_at == time)))
}

/// Ends the stop of creates if the batch that caused it has its row. A recovery under a key of another
/// project finds nothing to link, and proves nothing.
///
/// # Errors
/// The store's.
pub fn resume_creates(tx: &Tx<'_>) -> Stored<()> {
    let cause = alerts::paused(tx, &PauseScope::Creates)?.and_then(|pause| pause.openai_time);
    match cause {
        Some(time) if !batches::is_known_of(tx, time)? => Ok(()),
        _ => alerts::clear_pause(tx, &PauseScope::Creates),
    }
}

fn stop_creates(tx: &Tx<'_>, oldest: &Batch, number: usize) -> Stored<()> {
    let reason = format!(
        "OpenAI has {number} batches of this database that it does not know ({} among them): OpenAI has \
         moved on since the backup was taken from which it was restored. Nothing is created until \
         `batchkeeper recover --apply` has linked them; if this is a copy that is to live beside the \
         original, make it another one with `batchkeeper recover --new-identity`",
        oldest.id
    );
    alerts::pause_since(tx, &PauseScope::Creates, &reason, oldest.created_at)?;
    let subject = AlertSubject::Scope(PauseScope::Creates);
    alerts::open(tx, AlertKind::RestoredDatabase, &subject, &reason).map(drop)
}
