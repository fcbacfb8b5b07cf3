//! Tables for people, as the commands print them.

use rusqlite::types::ValueRef;
use rusqlite::{Params, Row, params};
use serde_json::Value;

use super::{Stored, View};
use crate::base::escape::escape_controls;
use crate::domain::job::JobStatus;

/// A table for people and programs.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows' cells, one a column.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// Its rows as JSON objects.
    pub fn objects(&self) -> Value {
        let object = |row: &Vec<Value>| -> Value {
            let cells = self.columns.iter().cloned().zip(row.iter().cloned());
            cells.collect()
        };
        self.rows.iter().map(object).collect()
    }
}

/// A cell's text in one line, with control characters escaped.
pub fn plain(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => escape_controls(text),
        other => other.to_string(),
    }
}

/// Runs a query and returns its rows with the names of its columns.
pub fn table(view: &View, sql: &str, params: impl Params) -> Stored<Table> {
    let mut query = view.prepare_cached(sql)?;
    let columns: Vec<String> = query.column_names().map(str::to_owned).collect();
    let cells = |row: &Row<'_>| (0..columns.len()).map(|at| row.get_ref(at).map(cell)).collect();
    let rows = query.query_map(params, cells)?.collect::<Result<_, _>>()?;
    Ok(Table { columns, rows })
}

pub(super) fn cell(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into(),
    }
}

/// The most rows of a list.
pub const MOST: u64 = 200;

/// The first rows of a view or table.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The rows.
    pub table: Table,
    /// The number of all rows.
    pub all: u64,
    /// The name of the view or table.
    pub of: &'static str,
}

fn list(view: &View, of: &'static str, columns: &str, order: &str) -> Stored<Listed> {
    let sql = format!("SELECT {columns} FROM {of} ORDER BY {order} LIMIT {MOST}");
    let mut count = view.prepare_cached(&format!("SELECT count(*) FROM {of}"))?;
    Ok(Listed {
        table: table(view, &sql, [])?,
        all: count.query_row([], |row| row.get(0))?,
        of,
    })
}

/// Jobs, of a status and a client if given: first the live ones, then the newest.
pub fn jobs(view: &View, status: Option<JobStatus>, client: Option<&str>, limit: u64) -> Stored<Listed> {
    let condition = "(?1 IS NULL OR status = ?1) AND (?2 IS NULL OR client = ?2)";
    let sql = format!(
        "SELECT id, client, status, processed_lots || '/' || total_lots AS lots, failed_lots AS failed,
                openai_batch_id, openai_translation_batch_id, created_at, completed_at
         FROM v_jobs WHERE {condition} ORDER BY completed_at IS NOT NULL, created_at DESC LIMIT ?3"
    );
    let mut count = view.prepare_cached(&format!("SELECT count(*) FROM v_jobs WHERE {condition}"))?;
    Ok(Listed {
        table: table(view, &sql, params![status, client, limit])?,
        all: count.query_row(params![status, client], |row| row.get(0))?,
        of: "v_jobs",
    })
}

/// The batches that have lines of a job.
pub fn job_batches(view: &View, job: i64) -> Stored<Table> {
    table(
        view,
        "SELECT b.id, b.stage, b.state, b.openai_batch_id, b.openai_status AS status, k.lines AS lines_of_job,
                b.created_at, b.ended_at, b.error
         FROM (SELECT l.batch_id, count(*) AS lines FROM requests r JOIN batch_lines l ON l.request_id = r.id
               WHERE r.job = ? GROUP BY l.batch_id) k JOIN openai_batches b ON b.id = k.batch_id
         ORDER BY b.id",
        [job],
    )
}

/// The webhook deliveries of a job.
pub fn job_webhooks(view: &View, id: &str) -> Stored<Table> {
    table(
        view,
        "SELECT id, url, state, attempts, response_status AS status, next_at, delivered_at
         FROM webhook_deliveries WHERE batch_job_id = ? ORDER BY id",
        [id],
    )
}

/// The first failed lots of a job.
pub fn failed_lots(view: &View, id: &str) -> Stored<Table> {
    table(
        view,
        "SELECT position, lot_id, error_message AS error FROM batch_lots
         WHERE batch_job_id = ? AND status = 'failed' ORDER BY position LIMIT 20",
        [id],
    )
}

/// One job.
pub fn job(view: &View, id: &str) -> Stored<Table> {
    table(view, "SELECT * FROM v_jobs WHERE id = ?", [id])
}

/// The events of a job.
pub fn job_events(view: &View, id: &str) -> Stored<Table> {
    table(
        view,
        "SELECT at, kind, detail FROM events WHERE job_id = ? ORDER BY id",
        [id],
    )
}

/// Batches: first the live ones, then the newest.
pub fn batches(view: &View) -> Stored<Listed> {
    list(
        view,
        "v_batches",
        "id, stage, state, openai_batch_id, openai_status, lines, openai_completed AS completed,
                openai_failed AS failed, failures, created_at, error",
        "state IN ('ingested', 'failed'), id DESC",
    )
}

/// One batch.
pub fn batch(view: &View, id: i64) -> Stored<Table> {
    table(view, "SELECT * FROM v_batches WHERE id = ?", [id])
}

/// The events of a batch.
pub fn batch_events(view: &View, id: i64) -> Stored<Table> {
    table(
        view,
        "SELECT at, kind, detail FROM events WHERE batch_id = ? ORDER BY id",
        [id],
    )
}

/// Webhook deliveries: first those that are not delivered or failed, then the newest.
pub fn webhooks(view: &View) -> Stored<Listed> {
    list(
        view,
        "webhook_deliveries",
        "id, batch_job_id AS job, url, state, resend_number, attempts, response_status AS status, next_at, delivered_at",
        "state IN ('delivered', 'failed'), id DESC",
    )
}

/// One delivery.
pub fn webhook(view: &View, id: i64) -> Stored<Table> {
    table(view, "SELECT * FROM webhook_deliveries WHERE id = ?", [id])
}

/// A delivery's attempts.
pub fn webhook_attempts(view: &View, id: i64) -> Stored<Table> {
    table(
        view,
        "SELECT attempt, started_at, ended_at, response_status AS status, error_message AS error
         FROM delivery_attempts WHERE delivery_id = ? ORDER BY attempt",
        [id],
    )
}

/// Open alerts.
pub fn alerts(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT id, opened_at, kind, subject, message FROM alerts WHERE closed_at IS NULL ORDER BY id",
        [],
    )
}

/// An alert, open or closed.
pub fn alert(view: &View, id: i64) -> Stored<Table> {
    table(
        view,
        "SELECT id, kind, subject, opened_at, closed_at, message FROM alerts WHERE id = ?",
        [id],
    )
}

/// The notifications of an alert.
pub fn alert_notices(view: &View, id: i64) -> Stored<Table> {
    table(
        view,
        "SELECT receiver, change, state, attempts, next_at, notified_at, response_status AS status,
                error_message AS error
         FROM alert_notices WHERE alert = ? ORDER BY id",
        [id],
    )
}

/// The operator's two queries for one job (a UUID). Their tables and columns are promised.
pub fn operator_queries(job: &str) -> [String; 2] {
    [
        format!("SELECT id, status, openai_batch_id, updated_at FROM batch_jobs WHERE id IN ('{job}');"),
        format!(
            "SELECT lot_id, LENGTH(vision_result) AS result_length, status FROM batch_lots \
             WHERE batch_job_id = '{job}' LIMIT 3;"
        ),
    ]
}
