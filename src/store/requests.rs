//! `requests`: requests that wait, and how a batch claims them.

use std::time::Duration;

use rusqlite::params;

use super::lots::text_list;
use super::{StoreError, Stored, Tx, View};
use crate::base::clock::Timestamp;
use crate::domain::batch::{CustomId, Stage};
use crate::domain::job::RequestState;
use crate::domain::parameters::Parameters;
use crate::store::predicates::LIVE_JOB;

/// The waiting requests of a job in one stage.
#[derive(Clone, Debug)]
pub struct JobQueue {
    /// The job's row.
    pub job: i64,
    /// The client that submitted the job.
    pub client: String,
    /// Since when its first request waits.
    pub since: Timestamp,
    /// How many wait; counting stops at a limit.
    pub length: u32,
}

/// The condition of a request that may be packed. The index `requests_queue` finds it.
const QUEUED: &str = "state = 'waiting' AND stage = ? AND images_due = 0 AND retry_at IS NULL";

/// Some of the waiting requests.
#[derive(Clone, Copy, Debug)]
pub struct QueueFilter {
    /// Their stage.
    pub stage: Stage,
    /// The most lines that their next batch may have; `None` stands for requests without such a limit.
    pub cap: Option<u32>,
    /// Whether only those count that have not failed transiently.
    pub unfailed: bool,
}

impl QueueFilter {
    fn sql(&self) -> String {
        let unfailed = if self.unfailed {
            " AND transient_failures = 0"
        } else {
            ""
        };
        format!("{QUEUED} AND batch_cap IS ?{unfailed}")
    }
}

/// The queues of a stage, oldest job first; counting stops at `count_to`.
pub fn queues(view: &View, filter: QueueFilter, count_to: u32) -> Stored<Vec<JobQueue>> {
    let QueueFilter { stage, cap, .. } = filter;
    let condition = filter.sql();
    let mut first = view.prepare_cached(&format!(
        "SELECT since FROM requests WHERE job = ? AND {condition}"
    ))?;
    let mut count = view.prepare_cached(&format!(
        "SELECT count(*) FROM (SELECT 1 FROM requests WHERE job = ? AND {condition} LIMIT ?)"
    ))?;
    let mut jobs = view.prepare_cached(&format!(
        "SELECT seq, client FROM batch_jobs WHERE {LIVE_JOB} ORDER BY seq"
    ))?;
    let mut queues = Vec::new();
    let mut rows = jobs.query([])?;
    while let Some(row) = rows.next()? {
        let job = row.get(0)?;
        let times = first.query_and_then(params![job, stage, cap], |row| Ok(row.get(0)?))?;
        let since: Option<Timestamp> = view.readable(times).next().transpose()?;
        if let Some(since) = since {
            let length = count.query_row(params![job, stage, cap, count_to], |row| row.get(0))?;
            queues.push(JobQueue {
                job,
                client: row.get(1)?,
                since,
                length,
            });
        }
    }
    Ok(queues)
}

/// Lets up to `limit` requests be packed again whose time after a failure has come. A time further
/// away than `longest` is from a clock that was set back since. Returns how many.
pub fn release_due(tx: &Tx<'_>, longest: Duration, limit: u32) -> Stored<usize> {
    let mut release = tx.prepare_cached(
        "UPDATE requests SET retry_at = NULL, since = ?1
         WHERE id IN (SELECT id FROM requests WHERE retry_at <= ?1 OR retry_at > ?2 LIMIT ?3)",
    )?;
    Ok(release.execute(params![tx.now, tx.now + longest, limit])?)
}

/// Whether [`release_due`] would find a request.
pub fn has_due(view: &View, now: Timestamp, longest: Duration) -> Stored<bool> {
    let mut query = view.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM requests WHERE retry_at <= ?) OR EXISTS (SELECT 1 FROM requests WHERE retry_at > ?)",
    )?;
    Ok(query.query_row([now, now + longest], |row| row.get(0))?)
}

/// The caps of the waiting requests of a stage, the smallest first. Requests with different caps go into
/// different batches.
pub fn caps(view: &View, stage: Stage) -> Stored<Vec<u32>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT DISTINCT r.batch_cap FROM batch_jobs j JOIN requests r ON r.job = j.seq
         WHERE j.{LIVE_JOB}
           AND r.state = 'waiting' AND r.stage = ? AND r.images_due = 0 AND r.retry_at IS NULL
           AND r.batch_cap IS NOT NULL
         ORDER BY r.batch_cap"
    ))?;
    let caps = query.query_map([stage], |row| row.get(0))?;
    Ok(caps.collect::<Result<_, _>>()?)
}

/// All that a line of an input file is made from.
#[derive(Clone, Debug)]
pub struct InputLine {
    /// The request's row.
    pub request: i64,
    /// The custom id of its line.
    pub custom_id: CustomId,
    /// Whether its answer may be longer than usual.
    pub raised: bool,
    /// The seller's text.
    pub info: String,
    /// Image URLs that can be fetched, as far as is known.
    pub images: Vec<String>,
    /// The English description; empty in the vision stage.
    pub text: String,
}

impl InputLine {
    /// The body of its request.
    pub fn body(&self, parameters: &Parameters) -> serde_json::Value {
        let language = self.custom_id.language.as_deref().unwrap_or("");
        parameters.body(self.raised, &self.info, &self.images, &self.text, language)
    }
}

const LINE: &str = "r.id, r.language, r.cap_raised, l.position, l.batch_job_id, l.additional_info, l.images, \
    l.missing_images, l.vision_result";

fn line(row: &rusqlite::Row<'_>) -> Stored<InputLine> {
    let language: String = row.get(1)?;
    let missing = text_list(row.get(7)?)?;
    let mut images = text_list(row.get(6)?)?;
    images.retain(|image| !missing.contains(image));
    Ok(InputLine {
        request: row.get(0)?,
        custom_id: CustomId {
            job: row.get(4)?,
            position: row.get(3)?,
            language: (!language.is_empty()).then_some(language),
        },
        raised: row.get(2)?,
        info: row.get(5)?,
        images,
        text: row.get::<_, Option<String>>(8)?.unwrap_or_default(),
    })
}

/// Leaves out the queues in which no request can be read.
pub fn retain_readable(view: &View, filter: QueueFilter, queues: Vec<JobQueue>) -> Stored<Vec<JobQueue>> {
    let mut readable = Vec::with_capacity(queues.len());
    for queue in queues {
        if !waiting(view, queue.job, filter, 0, 1)?.is_empty() {
            readable.push(queue);
        }
    }
    Ok(readable)
}

/// Up to `limit` waiting requests of a job's queue whose row comes after `after`.
pub fn waiting(view: &View, job: i64, filter: QueueFilter, after: i64, limit: u32) -> Stored<Vec<InputLine>> {
    let condition = filter.sql();
    let mut query = view.prepare_cached(&format!(
        "SELECT {LINE} FROM (SELECT * FROM requests WHERE job = ? AND {condition} AND id > ?) r
            JOIN batch_lots l ON l.id = r.lot
         ORDER BY r.id"
    ))?;
    let lines = query.query_and_then(params![job, filter.stage, filter.cap, after], line)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    view.readable(lines).take(limit).collect()
}

/// The line of one request.
pub fn input_line(view: &View, request: i64) -> Stored<InputLine> {
    let mut query = view.prepare_cached(&format!(
        "SELECT {LINE} FROM requests r JOIN batch_lots l ON l.id = r.lot WHERE r.id = ?"
    ))?;
    query
        .query_and_then([request], line)?
        .next()
        .unwrap_or_else(|| Err(StoreError::Conflict(format!("request {request} is gone"))))
}

/// Up to `limit` lines of a batch beyond `after`, in the order of its input file.
pub fn lines(view: &View, batch: i64, after: i64, limit: u32) -> Stored<Vec<InputLine>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT {LINE} FROM batch_lines b JOIN requests r ON r.id = b.request_id JOIN batch_lots l ON l.id = r.lot
         WHERE b.batch_id = ? AND b.request_id > ? ORDER BY b.request_id LIMIT ?"
    ))?;
    query
        .query_and_then(params![batch, after, limit], line)?
        .collect()
}

/// Claims for a planned batch those of `requests` that still wait. Returns how many.
pub fn claim(tx: &Tx<'_>, batch: i64, requests: &[i64]) -> Stored<usize> {
    // A job may have been cancelled since its queue was read.
    let mut take = tx.prepare_cached(&format!(
        "UPDATE requests SET state = 'claimed' WHERE id = ? AND state = 'waiting'
            AND EXISTS (SELECT 1 FROM batch_jobs j WHERE j.seq = requests.job AND j.{LIVE_JOB})"
    ))?;
    let mut attempt = tx.prepare_cached("INSERT INTO batch_lines (batch_id, request_id) VALUES (?, ?)")?;
    let mut link = tx.prepare_cached(
        "INSERT OR IGNORE INTO batch_links (batch_id, job) SELECT ?, job FROM requests WHERE id = ?",
    )?;
    let mut claimed = 0;
    for request in requests {
        if take.execute([request])? == 1 {
            attempt.execute([batch, *request])?;
            link.execute([batch, *request])?;
            claimed += 1;
        }
    }
    Ok(claimed)
}

/// Removes a request from a batch that is not sealed yet.
pub(super) fn leave_planned(tx: &Tx<'_>, request: i64) -> Stored<()> {
    tx.prepare_cached(
        "DELETE FROM batch_lines WHERE request_id = ?
            AND (SELECT state FROM openai_batches b WHERE b.id = batch_id) = 'planned'",
    )?
    .execute([request])?;
    Ok(())
}

/// Lets every request go on that waits for its images to be checked, because the check was switched off.
pub fn pass_unchecked(tx: &Tx<'_>) -> Stored<usize> {
    Ok(tx.execute(
        "UPDATE requests SET images_due = 0, since = ? WHERE images_due = 1",
        [tx.now],
    )?)
}

/// Inserts a request unless the lot has it already. Returns whether it is new.
pub(super) fn insert_if_new(
    tx: &Tx<'_>,
    lot: i64,
    job: i64,
    stage: Stage,
    language: &str,
    state: RequestState,
) -> Stored<bool> {
    let added = tx
        .prepare_cached(
            "INSERT OR IGNORE INTO requests (lot, job, stage, language, state, since) VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![lot, job, stage, language, state, tx.now])?;
    Ok(added == 1)
}
