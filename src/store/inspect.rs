//! Tables for people, and the checks of `doctor`.

use rusqlite::types::ValueRef;
use rusqlite::{Params, Row};

use super::{Stored, View};

/// A table of texts.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows' cells, one a column.
    pub rows: Vec<Vec<String>>,
}

/// What a query gives.
pub fn table(view: &View, sql: &str, params: impl Params) -> Stored<Table> {
    let mut query = view.prepare(sql)?;
    let columns: Vec<String> = query.column_names().map(str::to_owned).collect();
    let cells = |row: &Row<'_>| {
        (0..columns.len())
            .map(|at| row.get_ref(at).map(cell))
            .collect()
    };
    let rows = query.query_map(params, cells)?.collect::<Result<_, _>>()?;
    Ok(Table { columns, rows })
}

/// A cell as text, with control characters escaped.
fn cell(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) | ValueRef::Blob(text) => {
            let text = String::from_utf8_lossy(text);
            text.chars()
                .flat_map(|c| {
                    if c.is_control() {
                        c.escape_default().collect()
                    } else {
                        vec![c]
                    }
                })
                .collect()
        }
    }
}

/// Jobs, newest first.
pub fn jobs(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT id, client, status, processed_lots || '/' || total_lots AS lots, failed_lots AS failed,
                openai_batch_id, openai_translation_batch_id, created_at, completed_at
         FROM v_jobs ORDER BY created_at DESC LIMIT 200",
        [],
    )
}

/// One job.
pub fn job(view: &View, id: &str) -> Stored<Table> {
    table(view, "SELECT * FROM v_jobs WHERE id = ?", [id])
}

/// What happened to a job.
pub fn job_events(view: &View, id: &str) -> Stored<Table> {
    table(
        view,
        "SELECT at, kind, detail FROM events WHERE job_id = ? ORDER BY id",
        [id],
    )
}

/// Batches, newest first.
pub fn batches(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT id, stage, state, openai_batch_id, openai_status, lines, openai_completed AS completed,
                openai_failed AS failed, failures, created_at, error
         FROM v_batches ORDER BY id DESC LIMIT 200",
        [],
    )
}

/// One batch.
pub fn batch(view: &View, id: i64) -> Stored<Table> {
    table(view, "SELECT * FROM v_batches WHERE id = ?", [id])
}

/// What happened to a batch.
pub fn batch_events(view: &View, id: i64) -> Stored<Table> {
    table(
        view,
        "SELECT at, kind, detail FROM events WHERE batch_id = ? ORDER BY id",
        [id],
    )
}

/// Open alerts.
pub fn alerts(view: &View) -> Stored<Table> {
    table(
        view,
        "SELECT opened_at, kind, subject, message FROM alerts WHERE closed_at IS NULL ORDER BY id",
        [],
    )
}

/// The operator's two queries, of one job (a UUID): they work as they stand.
pub fn operator_queries(job: &str) -> [String; 2] {
    [
        format!(
            "SELECT id, status, openai_batch_id, updated_at FROM batch_jobs WHERE id IN ('{job}');"
        ),
        format!(
            "SELECT lot_id, LENGTH(vision_result) AS result_length, status FROM batch_lots \
             WHERE batch_job_id = '{job}' LIMIT 3;"
        ),
    ]
}

/// Every check of `doctor`, each a query that must be empty.
const CHECKS: [(&str, &str); 7] = [
    ("orphan", "SELECT what || ' ' || id || ' ' || detail FROM v_orphans"),
    ("foreign key", "SELECT \"table\" || ' row ' || rowid || ' refers to no row of ' || parent FROM pragma_foreign_key_check"),
    (
        "open requests",
        "SELECT 'job ' || j.id || ' counts ' || j.open_vision || ' and ' || j.open_translations FROM batch_jobs j
         WHERE (j.open_vision, j.open_translations) <>
               (SELECT coalesce(sum(r.stage = 'vision'), 0), coalesce(sum(r.stage = 'translation'), 0) FROM requests r
                WHERE r.job = j.seq AND r.state IN ('waiting', 'claimed', 'held'))",
    ),
    (
        "finished lots",
        "SELECT 'job ' || j.id || ' counts ' || j.processed_lots || ' and ' || j.failed_lots FROM batch_jobs j
         WHERE (j.processed_lots, j.failed_lots) <>
               (SELECT coalesce(sum(l.status IN ('completed', 'failed')), 0), coalesce(sum(l.status = 'failed'), 0)
                FROM batch_lots l WHERE l.batch_job_id = j.id)",
    ),
    (
        "state",
        "SELECT 'request ' || id || ' is ' || state FROM requests
         WHERE state NOT IN ('waiting', 'claimed', 'done', 'failed', 'held', 'cancelled')
         UNION ALL
         SELECT 'lot ' || id || ' is ' || status FROM batch_lots
         WHERE status NOT IN ('pending', 'completed', 'failed', 'cancelled')",
    ),
    (
        "sealed lines",
        "SELECT 'batch ' || b.id || ' was sealed with ' || b.lines || ' lines' FROM openai_batches b
         WHERE b.state NOT IN ('planned') AND b.lines <> (SELECT count(*) FROM batch_lines l WHERE l.batch_id = b.id)",
    ),
    ("integrity", "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'"),
];

/// What `doctor` finds.
pub fn findings(view: &View) -> Stored<Table> {
    let mut findings = Table {
        columns: vec!["check".into(), "finding".into()],
        rows: Vec::new(),
    };
    for (name, sql) in CHECKS {
        let found = table(view, sql, [])?;
        findings.rows.extend(
            found
                .rows
                .into_iter()
                .map(|row| vec![name.to_owned(), row.concat()]),
        );
    }
    Ok(findings)
}
