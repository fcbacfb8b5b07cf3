//! A request whose line or call brought no text: the decision on it is applied.

use rusqlite::params;

use super::request::{RequestRow, fail};
use super::tally::count_settled;
use crate::domain::batch::{Outcome, Stage};
pub use crate::domain::decide::failed_line::RetryRules;
use crate::domain::decide::failed_line::{FailedLine, FailedLineDecision, LineOrigin, LineSource};
use crate::domain::job::RequestState;
use crate::store::predicates::OPEN_REQUEST;
use crate::store::{Stored, Tx, View};

/// What a request has met.
pub(in crate::store) struct Failure<'a> {
    /// The outcome of its line or call.
    pub(in crate::store) outcome: Outcome,
    /// What OpenAI said.
    pub(in crate::store) error: Option<&'a str>,
    /// Whether OpenAI may bill it.
    pub(in crate::store) may_be_billed: bool,
    /// How it was sent.
    pub(in crate::store) origin: LineOrigin,
    /// The row of its batch or call.
    pub(in crate::store) row: i64,
}

/// Decides on a claimed request that has no text: it waits again, or fails with the reason.
pub(in crate::store) fn judge(
    tx: &Tx<'_>,
    request: &RequestRow,
    failure: &Failure<'_>,
    rules: RetryRules,
) -> Stored<()> {
    let line = FailedLine {
        outcome: failure.outcome,
        error: failure.error,
        may_be_billed: failure.may_be_billed,
        origin: failure.origin,
        history: request.history,
        source: source(tx, request)?,
        rules,
        seed: failure.row,
    };
    match line.decide() {
        FailedLineDecision::Fail { reason } => fail(tx, request, &reason),
        FailedLineDecision::PutOff => put_off(tx, request),
        FailedLineDecision::Retry(retry) => {
            let transient_wait = retry.wait.filter(|_| !retry.is_refusal);
            let wait_ms = transient_wait.map_or(0, |wait| wait.as_millis().try_into().unwrap_or(0_i64));
            tx.prepare_cached(
                "UPDATE requests SET state = 'waiting', attempts = attempts + ?, cap_raised = max(cap_raised, ?),
                        image_failures = image_failures + ?, images_due = ?, batch_cap = ?, since = ?, retry_at = ?,
                        transient_failures = transient_failures + ?, transient_wait_ms = transient_wait_ms + ?,
                        refusals = refusals + ?
                 WHERE id = ? AND state = 'claimed'",
            )?
            .execute(params![
                retry.is_counted,
                retry.raise,
                retry.check_images,
                retry.check_images && rules.check_images,
                retry.batch_cap,
                tx.now,
                retry.wait.map(|wait| tx.now + wait),
                transient_wait.is_some(),
                wait_ms,
                retry.is_refusal,
                request.id
            ])?;
            Ok(())
        }
    }
}

/// Whether a request has what it is made from: a translation needs its lot's description.
fn source(view: &View, request: &RequestRow) -> Stored<LineSource> {
    if request.stage == Stage::Vision {
        return Ok(LineSource::Present);
    }
    let mut query = view.prepare_cached(&format!(
        "SELECT vision_result IS NOT NULL,
                EXISTS (SELECT 1 FROM requests
                        WHERE lot = l.id AND stage = 'vision' AND {OPEN_REQUEST})
         FROM batch_lots l WHERE id = ?"
    ))?;
    let (is_described, is_pending) = query.query_row([request.lot], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(match (is_described, is_pending) {
        (true, _) => LineSource::Present,
        (false, true) => LineSource::Pending,
        (false, false) => LineSource::Absent,
    })
}

/// Cancels a translation until its lot has a description, which makes it wanted again.
fn put_off(tx: &Tx<'_>, request: &RequestRow) -> Stored<()> {
    request.settle(tx, RequestState::Cancelled)?;
    count_settled(tx, request.job, request.stage, 0);
    Ok(())
}
