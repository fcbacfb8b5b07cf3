//! Costs by client, model and day, the budgets, OpenAI's queue limits, and the same as a file for a spreadsheet.

use std::time::Duration;

use maud::{Markup, html};

use super::controls::{Filter, Query, address, filter_form};
use super::cost_chart::cost_chart;
use super::rows::BudgetRow;
use super::tables::{BUDGETS, COSTS_BY_CLIENT, COSTS_BY_DAY, COSTS_BY_MODEL, JOB_COSTS, QUEUES};
use super::{Content, RequestError, StatusPage};
use crate::store::inspect::{Table, plain};
use crate::store::money;
use crate::store::queue;
use crate::store::status::{self, CostGroup};

/// How far back costs are shown if no day is chosen.
const SHOWN: Duration = Duration::from_hours(31 * 24);
/// Jobs whose estimate is compared with their cost.
const COMPARED_JOBS: u32 = 20;

impl StatusPage<'_> {
    fn costs_since(&self, query: &Query<'_>) -> Result<String, RequestError> {
        let since = query.day("since")?.unwrap_or_else(|| self.wall().before(SHOWN));
        Ok(since.to_day_text())
    }

    pub(super) fn costs(&self, query: &Query<'_>) -> Result<Content, RequestError> {
        let since = self.costs_since(query)?;
        let parts = self.store.read(|view| {
            let by = |group| status::costs_by(view, group, &since);
            let uses = money::budget_uses(view, &self.config.spending_limits(), self.wall())?;
            let mut budgets = Vec::with_capacity(uses.len());
            for budget in uses {
                let promised = money::promised(view, budget.client.as_deref())?;
                budgets.push(BudgetRow { budget, promised });
            }
            let none = "Nothing was spent.";
            let by_day = by(CostGroup::Day)?;
            Ok(vec![
                self.table(
                    "Budgets",
                    BUDGETS,
                    &budgets,
                    "No budget is configured: [budgets].",
                ),
                self.table("By client", COSTS_BY_CLIENT, &by(CostGroup::Client)?, none),
                self.table("By model", COSTS_BY_MODEL, &by(CostGroup::Model)?, none),
                cost_chart(&by_day, self.wall()),
                self.table("By day", COSTS_BY_DAY, &by_day, none),
                self.table(
                    "Estimate and cost of the last ended jobs",
                    JOB_COSTS,
                    &status::newest_job_costs(view, COMPARED_JOBS)?,
                    "No job has ended.",
                ),
                self.table(
                    "OpenAI's queue limits",
                    QUEUES,
                    &queue::list(view)?,
                    "OpenAI has not named a limit yet.",
                ),
            ])
        })?;
        let filters = [Filter::since(query)];
        let form: Markup = html! {
            (filter_form("/costs", &filters))
            p { "Since " (since) ", by the prices of each day. "
                a href=(address("/costs.csv", &filters, &[])) { "All rows as CSV" } }
        };
        Ok(Content::list(
            "Costs",
            std::iter::once(form).chain(parts).collect(),
        ))
    }

    pub(super) fn costs_csv(&self, query: &Query<'_>) -> Result<Content, RequestError> {
        let since = self.costs_since(query)?;
        let table = self.store.read(|view| money::spending_since(view, &since))?;
        Ok(Content::Csv(csv(&table)))
    }
}

/// A table as RFC 4180 has it.
fn csv(table: &Table) -> String {
    let line = |cells: Vec<String>| cells.join(",") + "\r\n";
    let head = line(table.columns.iter().map(|name| csv_cell(name)).collect());
    let rows = table
        .rows
        .iter()
        .map(|row| line(row.iter().map(|cell| csv_cell(&plain(cell))).collect()));
    std::iter::once(head).chain(rows).collect()
}

/// A cell between quotes where it needs them. A spreadsheet must not read a foreign text as a formula.
fn csv_cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@']);
    let text = match is_formula {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_no_formula() {
        for (text, cell) in [
            ("gpt-6", "gpt-6"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("a \"b\"", "\"a \"\"b\"\"\""),
            ("=1+1", "'=1+1"),
            ("@x,y", "\"'@x,y\""),
        ] {
            assert_eq!(csv_cell(text), cell);
        }
    }
}
