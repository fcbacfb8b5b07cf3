//! What each batch and the synchronous calls of a period cost.

use rusqlite::params;

use super::columns::token_usage;
use super::money::sum_of_money;
use super::{Stored, View};
use crate::base::clock::Timestamp;
use crate::domain::money::Money;
use crate::domain::openai::Identity;
use crate::domain::usage::TokenUsage;

/// A batch with its tokens and cost.
#[derive(Clone, Debug)]
pub struct BatchCost {
    /// Its row.
    pub id: i64,
    /// OpenAI's id.
    pub openai_batch_id: String,
    /// Its state.
    pub state: String,
    /// Whether it failed, or an operator abandoned it.
    pub is_abandoned: bool,
    /// Its stage.
    pub stage: String,
    /// Its model.
    pub model: String,
    /// Its job, the number of its jobs, or `without a job`.
    pub owner: String,
    /// Lines of jobs that this database does not have.
    pub lines_without_job: u64,
    /// The price of these lines, which is a part of `cost`; `None` if it is not known.
    pub cost_without_job: Option<Money>,
    /// The batch whose submission key it shares.
    pub duplicate_of: Option<i64>,
    /// The account under which it was made.
    pub identity: Identity,
    /// Lines of its input file.
    pub lines: u64,
    /// Answered lines.
    pub answered: u64,
    /// Its tokens.
    pub tokens: TokenUsage,
    /// Lines whose tokens are unknown.
    pub usage_unknown: u64,
    /// The price of its tokens; `None` if the model has no price, or the tokens of a line are unknown.
    pub cost: Option<Money>,
}

/// The batches that OpenAI created from `from` on and before `to` (its clock, in seconds), oldest first.
pub fn batch_costs(view: &View, from: i64, to: i64) -> Stored<Vec<BatchCost>> {
    let mut query = view.prepare(
        "SELECT b.id, b.openai_batch_id, b.state, b.stage, b.model,
                coalesce(b.job_id, (SELECT CASE count(*) WHEN 0 THEN 'without a job' WHEN 1 THEN min(j.id) ELSE count(*) || ' jobs' END
                                    FROM batch_links k JOIN batch_jobs j ON j.seq = k.job WHERE k.batch_id = b.id)) AS owner,
                b.lines_without_job,
                CASE b.lines_without_job WHEN 0 THEN 0 ELSE
                    (SELECT n.cost_picodollars FROM v_usage_without_job n WHERE n.batch_id = b.id) END AS cost_without_job,
                b.duplicate_of, b.base_url, b.organization, b.project, b.lines,
                b.state = 'failed' OR b.abandoned_at IS NOT NULL AS is_abandoned,
                coalesce(c.answered, 0) AS answered,
                CASE c.usage_unknown WHEN 0 THEN c.cost_picodollars END AS cost, b.usage_unknown, coalesce(c.input_tokens, 0) AS input_tokens,
                coalesce(c.cached_tokens, 0) AS cached_tokens, coalesce(c.output_tokens, 0) AS output_tokens,
                coalesce(c.reasoning_tokens, 0) AS reasoning_tokens
         FROM openai_batches b LEFT JOIN v_costs c ON c.batch_id = b.id
         WHERE b.openai_batch_id IS NOT NULL AND b.openai_time >= ? AND b.openai_time < ?
         ORDER BY b.openai_time, b.id",
    )?;
    let rows = query.query_map(params![from, to], |row| {
        Ok(BatchCost {
            id: row.get("id")?,
            openai_batch_id: row.get("openai_batch_id")?,
            state: row.get("state")?,
            is_abandoned: row.get("is_abandoned")?,
            stage: row.get("stage")?,
            model: row.get("model")?,
            owner: row.get("owner")?,
            lines_without_job: row.get("lines_without_job")?,
            cost_without_job: row.get::<_, Option<i64>>("cost_without_job")?.map(Money),
            duplicate_of: row.get("duplicate_of")?,
            identity: Identity {
                base_url: row.get("base_url")?,
                organization: row.get("organization")?,
                project: row.get("project")?,
            },
            lines: row.get("lines")?,
            answered: row.get("answered")?,
            tokens: token_usage(row, "")?,
            usage_unknown: row.get("usage_unknown")?,
            cost: row.get::<_, Option<i64>>("cost")?.map(Money),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The synchronous calls of a period, with their tokens and cost.
#[derive(Clone, Copy, Debug)]
pub struct SynchronousCost {
    /// Number of calls.
    pub calls: u64,
    /// Their tokens.
    pub tokens: TokenUsage,
    /// The price of their tokens; `None` if a model has no price, or the tokens of a call are unknown.
    pub cost: Option<Money>,
}

/// The synchronous calls that began from `from` on and before `to`.
pub fn synchronous_cost(view: &View, from: Timestamp, to: Timestamp) -> Stored<SynchronousCost> {
    let mut query = view.prepare(&format!(
        "SELECT coalesce(sum(calls), 0) AS calls, {} AS cost,
                count(*) = count(cost) AND total(usage_unknown) = 0 AS has_cost,
                coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(cached_tokens), 0) AS cached_tokens,
                coalesce(sum(output_tokens), 0) AS output_tokens,
                coalesce(sum(reasoning_tokens), 0) AS reasoning_tokens
         FROM (SELECT 1 AS calls, input_tokens, cached_tokens, output_tokens, reasoning_tokens, usage_unknown,
                      cost_picodollars AS cost
               FROM v_call_costs WHERE started_at >= ?1 AND started_at < ?2
               UNION ALL
               -- The model of a cleaned job's calls is in the job's usage.
               SELECT lines, input_tokens, cached_tokens, output_tokens, reasoning_tokens, usage_unknown,
                      CASE WHEN input_tokens + output_tokens = 0 THEN 0 ELSE
                          (SELECT CASE WHEN count(*) = count(c.cost_picodollars) THEN {} END
                           FROM v_job_usage c WHERE c.job = w.job AND c.mode = 'synchronous') END
               FROM cleaned_work w WHERE batch_id IS NULL AND began_at >= ?1 AND began_at < ?2)",
        sum_of_money("cost"),
        sum_of_money("c.cost_picodollars")
    ))?;
    let row = query.query_row([from, to], |row| {
        let (cost, has_cost): (i64, bool) = (row.get("cost")?, row.get("has_cost")?);
        Ok(SynchronousCost {
            calls: row.get("calls")?,
            tokens: token_usage(row, "")?,
            cost: has_cost.then_some(Money(cost)),
        })
    })?;
    Ok(row)
}
