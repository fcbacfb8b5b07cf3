//! Costs by day, client or model.

use rusqlite::params;

use super::rows;
use crate::domain::money::Money;
use crate::domain::usage::TokenUsage;
use crate::store::columns::token_usage;
use crate::store::money::{TOKEN_SUMS, sum_of_money};
use crate::store::{Stored, View};

/// The most rows of a table of costs.
const MOST_ROWS: u32 = 1000;

/// What the rows of a table of costs stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostGroup {
    /// A day each, newest first.
    Day,
    /// A client each, the most expensive first.
    Client,
    /// A model and mode each, the most expensive first.
    Model,
}

impl CostGroup {
    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Day => ("day", "name DESC"),
            Self::Client => ("client", "cost DESC, name"),
            Self::Model => ("model || ' (' || mode || ')'", "cost DESC, name"),
        }
    }
}

/// What one day, client or model cost.
#[derive(Clone, Debug)]
pub struct GroupCosts {
    /// The day, client or model.
    pub name: String,
    /// Requests that OpenAI answered.
    pub answers: u64,
    /// The tokens of all attempts.
    pub usage: TokenUsage,
    /// The cost of the usage that has a price.
    pub cost: Money,
    /// Whether a part of the cost is unknown: a model without a price, or tokens that OpenAI did not state.
    pub is_partly_unknown: bool,
}

/// The costs since a day, in groups.
pub fn costs_by(view: &View, group: CostGroup, since: &str) -> Stored<Vec<GroupCosts>> {
    let (name, order) = group.sql();
    let sum = sum_of_money("u.cost_picodollars");
    rows(
        view,
        &format!(
            "SELECT {name} AS name, sum(u.answers) AS answers, {TOKEN_SUMS}, {sum} AS cost,
                    count(*) > count(u.cost_picodollars) OR total(u.usage_unknown) > 0 AS is_partly_unknown
             FROM v_spending u WHERE u.day >= ? GROUP BY 1 ORDER BY {order} LIMIT {MOST_ROWS}"
        ),
        params![since],
        |row| {
            Ok(GroupCosts {
                name: row.get("name")?,
                answers: row.get("answers")?,
                usage: token_usage(row, "")?,
                cost: Money(row.get("cost")?),
                is_partly_unknown: row.get("is_partly_unknown")?,
            })
        },
    )
}

/// A job with its estimate and its cost.
#[derive(Clone, Debug)]
pub struct JobCosts {
    /// Its id.
    pub job: String,
    /// Its client.
    pub client: String,
    /// The estimate at its acceptance in US dollars, or `unknown`.
    pub estimated: String,
    /// What it cost so far in US dollars, or `unknown`.
    pub actual: String,
}

/// The newest jobs that are final, with their estimates and costs.
pub fn newest_job_costs(view: &View, limit: u32) -> Stored<Vec<JobCosts>> {
    rows(
        view,
        "SELECT c.job_id, c.client, c.estimated_usd, c.cost_usd
         FROM (SELECT seq, id FROM batch_jobs WHERE completed_at IS NOT NULL ORDER BY seq DESC LIMIT ?) j
              JOIN v_job_costs c ON c.job_id = j.id ORDER BY j.seq DESC",
        [limit],
        |row| {
            Ok(JobCosts {
                job: row.get("job_id")?,
                client: row.get("client")?,
                estimated: row.get("estimated_usd")?,
                actual: row.get("cost_usd")?,
            })
        },
    )
}
