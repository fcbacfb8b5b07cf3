//! One line of a result file reaches the requests that it answers.

use rusqlite::{OptionalExtension, params};

use super::request::{AnswerOrigin, get_request, succeed};
use crate::domain::batch::{CustomId, Outcome, Scheme};
use crate::domain::parameters::Setting;
use crate::domain::usage::{AttemptUsage, TokenUsage};
use crate::store::batches::BatchRow;
use crate::store::{Stored, Tx, View};

/// One line of a result file.
#[derive(Clone, Debug)]
pub struct LineResult<'a> {
    /// The custom id in the file.
    pub custom_id: &'a str,
    /// The result of the line.
    pub outcome: Outcome,
    /// The text of an answered line; else empty.
    pub text: &'a str,
    /// What OpenAI said of a line without a text.
    pub error: &'a str,
    /// The setting that is to blame; `None` if none is.
    pub setting: Option<Setting>,
    /// Its tokens.
    pub usage: AttemptUsage,
}

/// Ingests one line of a result file. False if it belongs to no line of this batch.
///
/// Repeating it changes nothing: the first success of a line wins, and the first error until then. The lines of
/// an abandoned batch count as not run until then.
pub fn ingest_line(tx: &Tx<'_>, batch: &BatchRow, line: &LineResult<'_>) -> Stored<bool> {
    let requests = match batch.scheme {
        Scheme::Own => own_request(tx, batch, line.custom_id)?.into_iter().collect(),
        Scheme::Legacy => legacy_requests(tx, batch.id, line.custom_id)?,
    };
    let mut line = line.clone();
    for request in &requests {
        record_line(tx, batch.id, *request, &line)?;
        // A line may answer several requests, but its tokens were billed once.
        line.usage = AttemptUsage::Known(TokenUsage::ZERO);
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
    let mut query =
        view.prepare_cached("SELECT request_id FROM batch_lines WHERE batch_id = ? AND custom_id = ?")?;
    let rows = query.query_map(params![batch, custom_id], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn record_line(tx: &Tx<'_>, batch: i64, request: i64, line: &LineResult<'_>) -> Stored<()> {
    let answered = line.outcome == Outcome::Answered;
    let error = (!answered).then_some(line.error);
    let TokenUsage {
        input,
        cached,
        output,
        reasoning,
    } = line.usage.tokens();
    let first = tx
        .prepare_cached(
            "UPDATE batch_lines SET outcome = ?1, error = ?2, setting = ?10, settled = max(settled, ?3),
                    input_tokens = ?4, cached_tokens = ?5, output_tokens = ?6, reasoning_tokens = ?7, usage_unknown = ?11
             WHERE batch_id = ?8 AND request_id = ?9 AND (outcome IS NULL OR outcome = 'not_run' OR (?3 AND outcome <> 'answered'))",
        )?
        .execute(params![
            line.outcome,
            error,
            answered,
            input,
            cached,
            output,
            reasoning,
            batch,
            request,
            line.setting,
            line.usage.is_unknown()
        ])?;
    if first == 1 && answered {
        succeed(tx, &get_request(tx, request)?, line.text, AnswerOrigin::Batch)?;
    }
    Ok(())
}

/// What OpenAI's counts are compared with: how many of a batch's lines are in neither file as read so far,
/// and how many the model has answered, one way or another.
pub fn unread_lines(view: &View, batch: i64) -> Stored<(u64, u64)> {
    let mut query = view.prepare_cached(
        "SELECT coalesce(sum(outcome IS NULL OR outcome = 'not_run'), 0),
                coalesce(sum(outcome IN ('answered', 'refused', 'truncated', 'filtered')), 0)
         FROM batch_lines WHERE batch_id = ?",
    )?;
    Ok(query.query_row([batch], |row| Ok((row.get(0)?, row.get(1)?)))?)
}
