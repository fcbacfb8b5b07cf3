//! `batch_jobs`: taken in, looked up, moved along.

use rusqlite::{OptionalExtension, Row, named_params, params};
use serde_json::json;

use super::{Stored, Tx, View, events, moved, planned_calls};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::batch::{BatchState, Stage};
use crate::domain::job::{JobStatus, LotStatus, Mode, RequestState, Submission, receiver};

/// A job as pollers see it.
#[derive(Clone, Debug)]
pub struct JobRow {
    /// Its row.
    pub seq: i64,
    /// Its UUID.
    pub id: String,
    /// Whose it is.
    pub client: String,
    /// Where it stands.
    pub status: JobStatus,
    /// As sent.
    pub languages: Vec<String>,
    /// The job's own webhook.
    pub webhook_url: Option<String>,
    /// OpenAI's id of its newest vision batch.
    pub vision_batch: Option<String>,
    /// OpenAI's id of its newest translation batch.
    pub translation_batch: Option<String>,
    /// Lots in all.
    pub total_lots: u32,
    /// Lots finished, failed ones included.
    pub processed_lots: u32,
    /// Lots failed.
    pub failed_lots: u32,
    /// Why it failed, or was cancelled.
    pub error_message: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it became final.
    pub completed_at: Option<Timestamp>,
    /// Since when its lots and texts are not to be had any more.
    pub cleaning_since: Option<Timestamp>,
}

const COLUMNS: &str = "seq, id, client, status, languages, webhook_url, openai_batch_id, \
    openai_translation_batch_id, total_lots, processed_lots, failed_lots, error_message, created_at, updated_at, \
    completed_at, cleaning_since";

fn job_row(row: &Row<'_>) -> Stored<JobRow> {
    Ok(JobRow {
        seq: row.get(0)?,
        id: row.get(1)?,
        client: row.get(2)?,
        status: row.get(3)?,
        languages: serde_json::from_str(row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?)?,
        webhook_url: row.get(5)?,
        vision_batch: row.get(6)?,
        translation_batch: row.get(7)?,
        total_lots: row.get(8)?,
        processed_lots: row.get(9)?,
        failed_lots: row.get(10)?,
        error_message: row.get(11)?,
        created_at: row.get(12)?,
        updated_at: row.get(13)?,
        completed_at: row.get(14)?,
        cleaning_since: row.get(15)?,
    })
}

/// What a new job is made of.
pub struct NewJob<'a> {
    /// A random UUID.
    pub id: &'a str,
    /// Whose it is.
    pub client: &'a str,
    /// What was sent.
    pub submission: &'a Submission<'a>,
    /// Whether its images are checked before they are sent on.
    pub check_images: bool,
    /// How it is answered.
    pub mode: Mode,
}

/// Stores a job whole: its lots, their vision requests, its webhook deliveries. A lot without a
/// usable image fails at once, alone.
pub fn insert(tx: &Tx<'_>, new: &NewJob<'_>) -> Stored<()> {
    let lots = &new.submission.lots;
    let failed = lots.iter().filter(|lot| lot.images.is_empty()).count();
    tx.execute(
        "INSERT INTO batch_jobs (id, client, origin, processing_mode, status, languages, webhook_url, total_lots,
                                 processed_lots, failed_lots, open_vision, created_at, updated_at)
         VALUES (:id, :client, 'api', :mode, :status, :languages, :webhook, :total, :failed, :failed, :open, :now, :now)",
        named_params! {
            ":id": new.id, ":client": new.client, ":mode": new.mode, ":status": JobStatus::Pending,
            ":languages": json!(new.submission.languages).to_string(), ":webhook": new.submission.webhook_url,
            ":total": lots.len(), ":failed": failed, ":open": lots.len() - failed, ":now": tx.now,
        },
    )?;
    let job = tx.last_insert_rowid();
    let mut insert_lot = tx.prepare_cached(
        "INSERT INTO batch_lots (batch_job_id, position, lot_id, additional_info, images, missing_images, webhook_url,
                                 status, error_message, processed_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    let mut insert_request = tx.prepare_cached(
        "INSERT INTO requests (lot, job, stage, language, state, images_due, since) VALUES (?, ?, ?, '', ?, ?, ?)",
    )?;
    let state = match new.mode {
        Mode::Batch => RequestState::Waiting,
        Mode::Synchronous => RequestState::Claimed,
    };
    for (position, lot) in lots.iter().enumerate() {
        let missing = (!lot.unusable.is_empty()).then(|| json!(lot.unusable).to_string());
        let fails = lot.images.is_empty();
        let (status, error, processed_at) = if fails {
            (
                LotStatus::Failed,
                Some(crate::domain::job::NO_IMAGE),
                Some(tx.now),
            )
        } else {
            (LotStatus::Pending, None, None)
        };
        insert_lot.execute(params![
            new.id,
            position,
            lot.lot_id,
            lot.additional_info,
            json!(lot.images).to_string(),
            missing,
            lot.webhook_url,
            status,
            error,
            processed_at
        ])?;
        if !fails {
            let lot = tx.last_insert_rowid();
            insert_request.execute(params![
                lot,
                job,
                Stage::Vision,
                state,
                new.check_images,
                tx.now
            ])?;
            if new.mode == Mode::Synchronous {
                planned_calls::plan(tx, tx.last_insert_rowid(), tx.now)?;
            }
        }
    }
    let mut insert_delivery = tx.prepare_cached(
        "INSERT INTO webhook_deliveries (batch_job_id, url, host, state, created_at) VALUES (?, ?, ?, 'scheduled', ?)",
    )?;
    for url in new.submission.webhooks() {
        insert_delivery.execute(params![new.id, url, receiver(url), tx.now])?;
    }
    let detail = Fields::new()
        .with("client", new.client)
        .with("lots", lots.len())
        .with("languages", new.submission.languages.join(","));
    events::record(tx, Some(new.id), None, "accepted", detail)
}

/// The job of that id, where `client` may see it.
pub fn find(view: &View, client: &str, id: &str) -> Stored<Option<JobRow>> {
    let found = by_id(view, id)?;
    Ok(found.filter(|job| job.client == client))
}

/// The job of that id.
pub fn by_id(view: &View, id: &str) -> Stored<Option<JobRow>> {
    let mut query =
        view.prepare_cached(&format!("SELECT {COLUMNS} FROM batch_jobs WHERE id = ?"))?;
    query.query_and_then([id], job_row)?.next().transpose()
}

/// Which of a client's jobs are listed.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those in this state.
    pub status: Option<JobStatus>,
    /// Those accepted then or later.
    pub created_after: Option<Timestamp>,
    /// Those accepted before.
    pub created_before: Option<Timestamp>,
}

/// A page of a client's jobs, newest first, and how many there are in all.
pub fn list(
    view: &View,
    client: &str,
    filter: &Filter,
    limit: u32,
    offset: u64,
) -> Stored<(u64, Vec<JobRow>)> {
    const WHERE: &str = "client = :client AND (:status IS NULL OR status = :status)
           AND created_at >= coalesce(:after, '') AND (:before IS NULL OR created_at < :before)";
    let mut count =
        view.prepare_cached(&format!("SELECT count(*) FROM batch_jobs WHERE {WHERE}"))?;
    let mut page = view.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM batch_jobs WHERE {WHERE} ORDER BY created_at DESC, seq DESC LIMIT :limit OFFSET :offset"
    ))?;
    let Filter {
        status,
        created_after,
        created_before,
    } = filter;
    let total = count.query_row(
        named_params! {
            ":client": client, ":status": status, ":after": created_after, ":before": created_before,
        },
        |row| row.get(0),
    )?;
    let rows = page.query_and_then(
        named_params! {
            ":client": client, ":status": status, ":after": created_after, ":before": created_before,
            ":limit": limit, ":offset": offset,
        },
        job_row,
    )?;
    Ok((total, rows.collect::<Stored<_>>()?))
}

/// One of a job's batches, as `openai_batch_ids` lists it.
#[derive(Clone, Debug)]
pub struct JobBatch {
    /// OpenAI's id, once there is one.
    pub openai_batch_id: Option<String>,
    /// What it asks for.
    pub stage: Stage,
    /// Where it stands.
    pub state: BatchState,
}

/// Every batch that works or worked for a job, in the order made.
pub fn batches(view: &View, seq: i64) -> Stored<Vec<JobBatch>> {
    let mut query = view.prepare_cached(
        "SELECT b.openai_batch_id, b.stage, b.state FROM batch_links k JOIN openai_batches b ON b.id = k.batch_id
         WHERE k.job = ? ORDER BY b.id",
    )?;
    let rows = query.query_map([seq], |row| {
        Ok(JobBatch {
            openai_batch_id: row.get(0)?,
            stage: row.get(1)?,
            state: row.get(2)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How many webhook deliveries a job has.
pub fn webhooks(view: &View, id: &str) -> Stored<u32> {
    let mut query =
        view.prepare_cached("SELECT count(*) FROM webhook_deliveries WHERE batch_job_id = ?")?;
    Ok(query.query_row([id], |row| row.get(0))?)
}

/// Jobs that all requests are settled of and that are not final yet: at most `limit`.
pub fn settled(view: &View, limit: u32) -> Stored<Vec<JobRow>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM batch_jobs
         WHERE completed_at IS NULL AND open_vision = 0 AND open_translations = 0 ORDER BY seq LIMIT ?"
    ))?;
    query.query_and_then([limit], job_row)?.collect()
}

/// Makes a settled job final, and its deliveries due.
pub fn finish(tx: &Tx<'_>, job: &JobRow, status: JobStatus, error: Option<&str>) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE batch_jobs SET status = ?, error_message = ?, completed_at = ?, updated_at = ?
         WHERE seq = ? AND status = ? AND open_vision = 0 AND open_translations = 0",
        params![status, error, tx.now, tx.now, job.seq, job.status],
    )?;
    moved(changed, || {
        format!(
            "job {} is not {} with everything settled",
            job.id, job.status
        )
    })?;
    tx.execute(
        "UPDATE webhook_deliveries SET state = 'due', next_at = ? WHERE batch_job_id = ? AND state = 'scheduled'",
        params![tx.now, job.id],
    )?;
    let detail = Fields::new()
        .with("client", job.client.as_str())
        .with("lots", job.total_lots)
        .with("failed_lots", job.failed_lots)
        .with("took", format!("{:?}", tx.now.since(job.created_at)))
        .with_some("error", error);
    events::record(tx, Some(&job.id), None, status.as_str(), detail)
}

/// The reason of the first failed lot of a job.
pub fn first_failure(view: &View, id: &str) -> Stored<Option<String>> {
    let mut query = view.prepare_cached(
        "SELECT error_message FROM batch_lots WHERE batch_job_id = ? AND status = 'failed' AND error_message IS NOT NULL
         ORDER BY position LIMIT 1",
    )?;
    Ok(query.query_row([id], |row| row.get(0)).optional()?)
}
