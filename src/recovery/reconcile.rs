//! What OpenAI lists, held against the store: what carries our key is linked, what the store never
//! heard of stops all creates until it is taken up.

use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::domain::openai::Batch;
use crate::store::batches::{self, Known};
use crate::store::{Store, Stored, Tx, View, alerts};
use crate::workers::pauses;

/// How far a listing must reach behind the newest batch of ours that the one before it has shown,
/// seconds: much longer than a listing lags.
const BACK: i64 = 3600;
/// The same where none has shown one yet, behind our own clock's time of the database.
const BACK_OF_NEW: i64 = 24 * 3600;

/// What a listing brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Batches of this database that it knows nothing of.
    pub unheard: usize,
    /// Keys of submissions whose batch was found.
    pub linked: Vec<String>,
}

/// OpenAI's time, in seconds, back to which a listing shows whether the store is older than the
/// world, or a submission has a second batch. Nothing falls out of it while no listing succeeds, nor
/// what is unheard of already.
///
/// # Errors
/// The store's.
pub fn reach(view: &View) -> Stored<i64> {
    let listed = batches::listed_to(view)?.map(|time| time - BACK);
    let usual = listed.unwrap_or(batches::database_made_at(view)?.seconds() - BACK_OF_NEW);
    let unheard = alerts::paused(view, &PauseScope::Creates)?.and_then(|pause| pause.openai_time);
    Ok(usual.min(unheard.unwrap_or(usual)))
}

/// Looks at every batch of a listing that goes back to `from`, in one transaction.
///
/// # Errors
/// The store's.
pub fn with_listing(tx: &Tx<'_>, store: &Store, listed: &[Batch], from: i64) -> Stored<Reconciled> {
    pauses::clear_pause(tx, &PauseScope::OpenAi)?;
    let is_whole = from <= reach(tx)?;
    let mut linked = Vec::new();
    let mut unheard = Vec::new();
    let mut newest = None;
    for remote in listed {
        match batches::link_listed(tx, store.database_id(), remote)? {
            Known::Foreign => continue,
            Known::Unheard => unheard.push(remote),
            Known::Linked(row) => linked.push(batches::get(tx, row)?.key),
            Known::Yes | Known::Duplicate(_) => {}
        }
        newest = newest.max(Some(remote.created_at));
    }
    if let Some(newest) = newest.filter(|_| is_whole) {
        batches::mark_listed(tx, newest)?;
    }
    if let Some(oldest) = unheard.iter().min_by_key(|remote| remote.created_at) {
        stop_creates(tx, oldest, unheard.len())?;
    } else if is_whole && shows_what_stopped_creates(tx, listed)? {
        pauses::clear_pause(tx, &PauseScope::Creates)?;
    }
    Ok(Reconciled {
        unheard: unheard.len(),
        linked,
    })
}

/// Whether a listing has what stopped the creates, where something has: one of another project, under a
/// key of that, does not, and proves nothing.
fn shows_what_stopped_creates(view: &View, listed: &[Batch]) -> Stored<bool> {
    let unheard = alerts::paused(view, &PauseScope::Creates)?.and_then(|pause| pause.openai_time);
    Ok(unheard.is_none_or(|time| listed.iter().any(|remote| remote.created_at == time)))
}

/// Lets creates go on where the batch that stopped them has its row: a recovery under a key of another
/// project sees nothing to take up, and proves nothing.
pub fn go_on(tx: &Tx<'_>) -> Stored<()> {
    let unheard = alerts::paused(tx, &PauseScope::Creates)?.and_then(|pause| pause.openai_time);
    match unheard {
        Some(time) if !batches::is_known_of(tx, time)? => Ok(()),
        _ => pauses::clear_pause(tx, &PauseScope::Creates),
    }
}

fn stop_creates(tx: &Tx<'_>, oldest: &Batch, number: usize) -> Stored<()> {
    let reason = format!(
        "OpenAI has {number} batches of this database that it knows nothing of ({} among them): it is older than the \
         world, as after the restore of a backup. Nothing is created until `batchkeeper recover --apply` has taken them \
         up; if this is a copy that is to live beside the original, make it another one with `batchkeeper recover \
         --new-identity`",
        oldest.id
    );
    alerts::pause_since(tx, &PauseScope::Creates, &reason, oldest.created_at)?;
    let subject = AlertSubject::Scope(PauseScope::Creates);
    alerts::open(tx, AlertKind::RestoredDatabase, &subject, &reason).map(drop)
}
