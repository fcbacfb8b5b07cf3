//! `call_kinds`: how calls for one object at a time went. The successes are the evidence of whether OpenAI refuses
//! one object or the account. They are counted, as a clock may be set.

use rusqlite::{OptionalExtension, params};

use super::predicates::LIVE_BATCH;
use super::{Stored, Tx, View, alerts};
use crate::domain::alert::PauseScope;
use crate::domain::batch::BatchState;
use crate::domain::decide::failed_call::{CallEvidence, CallKind};

/// Two batches that are refused one after another show that the account is refused.
const PROBES: u32 = 2;

/// The successes of a kind of call, and the batch row that was refused last since the last one.
fn counts(view: &View, kind: CallKind) -> Stored<(u64, Option<i64>)> {
    let mut query = view.prepare_cached("SELECT successes, refused_batch FROM call_kinds WHERE kind = ?")?;
    let counts = query.query_row([kind], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(counts.optional()?.unwrap_or_default())
}

/// Counts a call that succeeded for a batch.
pub fn record_success(tx: &Tx<'_>, kind: CallKind, batch: i64) -> Stored<()> {
    tx.prepare_cached(
        "INSERT INTO call_kinds (kind, successes) VALUES (?, 1)
         ON CONFLICT DO UPDATE SET successes = successes + 1, refused_batch = NULL",
    )?
    .execute([kind])?;
    tx.prepare_cached(
        "UPDATE openai_batches SET refused_after = NULL WHERE id = ? AND refused_after IS NOT NULL",
    )?
    .execute([batch])?;
    Ok(())
}

/// What other calls of the kind say of a batch whose call has failed.
pub fn evidence(view: &View, kind: CallKind, batch: i64) -> Stored<CallEvidence> {
    let (successes, refused_batch) = counts(view, kind)?;
    let refused_after: Option<u64> = view
        .prepare_cached("SELECT refused_after FROM openai_batches WHERE id = ?")?
        .query_row([batch], |row| row.get(0))?;
    Ok(CallEvidence {
        has_other_succeeded: refused_after.is_some_and(|after| successes > after),
        was_other_refused: refused_batch.is_some_and(|refused| refused != batch),
    })
}

/// Stores that OpenAI refuses a batch. The first refusal since its last success counts. `is_account` is whether
/// the refusal may be the account's.
pub fn record_refusal(tx: &Tx<'_>, kind: CallKind, batch: i64, is_account: bool) -> Stored<()> {
    let (successes, _) = counts(tx, kind)?;
    tx.prepare_cached("UPDATE openai_batches SET refused_after = coalesce(refused_after, ?) WHERE id = ?")?
        .execute(params![successes, batch])?;
    if is_account {
        tx.prepare_cached(
            "INSERT INTO call_kinds (kind, refused_batch) VALUES (?, ?)
             ON CONFLICT DO UPDATE SET refused_batch = excluded.refused_batch",
        )?
        .execute(params![kind, batch])?;
    }
    Ok(())
}

/// Forgets which batches an earlier process was refused: the key may be another one now.
pub fn forget_refusals(tx: &Tx<'_>) -> Stored<()> {
    tx.execute("UPDATE call_kinds SET refused_batch = NULL", [])?;
    Ok(())
}

/// How many batches in that state have been refused since the last call of the kind that succeeded.
pub fn count_refused(view: &View, kind: CallKind, state: BatchState) -> Stored<u32> {
    let (successes, _) = counts(view, kind)?;
    let mut query = view.prepare_cached(&format!(
        "SELECT count(*) FROM openai_batches WHERE state = ? AND refused_after = ? AND {LIVE_BATCH}"
    ))?;
    Ok(query.query_row(params![state, successes], |row| row.get(0))?)
}

/// Whether enough batches were refused an upload or a create, with no success since: they are the probes, and no
/// further batch is packed or uploaded.
pub fn is_probing(view: &View) -> Stored<bool> {
    let uploads = count_refused(view, CallKind::Upload, BatchState::Sealed)?;
    let creates = count_refused(view, CallKind::Create, BatchState::Uploaded)?;
    Ok(uploads >= PROBES || creates >= PROBES)
}

/// Ends the account's pauses of `scope`, because a call succeeded. A pause stays if the last call of a kind that
/// causes it was refused for a batch that is still asked for: a call of another kind proves nothing then.
pub fn clear_account_pause(tx: &Tx<'_>, scope: &PauseScope) -> Stored<()> {
    let kinds = match scope {
        PauseScope::Sending => [CallKind::Upload, CallKind::Create],
        _ => [CallKind::Poll, CallKind::Download],
    };
    let mut query = tx.prepare_cached(&format!(
        "SELECT EXISTS (SELECT 1 FROM call_kinds k JOIN openai_batches b ON b.id = k.refused_batch
                        WHERE k.kind IN (?, ?) AND b.abandoned_at IS NULL AND b.{LIVE_BATCH})"
    ))?;
    let is_refused: bool = query.query_row(kinds, |row| row.get(0))?;
    match is_refused {
        true => Ok(()),
        false => alerts::clear_pause(tx, scope),
    }
}
