//! One request is settled: it has its text, it failed, or an operator releases it. Its lot is finished with
//! the last of its requests.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::cancelled::cancel_lot;
use super::languages::{JobLanguages, lacks_outcome};
use super::tally::{count_finished_lot, count_settled};
use crate::domain::batch::Stage;
use crate::domain::decide::failed_line::RequestHistory;
use crate::domain::job::{LotStatus, NO_IMAGE, RequestState, is_english};
use crate::store::predicates::OPEN_REQUEST;
use crate::store::{Stored, Tx, images, planned_calls, requests};

/// A request with the lot and job that it belongs to.
pub(in crate::store) struct RequestRow {
    pub(in crate::store) id: i64,
    pub(super) lot: i64,
    pub(super) job: i64,
    pub(super) stage: Stage,
    language: String,
    pub(in crate::store) state: RequestState,
    pub(super) history: RequestHistory,
}

/// The request of that row, for a change of it. If its job is being cancelled and the turn of its lot has not
/// come, the lot is cancelled first: what comes after the mark is late.
pub(in crate::store) fn get_request(tx: &Tx<'_>, id: i64) -> Stored<RequestRow> {
    let mut query = tx.prepare_cached(
        "SELECT r.id, r.lot, r.job, r.stage, r.language, r.state, r.attempts, r.cap_raised, r.image_failures,
                r.transient_failures, r.transient_wait_ms, r.refusals,
                j.pending_change IS 'cancel' AS is_cancelled
         FROM requests r JOIN batch_jobs j ON j.seq = r.job WHERE r.id = ?",
    )?;
    let (mut request, is_cancelled): (RequestRow, bool) = query.query_row([id], |row| {
        let request = RequestRow {
            id: row.get(0)?,
            lot: row.get(1)?,
            job: row.get(2)?,
            stage: row.get(3)?,
            language: row.get(4)?,
            state: row.get(5)?,
            history: RequestHistory {
                attempts: row.get(6)?,
                raised: row.get(7)?,
                image_rounds: row.get(8)?,
                transient_failures: row.get(9)?,
                transient_waited: Duration::from_millis(row.get(10)?),
                refusals: row.get(11)?,
            },
        };
        Ok((request, row.get("is_cancelled")?))
    })?;
    if is_cancelled && request.is_open() {
        let languages = JobLanguages::get(tx, request.job)?;
        cancel_lot(tx, request.job, request.lot, &languages)?;
        request.state = RequestState::Cancelled;
    }
    Ok(request)
}

impl RequestRow {
    /// Whether the request has no outcome yet.
    fn is_open(&self) -> bool {
        matches!(
            self.state,
            RequestState::Waiting | RequestState::Claimed | RequestState::Held
        )
    }

    /// Gives the request its last state.
    pub(super) fn settle(&self, tx: &Tx<'_>, state: RequestState) -> Stored<()> {
        tx.prepare_cached(
            "UPDATE requests SET state = ?, images_due = 0, batch_cap = NULL, retry_at = NULL WHERE id = ?",
        )?
        .execute(params![state, self.id])?;
        Ok(())
    }
}

/// How a text was asked for. A lot's translations are asked for in the same way as its description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum AnswerOrigin {
    /// By a line of a batch.
    Batch,
    /// By a synchronous call.
    Call,
}

/// Stores the text of a request. A text for a request that is settled already (its job was cancelled, its
/// lot failed) is stored too, as it is paid for, and changes no state.
pub(in crate::store) fn succeed(
    tx: &Tx<'_>,
    request: &RequestRow,
    text: &str,
    origin: AnswerOrigin,
) -> Stored<()> {
    match request.stage {
        Stage::Vision => {
            tx.prepare_cached(
                "UPDATE batch_lots SET vision_result = ?,
                        error_message = CASE status WHEN 'failed' THEN error_message END
                 WHERE id = ? AND vision_result IS NULL",
            )?
            .execute(params![text, request.lot])?;
        }
        Stage::Translation => {
            tx.prepare_cached(
                "INSERT INTO lot_translations (lot, language, text) VALUES (?, ?, ?)
                 ON CONFLICT DO UPDATE SET text = excluded.text, error = NULL WHERE text IS NULL",
            )?
            .execute(params![request.lot, request.language, text])?;
        }
    }
    if request.is_open() {
        settle_answered(tx, request, origin)?;
    }
    Ok(())
}

/// Settles an open request that has its text.
pub(in crate::store) fn settle_answered(
    tx: &Tx<'_>,
    request: &RequestRow,
    origin: AnswerOrigin,
) -> Stored<()> {
    request.settle(tx, RequestState::Done)?;
    // A second batch under the key of an earlier one may have answered it.
    requests::leave_planned(tx, request.id)?;
    let translations = if request.stage == Stage::Vision {
        want_translations(tx, request, origin)?
    } else {
        0
    };
    count_settled(tx, request.job, request.stage, translations);
    finish_lot(tx, request, None)
}

/// Makes the translation requests of a lot that has its description. Returns how many are new.
fn want_translations(tx: &Tx<'_>, vision: &RequestRow, origin: AnswerOrigin) -> Stored<i64> {
    let JobLanguages(languages) = JobLanguages::get(tx, vision.job)?;
    let state = match origin {
        AnswerOrigin::Batch => RequestState::Waiting,
        AnswerOrigin::Call => RequestState::Claimed,
    };
    // A request is there already if a linked batch had asked for it (see `verdict::put_off`), and a text if
    // the earlier service had it.
    let mut want = tx.prepare_cached(
        "INSERT INTO requests (lot, job, stage, language, state, since)
         SELECT ?1, ?2, 'translation', ?3, ?4, ?5
         WHERE NOT EXISTS (SELECT 1 FROM lot_translations t WHERE t.lot = ?1 AND t.language = ?3 AND t.text IS NOT NULL)
         ON CONFLICT (lot, stage, language) DO UPDATE SET state = excluded.state, since = excluded.since
            WHERE state = 'cancelled'
         RETURNING id",
    )?;
    let mut made = 0;
    for language in languages.iter().filter(|language| !is_english(language)) {
        let new: Option<i64> = want
            .query_row(params![vision.lot, vision.job, language, state, tx.now], |row| {
                row.get(0)
            })
            .optional()?;
        if let Some(request) = new {
            made += 1;
            if origin == AnswerOrigin::Call {
                planned_calls::plan(tx, request, tx.now)?;
            }
        }
    }
    Ok(made)
}

/// Finishes a request's lot when none of its requests is open any more.
fn finish_lot(tx: &Tx<'_>, request: &RequestRow, failure: Option<&str>) -> Stored<()> {
    let open: bool = tx
        .prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM requests WHERE lot = ? AND {OPEN_REQUEST})"
        ))?
        .query_row([request.lot], |row| row.get(0))?;
    if open {
        return Ok(());
    }
    let job = JobLanguages::get(tx, request.job)?;
    let texts = job.texts_of(tx, request.lot)?;
    let status = texts.settled();
    let has_text = status == LotStatus::Completed;
    // A recovered translation may be there without a description. The lot then holds the reason for the
    // languages that were never asked for.
    let has_reason = !has_text || (!texts.is_described && lacks_outcome(tx, request.lot, &job.0)?);
    let finished = tx
        .prepare_cached(
            "UPDATE batch_lots SET status = ?1, processed_at = ?2,
                    error_message = CASE WHEN ?3 THEN coalesce(error_message, ?4) END
             WHERE id = ?5 AND status = 'pending'",
        )?
        .execute(params![
            status,
            tx.now,
            has_reason,
            failure.unwrap_or("no language has a text"),
            request.lot
        ])?;
    if finished == 1 {
        count_finished_lot(tx, request.job, !has_text);
    }
    Ok(())
}

/// Fails a request for good; its lot holds the reason.
pub(super) fn fail(tx: &Tx<'_>, request: &RequestRow, reason: &str) -> Stored<()> {
    request.settle(tx, RequestState::Failed)?;
    match request.stage {
        Stage::Vision => {
            tx.prepare_cached(
                "UPDATE batch_lots SET error_message = ? WHERE id = ? AND vision_result IS NULL",
            )?
            .execute(params![reason, request.lot])?;
        }
        Stage::Translation => {
            tx.prepare_cached(
                "INSERT OR IGNORE INTO lot_translations (lot, language, error) VALUES (?, ?, ?)",
            )?
            .execute(params![request.lot, request.language, reason])?;
        }
    }
    count_settled(tx, request.job, request.stage, 0);
    finish_lot(tx, request, Some(reason))
}

/// Fails a request that was not sent, because too few of its lot's images can be fetched or it fits into no
/// batch.
pub fn fail_unsent(tx: &Tx<'_>, request: i64, reason: &str) -> Stored<()> {
    let request = get_request(tx, request)?;
    if planned_calls::drop_planned(tx, request.id)? || request.state == RequestState::Waiting {
        fail(tx, &request, reason)
    } else {
        Ok(())
    }
}

/// Releases the held requests of a lot. Its images are checked first if `check_images`. A lot without an image
/// fails, as at its submission.
pub(in crate::store) fn release_lot(tx: &Tx<'_>, lot: i64, check_images: bool) -> Stored<()> {
    let released = tx
        .prepare_cached(
            "UPDATE requests SET state = 'waiting', images_due = (?1 AND stage = 'vision'), since = ?2
             WHERE lot = ?3 AND state = 'held'",
        )?
        .execute(params![check_images, tx.now, lot])?;
    if released == 0 {
        return Ok(());
    }
    let is_checked: bool = tx
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM requests WHERE lot = ? AND images_due = 1)")?
        .query_row([lot], |row| row.get(0))?;
    if is_checked {
        images::clear_missing(tx, lot)?;
    }
    let without_image: Option<i64> = tx
        .prepare_cached(
            "SELECT r.id FROM requests r JOIN batch_lots l ON l.id = r.lot
             WHERE r.lot = ? AND r.state = 'waiting' AND r.stage = 'vision' AND json_array_length(l.images) = 0",
        )?
        .query_row([lot], |row| row.get(0))
        .optional()?;
    match without_image {
        Some(request) => fail_unsent(tx, request, NO_IMAGE),
        None => Ok(()),
    }
}
