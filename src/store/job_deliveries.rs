//! The webhook deliveries of one job, as its client sees them.

use rusqlite::{OptionalExtension, Row, params};

use super::{Stored, View};
use crate::base::clock::Timestamp;

/// A webhook delivery of a job.
#[derive(Clone, Debug)]
pub struct JobDelivery {
    /// Its row.
    pub id: i64,
    /// The receiver's URL.
    pub url: String,
    /// `scheduled` (its job is not final), `due`, `delivered` or `failed`.
    pub state: String,
    /// How often the webhook had been sent again when this delivery was made.
    pub resend_number: u32,
    /// How often it was tried.
    pub attempts: u32,
    /// The HTTP status of the last attempt.
    pub response_status: Option<u16>,
    /// Why the last attempt failed; of an HTTP answer, how its body begins.
    pub error: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When the last attempt began.
    pub last_attempt_at: Option<Timestamp>,
    /// When it is tried next.
    pub next_at: Option<Timestamp>,
    /// When it arrived.
    pub delivered_at: Option<Timestamp>,
}

impl JobDelivery {
    fn read(row: &Row<'_>) -> Stored<Self> {
        Ok(Self {
            id: row.get("id")?,
            url: row.get("url")?,
            state: row.get("state")?,
            resend_number: row.get("resend_number")?,
            attempts: row.get("attempts")?,
            response_status: row.get("response_status")?,
            error: row.get("error_message")?,
            created_at: row.get("created_at")?,
            last_attempt_at: row.get("last_attempt_at")?,
            next_at: row.get("next_at")?,
            delivered_at: row.get("delivered_at")?,
        })
    }

    /// Whether there is no further attempt.
    pub fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "delivered" | "failed")
    }
}

const SELECT: &str = "SELECT d.*, (SELECT a.started_at FROM delivery_attempts a WHERE a.delivery_id = d.id
                                   ORDER BY a.attempt DESC LIMIT 1) AS last_attempt_at
     FROM webhook_deliveries d WHERE d.batch_job_id = ?1";

/// The number of a job's deliveries, and a page of them, newest first.
pub fn page(view: &View, job_id: &str, limit: u32, offset: u64) -> Stored<(u64, Vec<JobDelivery>)> {
    let mut count = view.prepare_cached("SELECT count(*) FROM webhook_deliveries WHERE batch_job_id = ?")?;
    let total = count.query_row([job_id], |row| row.get(0))?;
    let mut query = view.prepare_cached(&format!("{SELECT} ORDER BY d.id DESC LIMIT ?2 OFFSET ?3"))?;
    let rows = query.query_and_then(params![job_id, limit, offset], JobDelivery::read)?;
    Ok((total, rows.collect::<Stored<_>>()?))
}

/// The delivery of that row, if it is one of the job.
pub fn find(view: &View, job_id: &str, id: i64) -> Stored<Option<JobDelivery>> {
    let mut query = view.prepare_cached(&format!("{SELECT} AND d.id = ?2"))?;
    let mut rows = query.query_and_then(params![job_id, id], JobDelivery::read)?;
    rows.next().transpose()
}

/// Whether a delivery of a job to a URL is due.
pub fn has_due(view: &View, job_id: &str, url: &str) -> Stored<bool> {
    let mut query = view.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM webhook_deliveries WHERE batch_job_id = ? AND url = ? AND state = 'due')",
    )?;
    Ok(query.query_row([job_id, url], |row| row.get(0))?)
}

/// When the newest resend of a job's webhook to a URL was made.
pub fn last_resend(view: &View, job_id: &str, url: &str) -> Stored<Option<Timestamp>> {
    let mut query = view.prepare_cached(
        "SELECT created_at FROM webhook_deliveries WHERE batch_job_id = ? AND url = ? AND resend_number > 0
         ORDER BY resend_number DESC LIMIT 1",
    )?;
    Ok(query
        .query_row([job_id, url], |row| row.get("created_at"))
        .optional()?)
}
