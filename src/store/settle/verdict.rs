//! A request whose line or call brought no text: the decision on it is applied.

use rusqlite::params;

use super::request::{RequestRow, fail};
use super::tally::count_settled;
use crate::domain::batch::{Outcome, Stage};
use crate::domain::decide::failed_line::{FailedLine, FailedLineDecision, LineSource};
use crate::domain::job::RequestState;
use crate::store::predicates::OPEN_REQUEST;
use crate::store::{Stored, Tx, View};

/// What the configuration says of requests that are sent again.
#[derive(Clone, Copy, Debug)]
pub struct RetryRules {
    /// Attempts that a request has in all.
    pub max_attempts: u32,
    /// Whether images can be checked again.
    pub check_images: bool,
    /// The most lines of the next batch of a line that was not run; `None` for no limit.
    pub batch_cap: Option<u32>,
}

/// Decides on a claimed request that has no text: it waits again, or fails with the reason.
pub(in crate::store) fn judge(
    tx: &Tx<'_>,
    request: &RequestRow,
    outcome: Outcome,
    error: Option<&str>,
    rules: RetryRules,
) -> Stored<()> {
    let line = FailedLine {
        outcome,
        error,
        history: request.history,
        source: source(tx, request)?,
        max_attempts: rules.max_attempts,
    };
    match line.decide() {
        FailedLineDecision::Fail { reason } => fail(tx, request, &reason),
        FailedLineDecision::PutOff => put_off(tx, request),
        FailedLineDecision::Retry {
            is_counted,
            raise,
            check_images,
        } => {
            let batch_cap = rules.batch_cap.filter(|_| outcome == Outcome::NotRun);
            tx.prepare_cached(
                "UPDATE requests SET state = 'waiting', attempts = attempts + ?, cap_raised = max(cap_raised, ?),
                        image_failures = image_failures + ?, images_due = ?, batch_cap = ?, since = ?
                 WHERE id = ? AND state = 'claimed'",
            )?
            .execute(params![
                is_counted,
                raise,
                check_images,
                check_images && rules.check_images,
                batch_cap,
                tx.now,
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
