//! Prices, what was spent, what is reserved, and what requests took: read from counters that triggers
//! keep, never from the lines.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::columns::token_usage;
use super::inspect::{self, Table};
use super::{Stored, Tx, View};
use crate::base::clock::Timestamp;
use crate::domain::alert::{AlertCause, AlertSubject};
use crate::domain::batch::Stage;
use crate::domain::money::{Budgets, Limits, Money, Price, Rates};
use crate::domain::usage::TokenUsage;

/// Finished jobs that estimates are learned from.
const JOBS: u32 = 20;

/// The price `p` of what `u` used, in force on its day.
const PRICE: &str = "FROM prices p WHERE p.mode = u.mode AND p.since <= u.day
    AND (u.model = p.model OR u.model GLOB p.model || '-20[0-9][0-9]-[01][0-9]-[0-3][0-9]')
    ORDER BY p.since DESC LIMIT 1";
/// What `u` used costs by the price `p`.
const COST: &str = "(u.input_tokens - u.cached_tokens) * p.input + u.cached_tokens * p.cached + u.output_tokens * p.output";

/// Makes the table of prices that of the configuration.
pub fn set_prices(tx: &Tx<'_>, prices: &[Price]) -> Stored<()> {
    tx.execute("DELETE FROM prices", [])?;
    let mut insert = tx.prepare("INSERT OR REPLACE INTO prices VALUES (?, ?, ?, ?, ?, ?)")?;
    for price in prices {
        for (mode, rates) in price.rates() {
            insert.execute(params![
                price.model,
                mode,
                price.since,
                rates.input,
                rates.cached,
                rates.output
            ])?;
        }
    }
    Ok(())
}

/// What a model costs on a day; none: nobody knows.
pub fn rates(view: &View, model: &str, mode: &str, day: &str) -> Stored<Option<Rates>> {
    let mut query = view.prepare_cached(
        "SELECT p.input, p.cached, p.output FROM prices p WHERE p.mode = ?2 AND p.since <= ?3
           AND (?1 = p.model OR ?1 GLOB p.model || '-20[0-9][0-9]-[01][0-9]-[0-3][0-9]')
         ORDER BY p.since DESC LIMIT 1",
    )?;
    let found = query.query_row(params![model, mode, day], |row| {
        Ok(Rates {
            input: row.get(0)?,
            cached: row.get(1)?,
            output: row.get(2)?,
        })
    });
    Ok(found.optional()?)
}

/// What requests of one kind took in the last finished jobs, those of failed attempts included.
#[derive(Clone, Debug)]
pub struct Learned {
    /// The language; empty in the vision stage.
    pub language: String,
    /// How many were answered.
    pub answers: u64,
    /// What all of them took.
    pub tokens: TokenUsage,
}

/// What the last finished jobs took of a model in a stage, by language.
pub fn learned(view: &View, stage: Stage, model: &str) -> Stored<Vec<Learned>> {
    let mut query = view.prepare_cached(
        "SELECT u.language, sum(u.answers), sum(u.input_tokens) AS input_tokens, sum(u.cached_tokens) AS cached_tokens,
                sum(u.output_tokens) AS output_tokens, sum(u.reasoning_tokens) AS reasoning_tokens
         FROM (SELECT seq FROM batch_jobs WHERE status = 'completed' ORDER BY seq DESC LIMIT ?) j
              JOIN job_usage u ON u.job = j.seq
         WHERE u.stage = ? AND u.model = ? GROUP BY u.language HAVING sum(u.answers) > 0",
    )?;
    let rows = query.query_map(params![JOBS, stage, model], |row| {
        Ok(Learned {
            language: row.get(0)?,
            answers: row.get(1)?,
            tokens: token_usage(row, "")?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What was spent in a day or a month (`2026-11-24`, `2026-11`), by one client or by all; what has no
/// price does not count.
pub fn spent(view: &View, client: Option<&str>, period: &str) -> Stored<Money> {
    let mut query = view.prepare_cached(&format!(
        "SELECT coalesce(sum((SELECT {COST} {PRICE})), 0) FROM client_usage u
         WHERE u.day >= ?1 AND u.day < ?1 || '~' AND (?2 IS NULL OR u.client = ?2)"
    ))?;
    let spent = query.query_row(params![period, client], |row| row.get(0))?;
    Ok(Money(spent))
}

/// The estimate of batches under way that were planned in that period.
pub fn reserved(view: &View, client: Option<&str>, period: &str) -> Stored<Money> {
    let mut query = view.prepare_cached(
        "SELECT coalesce(sum(cost), 0) FROM reservations
         WHERE day >= ?1 AND day < ?1 || '~' AND (?2 IS NULL OR client = ?2)",
    )?;
    Ok(Money(
        query.query_row(params![period, client], |row| row.get(0))?,
    ))
}

/// What jobs that are not final will still cost, as estimated when they were accepted.
fn promised(view: &View, client: Option<&str>) -> Stored<Money> {
    let mut query = view.prepare_cached(&format!(
        "SELECT coalesce(sum(max(0, coalesce(j.estimated_cost, 0) -
                    coalesce((SELECT sum((SELECT {COST} {PRICE})) FROM job_usage u WHERE u.job = j.seq), 0))), 0)
         FROM batch_jobs j
         WHERE j.status IN ('pending', 'processing', 'translating') AND (?1 IS NULL OR j.client = ?1)"
    ))?;
    Ok(Money(query.query_row([client], |row| row.get(0))?))
}

/// What a job has cost so far; none: something of it has no price.
pub fn of_job(view: &View, job: i64) -> Stored<(Option<Money>, TokenUsage)> {
    let mut query = view.prepare_cached(&format!(
        "SELECT sum(u.cost), count(*) - count(u.cost), coalesce(sum(u.input_tokens), 0) AS input_tokens,
                coalesce(sum(u.cached_tokens), 0) AS cached_tokens, coalesce(sum(u.output_tokens), 0) AS output_tokens,
                coalesce(sum(u.reasoning_tokens), 0) AS reasoning_tokens
         FROM (SELECT u.*, (SELECT {COST} {PRICE}) AS cost FROM job_usage u WHERE u.job = ?) u"
    ))?;
    Ok(query.query_row([job], |row| {
        let (cost, unknown): (Option<i64>, u64) = (row.get(0)?, row.get(1)?);
        let cost = (unknown == 0).then_some(Money(cost.unwrap_or(0)));
        Ok((cost, token_usage(row, "")?))
    })?)
}

/// Keeps what a job was estimated to take.
pub fn keep_estimate(tx: &Tx<'_>, job: i64, cost: Option<Money>, tokens: TokenUsage) -> Stored<()> {
    tx.prepare_cached(
        "UPDATE batch_jobs SET estimated_cost = ?, estimated_tokens = ? WHERE seq = ?",
    )?
    .execute(params![
        cost.map(|cost| cost.0),
        tokens.input.saturating_add(tokens.output),
        job
    ])?;
    Ok(())
}

/// A budget and how it stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Whose it is; none: all together.
    pub client: Option<String>,
    /// `2026-11-24` or `2026-11`.
    pub period: String,
    /// What may be spent.
    pub limit: Money,
    /// What was.
    pub spent: Money,
    /// What batches under way will cost, as estimated.
    pub reserved: Money,
}

impl Standing {
    /// What is left.
    pub fn left(&self) -> Money {
        self.limit.less(self.spent + self.reserved)
    }

    /// The subject of alerts about this budget.
    pub fn subject(&self) -> AlertSubject {
        AlertSubject::Budget {
            client: self.client.clone(),
            period: self.period.clone(),
        }
    }
}

/// Every budget as it stands.
pub fn standings(view: &View, budgets: &Budgets, now: Timestamp) -> Stored<Vec<Standing>> {
    let all = (None, budgets.total);
    let clients = budgets.clients.iter();
    let of_clients = clients.map(|(client, limits)| (Some(client.as_str()), *limits));
    let mut standings = Vec::new();
    for (client, limits) in std::iter::once(all).chain(of_clients) {
        for (period, limit) in periods(limits, now) {
            standings.push(Standing {
                client: client.map(str::to_owned),
                limit,
                spent: spent(view, client, &period)?,
                reserved: reserved(view, client, &period)?,
                period,
            });
        }
    }
    Ok(standings)
}

fn periods(limits: Limits, now: Timestamp) -> impl Iterator<Item = (String, Money)> {
    let day = now.to_day_text();
    let month = day.chars().take(7).collect();
    [(day, limits.per_day), (month, limits.per_month)]
        .into_iter()
        .filter_map(|(period, limit)| Some((period, limit?)))
}

/// The budget that a client's new job would break; what accepted jobs will still cost counts.
pub fn broken_by(
    view: &View,
    budgets: &Budgets,
    client: &str,
    cost: Money,
    now: Timestamp,
) -> Stored<Option<Standing>> {
    for mut standing in standings(view, budgets, now)? {
        let whose = standing.client.as_deref();
        if whose.is_none_or(|whose| whose == client) {
            standing.reserved = promised(view, whose)?;
            if standing.left() < cost {
                return Ok(Some(standing));
            }
        }
    }
    Ok(None)
}

/// What may still be reserved: for all together, and for the clients that have a budget.
#[derive(Clone, Debug, Default)]
pub struct Allowance {
    /// None: as much as it takes.
    pub total: Option<Money>,
    /// By client.
    pub clients: HashMap<String, Money>,
}

/// What the budgets leave.
pub fn allowance(view: &View, budgets: &Budgets, now: Timestamp) -> Stored<Allowance> {
    let mut allowance = Allowance::default();
    for standing in standings(view, budgets, now)? {
        let left = standing.left();
        match standing.client {
            None => allowance.total = Some(allowance.total.map_or(left, |least| least.min(left))),
            Some(client) => {
                let least = allowance.clients.entry(client).or_insert(left);
                *least = left.min(*least);
            }
        }
    }
    Ok(allowance)
}

/// A planned batch will cost a client so much more.
pub fn reserve(tx: &Tx<'_>, batch: i64, client: &str, cost: Money) -> Stored<()> {
    tx.prepare_cached(
        "INSERT INTO reservations VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET cost = cost + excluded.cost",
    )?
    .execute(params![batch, client, tx.now.to_day_text(), cost.0])?;
    Ok(())
}

/// Batches of which OpenAI's own count of tokens, since `since`, is another than the sum of their lines.
pub fn differences(view: &View, since: Timestamp) -> Stored<Vec<AlertCause>> {
    let mut query = view.prepare_cached(
        "SELECT id, openai_batch_id, input_tokens, cached_tokens, output_tokens, reasoning_tokens, openai_input_tokens,
                openai_cached_tokens, openai_output_tokens, openai_reasoning_tokens FROM openai_batches
         WHERE ingested_at > ? AND openai_input_tokens IS NOT NULL
           AND (openai_input_tokens, openai_cached_tokens, openai_output_tokens, openai_reasoning_tokens)
               <> (input_tokens, cached_tokens, output_tokens, reasoning_tokens) LIMIT 20",
    )?;
    let rows = query.query_map([since], |row| {
        let (id, remote): (i64, String) = (row.get(0)?, row.get(1)?);
        let ours = token_usage(row, "")?.to_array();
        let theirs = token_usage(row, "openai_")?.to_array();
        let message = format!(
            "the lines of batch {remote} add up to {ours:?} tokens (in, cached, out, reasoning), OpenAI counts {theirs:?} \
             for the whole; what it costs is reckoned from the lines. Look at it: batchkeeper batches show {id}"
        );
        let subject = AlertSubject::Usage(id);
        Ok(AlertCause { subject, message })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How far back spending is shown.
const SHOWN: Duration = Duration::from_hours(31 * 24);

/// What was used and spent lately, by client, day, model and mode.
pub fn spending(view: &View, now: Timestamp) -> Stored<Table> {
    let sql =
        "SELECT * FROM v_spending WHERE day >= ? ORDER BY day DESC, client, model, mode LIMIT 1000";
    inspect::table(view, sql, [now.before(SHOWN).to_day_text()])
}

/// What the newest jobs were estimated to cost, and what they came to.
pub fn newest_jobs(view: &View) -> Stored<Table> {
    // The view adds up all jobs' usage: the newest are named first.
    let newest = "SELECT id FROM batch_jobs ORDER BY seq DESC LIMIT 50";
    let mut ids = view.prepare_cached(newest)?;
    let ids: Vec<String> = ids
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut all = Table {
        columns: Vec::new(),
        rows: Vec::new(),
    };
    for id in ids {
        let one = inspect::table(view, "SELECT * FROM v_job_costs WHERE job_id = ?", [id])?;
        all.columns = one.columns;
        all.rows.extend(one.rows);
    }
    Ok(all)
}

/// What the newest batches took and cost.
pub fn newest_batches(view: &View) -> Stored<Table> {
    let sql = "SELECT * FROM v_costs ORDER BY batch_id DESC LIMIT 50";
    inspect::table(view, sql, [])
}

/// Everything that a model was used for, in one mode: for metrics.
#[derive(Clone, Debug)]
pub struct Used {
    /// The model.
    pub model: String,
    /// `batch` or `synchronous`.
    pub mode: String,
    /// What it took.
    pub tokens: TokenUsage,
    /// What of it has a price.
    pub cost: Money,
}

/// What was used of each model, ever.
pub fn used(view: &View) -> Stored<Vec<Used>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT u.model, u.mode, coalesce(sum((SELECT {COST} {PRICE})), 0), sum(u.input_tokens) AS input_tokens,
                sum(u.cached_tokens) AS cached_tokens, sum(u.output_tokens) AS output_tokens,
                sum(u.reasoning_tokens) AS reasoning_tokens
         FROM client_usage u GROUP BY u.model, u.mode"
    ))?;
    let rows = query.query_map([], |row| {
        Ok(Used {
            model: row.get(0)?,
            mode: row.get(1)?,
            tokens: token_usage(row, "")?,
            cost: Money(row.get(2)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
