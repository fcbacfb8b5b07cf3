//! `synchronous_calls`: requests of synchronous jobs, asked of OpenAI one by one and at once.
//!
//! A request of such a job is claimed by an open call, as others are by a line of a batch. The row
//! is there before the call is made; what cannot be had in time waits for a batch like any other.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::planned_calls::plan;
use super::settle::{self, AnswerOrigin, RequestRow, RetryRules};
use super::{Stored, Tx, View};
use crate::base::clock::Timestamp;
use crate::domain::batch::Outcome;
use crate::domain::due::Due;
use crate::domain::job::RequestState;
use crate::domain::usage::TokenUsage;

/// A call that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its row.
    pub id: i64,
    /// The request that it is for.
    pub request: i64,
    /// Calls of this request before it.
    pub earlier: u32,
}

/// What a call came to.
#[derive(Clone, Debug)]
pub struct CallResult<'a> {
    /// What came back.
    pub outcome: Outcome,
    /// The text, of an answered one.
    pub text: &'a str,
    /// What OpenAI said, of another.
    pub error: &'a str,
    /// The model that was asked.
    pub model: &'a str,
    /// OpenAI's id of the answer, where it gave one.
    pub response_id: Option<&'a str>,
    /// Its tokens.
    pub tokens: TokenUsage,
}

/// The first call that may be made now. One
/// whose lot's images are still to be checked is not ready. One planned for later than in `longest` has
/// its time from a clock that was set back since: it may be made.
pub fn next(view: &View, now: Timestamp, longest: Duration) -> Stored<Due<Call>> {
    let mut query = view.prepare_cached(
        "SELECT d.id, d.request_id, d.next_at,
                (SELECT count(*) FROM synchronous_calls e WHERE e.request_id = d.request_id AND e.ended_at IS NOT NULL)
         FROM synchronous_calls d JOIN requests r ON r.id = d.request_id AND r.state = 'claimed' AND r.images_due = 0
         WHERE d.ended_at IS NULL AND d.started_at IS NULL ORDER BY d.next_at LIMIT 1",
    )?;
    let first = query
        .query_row([], |row| {
            let call = Call {
                id: row.get(0)?,
                request: row.get(1)?,
                earlier: row.get(3)?,
            };
            Ok((call, row.get::<_, Timestamp>(2)?))
        })
        .optional()?;
    Ok(match first {
        Some((call, at)) if at.due_in(now, longest).is_zero() => Due::Now(call),
        Some((_, at)) => Due::At(at),
        None => Due::Never,
    })
}

/// The intent: this call is made now. False when somebody else makes it, or it is not wanted.
pub fn begin(tx: &Tx<'_>, call: &Call) -> Stored<bool> {
    let begun = tx
        .prepare_cached(
            "UPDATE synchronous_calls SET started_at = ?1 WHERE id = ?2 AND started_at IS NULL
             AND EXISTS (SELECT 1 FROM requests WHERE id = ?3 AND state = 'claimed')",
        )?
        .execute(params![tx.now, call.id, call.request])?;
    tx.prepare_cached(
        "UPDATE batch_jobs SET status = 'processing', updated_at = ?
         WHERE status = 'pending' AND seq = (SELECT job FROM requests WHERE id = ?)",
    )?
    .execute(params![tx.now, call.request])?;
    Ok(begun == 1)
}

/// A call that was begun has ended. Where its request is to be asked again, that is at `again` if
/// that is before the job's time is over, and by a batch otherwise.
pub fn end(
    tx: &Tx<'_>,
    call: &Call,
    result: &CallResult<'_>,
    rules: RetryRules,
    again: Option<Timestamp>,
) -> Stored<()> {
    let answered = result.outcome == Outcome::Answered;
    let TokenUsage {
        input,
        cached,
        output,
        reasoning,
    } = result.tokens;
    tx.prepare_cached(
        "UPDATE synchronous_calls SET ended_at = ?, outcome = ?, error = ?, model = ?, response_id = ?, input_tokens = ?,
                cached_tokens = ?, output_tokens = ?, reasoning_tokens = ?
         WHERE id = ? AND ended_at IS NULL",
    )?
    .execute(params![
        tx.now,
        result.outcome,
        (!answered).then_some(result.error),
        result.model,
        result.response_id,
        input,
        cached,
        output,
        reasoning,
        call.id
    ])?;
    let request = settle::get_request(tx, call.request)?;
    if answered {
        return settle::succeed(tx, &request, result.text, AnswerOrigin::Call);
    }
    if request.state != RequestState::Claimed {
        return Ok(());
    }
    settle::judge(tx, &request, result.outcome, Some(result.error), rules)?;
    match again {
        Some(at) => claim_again(tx, &request, rules.max_attempts, at),
        None => Ok(()),
    }
}

/// What waits after a call that came to nothing is claimed by another one; the last of its attempts is
/// a batch's, which has a day for it.
fn claim_again(tx: &Tx<'_>, request: &RequestRow, most: u32, at: Timestamp) -> Stored<()> {
    let claimed = tx
        .prepare_cached(
            "UPDATE requests SET state = 'claimed'
             WHERE id = ? AND state = 'waiting' AND (attempts = 0 OR attempts + 1 < ?)",
        )?
        .execute(params![request.id, most])?;
    if claimed == 1 {
        plan(tx, request.id, at)?;
    }
    Ok(())
}

/// Calls that a process was at when it ended: whether they were made, nobody knows. Their requests
/// wait for a batch. Gives how many.
pub fn release_unfinished(tx: &Tx<'_>) -> Stored<usize> {
    let begun: Vec<i64> = {
        let mut query = tx.prepare(
            "SELECT request_id FROM synchronous_calls WHERE ended_at IS NULL AND started_at IS NOT NULL",
        )?;
        let rows = query.query_map([], |row| row.get(0))?;
        rows.collect::<Result<_, _>>()?
    };
    tx.execute(
        "UPDATE synchronous_calls SET ended_at = ?, outcome = 'missing', error = 'the process ended first'
         WHERE ended_at IS NULL AND started_at IS NOT NULL",
        [tx.now],
    )?;
    for request in &begun {
        tx.execute(
            "UPDATE requests SET state = 'waiting', attempts = attempts + 1, since = ? WHERE id = ? AND state = 'claimed'",
            params![tx.now, request],
        )?;
    }
    Ok(begun.len() + release(tx, None)?)
}

/// Planned calls of jobs that were accepted before that time go by a batch instead, those of
/// requests that are settled are dropped. Gives how many.
pub fn release_late(tx: &Tx<'_>, accepted_before: Timestamp) -> Stored<usize> {
    release(tx, Some(accepted_before))
}

fn release(tx: &Tx<'_>, accepted_before: Option<Timestamp>) -> Stored<usize> {
    let mut waits = tx.prepare_cached(
        "UPDATE requests SET state = 'waiting', since = ? WHERE id = ? AND state = 'claimed'",
    )?;
    let mut drop_call = tx.prepare_cached("DELETE FROM synchronous_calls WHERE id = ?")?;
    let late = late(tx, accepted_before)?;
    for (call, request) in &late {
        drop_call.execute([call])?;
        waits.execute(params![tx.now, request])?;
    }
    Ok(late.len())
}

/// Planned calls that are not to be made: too late, or not wanted any more.
fn late(view: &View, accepted_before: Option<Timestamp>) -> Stored<Vec<(i64, i64)>> {
    let mut query = view.prepare_cached(
        "SELECT d.id, d.request_id FROM synchronous_calls d JOIN requests r ON r.id = d.request_id
                JOIN batch_jobs j ON j.seq = r.job
         WHERE d.ended_at IS NULL AND d.started_at IS NULL
           AND (?1 IS NULL OR j.created_at < ?1 OR r.state <> 'claimed')",
    )?;
    let rows = query.query_map([accepted_before], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether any planned call is not to be made; see [`release_late`].
pub fn any_late(view: &View, accepted_before: Timestamp) -> Stored<bool> {
    Ok(!late(view, Some(accepted_before))?.is_empty())
}

/// When the job of a request was accepted.
pub fn accepted_at(view: &View, request: i64) -> Stored<Timestamp> {
    let mut query = view.prepare_cached(
        "SELECT j.created_at FROM requests r JOIN batch_jobs j ON j.seq = r.job WHERE r.id = ?",
    )?;
    Ok(query.query_row([request], |row| row.get(0))?)
}

/// Whether a part of a job is left to the batches: nothing of it is asked directly any more.
pub fn is_released(view: &View, job: i64) -> Stored<bool> {
    let mut query = view.prepare_cached(
        "SELECT open_vision + open_translations > 0
                AND NOT EXISTS (SELECT 1 FROM requests r JOIN synchronous_calls d ON d.request_id = r.id AND d.ended_at IS NULL
                                WHERE r.job = seq AND r.state = 'claimed')
         FROM batch_jobs WHERE seq = ?",
    )?;
    Ok(query.query_row([job], |row| row.get(0))?)
}
