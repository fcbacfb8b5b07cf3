//! An operator abandons a batch: the command stores the intent, and the worker that owns the batch carries it
//! out. A batch that OpenAI may still run is watched afterwards.

use rusqlite::params;

use super::{BatchRow, find_one, get};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::batch::BatchState;
use crate::domain::decide::abandoned_batch::UnansweredBatch;
use crate::domain::openai::BatchStatus;
use crate::store::{StoreError, Stored, Tx, View, events, moved, unclaimed_lines};

/// The batch as the decision on its abandonment sees it.
///
/// # Errors
/// [`StoreError::Conflict`] if it cannot be abandoned: it is over, not made yet, or abandoned already.
pub fn unanswered(view: &View, id: i64) -> Stored<UnansweredBatch> {
    let row = get(view, id)?;
    let look = format!("look at it: batchkeeper batches show {id}");
    let refuse = |problem: &str| Err(StoreError::Conflict(format!("batch {id} is {problem}; {look}")));
    match row.state {
        BatchState::Planned | BatchState::Ingested | BatchState::Failed => {
            return refuse("over, or not made yet");
        }
        _ if row.abandoned_at.is_some() => return refuse("abandoned already"),
        _ if unclaimed_lines::has_any_of(view, id)? => return refuse("being linked: try again in a minute"),
        _ => {}
    }
    let (unanswered, answered) = view.query_row(
        "SELECT coalesce(sum(l.settled = 0 AND r.state = 'claimed'), 0), coalesce(sum(l.outcome = 'answered'), 0)
         FROM batch_lines l JOIN requests r ON r.id = l.request_id WHERE l.batch_id = ?",
        [id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(UnansweredBatch {
        state: row.state,
        is_refused: row.openai_status.as_deref() == Some(BatchStatus::Failed.as_str()),
        is_output_fetched: row.output.is_spooled(),
        unanswered,
        answered,
        completed: row.counts.completed,
    })
}

/// Stores an operator's intent to abandon a batch. Its worker sees it at its next tick.
pub fn request_abandonment(tx: &Tx<'_>, id: i64, billed_again: u64) -> Stored<()> {
    tx.execute("UPDATE openai_batches SET abandon_wanted = 1 WHERE id = ?", [id])?;
    let detail = Fields::new().with("billed_again_at_most", billed_again);
    events::record(tx, None, Some(id), "abandon_wanted", detail)
}

/// A batch in that state that an operator wants abandoned; `None` if there is none.
pub fn next_to_abandon(view: &View, state: BatchState) -> Stored<Option<BatchRow>> {
    find_one(view, "state = ? AND abandon_wanted = 1 LIMIT 1", state)
}

/// Withdraws the intent to abandon a batch, because OpenAI ends it or all its results are here.
pub fn withdraw_abandonment(tx: &Tx<'_>, id: i64, reason: &str) -> Stored<()> {
    tx.execute(
        "UPDATE openai_batches SET abandon_wanted = 0, cancel_wanted = 1, settled_to = 0 WHERE id = ?",
        [id],
    )?;
    events::record(
        tx,
        None,
        Some(id),
        "not_abandoned",
        Fields::new().with_text(reason),
    )
}

/// Stores that the requests of a batch were sent on without it. It is watched from now on: OpenAI is asked to
/// cancel it, and its late answers are ingested.
pub fn mark_watched(tx: &Tx<'_>, row: &BatchRow, next_at: Timestamp) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE openai_batches SET abandon_wanted = 0, abandoned_at = ?1, cancel_wanted = 1, settled_to = 0, next_at = ?2,
                output_ingested = CASE WHEN output_bytes IS NULL THEN 0 ELSE output_ingested END,
                error_ingested = CASE WHEN error_bytes IS NULL THEN 0 ELSE error_ingested END
         WHERE id = ?3 AND state IN ('submitted', 'ended')",
        params![tx.now, next_at, row.id],
    )?;
    moved(changed, || format!("batch row {} is not at OpenAI", row.id))?;
    let unread: u64 = tx.query_row(
        "SELECT count(*) FROM batch_lines WHERE batch_id = ? AND outcome = 'not_run'",
        [row.id],
        |row| row.get(0),
    )?;
    let detail = Fields::new()
        .with("sent_again", unread)
        .with("answered_by_openai", row.counts.completed);
    events::record(tx, None, Some(row.id), "abandoned", detail)
}
