//! The accounts of a period: what was accepted and what became of it, and what each batch cost.

use rusqlite::{Row, params};

use super::columns::token_usage;
use super::{Stored, View};
use crate::base::clock::Timestamp;
use crate::domain::money::Money;
use crate::domain::openai::Identity;
use crate::domain::usage::TokenUsage;

/// What was accepted of one kind, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// jobs, lots, descriptions or translations.
    pub what: &'static str,
    /// How many were wanted.
    pub accepted: u64,
    /// Have their text.
    pub answered: u64,
    /// Failed, with a reason.
    pub failed: u64,
    /// Were taken back.
    pub cancelled: u64,
    /// Are still worked on.
    pub open: u64,
}

impl Account {
    /// How many nobody can say anything of.
    pub fn unexplained(&self) -> u64 {
        let explained = self.answered + self.failed + self.cancelled + self.open;
        self.accepted.abs_diff(explained)
    }
}

/// Of jobs accepted from `from` on and before `to`. An import's headers that came without lots are another
/// service's accounts; its event tells them from those whose lots are gone after their time.
const OF_PERIOD: &str = "j.created_at >= ?1 AND j.created_at < ?2
    AND NOT (j.origin = 'import' AND NOT EXISTS (SELECT 1 FROM batch_lots l WHERE l.batch_job_id = j.id)
             AND (j.cleaning_since IS NULL OR EXISTS (SELECT 1 FROM events e WHERE e.job_id = j.id
                                                        AND e.kind = 'imported' AND e.detail GLOB '* lots=0')))";

/// The accounts of the jobs accepted in a period. Of a job that is cleaned the requests are told by its
/// header and its paid answers: what of an imported one was not answered here, and which translations of
/// a cancelled one were wanted, nobody knows any more, and neither is counted.
pub fn accounts(view: &View, from: Timestamp, to: Timestamp) -> Stored<Vec<Account>> {
    let jobs = "SELECT count(*), coalesce(sum(j.status = 'completed'), 0),
            coalesce(sum(j.status = 'failed' AND j.error_message IS NOT NULL), 0),
            coalesce(sum(j.status = 'cancelled'), 0), coalesce(sum(j.completed_at IS NULL), 0)
         FROM batch_jobs j";
    // Of jobs whose lots are gone after their time, the header's counters are the proof.
    let no_lots = "count(l.id) = 0 OR g.cleaning_since IS NOT NULL";
    let lots = format!("SELECT coalesce(sum(j.total_lots), 0), coalesce(sum(r.answered), 0), coalesce(sum(r.failed), 0),
            coalesce(sum(r.cancelled), 0), coalesce(sum(r.open), 0)
         FROM batch_jobs j JOIN (
            SELECT g.seq, CASE WHEN {no_lots} THEN g.processed_lots - g.failed_lots ELSE
                    sum(l.status = 'completed' AND (l.vision_result IS NOT NULL OR EXISTS
                        (SELECT 1 FROM lot_translations t WHERE t.lot = l.id AND t.text IS NOT NULL))) END AS answered,
                CASE WHEN {no_lots} THEN g.failed_lots
                    ELSE sum(l.status = 'failed' AND l.error_message IS NOT NULL) END AS failed,
                CASE WHEN {no_lots} THEN (g.status = 'cancelled') * (g.total_lots - g.processed_lots)
                    ELSE sum(l.status = 'cancelled') END AS cancelled,
                CASE WHEN {no_lots} THEN 0 ELSE sum(l.status = 'pending') END AS open
            FROM batch_jobs g LEFT JOIN batch_lots l ON l.batch_job_id = g.id
            WHERE g.created_at >= ?1 AND g.created_at < ?2 GROUP BY g.seq) r ON r.seq = j.seq");
    let answers = |stage: &str| {
        format!(
            "(SELECT coalesce(sum(u.answers), 0) FROM job_usage u WHERE u.job = j.seq AND u.stage = '{stage}')"
        )
    };
    let (described, translated) = (answers("vision"), answers("translation"));
    let requests = |stage: &str, has_text: &str, has_reason: &str, kept: &str| {
        format!(
            "SELECT coalesce(sum(accepted), 0), coalesce(sum(answered), 0), coalesce(sum(failed), 0),
                coalesce(sum(cancelled), 0), coalesce(sum(open), 0)
             FROM (
                SELECT count(*) AS accepted, sum(r.state = 'done' AND {has_text}) AS answered,
                    sum(r.state = 'failed' AND {has_reason}) AS failed, sum(r.state = 'cancelled') AS cancelled,
                    sum(r.state IN ('waiting', 'claimed', 'held')) AS open
                FROM batch_jobs j JOIN requests r ON r.job = j.seq AND r.stage = '{stage}'
                    JOIN batch_lots l ON l.id = r.lot
                WHERE j.cleaning_since IS NULL AND {OF_PERIOD}
                UNION ALL
                SELECT wanted, min(wanted, answers), (status <> 'cancelled') * (wanted - min(wanted, answers)),
                    (status = 'cancelled') * (wanted - min(wanted, answers)), 0
                FROM (SELECT j.status, {kept} FROM batch_jobs j
                      WHERE j.cleaning_since IS NOT NULL AND {OF_PERIOD}))"
        )
    };
    let descriptions = requests(
        "vision",
        "l.vision_result IS NOT NULL",
        "(l.error_message IS NOT NULL OR l.status = 'completed')",
        &format!(
            "iif(j.origin = 'import', {described}, j.total_lots) AS wanted, {described} AS answers"
        ),
    );
    let translation = |what: &str| {
        format!(
            "EXISTS (SELECT 1 FROM lot_translations t WHERE t.lot = r.lot AND t.language = r.language AND t.{what} IS NOT NULL)"
        )
    };
    let translations = requests(
        "translation",
        &translation("text"),
        &translation("error"),
        // Each lot that is described is wanted in every other language.
        &format!(
            "iif(j.origin = 'import' OR j.status = 'cancelled', {translated}, min(j.total_lots, {described})
                 * (SELECT count(DISTINCT e.value) FROM json_each(j.languages) e
                    WHERE lower(e.value) <> 'en' AND lower(e.value) NOT GLOB 'en-*')) AS wanted,
             {translated} AS answers"
        ),
    );
    [
        ("jobs", format!("{jobs} WHERE {OF_PERIOD}")),
        ("lots", format!("{lots} WHERE {OF_PERIOD}")),
        ("descriptions", descriptions),
        ("translations", translations),
    ]
    .into_iter()
    .map(|(what, sql)| {
        let mut query = view.prepare(&sql)?;
        let account = |row: &Row<'_>| {
            Ok(Account {
                what,
                accepted: row.get(0)?,
                answered: row.get(1)?,
                failed: row.get(2)?,
                cancelled: row.get(3)?,
                open: row.get(4)?,
            })
        };
        Ok(query.query_row([from, to], account)?)
    })
    .collect()
}

/// How many of the jobs accepted in a period are cleaned.
pub fn cleaned_jobs(view: &View, from: Timestamp, to: Timestamp) -> Stored<u64> {
    let mut query = view.prepare(&format!(
        "SELECT count(*) FROM batch_jobs j WHERE j.cleaning_since IS NOT NULL AND {OF_PERIOD}"
    ))?;
    Ok(query.query_row([from, to], |row| row.get(0))?)
}

/// What a batch is to us, and what it cost.
#[derive(Clone, Debug)]
pub struct Paid {
    /// Our id of it.
    pub id: i64,
    /// OpenAI's.
    pub openai_batch_id: String,
    /// Where it stands.
    pub state: String,
    /// What it asks for.
    pub stage: String,
    /// Its model.
    pub model: String,
    /// Its owner: the job, or how many jobs.
    pub owner: String,
    /// The row whose key it shares.
    pub duplicate_of: Option<i64>,
    /// The account it was made under.
    pub identity: Identity,
    /// Lines of its input.
    pub lines: u64,
    /// Of them answered.
    pub answered: u64,
    /// Its tokens.
    pub tokens: TokenUsage,
    /// What they cost; none: the model has no price.
    pub cost: Option<Money>,
}

/// Batches that OpenAI made from `from` on and before `to` (its clock, seconds), oldest first.
pub fn batches(view: &View, from: i64, to: i64) -> Stored<Vec<Paid>> {
    let mut query = view.prepare(
        "SELECT b.id, b.openai_batch_id, b.state, b.stage, b.model,
                coalesce(b.job_id, (SELECT CASE count(*) WHEN 1 THEN min(j.id) ELSE count(*) || ' jobs' END
                                    FROM batch_links k JOIN batch_jobs j ON j.seq = k.job WHERE k.batch_id = b.id)),
                b.duplicate_of, b.base_url, b.organization, b.project, b.lines,
                coalesce(c.answered, 0), c.cost_picodollars, coalesce(c.input_tokens, 0) AS input_tokens,
                coalesce(c.cached_tokens, 0) AS cached_tokens, coalesce(c.output_tokens, 0) AS output_tokens,
                coalesce(c.reasoning_tokens, 0) AS reasoning_tokens
         FROM openai_batches b LEFT JOIN v_costs c ON c.batch_id = b.id
         WHERE b.openai_batch_id IS NOT NULL AND b.openai_time >= ? AND b.openai_time < ?
         ORDER BY b.openai_time, b.id",
    )?;
    let rows = query.query_map(params![from, to], |row| {
        Ok(Paid {
            id: row.get(0)?,
            openai_batch_id: row.get(1)?,
            state: row.get(2)?,
            stage: row.get(3)?,
            model: row.get(4)?,
            owner: row.get(5)?,
            duplicate_of: row.get(6)?,
            identity: Identity {
                base_url: row.get(7)?,
                organization: row.get(8)?,
                project: row.get(9)?,
            },
            lines: row.get(10)?,
            answered: row.get(11)?,
            tokens: token_usage(row, "")?,
            cost: row.get::<_, Option<i64>>(12)?.map(Money),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Calls outside of batches.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// How many.
    pub number: u64,
    /// Their tokens.
    pub tokens: TokenUsage,
    /// What they cost; none: a model of theirs has no price.
    pub cost: Option<Money>,
}

/// Calls outside of batches that were begun in a period.
pub fn direct_calls(view: &View, from: Timestamp, to: Timestamp) -> Stored<Calls> {
    let mut query = view.prepare(
        "SELECT coalesce(sum(calls), 0), coalesce(sum(cost), 0), count(*) = count(cost),
                coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(cached_tokens), 0) AS cached_tokens,
                coalesce(sum(output_tokens), 0) AS output_tokens,
                coalesce(sum(reasoning_tokens), 0) AS reasoning_tokens
         FROM (SELECT 1 AS calls, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
                      CASE WHEN input_tokens + output_tokens = 0 THEN 0 ELSE
                          (SELECT (d.input_tokens - d.cached_tokens) * p.input + d.cached_tokens * p.cached
                                  + d.output_tokens * p.output
                           FROM v_day_prices p WHERE p.model = d.model AND p.mode = 'synchronous'
                             AND p.day = substr(d.started_at, 1, 10)) END AS cost
               FROM synchronous_calls d WHERE started_at >= ?1 AND started_at < ?2
               UNION ALL
               -- Of what is cleaned up the job's counters know the model.
               SELECT lines, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
                      CASE WHEN input_tokens + output_tokens = 0 THEN 0 ELSE
                          (SELECT CASE WHEN count(*) = count(c.cost_picodollars) THEN sum(c.cost_picodollars) END
                           FROM v_job_usage c WHERE c.job = w.job AND c.mode = 'synchronous') END
               FROM cleaned_work w WHERE batch_id IS NULL AND began_at >= ?1 AND began_at < ?2)",
    )?;
    let row = query.query_row([from, to], |row| {
        let (cost, is_known): (i64, bool) = (row.get(1)?, row.get(2)?);
        Ok(Calls {
            number: row.get(0)?,
            tokens: token_usage(row, "")?,
            cost: is_known.then_some(Money(cost)),
        })
    })?;
    Ok(row)
}
