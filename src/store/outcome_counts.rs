//! What became of the jobs, lots and requests that were accepted in a period.

use rusqlite::Row;

use super::predicates::OPEN_REQUEST;
use super::{Stored, View};
use crate::base::clock::Timestamp;

/// What became of all jobs, lots, descriptions or translations of a period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutcomeCounts {
    /// `jobs`, `lots`, `descriptions` or `translations`.
    pub what: &'static str,
    /// How many were wanted.
    pub accepted: u64,
    /// How many have their text.
    pub answered: u64,
    /// How many failed with a reason.
    pub failed: u64,
    /// How many were cancelled.
    pub cancelled: u64,
    /// How many are not finished.
    pub open: u64,
}

impl OutcomeCounts {
    /// How many have no outcome and are not open either.
    pub fn unexplained(&self) -> u64 {
        let explained = self.answered + self.failed + self.cancelled + self.open;
        self.accepted.abs_diff(explained)
    }
}

/// Job `j` was accepted from `?1` on and before `?2`. An import without lots does not count: its lots are in
/// the earlier service's report. Its event tells it from an import whose lots are cleaned.
const OF_PERIOD: &str = "j.created_at >= ?1 AND j.created_at < ?2
    AND NOT (j.origin = 'import' AND NOT EXISTS (SELECT 1 FROM batch_lots l WHERE l.batch_job_id = j.id)
             AND (j.cleaning_since IS NULL OR EXISTS (SELECT 1 FROM events e WHERE e.job_id = j.id
                                                       AND e.kind = 'imported'
                                                       AND e.detail GLOB '* lots=0')))";

/// What became of the jobs accepted from `from` on and before `to`.
///
/// The counts of a cleaned job come from its row and its paid answers. Two things are not known any more, and
/// do not count: the requests of an imported job that were not answered here, and the translations that a
/// cancelled job wanted.
pub fn outcome_counts(view: &View, from: Timestamp, to: Timestamp) -> Stored<Vec<OutcomeCounts>> {
    [
        ("jobs", jobs_sql()),
        ("lots", lots_sql()),
        ("descriptions", descriptions_sql()),
        ("translations", translations_sql()),
    ]
    .into_iter()
    .map(|(what, sql)| {
        let mut query = view.prepare(&sql)?;
        let counts = |row: &Row<'_>| {
            Ok(OutcomeCounts {
                what,
                accepted: row.get("accepted")?,
                answered: row.get("answered")?,
                failed: row.get("failed")?,
                cancelled: row.get("cancelled")?,
                open: row.get("open")?,
            })
        };
        Ok(query.query_row([from, to], counts)?)
    })
    .collect()
}

fn jobs_sql() -> String {
    format!(
        "SELECT count(*) AS accepted, coalesce(sum(j.status = 'completed'), 0) AS answered,
            coalesce(sum(j.status = 'failed' AND j.error_message IS NOT NULL), 0) AS failed,
            coalesce(sum(j.status = 'cancelled'), 0) AS cancelled,
            coalesce(sum(j.completed_at IS NULL), 0) AS open
         FROM batch_jobs j WHERE {OF_PERIOD}"
    )
}

fn lots_sql() -> String {
    // The counters of a job stand for lots that are cleaned.
    let no_lots = "count(l.id) = 0 OR g.cleaning_since IS NOT NULL";
    format!(
        "SELECT coalesce(sum(j.total_lots), 0) AS accepted, coalesce(sum(r.answered), 0) AS answered,
            coalesce(sum(r.failed), 0) AS failed, coalesce(sum(r.cancelled), 0) AS cancelled,
            coalesce(sum(r.open), 0) AS open
         FROM batch_jobs j JOIN (
            SELECT g.seq, CASE WHEN {no_lots} THEN g.processed_lots - g.failed_lots ELSE
                    sum(l.status = 'completed' AND (l.vision_result IS NOT NULL OR EXISTS
                        (SELECT 1 FROM lot_translations t WHERE t.lot = l.id AND t.text IS NOT NULL)))
                    END AS answered,
                CASE WHEN {no_lots} THEN g.failed_lots
                    ELSE sum(l.status = 'failed' AND l.error_message IS NOT NULL) END AS failed,
                CASE WHEN {no_lots} THEN (g.status = 'cancelled') * (g.total_lots - g.processed_lots)
                    ELSE sum(l.status = 'cancelled') END AS cancelled,
                CASE WHEN {no_lots} THEN 0 ELSE sum(l.status = 'pending') END AS open
            FROM batch_jobs g LEFT JOIN batch_lots l ON l.batch_job_id = g.id
            WHERE g.created_at >= ?1 AND g.created_at < ?2 GROUP BY g.seq) r ON r.seq = j.seq
         WHERE {OF_PERIOD}"
    )
}

fn descriptions_sql() -> String {
    let described = paid_answers("vision");
    requests_sql(
        "vision",
        "l.vision_result IS NOT NULL",
        "(l.error_message IS NOT NULL OR l.status = 'completed')",
        &format!("iif(j.origin = 'import', {described}, j.total_lots) AS wanted, {described} AS answers"),
    )
}

fn translations_sql() -> String {
    let (described, translated) = (paid_answers("vision"), paid_answers("translation"));
    let has = |column: &str| {
        format!(
            "EXISTS (SELECT 1 FROM lot_translations t
                     WHERE t.lot = r.lot AND t.language = r.language AND t.{column} IS NOT NULL)"
        )
    };
    requests_sql(
        "translation",
        &has("text"),
        &has("error"),
        // A described lot is wanted in every other language.
        &format!(
            "iif(j.origin = 'import' OR j.status = 'cancelled', {translated}, min(j.total_lots, {described})
                 * (SELECT count(DISTINCT e.value) FROM json_each(j.languages) e
                    WHERE lower(e.value) <> 'en' AND lower(e.value) NOT GLOB 'en-*')) AS wanted,
             {translated} AS answers"
        ),
    )
}

/// The number of paid answers of job `j` in a stage.
fn paid_answers(stage: &str) -> String {
    format!(
        "(SELECT coalesce(sum(u.answers), 0) FROM job_usage u WHERE u.job = j.seq AND u.stage = '{stage}')"
    )
}

/// Counts the requests of a stage. `of_cleaned` gives, as `wanted` and `answers`, the counts of a cleaned
/// job.
fn requests_sql(stage: &str, has_text: &str, has_reason: &str, of_cleaned: &str) -> String {
    format!(
        "SELECT coalesce(sum(accepted), 0) AS accepted, coalesce(sum(answered), 0) AS answered,
            coalesce(sum(failed), 0) AS failed, coalesce(sum(cancelled), 0) AS cancelled,
            coalesce(sum(open), 0) AS open
         FROM (
            SELECT count(*) AS accepted, sum(r.state = 'done' AND {has_text}) AS answered,
                sum(r.state = 'failed' AND {has_reason}) AS failed, sum(r.state = 'cancelled') AS cancelled,
                sum(r.{OPEN_REQUEST}) AS open
            FROM batch_jobs j JOIN requests r ON r.job = j.seq AND r.stage = '{stage}'
                JOIN batch_lots l ON l.id = r.lot
            WHERE j.cleaning_since IS NULL AND {OF_PERIOD}
            UNION ALL
            SELECT wanted, min(wanted, answers), (status <> 'cancelled') * (wanted - min(wanted, answers)),
                (status = 'cancelled') * (wanted - min(wanted, answers)), 0
            FROM (SELECT j.status, {of_cleaned} FROM batch_jobs j
                  WHERE j.cleaning_since IS NOT NULL AND {OF_PERIOD}))"
    )
}

/// The number of cleaned jobs among those accepted from `from` on and before `to`.
pub fn count_cleaned_jobs(view: &View, from: Timestamp, to: Timestamp) -> Stored<u64> {
    let mut query = view.prepare(&format!(
        "SELECT count(*) FROM batch_jobs j WHERE j.cleaning_since IS NOT NULL AND {OF_PERIOD}"
    ))?;
    Ok(query.query_row([from, to], |row| row.get(0))?)
}
