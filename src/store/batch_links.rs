//! Batches that are linked after the fact: a row is inserted for a batch that OpenAI has already, and its
//! lines claim the requests that they answer.

use std::collections::HashMap;

use rusqlite::{named_params, params};

use super::jobs::JobRow;
use super::{Stored, Tx, View, batches, events, jobs, requests, unclaimed_lines};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::batch::{Scheme, Stage};
use crate::domain::job::{RequestState, is_english};
use crate::domain::legacy::custom_ids;
use crate::domain::openai::{Batch, Identity};

/// A batch at OpenAI that gets a row, and the evidence for it.
pub struct BatchLink<'a> {
    /// OpenAI's batch.
    pub batch: &'a Batch,
    /// The account under which it was found.
    pub identity: &'a Identity,
    /// What it asks for.
    pub stage: Stage,
    /// How its custom ids are made.
    pub scheme: Scheme,
    /// The submission key of its row.
    pub key: &'a str,
    /// The custom ids in its files.
    pub custom_ids: &'a [String],
    /// Why it is linked.
    pub evidence: &'a str,
}

/// Links a batch of the earlier service to the job whose lots it names; gives the number of lines that fit.
pub fn link_legacy_batch(tx: &Tx<'_>, job_id: &str, link: &BatchLink<'_>) -> Stored<usize> {
    let Some(job) = jobs::by_id(tx, job_id)? else {
        return Ok(0);
    };
    let batch = insert_batch(tx, link, Some(job_id))?;
    let requests = requests_by_custom_id(tx, &job, link.stage)?;
    let mut lines = 0;
    for custom_id in link.custom_ids {
        for (lot, language) in requests.get(custom_id).into_iter().flatten() {
            let request = LineRequest {
                lot: *lot,
                job: job.seq,
                stage: link.stage,
                language,
            };
            lines += claim_line(tx, batch, &request, Some(custom_id))?;
        }
    }
    tx.execute(
        "UPDATE openai_batches SET lines = ? WHERE id = ?",
        params![lines, batch],
    )?;
    batches::link_jobs(tx, batch)?;
    record_link(tx, batch, link, lines)?;
    Ok(lines)
}

/// The lots and languages that the earlier service may have asked for under each custom id. Two lots of a job
/// may have the same id.
fn requests_by_custom_id(
    view: &View,
    job: &JobRow,
    stage: Stage,
) -> Stored<HashMap<String, Vec<(i64, String)>>> {
    let languages: Vec<Option<&str>> = match stage {
        Stage::Vision => vec![None],
        Stage::Translation => {
            let translated = job.languages.iter().filter(|it| !is_english(it));
            translated.map(|it| Some(it.as_str())).collect()
        }
    };
    let mut requests: HashMap<String, Vec<(i64, String)>> = HashMap::new();
    let mut lots = view.prepare_cached("SELECT id, lot_id FROM batch_lots WHERE batch_job_id = ?")?;
    let mut rows = lots.query([&job.id])?;
    while let Some(row) = rows.next()? {
        let (lot, lot_id): (i64, String) = (row.get("id")?, row.get("lot_id")?);
        for language in &languages {
            for id in custom_ids(&job.id, &lot_id, *language) {
                let request = (lot, language.unwrap_or("").to_owned());
                requests.entry(id).or_default().push(request);
            }
        }
    }
    Ok(requests)
}

/// Links a batch of this database whose row is lost. Its lines claim their requests afterwards; see
/// [`unclaimed_lines`].
pub fn link_own_batch(tx: &Tx<'_>, link: &BatchLink<'_>) -> Stored<()> {
    let batch = insert_batch(tx, link, None)?;
    if link.custom_ids.is_empty() {
        record_lost_lines(tx, batch, link.batch)?;
        return batches::mark_lost(tx, batch, link.evidence);
    }
    unclaimed_lines::add(tx, batch, link.custom_ids)?;
    record_link(tx, batch, link, link.custom_ids.len())
}

/// Stores what OpenAI says of a batch that is over and whose lines are not known any more.
fn record_lost_lines(tx: &Tx<'_>, id: i64, batch: &Batch) -> Stored<()> {
    let counts = batch.counts;
    tx.execute(
        "UPDATE openai_batches SET lines_without_job = ?, openai_completed = ? WHERE id = ?",
        params![
            counts.total.clamp(1, batches::MOST_LINES),
            counts.completed.min(batches::MOST_LINES),
            id
        ],
    )?;
    batches::record_usage(tx, id, batch)
}

fn insert_batch(tx: &Tx<'_>, link: &BatchLink<'_>, job_id: Option<&str>) -> Stored<i64> {
    let batch = link.batch;
    // The key is what the metadata says, and may be that of another batch.
    let key = match batches::by_key(tx, link.key)? {
        Some(_) => format!("{}#{}", link.key, batch.id),
        None => link.key.to_owned(),
    };
    tx.execute(
        "INSERT INTO openai_batches (submission_key, stage, scheme, state, openai_batch_id, job_id, base_url,
                organization, project, model, parameters, input_file_id, openai_time, openai_expires,
                openai_status,
                next_at, created_at, submitted_at)
         VALUES (:key, :stage, :scheme, 'submitted', :remote, :job, :base_url, :organization, :project,
             :model, '{}',
                :input, :time, :expires, :status, :now, :made, :now)",
        named_params! {
            ":key": key, ":stage": link.stage, ":scheme": link.scheme, ":remote": batch.id,
            ":job": job_id,
            ":base_url": link.identity.base_url, ":organization": link.identity.organization,
            ":project": link.identity.project, ":model": batch.model.as_deref().unwrap_or(""),
            ":input": batch.input_file_id, ":time": batch.created_at, ":expires": batch.expires_at,
            ":status": batch.status_text, ":now": tx.now,
            // Its cost counts on the day of its creation, not on that of its recovery.
            ":made": match batch.created_at {
                0 => tx.now,
                seconds => Timestamp::from_seconds(seconds),
            },
        },
    )?;
    Ok(tx.last_insert_rowid())
}

/// The request that a line of a linked batch answers.
pub(super) struct LineRequest<'a> {
    pub(super) lot: i64,
    pub(super) job: i64,
    pub(super) stage: Stage,
    pub(super) language: &'a str,
}

/// Adds a line to a linked batch, and claims its request unless that has its answer; gives the number of
/// lines added, 0 or 1.
pub(super) fn claim_line(
    tx: &Tx<'_>,
    batch: i64,
    of: &LineRequest<'_>,
    custom_id: Option<&str>,
) -> Stored<usize> {
    let LineRequest {
        lot,
        job,
        stage,
        language,
    } = *of;
    let is_final: bool = tx
        .prepare_cached("SELECT completed_at IS NOT NULL FROM batch_jobs WHERE seq = ?")?
        .query_row([job], |row| row.get(0))?;
    if is_final {
        // The job was cancelled meanwhile: a text is stored, and changes no state.
        requests::insert_if_new(tx, lot, job, stage, language, RequestState::Cancelled)?;
    } else if requests::insert_if_new(tx, lot, job, stage, language, RequestState::Claimed)?
        || claim_postponed(tx, lot, stage, language)?
    {
        tx.prepare_cached("UPDATE batch_jobs SET open_translations = open_translations + 1 WHERE seq = ?")?
            .execute([job])?;
    }
    let request: i64 = tx
        .prepare_cached("SELECT id FROM requests WHERE lot = ? AND stage = ? AND language = ?")?
        .query_row(params![lot, stage, language], |row| row.get(0))?;
    tx.prepare_cached("UPDATE requests SET state = 'claimed' WHERE id = ? AND state IN ('held', 'waiting')")?
        .execute([request])?;
    add_line(tx, batch, request, job, custom_id)
}

/// Adds a line to a linked batch. Its request leaves a batch that is not sealed. Gives the number of lines added,
/// 0 or 1.
pub(super) fn add_line(
    tx: &Tx<'_>,
    batch: i64,
    request: i64,
    job: i64,
    custom_id: Option<&str>,
) -> Stored<usize> {
    requests::leave_planned(tx, request)?;
    tx.prepare_cached("INSERT OR IGNORE INTO batch_links (batch_id, job) VALUES (?, ?)")?
        .execute([batch, job])?;
    Ok(tx
        .prepare_cached(
            "INSERT OR IGNORE INTO batch_lines (batch_id, request_id, custom_id) VALUES (?, ?, ?)",
        )?
        .execute(params![batch, request, custom_id])?)
}

/// Claims a translation that was postponed until its lot has a description; gives whether there was one.
fn claim_postponed(tx: &Tx<'_>, lot: i64, stage: Stage, language: &str) -> Stored<bool> {
    let claimed = tx
        .prepare_cached(
            "UPDATE requests SET state = 'claimed' WHERE lot = ? AND stage = ? AND language = ?
                 AND state = 'cancelled'",
        )?
        .execute(params![lot, stage, language])?;
    Ok(claimed == 1)
}

fn record_link(tx: &Tx<'_>, batch: i64, link: &BatchLink<'_>, lines: usize) -> Stored<()> {
    let detail = Fields::new()
        .with("openai_batch", link.batch.id.as_str())
        .with("lines", lines)
        .with("evidence", link.evidence.to_string());
    events::record(tx, None, Some(batch), "linked", detail)
}
