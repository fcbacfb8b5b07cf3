//! The accounts of a period: what was accepted and what became of it, and what each batch cost.

use rusqlite::{Row, params};

use super::{Stored, View};
use crate::clock::Timestamp;
use crate::money::Money;
use crate::remote::Identity;

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

/// Of jobs accepted from `from` on and before `to`. An import's headers without lots are another
/// service's accounts.
const OF_PERIOD: &str = "j.created_at >= ?1 AND j.created_at < ?2
    AND NOT (j.origin = 'import' AND NOT EXISTS (SELECT 1 FROM batch_lots l WHERE l.batch_job_id = j.id))";

/// The accounts of the jobs accepted in a period.
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
    let requests = |stage: &str, has_text: &str, has_reason: &str| {
        format!(
            "SELECT count(*), coalesce(sum(r.state = 'done' AND {has_text}), 0),
                coalesce(sum(r.state = 'failed' AND {has_reason}), 0), coalesce(sum(r.state = 'cancelled'), 0),
                coalesce(sum(r.state IN ('waiting', 'claimed', 'held')), 0)
             FROM batch_jobs j JOIN requests r ON r.job = j.seq AND r.stage = '{stage}' JOIN batch_lots l ON l.id = r.lot"
        )
    };
    let descriptions = requests(
        "vision",
        "l.vision_result IS NOT NULL",
        "(l.error_message IS NOT NULL OR l.status = 'completed')",
    );
    let translation = |what: &str| {
        format!(
            "EXISTS (SELECT 1 FROM lot_translations t WHERE t.lot = r.lot AND t.language = r.language AND t.{what} IS NOT NULL)"
        )
    };
    let translations = requests("translation", &translation("text"), &translation("error"));
    [
        ("jobs", jobs),
        ("lots", &lots),
        ("descriptions", &descriptions),
        ("translations", &translations),
    ]
    .into_iter()
    .map(|(what, sql)| {
        let mut query = view.prepare(&format!("{sql} WHERE {OF_PERIOD}"))?;
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
    /// Tokens in, of those cached, out, of those reasoning.
    pub tokens: [u64; 4],
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
                coalesce(c.answered, 0), coalesce(c.input_tokens, 0), coalesce(c.cached_tokens, 0),
                coalesce(c.output_tokens, 0), coalesce(c.reasoning_tokens, 0), c.cost_picodollars
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
            tokens: [row.get(12)?, row.get(13)?, row.get(14)?, row.get(15)?],
            cost: row.get::<_, Option<i64>>(16)?.map(Money),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Calls outside of batches.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// How many.
    pub number: u64,
    /// Their tokens, as those of a batch.
    pub tokens: [u64; 4],
    /// What they cost; none: a model of theirs has no price.
    pub cost: Option<Money>,
}

/// Calls outside of batches that were begun in a period.
pub fn direct_calls(view: &View, from: Timestamp, to: Timestamp) -> Stored<Calls> {
    let mut query = view.prepare(
        "WITH cost (job, model, mode, day, cost) AS (
            SELECT u.job, u.model, u.mode, u.day,
                   (u.input_tokens - u.cached_tokens) * p.input + u.cached_tokens * p.cached + u.output_tokens * p.output
            FROM job_usage u LEFT JOIN v_day_prices p ON p.model = u.model AND p.mode = u.mode AND p.day = u.day)
         SELECT coalesce(sum(calls), 0), coalesce(sum(input_tokens), 0), coalesce(sum(cached_tokens), 0),
                coalesce(sum(output_tokens), 0), coalesce(sum(reasoning_tokens), 0), coalesce(sum(cost), 0),
                count(*) = count(cost)
         FROM (SELECT 1 AS calls, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
                      CASE WHEN input_tokens + output_tokens = 0 THEN 0 ELSE
                          (SELECT (d.input_tokens - d.cached_tokens) * p.input + d.cached_tokens * p.cached
                                  + d.output_tokens * p.output
                           FROM v_day_prices p WHERE p.model = d.model AND p.mode = 'synchronous'
                             AND p.day = substr(d.started_at, 1, 10)) END AS cost
               FROM direct_calls d WHERE started_at >= ?1 AND started_at < ?2
               UNION ALL
               -- Of what is cleaned up the job's counters know the model.
               SELECT lines, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
                      CASE WHEN input_tokens + output_tokens = 0 THEN 0 ELSE
                          (SELECT CASE WHEN count(*) = count(c.cost) THEN sum(c.cost) END FROM cost c
                           WHERE c.job = w.job AND c.mode = 'synchronous') END
               FROM cleaned_work w WHERE batch_id IS NULL AND began_at >= ?1 AND began_at < ?2)",
    )?;
    let row = query.query_row([from, to], |row| {
        let (cost, is_known): (i64, bool) = (row.get(5)?, row.get(6)?);
        Ok(Calls {
            number: row.get(0)?,
            tokens: [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?],
            cost: is_known.then_some(Money(cost)),
        })
    })?;
    Ok(row)
}
