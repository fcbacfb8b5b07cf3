//! Tables for people, and the checks of `doctor`.

use rusqlite::types::ValueRef;
use rusqlite::{Params, Row};
use serde_json::Value;

use super::{Stored, View};
use crate::clock::Timestamp;
use crate::printable::printable;

/// A table for people and programs.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows' cells, one a column.
    pub rows: Vec<Vec<Value>>,
}

/// A cell as people read it: in one line, with control characters escaped.
pub fn plain(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
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

fn cell(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into(),
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

/// The views that must be empty, and what each is about: a job, a batch, or either.
const INVARIANTS: [(&str, About); 7] = [
    ("v_orphans", About::Live),
    ("v_bad_open_requests", About::Jobs),
    ("v_bad_finished_lots", About::Jobs),
    ("v_bad_links", About::Jobs),
    ("v_bad_deliveries", About::Jobs),
    ("v_bad_batches", About::Batches),
    ("v_bad_states", About::Everything),
];

/// How the auditor's look at an invariant is kept to what is not final.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    /// The view speaks of what is not final alone.
    Live,
    /// Jobs: by their state.
    Jobs,
    /// Batches: by theirs.
    Batches,
    /// Too much to be looked at every minute.
    Everything,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The invariant: the view that should be empty.
    pub invariant: String,
    /// The job, batch or row.
    pub subject: String,
    /// What is wrong.
    pub finding: String,
}

fn findings_of(view: &View, invariant: &str, sql: &str, into: &mut Vec<Finding>) -> Stored<()> {
    for row in table(view, sql, [])?.rows {
        let mut cells = row.into_iter();
        let (subject, finding) = (
            cells.next().as_ref().map(plain).unwrap_or_default(),
            cells.next().as_ref().map(plain).unwrap_or_default(),
        );
        into.push(Finding {
            invariant: invariant.to_owned(),
            subject,
            finding,
        });
    }
    Ok(())
}

/// What the auditor finds among what is not final; at most a few of each kind.
pub fn live_findings(view: &View) -> Stored<Vec<Finding>> {
    let mut findings = Vec::new();
    for (name, about) in INVARIANTS {
        let sql = match about {
            About::Everything => continue,
            About::Live => format!("SELECT id, what || ': ' || detail FROM {name} LIMIT 5"),
            About::Jobs => format!(
                "SELECT subject, finding FROM {name} WHERE status IN ('pending', 'processing', 'translating') LIMIT 5"
            ),
            About::Batches => {
                format!(
                    "SELECT subject, finding FROM {name} WHERE status NOT IN ('ingested', 'failed') LIMIT 5"
                )
            }
        };
        findings_of(view, name, &sql, &mut findings)?;
    }
    Ok(findings)
}

/// What `doctor` finds: every invariant over everything, foreign keys, the file itself.
pub fn findings(view: &View) -> Stored<Vec<Finding>> {
    let mut findings = Vec::new();
    for (name, about) in INVARIANTS {
        let columns = if about == About::Live {
            "id, what || ': ' || detail"
        } else {
            "subject, finding"
        };
        findings_of(
            view,
            name,
            &format!("SELECT {columns} FROM {name}"),
            &mut findings,
        )?;
    }
    let foreign = "SELECT \"table\" || ' row ' || rowid, 'refers to no row of ' || parent FROM pragma_foreign_key_check";
    findings_of(view, "foreign_key_check", foreign, &mut findings)?;
    let integrity =
        "SELECT 'file', integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'";
    findings_of(view, "integrity_check", integrity, &mut findings)?;
    Ok(findings)
}

/// Work that stands still, as subjects and what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stuck {
    /// Jobs with a request that waits since before the time given.
    pub jobs: Vec<(String, String)>,
    /// Submissions that are on their way to OpenAI since before it, or ended and are not taken in.
    pub batches: Vec<(String, String)>,
}

/// What has stood still since `before`.
pub fn stuck(view: &View, before: Timestamp) -> Stored<Stuck> {
    let mut jobs = view.prepare_cached(
        "SELECT j.id, min(r.since), count(*) FROM batch_jobs j JOIN requests r ON r.job = j.seq AND r.state = 'waiting'
         WHERE j.status IN ('pending', 'processing', 'translating') AND r.since < ? GROUP BY j.seq LIMIT 20",
    )?;
    let mut batches = view.prepare_cached(
        "SELECT id, state, coalesce(ended_at, created_at), coalesce(error, 'no reason is stored') FROM openai_batches
         WHERE state IN ('planned', 'sealed', 'uploaded', 'creating', 'ended') AND coalesce(ended_at, created_at) < ?
         LIMIT 20",
    )?;
    let job = |row: &Row<'_>| {
        let (id, since, number): (String, String, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let message = format!(
            "{number} requests of job {id} wait since {since}; what holds them: batchkeeper alerts"
        );
        Ok((id, message))
    };
    let batch = |row: &Row<'_>| {
        let (id, state, since, error): (i64, String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let message = format!(
            "batch {id} is {state} since {since}: {error}. Look at it: batchkeeper batches show {id}"
        );
        Ok((format!("batch:{id}"), message))
    };
    Ok(Stuck {
        jobs: jobs.query_map([before], job)?.collect::<Result<_, _>>()?,
        batches: batches
            .query_map([before], batch)?
            .collect::<Result<_, _>>()?,
    })
}
