//! The invariants: views that must be empty. The auditor reads them for what is not final, `doctor` for
//! everything.

use super::finding::Finding;
use super::inspect::{plain, table};
use super::predicates::LIVE_JOB;
use super::{Stored, View, schema_check, unreadable};

/// Rows whose job is not final.
const OF_LIVE_JOBS: &str = LIVE_JOB;
/// Rows whose batch is not final.
const OF_LIVE_BATCHES: &str = "status NOT IN ('ingested', 'failed')";
/// Rows whose delivery is due.
const OF_DUE_DELIVERIES: &str = "status = 'due'";

/// A view that must be empty, and the condition of the rows that the auditor reads. `None` leaves the view to
/// `doctor`.
type Invariant = (&'static str, Option<&'static str>);

/// Every invariant.
pub(super) const INVARIANTS: [Invariant; 17] = [
    ("v_orphans", Some("TRUE")),
    ("v_bad_links", Some(OF_LIVE_JOBS)),
    ("v_bad_claims", Some(OF_LIVE_JOBS)),
    ("v_bad_calls", Some(OF_LIVE_JOBS)),
    ("v_bad_lots", Some(OF_LIVE_JOBS)),
    ("v_bad_answers", Some(OF_LIVE_JOBS)),
    ("v_bad_open_requests", Some(OF_LIVE_JOBS)),
    ("v_bad_finished_lots", Some(OF_LIVE_JOBS)),
    ("v_bad_deliveries", Some(OF_LIVE_JOBS)),
    ("v_bad_webhooks", Some(OF_LIVE_JOBS)),
    ("v_bad_batches", Some(OF_LIVE_BATCHES)),
    ("v_bad_attempts", Some(OF_DUE_DELIVERIES)),
    ("v_bad_final_jobs", None),
    ("v_bad_lines", None),
    ("v_bad_states", None),
    ("v_bad_state_counts", None),
    ("v_bad_usage", None),
];
/// The most findings of one view that the auditor reads.
const MOST_LIVE: u32 = 5;

/// The invariants that the auditor reads. It reads each in a snapshot of its own, so that no snapshot lasts
/// long.
pub fn live_invariants() -> impl Iterator<Item = &'static str> {
    let live = INVARIANTS.iter().filter(|(_, live)| live.is_some());
    live.map(|(name, _)| *name)
}

/// The first findings of one invariant among what is not final.
pub fn live_findings(view: &View, invariant: &'static str) -> Stored<Vec<Finding>> {
    let known = INVARIANTS.iter().find(|(name, _)| *name == invariant);
    let Some((_, Some(live))) = known else {
        return Ok(Vec::new());
    };
    let columns = columns(invariant);
    let sql = format!("SELECT {columns} FROM {invariant} WHERE {live} LIMIT {MOST_LIVE}");
    findings_of(view, invariant, &sql)
}

/// All findings: of every invariant, of values that cannot be read, of the schema, of foreign keys, and of the file's integrity.
pub fn findings(view: &View) -> Stored<Vec<Finding>> {
    let mut findings = Vec::new();
    for (name, _) in INVARIANTS {
        let sql = format!("SELECT {} FROM {name}", columns(name));
        findings.extend(findings_of(view, name, &sql)?);
    }
    findings.extend(unreadable::find(view)?.into_iter().map(|it| Finding {
        invariant: "unreadable_row",
        finding: it.finding(),
        subject: format!("{} row {}", it.table, it.row),
    }));
    findings.extend(schema_check::findings(view)?);
    findings.extend(findings_of(
        view,
        "foreign_key_check",
        "SELECT \"table\" || ' row ' || rowid, 'refers to no row of ' || parent FROM pragma_foreign_key_check",
    )?);
    findings.extend(findings_of(
        view,
        "integrity_check",
        "SELECT 'file', integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
    )?);
    Ok(findings)
}

/// The two columns of a view: what the finding is about, and what is wrong.
fn columns(invariant: &str) -> &'static str {
    match invariant {
        "v_orphans" => "id, what || ': ' || detail",
        _ => "subject, finding",
    }
}

fn findings_of(view: &View, invariant: &'static str, sql: &str) -> Stored<Vec<Finding>> {
    let rows = table(view, sql, [])?.rows;
    let findings = rows.iter().map(|row| {
        let mut cells = row.iter().map(plain);
        Finding {
            invariant,
            subject: cells.next().unwrap_or_default(),
            finding: cells.next().unwrap_or_default(),
        }
    });
    Ok(findings.collect())
}

#[cfg(test)]
mod tests {
    use crate::domain::batch::Outcome;
    use crate::domain::job::{LotStatus, RequestState};

    /// The program's enums hold the states of the big tables, and a view knows the same words.
    #[test]
    fn the_view_of_states_knows_every_state() {
        let views = include_str!("../../migrations/V12__views.sql");
        let view = |name: &str| {
            let rest = views.split(&format!("CREATE VIEW {name} AS")).nth(1);
            rest.and_then(|rest| rest.split(';').next()).expect("a view")
        };
        let lots = LotStatus::ALL.iter().map(|state| state.as_str());
        let requests = RequestState::ALL.iter().map(|state| state.as_str());
        let outcomes = || Outcome::ALL.iter().map(|state| state.as_str());
        for state in lots.chain(requests).chain(outcomes()) {
            let quoted = format!("'{state}'");
            assert!(view("v_bad_states").contains(&quoted), "{state}");
        }
        for outcome in outcomes() {
            assert!(view("v_bad_calls").contains(&format!("'{outcome}'")), "{outcome}");
        }
    }
}
