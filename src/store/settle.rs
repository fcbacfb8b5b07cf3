//! Answers reach their lots: one line taken in, one request settled, one lot finished.
//!
//! The counters of `batch_jobs` change here and in [`super::jobs`] only, in the transaction that
//! changes the rows they count: `open_vision` and `open_translations` are its requests that are
//! waiting, claimed or held; `processed_lots` and `failed_lots` its lots that are finished.

use std::cell::RefCell;
use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};

use super::batches::{self, BatchRow};
use super::{Stored, Tx, View, alerts, events, requests, synchronous_calls};
use crate::base::fields::Fields;
use crate::domain::alert::AlertSubject;
use crate::domain::batch::{CustomId, History, Outcome, Scheme, Stage, Verdict};
use crate::domain::job::{LotStatus, NO_IMAGE, RequestState, is_english};
use crate::domain::usage::TokenUsage;

/// What a result file says of one line.
#[derive(Clone, Debug)]
pub struct LineResult<'a> {
    /// As it stands in the file.
    pub custom_id: &'a str,
    /// What came back.
    pub outcome: Outcome,
    /// The text, of an answered one.
    pub text: &'a str,
    /// What OpenAI said, of another.
    pub error: &'a str,
    /// Its tokens.
    pub tokens: TokenUsage,
}

/// Takes one line of a result file in. False when it belongs to no line of this batch.
///
/// Repeating it changes nothing: the first success of a line wins, and the first error until then.
pub fn take_line(tx: &Tx<'_>, batch: &BatchRow, line: &LineResult<'_>) -> Stored<bool> {
    let requests = match batch.scheme {
        Scheme::Own => own_request(tx, batch, line.custom_id)?
            .into_iter()
            .collect(),
        Scheme::Legacy => legacy_requests(tx, batch.id, line.custom_id)?,
    };
    let mut line = line.clone();
    for request in &requests {
        note(tx, batch.id, *request, &line)?;
        // Of a line that answers several requests the tokens were paid once.
        line.tokens = TokenUsage::ZERO;
    }
    Ok(!requests.is_empty())
}

fn own_request(view: &View, batch: &BatchRow, custom_id: &str) -> Stored<Option<i64>> {
    let Ok(id) = custom_id.parse::<CustomId>() else {
        return Ok(None);
    };
    let mut query = view.prepare_cached(
        "SELECT r.id FROM batch_lots l JOIN requests r ON r.lot = l.id AND r.stage = ? AND r.language = ?
                JOIN batch_lines b ON b.request_id = r.id AND b.batch_id = ?
         WHERE l.batch_job_id = ? AND l.position = ?",
    )?;
    let language = id.language.as_deref().unwrap_or("");
    let found = query.query_row(
        params![id.stage(), language, batch.id, id.job, id.position],
        |row| row.get(0),
    );
    Ok(found.optional()?)
}

fn legacy_requests(view: &View, batch: i64, custom_id: &str) -> Stored<Vec<i64>> {
    let mut query = view.prepare_cached(
        "SELECT request_id FROM batch_lines WHERE batch_id = ? AND custom_id = ?",
    )?;
    let rows = query.query_map(params![batch, custom_id], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn note(tx: &Tx<'_>, batch: i64, request: i64, line: &LineResult<'_>) -> Stored<()> {
    let answered = line.outcome == Outcome::Answered;
    let error = (!answered).then_some(line.error);
    let TokenUsage {
        input,
        cached,
        output,
        reasoning,
    } = line.tokens;
    let first = tx
        .prepare_cached(
            "UPDATE batch_lines SET outcome = ?1, error = ?2, settled = max(settled, ?3), input_tokens = ?4,
                    cached_tokens = ?5, output_tokens = ?6, reasoning_tokens = ?7
             WHERE batch_id = ?8 AND request_id = ?9 AND (outcome IS NULL OR (?3 AND outcome <> 'answered'))",
        )?
        .execute(params![line.outcome, error, answered, input, cached, output, reasoning, batch, request])?;
    if first == 1 && answered {
        succeed(tx, &open_request(tx, request)?, line.text, By::Batch)?;
    }
    Ok(())
}

/// A request with the lot and job that it belongs to.
pub(super) struct Request {
    pub(super) id: i64,
    lot: i64,
    job: i64,
    stage: Stage,
    language: String,
    pub(super) state: RequestState,
    history: History,
}

pub(super) fn open_request(view: &View, id: i64) -> Stored<Request> {
    let mut query = view.prepare_cached(
        "SELECT id, lot, job, stage, language, state, attempts, cap_raised, image_failures FROM requests WHERE id = ?",
    )?;
    Ok(query.query_row([id], |row| {
        Ok(Request {
            id: row.get(0)?,
            lot: row.get(1)?,
            job: row.get(2)?,
            stage: row.get(3)?,
            language: row.get(4)?,
            state: row.get(5)?,
            history: History {
                attempts: row.get(6)?,
                raised: row.get(7)?,
                image_rounds: row.get(8)?,
            },
        })
    })?)
}

impl Request {
    fn is_open(&self) -> bool {
        matches!(
            self.state,
            RequestState::Waiting | RequestState::Claimed | RequestState::Held
        )
    }

    fn settle(&self, tx: &Tx<'_>, state: RequestState) -> Stored<()> {
        tx.prepare_cached(
            "UPDATE requests SET state = ?, images_due = 0, batch_cap = NULL WHERE id = ?",
        )?
        .execute(params![state, self.id])?;
        Ok(())
    }
}

/// What brought a text: a lot's translations are asked for in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Batch,
    Call,
}

/// A text for a request. What is paid is not thrown away: a text for a request that has its verdict
/// already (its job was cancelled, its lot failed) is stored, and changes no state.
pub(super) fn succeed(tx: &Tx<'_>, request: &Request, text: &str, by: By) -> Stored<()> {
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
        settle_answered(tx, request, by)?;
    }
    Ok(())
}

/// An open request has its text.
pub(super) fn settle_answered(tx: &Tx<'_>, request: &Request, by: By) -> Stored<()> {
    request.settle(tx, RequestState::Done)?;
    // It was answered by a twin of an earlier batch.
    requests::leave_planned(tx, request.id)?;
    let translations = if request.stage == Stage::Vision {
        want_translations(tx, request, by)?
    } else {
        0
    };
    count_settled(tx, request, translations);
    finish_lot(tx, request, None)
}

/// Makes the translation requests of a lot that has its description; gives how many are new.
fn want_translations(tx: &Tx<'_>, vision: &Request, by: By) -> Stored<i64> {
    let languages: String = tx
        .prepare_cached("SELECT languages FROM batch_jobs WHERE seq = ?")?
        .query_row([vision.job], |row| row.get(0))?;
    let languages: Vec<String> = serde_json::from_str(&languages)?;
    let state = match by {
        By::Batch => RequestState::Waiting,
        By::Call => RequestState::Claimed,
    };
    // One is there already where a batch was linked that had asked for it (see `put_off`), and a text
    // where the earlier service had it.
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
            .query_row(
                params![vision.lot, vision.job, language, state, tx.now],
                |row| row.get(0),
            )
            .optional()?;
        if let Some(request) = new {
            made += 1;
            if by == By::Call {
                synchronous_calls::plan(tx, request, tx.now)?;
            }
        }
    }
    Ok(made)
}

/// What the settled requests and finished lots of one job change in its counters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    vision: i64,
    translations: i64,
    new_translations: i64,
    finished_lots: i64,
    failed_lots: i64,
}

/// Tallies by job. They are written once, before the transaction commits: a job's row is wide, and its
/// lines come by the hundred.
pub(super) type Tallies = RefCell<BTreeMap<i64, Tally>>;

/// Counts what was settled into the jobs' rows.
pub(super) fn write_tallies(tx: &Tx<'_>) -> Stored<()> {
    let tallies = tx.tallies.take();
    if tallies.is_empty() {
        return Ok(());
    }
    let mut count = tx.prepare_cached(
        "UPDATE batch_jobs SET open_vision = open_vision - ?1, open_translations = open_translations - ?2 + ?3,
                processed_lots = processed_lots + ?4, failed_lots = failed_lots + ?5, updated_at = ?6,
                status = CASE WHEN status IN ('pending', 'processing') AND open_vision = ?1 THEN 'translating' ELSE status END
         WHERE seq = ?7",
    )?;
    for (job, tally) in tallies {
        count.execute(params![
            tally.vision,
            tally.translations,
            tally.new_translations,
            tally.finished_lots,
            tally.failed_lots,
            tx.now,
            job
        ])?;
    }
    Ok(())
}

fn tally(tx: &Tx<'_>, request: &Request, add: impl FnOnce(&mut Tally)) {
    add(tx.tallies.borrow_mut().entry(request.job).or_default());
}

/// One request of a job is settled, and `translations` new ones are open.
fn count_settled(tx: &Tx<'_>, request: &Request, translations: i64) {
    tally(tx, request, |tally| {
        match request.stage {
            Stage::Vision => tally.vision += 1,
            Stage::Translation => tally.translations += 1,
        }
        tally.new_translations += translations;
    });
}

/// Finishes a request's lot when none of its requests is open any more.
fn finish_lot(tx: &Tx<'_>, request: &Request, failure: Option<&str>) -> Stored<()> {
    let open: bool = tx
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM requests WHERE lot = ? AND state IN ('waiting', 'claimed', 'held'))")?
        .query_row([request.lot], |row| row.get(0))?;
    if open {
        return Ok(());
    }
    let (languages, described, translated): (String, bool, bool) = tx
        .prepare_cached(
            "SELECT j.languages, l.vision_result IS NOT NULL,
                    EXISTS (SELECT 1 FROM lot_translations t WHERE t.lot = l.id AND t.text IS NOT NULL)
             FROM batch_lots l, batch_jobs j WHERE l.id = ? AND j.seq = ?",
        )?
        .query_row([request.lot, request.job], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let languages: Vec<String> = serde_json::from_str(&languages)?;
    let has_text =
        translated || (described && languages.iter().any(|language| is_english(language)));
    let status = if has_text {
        LotStatus::Completed
    } else {
        LotStatus::Failed
    };
    // A recovered translation may outlive the description: what was not asked for then has no other
    // place for its reason.
    let has_reason = !has_text || (!described && lacks_word(tx, request.lot, &languages)?);
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
        tally(tx, request, |tally| {
            tally.finished_lots += 1;
            tally.failed_lots += i64::from(!has_text);
        });
    }
    Ok(())
}

/// Whether a language of a lot has neither a text nor a reason of its own.
fn lacks_word(view: &View, lot: i64, languages: &[String]) -> Stored<bool> {
    let mut known = view.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM lot_translations WHERE lot = ? AND language = ?)",
    )?;
    for language in languages {
        let is_known: bool = known.query_row(params![lot, language], |row| row.get(0))?;
        if !is_known {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A request failed for good; its lot says why.
fn fail(tx: &Tx<'_>, request: &Request, reason: &str) -> Stored<()> {
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
    count_settled(tx, request, 0);
    finish_lot(tx, request, Some(reason))
}

/// Fails a request that was not sent: too few of its lot's images can be fetched, or it fits into no
/// batch.
pub fn fail_unsent(tx: &Tx<'_>, request: i64, reason: &str) -> Stored<()> {
    let request = open_request(tx, request)?;
    if synchronous_calls::drop_planned(tx, request.id)? || request.state == RequestState::Waiting {
        fail(tx, &request, reason)
    } else {
        Ok(())
    }
}

/// What decides over lines without a text.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Attempts in all.
    pub max_attempts: u32,
    /// Whether images can be checked anew.
    pub check_images: bool,
    /// The next batch of a line that was not run holds at most so many.
    pub batch_cap: Option<u32>,
}

/// Gives the lines of a batch beyond `after` their verdict, up to `limit` of them, in the order of
/// its input. Gives the last request seen, or none when all are settled.
pub fn settle_lines(
    tx: &Tx<'_>,
    batch: i64,
    after: i64,
    limit: u32,
    rules: Rules,
) -> Stored<Option<i64>> {
    let mut query = tx.prepare_cached(
        "SELECT request_id, outcome, error, settled FROM batch_lines WHERE batch_id = ? AND request_id > ?
         ORDER BY request_id LIMIT ?",
    )?;
    let mut rows = query.query(params![batch, after, limit])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let request = row.get(0)?;
        last = Some(request);
        let settled: bool = row.get(3)?;
        if !settled {
            let outcome: Option<Outcome> = row.get(1)?;
            let error: Option<String> = row.get(2)?;
            settle_line(
                tx,
                batch,
                request,
                outcome.unwrap_or(Outcome::Missing),
                error.as_deref(),
                rules,
            )?;
        }
    }
    Ok(last)
}

fn settle_line(
    tx: &Tx<'_>,
    batch: i64,
    request: i64,
    outcome: Outcome,
    error: Option<&str>,
    rules: Rules,
) -> Stored<()> {
    tx.prepare_cached(
        "UPDATE batch_lines SET settled = 1, outcome = ?, error = ? WHERE batch_id = ? AND request_id = ?",
    )?
    .execute(params![outcome, error, batch, request])?;
    let request = open_request(tx, request)?;
    if request.state != RequestState::Claimed || is_in_another_batch(tx, batch, request.id)? {
        return Ok(());
    }
    judge(tx, &request, outcome, error, rules)
}

/// The verdict on a claimed request that has no text: it waits again, or fails with the reason.
pub(super) fn judge(
    tx: &Tx<'_>,
    request: &Request,
    outcome: Outcome,
    error: Option<&str>,
    rules: Rules,
) -> Stored<()> {
    match outcome.verdict(request.history, rules.max_attempts) {
        Verdict::Fail => fail(tx, request, &reason(outcome, error, request.history)),
        Verdict::Again { .. }
            if request.stage == Stage::Translation && !is_described(tx, request.lot)? =>
        {
            put_off(tx, request)
        }
        Verdict::Again {
            counted,
            raise,
            check_images,
        } => {
            tx.prepare_cached(
                "UPDATE requests SET state = 'waiting', attempts = attempts + ?, cap_raised = max(cap_raised, ?),
                        image_failures = image_failures + ?, images_due = ?, batch_cap = ?, since = ?
                 WHERE id = ? AND state = 'claimed'",
            )?
            .execute(params![
                counted,
                raise,
                check_images,
                check_images && rules.check_images,
                if outcome == Outcome::NotRun { rules.batch_cap } else { None },
                tx.now,
                request.id
            ])?;
            Ok(())
        }
    }
}

/// Whether a lot has its English description.
fn is_described(view: &View, lot: i64) -> Stored<bool> {
    let mut query =
        view.prepare_cached("SELECT vision_result IS NOT NULL FROM batch_lots WHERE id = ?")?;
    Ok(query.query_row([lot], |row| row.get(0))?)
}

/// A batch that was linked had asked for a translation, and nothing is there to be translated in this
/// database: it is wanted again when its lot is described, and never where that has failed.
fn put_off(tx: &Tx<'_>, request: &Request) -> Stored<()> {
    let described_later: bool = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM requests
                            WHERE lot = ? AND stage = 'vision' AND state IN ('waiting', 'claimed', 'held'))",
        )?
        .query_row([request.lot], |row| row.get(0))?;
    if !described_later {
        return fail(tx, request, "its lot has no description to translate");
    }
    request.settle(tx, RequestState::Cancelled)?;
    count_settled(tx, request, 0);
    Ok(())
}

/// Whether another batch may still answer a request: two were made under one key.
fn is_in_another_batch(view: &View, batch: i64, request: i64) -> Stored<bool> {
    let mut query = view.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM batch_lines WHERE request_id = ? AND batch_id <> ? AND settled = 0)",
    )?;
    Ok(query.query_row([request, batch], |row| row.get(0))?)
}

fn reason(outcome: Outcome, error: Option<&str>, history: History) -> String {
    let attempts = history.attempts + 1;
    let said = error.filter(|error| !error.is_empty());
    let what = match outcome {
        Outcome::Missing => "OpenAI's result files say nothing of it",
        Outcome::Truncated => "the answer was cut short twice, the second time with a higher limit",
        Outcome::ImageUnreachable => "IMAGE_UNREACHABLE: OpenAI could not fetch its images",
        Outcome::Refused => "the model refused",
        Outcome::Filtered => "a content filter stopped the answer",
        Outcome::Unreadable => "the result line cannot be read",
        _ => "OpenAI answered with an error",
    };
    let tries = if attempts > 1 {
        format!(" (after {attempts} attempts)")
    } else {
        String::new()
    };
    match said {
        Some(said) => format!("{what}{tries}: {said}"),
        None => format!("{what}{tries}"),
    }
}

/// Marks every line of a batch that OpenAI did not run; `lines`: those to blame, by their number
/// from 1, with what is wrong with each.
pub fn mark_not_run(tx: &Tx<'_>, batch: i64, lines: &[(u64, String)]) -> Stored<()> {
    tx.execute(
        "UPDATE batch_lines SET outcome = 'not_run' WHERE batch_id = ? AND outcome IS NULL",
        [batch],
    )?;
    if lines.is_empty() {
        return Ok(());
    }
    let mut requests = tx.prepare_cached(
        "SELECT request_id FROM batch_lines WHERE batch_id = ? ORDER BY request_id",
    )?;
    let requests: Vec<i64> = requests
        .query_map([batch], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut blame = tx.prepare_cached(
        "UPDATE batch_lines SET outcome = 'wrong', error = ? WHERE batch_id = ? AND request_id = ?",
    )?;
    for (line, error) in lines {
        let at = line.checked_sub(1).and_then(|at| usize::try_from(at).ok());
        if let Some(request) = at.and_then(|at| requests.get(at)) {
            blame.execute(params![error, batch, request])?;
        }
    }
    Ok(())
}

/// Settles a whole batch that never reached OpenAI, or is given up, in one transaction.
pub fn abandon(tx: &Tx<'_>, batch: i64, reason: &str, rules: Rules) -> Stored<()> {
    mark_not_run(tx, batch, &[])?;
    let mut after = 0;
    while let Some(last) = settle_lines(tx, batch, after, u32::MAX, rules)? {
        after = last;
    }
    alerts::close_all(tx, &AlertSubject::Batch(batch))?;
    batches::mark_abandoned(tx, batch, reason)
}

/// What OpenAI's counts are held against: how many of a batch's lines are in neither file as read so
/// far, and how many the model has answered, one way or another.
pub fn unread_lines(view: &View, batch: i64) -> Stored<(u64, u64)> {
    let mut query = view.prepare_cached(
        "SELECT coalesce(sum(outcome IS NULL), 0),
                coalesce(sum(outcome IN ('answered', 'refused', 'truncated', 'filtered')), 0)
         FROM batch_lines WHERE batch_id = ?",
    )?;
    Ok(query.query_row([batch], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// Whether nobody wants any answer of a batch any more: no request of it is open. Its jobs were
/// cancelled, or another batch under an earlier key answered them after all.
pub fn is_unwanted(view: &View, batch: i64) -> Stored<bool> {
    let mut query = view.prepare_cached(
        "SELECT NOT EXISTS (SELECT 1 FROM batch_lines l JOIN requests r ON r.id = l.request_id
                            WHERE l.batch_id = ? AND r.state IN ('waiting', 'claimed', 'held'))",
    )?;
    Ok(query.query_row([batch], |row| row.get(0))?)
}

/// An operator's word that an orphan's held requests are to be sent, their lots' images checked
/// before where `check_images`; gives how many. A lot without an image fails, as at its submission.
pub fn release_held(tx: &Tx<'_>, job_id: &str, check_images: bool) -> Stored<usize> {
    let released = tx.execute(
        "UPDATE requests SET state = 'waiting', images_due = (?1 AND stage = 'vision'), since = ?2
         WHERE state = 'held' AND job = (SELECT seq FROM batch_jobs WHERE id = ?3)",
        params![check_images, tx.now, job_id],
    )?;
    let mut without_image = tx.prepare(
        "SELECT r.id FROM requests r JOIN batch_lots l ON l.id = r.lot
         WHERE l.batch_job_id = ? AND r.state = 'waiting' AND r.stage = 'vision' AND json_array_length(l.images) = 0",
    )?;
    let without_image: Vec<i64> = without_image
        .query_map([job_id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for request in without_image {
        fail_unsent(tx, request, NO_IMAGE)?;
    }
    events::record(
        tx,
        Some(job_id),
        None,
        "released",
        Fields::new().with("requests", released),
    )?;
    Ok(released)
}
