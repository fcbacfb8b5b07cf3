//! `batch_jobs`: inserted, read, finished.

use rusqlite::{OptionalExtension, Row, named_params, params};
use serde_json::json;

use super::{Stored, Tx, View, audit, events, moved, planned_calls};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::domain::batch::{BatchState, Stage};
use crate::domain::decide::missing_images::has_too_few_images;
use crate::domain::job::{
    JobStatus, LotStatus, Metadata, Mode, NO_IMAGE, NewLot, RequestState, Submission, receiver,
};

/// A job as pollers see it.
#[derive(Clone, Debug)]
pub struct JobRow {
    /// Its row.
    pub seq: i64,
    /// Its UUID.
    pub id: String,
    /// The client that owns it.
    pub client: String,
    /// Its status.
    pub status: JobStatus,
    /// Languages wanted, as sent.
    pub languages: Vec<String>,
    /// The job's own webhook.
    pub webhook_url: Option<String>,
    /// OpenAI's id of its newest vision batch.
    pub vision_batch: Option<String>,
    /// OpenAI's id of its newest translation batch.
    pub translation_batch: Option<String>,
    /// Number of lots.
    pub total_lots: u32,
    /// Lots that are finished, including failed ones.
    pub processed_lots: u32,
    /// Lots that failed.
    pub failed_lots: u32,
    /// Vision requests that are not settled.
    pub open_vision: u32,
    /// Translation requests that are there and not settled.
    pub open_translations: u32,
    /// Why it failed, or was cancelled.
    pub error_message: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it became final.
    pub completed_at: Option<Timestamp>,
    /// Since when retention removes its lots and texts.
    pub cleaning_since: Option<Timestamp>,
    /// When an operator last sent a part of it again, after its end.
    pub retried_at: Option<Timestamp>,
    /// The client's own values.
    pub metadata: Metadata,
}

const COLUMNS: &str = "seq, id, client, status, languages, webhook_url, openai_batch_id, \
    openai_translation_batch_id, total_lots, processed_lots, failed_lots, open_vision, open_translations, \
    error_message, created_at, updated_at, completed_at, cleaning_since, retried_at, \
    (SELECT json_group_object(key, value) FROM job_metadata m WHERE m.job = batch_jobs.seq) AS metadata";

fn job_row(row: &Row<'_>) -> Stored<JobRow> {
    Ok(JobRow {
        seq: row.get("seq")?,
        id: row.get("id")?,
        client: row.get("client")?,
        status: row.get("status")?,
        languages: serde_json::from_str(
            row.get_ref("languages")?
                .as_str()
                .map_err(rusqlite::Error::from)?,
        )?,
        webhook_url: row.get("webhook_url")?,
        vision_batch: row.get("openai_batch_id")?,
        translation_batch: row.get("openai_translation_batch_id")?,
        total_lots: row.get("total_lots")?,
        processed_lots: row.get("processed_lots")?,
        failed_lots: row.get("failed_lots")?,
        open_vision: row.get("open_vision")?,
        open_translations: row.get("open_translations")?,
        error_message: row.get("error_message")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
        completed_at: row.get("completed_at")?,
        cleaning_since: row.get("cleaning_since")?,
        retried_at: row.get("retried_at")?,
        metadata: serde_json::from_str(row.get_ref("metadata")?.as_str().map_err(rusqlite::Error::from)?)?,
    })
}

/// A job to insert.
pub struct NewJob<'a> {
    /// A random UUID.
    pub id: &'a str,
    /// The client that owns it.
    pub client: &'a str,
    /// The checked submission.
    pub submission: &'a Submission<'a>,
    /// Whether its images are checked before its requests are sent.
    pub check_images: bool,
    /// How it is answered.
    pub mode: Mode,
}

/// Inserts a job with its lots, their vision requests and its webhook deliveries. A lot with too few usable
/// images fails at once, alone.
pub fn insert(tx: &Tx<'_>, new: &NewJob<'_>) -> Stored<()> {
    let lots = &new.submission.lots;
    let failed = lots.iter().filter(|lot| is_unusable(lot)).count();
    tx.execute(
        "INSERT INTO batch_jobs (id, client, origin, processing_mode, status, languages, webhook_url,
             total_lots,
                                 processed_lots, failed_lots, open_vision, created_at, updated_at)
         VALUES (:id, :client, 'api', :mode, :status, :languages, :webhook, :total, :failed, :failed, :open,
             :now, :now)",
        named_params! {
            ":id": new.id, ":client": new.client, ":mode": new.mode, ":status": JobStatus::Pending,
            ":languages": json!(new.submission.languages).to_string(), ":webhook": new.submission.webhook_url,
            ":total": lots.len(), ":failed": failed, ":open": lots.len() - failed, ":now": tx.now,
        },
    )?;
    let job = tx.last_insert_rowid();
    for (key, value) in &new.submission.metadata {
        tx.prepare_cached("INSERT INTO job_metadata (job, key, value) VALUES (?, ?, ?)")?
            .execute(params![job, key, value])?;
    }
    for (position, lot) in lots.iter().enumerate() {
        insert_lot(tx, new, position, lot)?;
        if !is_unusable(lot) {
            insert_vision_request(tx, new, job, tx.last_insert_rowid())?;
        }
    }
    for url in new.submission.webhooks() {
        tx.execute(
            "INSERT INTO webhook_deliveries (batch_job_id, url, host, state, created_at)
                 VALUES (?, ?, ?, 'scheduled', ?)",
            params![new.id, url, receiver(url), tx.now],
        )?;
    }
    let detail = Fields::new()
        .with("client", new.client)
        .with("lots", lots.len())
        .with("languages", new.submission.languages.join(","));
    events::record(tx, Some(new.id), None, "accepted", detail)
}

/// Whether a lot fails before any of its images is checked.
fn is_unusable(lot: &NewLot<'_>) -> bool {
    has_too_few_images(lot.images.len(), 0)
}

fn insert_lot(tx: &Tx<'_>, new: &NewJob<'_>, position: usize, lot: &NewLot<'_>) -> Stored<()> {
    let missing = (!lot.unusable_images.is_empty()).then(|| json!(lot.unusable_images).to_string());
    let (status, error, processed_at) = match is_unusable(lot) {
        true => (LotStatus::Failed, Some(NO_IMAGE), Some(tx.now)),
        false => (LotStatus::Pending, None, None),
    };
    tx.prepare_cached(
        "INSERT INTO batch_lots (batch_job_id, position, lot_id, additional_info, images, missing_images,
             webhook_url,
                                 reference, status, error_message, processed_at)
         VALUES (:job, :position, :lot_id, :info, :images, :missing, :webhook, :reference, :status, :error,
             :processed)",
    )?
    .execute(named_params! {
        ":job": new.id, ":position": position, ":lot_id": lot.lot_id, ":info": lot.additional_info,
        ":images": json!(lot.images).to_string(), ":missing": missing, ":webhook": lot.webhook_url,
        ":reference": lot.reference, ":status": status, ":error": error, ":processed": processed_at,
    })?;
    Ok(())
}

/// Inserts the request for a lot's description; in a synchronous job, a call claims it.
fn insert_vision_request(tx: &Tx<'_>, new: &NewJob<'_>, job: i64, lot: i64) -> Stored<()> {
    let state = match new.mode {
        Mode::Batch => RequestState::Waiting,
        Mode::Synchronous => RequestState::Claimed,
    };
    tx.prepare_cached(
        "INSERT INTO requests (lot, job, stage, language, state, images_due, since)
             VALUES (?, ?, ?, '', ?, ?, ?)",
    )?
    .execute(params![lot, job, Stage::Vision, state, new.check_images, tx.now])?;
    if new.mode == Mode::Synchronous {
        planned_calls::plan(tx, tx.last_insert_rowid(), tx.now)?;
    }
    Ok(())
}

/// The job of that id, if `client` owns it.
pub fn find(view: &View, client: &str, id: &str) -> Stored<Option<JobRow>> {
    let found = by_id(view, id)?;
    Ok(found.filter(|job| job.client == client))
}

/// The job of that id.
pub fn by_id(view: &View, id: &str) -> Stored<Option<JobRow>> {
    let mut query = view.prepare_cached(&format!("SELECT {COLUMNS} FROM batch_jobs WHERE id = ?"))?;
    query.query_and_then([id], job_row)?.next().transpose()
}

/// The jobs whose id is `id`, or begins with it if it has at least `shortest` characters; two at most.
pub fn by_id_or_prefix(view: &View, id: &str, shortest: usize) -> Stored<Vec<JobRow>> {
    let is_prefix = id.len() >= shortest && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let end = if is_prefix {
        format!("{id}g")
    } else {
        id.to_owned()
    };
    let mut query = view.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM batch_jobs WHERE id >= ?1 AND (id = ?1 OR id < ?2) ORDER BY id LIMIT 2"
    ))?;
    query.query_and_then([id, &end], job_row)?.collect()
}

/// Which of a client's jobs are listed.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Those with this status.
    pub status: Option<JobStatus>,
    /// Those accepted at this time or later.
    pub created_after: Option<Timestamp>,
    /// Those accepted before this time.
    pub created_before: Option<Timestamp>,
}

/// Where a page of a client's jobs begins, and the most jobs that it has.
#[derive(Clone, Copy, Debug)]
pub struct JobPage<'a> {
    /// After this job, in the order of the list; `None` at the first one.
    pub after: Option<&'a JobRow>,
    /// Jobs to skip.
    pub offset: u64,
    /// The most jobs.
    pub limit: u32,
}

/// The number of a client's jobs, and a page of them, newest first.
pub fn list(view: &View, client: &str, filter: &JobFilter, page: JobPage<'_>) -> Stored<(u64, Vec<JobRow>)> {
    const WHERE: &str = "client = :client AND (:status IS NULL OR status = :status)
           AND created_at >= coalesce(:after, '') AND (:before IS NULL OR created_at < :before)";
    let mut count = view.prepare_cached(&format!("SELECT count(*) FROM batch_jobs WHERE {WHERE}"))?;
    // Without a job to begin after, the page begins before a time that no job has.
    let mut rows = view.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM batch_jobs WHERE {WHERE} AND (created_at, seq) < (:after_time, :after_job)
             ORDER BY created_at DESC, seq DESC LIMIT :limit OFFSET :offset"
    ))?;
    let JobFilter {
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
    let after_time = page
        .after
        .map_or_else(|| "~".to_owned(), |job| job.created_at.to_string());
    let rows = rows.query_and_then(
        named_params! {
            ":client": client, ":status": status, ":after": created_after, ":before": created_before,
            ":after_time": after_time, ":after_job": page.after.map_or(0, |job| job.seq),
            ":limit": page.limit, ":offset": page.offset,
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
    /// Its state.
    pub state: BatchState,
}

/// Every batch that works or worked for a job, oldest first.
pub fn batches(view: &View, seq: i64) -> Stored<Vec<JobBatch>> {
    let mut query = view.prepare_cached(
        "SELECT b.openai_batch_id, b.stage, b.state FROM batch_links k
             JOIN openai_batches b ON b.id = k.batch_id
         WHERE k.job = ? ORDER BY b.id",
    )?;
    let rows = query.query_map([seq], |row| {
        Ok(JobBatch {
            openai_batch_id: row.get("openai_batch_id")?,
            stage: row.get("stage")?,
            state: row.get("state")?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The number of webhook deliveries of a job.
pub fn count_webhooks(view: &View, id: &str) -> Stored<u32> {
    let mut query = view.prepare_cached("SELECT count(*) FROM webhook_deliveries WHERE batch_job_id = ?")?;
    Ok(query.query_row([id], |row| row.get(0))?)
}

/// Up to `limit` jobs that are not final and whose requests are all settled. A job that is being changed may get
/// more of them.
pub fn settled(view: &View, limit: u32) -> Stored<Vec<JobRow>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM batch_jobs
         WHERE completed_at IS NULL AND open_vision = 0 AND open_translations = 0 AND pending_change IS NULL
         ORDER BY seq"
    ))?;
    let rows = query.query_and_then([], job_row)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    view.readable(rows).take(limit).collect()
}

/// Makes a settled job final, and its webhook deliveries due.
pub fn finish(tx: &Tx<'_>, job: &JobRow, status: JobStatus, error: Option<&str>) -> Stored<()> {
    let changed = tx.execute(
        "UPDATE batch_jobs SET status = ?, error_message = ?, completed_at = ?, updated_at = ?
         WHERE seq = ? AND status = ? AND open_vision = 0 AND open_translations = 0",
        params![status, error, tx.now, tx.now, job.seq, job.status],
    )?;
    moved(changed, || {
        format!("job {} is not {} with everything settled", job.id, job.status)
    })?;
    tx.execute(
        "UPDATE webhook_deliveries SET state = 'due', next_at = ? WHERE batch_job_id = ?
             AND state = 'scheduled'",
        params![tx.now, job.id],
    )?;
    let detail = Fields::new()
        .with("client", job.client.as_str())
        .with("lots", job.total_lots)
        .with("failed_lots", job.failed_lots)
        .with("took", format!("{:?}", tx.now.since(job.created_at)))
        .with_some("error", error);
    let outcome = Fields::new()
        .with("status", status.as_str())
        .with("lots", job.total_lots)
        .with("failed_lots", job.failed_lots);
    audit::record_job_outcome(tx, &job.id, &outcome)?;
    events::record(tx, Some(&job.id), None, status.as_str(), detail)
}

/// The reason of the first failed lot of a job.
pub fn first_failure(view: &View, id: &str) -> Stored<Option<String>> {
    let mut query = view.prepare_cached(
        "SELECT error_message FROM batch_lots WHERE batch_job_id = ? AND status = 'failed'
             AND error_message IS NOT NULL
         ORDER BY position LIMIT 1",
    )?;
    Ok(query.query_row([id], |row| row.get(0)).optional()?)
}
