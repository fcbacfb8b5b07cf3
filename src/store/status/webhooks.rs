//! Webhook deliveries and their attempts.

use rusqlite::Row;

use super::{row, rows};
use crate::base::clock::Timestamp;
use crate::store::{Stored, View};

/// A webhook delivery.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its id.
    pub id: i64,
    /// The job that it reports.
    pub job: String,
    /// The URL of the receiver.
    pub receiver: String,
    /// Its state.
    pub state: String,
    /// How often it was tried.
    pub attempts: u64,
    /// The HTTP status of the last attempt.
    pub response_status: Option<u16>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When it was delivered, or when it is tried next.
    pub at: Option<Timestamp>,
}

impl Delivery {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            job: row.get("batch_job_id")?,
            receiver: row.get("url")?,
            state: row.get("state")?,
            attempts: row.get("attempts")?,
            response_status: row.get("response_status")?,
            error: row.get("error_message")?,
            at: row.get("at")?,
        })
    }
}

/// The delivery of that row.
pub fn delivery(view: &View, id: i64) -> Stored<Option<Delivery>> {
    row(
        view,
        "SELECT *, coalesce(delivered_at, next_at) AS at FROM webhook_deliveries WHERE id = ?",
        [id],
        Delivery::read,
    )
}

/// Webhook deliveries, newest first.
pub fn deliveries(view: &View, limit: u32) -> Stored<Vec<Delivery>> {
    rows(
        view,
        "SELECT *, coalesce(delivered_at, next_at) AS at FROM webhook_deliveries ORDER BY id DESC LIMIT ?",
        [limit],
        Delivery::read,
    )
}

/// A webhook delivery with one of its attempts.
#[derive(Clone, Debug)]
pub struct DeliveryAttempt {
    /// The delivery's id.
    pub delivery: i64,
    /// The URL of the receiver.
    pub receiver: String,
    /// The delivery's state.
    pub state: String,
    /// The number of the attempt; `None` before the first.
    pub attempt: Option<u64>,
    /// When the attempt was started.
    pub started_at: Option<Timestamp>,
    /// The HTTP status of the attempt.
    pub response_status: Option<u16>,
    /// Why the attempt failed.
    pub error: Option<String>,
    /// When the delivery is tried next.
    pub next_at: Option<Timestamp>,
}

/// A job's webhook deliveries, one row for each attempt.
pub fn attempts_of_job(view: &View, job: &str) -> Stored<Vec<DeliveryAttempt>> {
    rows(
        view,
        "SELECT d.id, d.url, d.state, a.attempt, a.started_at, a.response_status, a.error_message, d.next_at
         FROM webhook_deliveries d LEFT JOIN delivery_attempts a ON a.delivery_id = d.id
         WHERE d.batch_job_id = ? ORDER BY d.id, a.attempt LIMIT 200",
        [job],
        |row| {
            Ok(DeliveryAttempt {
                delivery: row.get("id")?,
                receiver: row.get("url")?,
                state: row.get("state")?,
                attempt: row.get("attempt")?,
                started_at: row.get("started_at")?,
                response_status: row.get("response_status")?,
                error: row.get("error_message")?,
                next_at: row.get("next_at")?,
            })
        },
    )
}
