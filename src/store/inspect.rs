//! Tables for people, and the checks of `doctor`.

use rusqlite::types::ValueRef;
use rusqlite::{Params, Row};
use serde_json::Value;

use super::{Stored, View};
use crate::base::escape::escape_controls;

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

/// A cell as people read it: in one line, with control characters escaped.
pub fn plain(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => escape_controls(text),
        other => other.to_string(),
    }
}

/// What a query gives.
pub fn table(view: &View, sql: &str, params: impl Params) -> Stored<Table> {
    let mut query = view.prepare_cached(sql)?;
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

/// The most rows of a list: more are nothing for a person.
const MOST: u64 = 200;

/// The rows of a view or table that a person looks at first.
#[derive(Clone, Debug)]
pub struct Listed {
    /// They.
    pub table: Table,
    /// How many there are.
    pub all: u64,
    /// Of what.
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

/// Jobs: those that are not final, then the newest.
pub fn jobs(view: &View) -> Stored<Listed> {
    list(
        view,
        "v_jobs",
        "id, client, status, processed_lots || '/' || total_lots AS lots, failed_lots AS failed,
                openai_batch_id, openai_translation_batch_id, created_at, completed_at",
        "completed_at IS NOT NULL, created_at DESC",
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

/// Batches: those under way, then the newest.
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

/// What happened to a batch.
pub fn batch_events(view: &View, id: i64) -> Stored<Table> {
    table(
        view,
        "SELECT at, kind, detail FROM events WHERE batch_id = ? ORDER BY id",
        [id],
    )
}

/// Webhook deliveries: those that are yet to arrive, then the newest.
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

/// Who was told of an alert, and how that went.
pub fn alert_notices(view: &View, id: i64) -> Stored<Table> {
    table(
        view,
        "SELECT change, state, attempts, next_at, notified_at, response_status AS status, error_message AS error
         FROM alert_notices WHERE alert = ? ORDER BY id",
        [id],
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

/// The views that must be empty, and how the auditor's look at each is kept to what is not final:
/// by the `status` of what it is about. None: it is left to `doctor`.
pub(super) const INVARIANTS: [(&str, Option<&str>); 17] = [
    ("v_orphans", Some("TRUE")),
    ("v_bad_links", Some(LIVE_JOBS)),
    ("v_bad_claims", Some(LIVE_JOBS)),
    ("v_bad_calls", Some(LIVE_JOBS)),
    ("v_bad_lots", Some(LIVE_JOBS)),
    ("v_bad_answers", Some(LIVE_JOBS)),
    ("v_bad_open_requests", Some(LIVE_JOBS)),
    ("v_bad_finished_lots", Some(LIVE_JOBS)),
    ("v_bad_deliveries", Some(LIVE_JOBS)),
    ("v_bad_webhooks", Some(LIVE_JOBS)),
    (
        "v_bad_batches",
        Some("status NOT IN ('ingested', 'failed')"),
    ),
    ("v_bad_attempts", Some("status = 'due'")),
    ("v_bad_final_jobs", None),
    ("v_bad_lines", None),
    ("v_bad_states", None),
    ("v_bad_state_counts", None),
    ("v_bad_usage", None),
];
const LIVE_JOBS: &str = "status IN ('pending', 'processing', 'translating')";

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The invariant: the view that should be empty.
    pub invariant: &'static str,
    /// The job, batch or row.
    pub subject: String,
    /// What is wrong.
    pub finding: String,
}

fn findings_of(
    view: &View,
    invariant: &'static str,
    sql: &str,
    into: &mut Vec<Finding>,
) -> Stored<()> {
    for row in table(view, sql, [])?.rows {
        let mut cells = row.iter().map(plain);
        into.push(Finding {
            invariant,
            subject: cells.next().unwrap_or_default(),
            finding: cells.next().unwrap_or_default(),
        });
    }
    Ok(())
}

fn columns(invariant: &str) -> &'static str {
    match invariant {
        "v_orphans" => "id, what || ': ' || detail",
        _ => "subject, finding",
    }
}

/// What the auditor looks at, one after the other: a snapshot for each, so that none is kept long.
pub fn live_invariants() -> impl Iterator<Item = &'static str> {
    let live = INVARIANTS.iter().filter(|(_, live)| live.is_some());
    live.map(|(name, _)| *name)
}

/// What an invariant finds among what is not final; at most a few.
pub fn live_findings(view: &View, invariant: &'static str) -> Stored<Vec<Finding>> {
    let mut findings = Vec::new();
    let known = INVARIANTS.iter().find(|(name, _)| *name == invariant);
    if let Some((_, Some(live))) = known {
        let columns = columns(invariant);
        let sql = format!("SELECT {columns} FROM {invariant} WHERE {live} LIMIT 5");
        findings_of(view, invariant, &sql, &mut findings)?;
    }
    Ok(findings)
}

/// What `doctor` finds: every invariant over everything, foreign keys, the file itself.
pub fn findings(view: &View) -> Stored<Vec<Finding>> {
    let mut findings = Vec::new();
    for (name, _) in INVARIANTS {
        let sql = format!("SELECT {} FROM {name}", columns(name));
        findings_of(view, name, &sql, &mut findings)?;
    }
    let foreign = "SELECT \"table\" || ' row ' || rowid, 'refers to no row of ' || parent FROM pragma_foreign_key_check";
    findings_of(view, "foreign_key_check", foreign, &mut findings)?;
    let integrity =
        "SELECT 'file', integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'";
    findings_of(view, "integrity_check", integrity, &mut findings)?;
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use crate::domain::batch::Outcome;
    use crate::domain::job::{LotStatus, RequestState};

    /// The states of the big tables are held by the program's enums, and by a view of the same words.
    #[test]
    fn the_view_of_states_knows_every_state() {
        let views = include_str!("../../migrations/V12__views.sql");
        let view = |name: &str| {
            let rest = views.split(&format!("CREATE VIEW {name} AS")).nth(1);
            rest.and_then(|rest| rest.split(';').next())
                .expect("a view")
        };
        let lots = LotStatus::ALL.iter().map(|state| state.as_str());
        let requests = RequestState::ALL.iter().map(|state| state.as_str());
        let outcomes = || Outcome::ALL.iter().map(|state| state.as_str());
        for state in lots.chain(requests).chain(outcomes()) {
            let quoted = format!("'{state}'");
            assert!(view("v_bad_states").contains(&quoted), "{state}");
        }
        for outcome in outcomes() {
            assert!(
                view("v_bad_calls").contains(&format!("'{outcome}'")),
                "{outcome}"
            );
        }
    }
}
