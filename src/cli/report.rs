//! `report`: the accounts of a period. They balance if everything accepted was answered or failed with a
//! reason, and every batch that OpenAI made for this database has its row here.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::context::{Context, open_store, wait};
use super::output::{print, print_json};
use super::{CommandError, Outcome, Verdict};
use crate::base::clock::{Clock, SystemClock, Timestamp};
use crate::daemon::openai_client;
use crate::domain::money::Money;
use crate::domain::usage::TokenUsage;
use crate::openai::listing::list_back_to;
use crate::openai::{Batch, BatchApi};
use crate::store::Store;
use crate::store::batches::{META_DATABASE, by_openai_id, ignored};
use crate::store::inspect::Table;
use crate::store::outcome_counts::{OutcomeCounts, count_cleaned_jobs, outcome_counts};
use crate::store::report::{BatchCost, SynchronousCost, batch_costs, synchronous_cost};

/// The length of the period if the command line does not name its beginning.
const USUAL_PERIOD: Duration = Duration::from_hours(24);

/// Options of `report`.
#[derive(Args)]
pub(super) struct ReportOptions {
    /// The period's beginning: a day or a time, such as 2026-11-24 or 2026-11-24T02:24:00Z; default: a day
    /// before its end
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<Timestamp>,
    /// The period's end; default: now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<Timestamp>,
}

/// Reads a time in RFC 3339, or a day, which stands for its beginning in UTC.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    let time = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ => text.to_owned(),
    };
    time.parse()
        .map_err(|_| "it is no day (2026-11-24) and no time (2026-11-24T02:24:00Z)".into())
}

/// A batch of the period, as OpenAI and the store have it.
struct Entry {
    openai_batch_id: String,
    paid: Option<BatchCost>,
    /// Its status at OpenAI.
    status: String,
    remark: String,
    balances: bool,
}

/// What happened in a period.
struct PeriodReport {
    from: Timestamp,
    to: Timestamp,
    accounts: Vec<OutcomeCounts>,
    synchronous: SynchronousCost,
    cleaned_jobs: u64,
    entries: Vec<Entry>,
    /// Batches that an operator has ignored, of any time.
    ignored: Table,
}

impl PeriodReport {
    fn unexplained(&self) -> u64 {
        self.accounts.iter().map(OutcomeCounts::unexplained).sum()
    }

    fn unowned(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.balances).count()
    }

    fn balances(&self) -> bool {
        self.unexplained() == 0 && self.unowned() == 0
    }

    /// The batches with lines of jobs that are not in this database, the number of these lines, and their cost.
    fn without_job(&self) -> (usize, u64, Option<Money>) {
        let paid = self.entries.iter().filter_map(|entry| entry.paid.as_ref());
        let without: Vec<&BatchCost> = paid.filter(|paid| paid.lines_without_job > 0).collect();
        let lines = without.iter().map(|paid| paid.lines_without_job).sum();
        (
            without.len(),
            lines,
            without.iter().map(|paid| paid.cost_without_job).sum(),
        )
    }

    fn to_json(&self) -> Value {
        let synchronous = self.synchronous;
        let (batches, lines, cost) = self.without_job();
        json!({
            "from": self.from.to_string(),
            "to": self.to.to_string(),
            "accounts": self.accounts.iter().map(account_json).collect::<Value>(),
            "cleaned_jobs": self.cleaned_jobs,
            "batches": self.entries.iter().map(entry_json).collect::<Value>(),
            "synchronous_calls": json!({
                "calls": synchronous.calls,
                "tokens": tokens_json(synchronous.tokens),
                "cost_usd": cost_text(synchronous.cost),
            }),
            "ignored": self.ignored.objects(),
            "without_job": {"batches": batches, "lines": lines, "cost_usd": cost_text(cost)},
            "tokens": tokens_json(total(&self.entries, synchronous.tokens)),
            "cost_usd": cost_text(total_cost(&self.entries, synchronous)),
            "balances": self.balances(),
        })
    }
}

pub(super) fn run(context: &Context, options: &ReportOptions) -> Outcome {
    let config = context.config_with_keys()?;
    let store = open_store(&config)?;
    // OpenAI's times are whole seconds. The current second belongs to the period.
    let now = Timestamp::from_seconds(SystemClock::new().now().wall.seconds() + 1);
    let to = options.to.unwrap_or(now);
    let from = options.from.unwrap_or(to.before(USUAL_PERIOD));
    if from >= to {
        return Err(CommandError::Usage("--from must be before --to".into()));
    }
    let (accounts, synchronous, cleaned_jobs, ignored) = store.read(|view| {
        Ok((
            outcome_counts(view, from, to)?,
            synchronous_cost(view, from, to)?,
            count_cleaned_jobs(view, from, to)?,
            ignored::list(view)?,
        ))
    })?;
    let api = openai_client(&config)?;
    let mut listed = Vec::new();
    let period = from.seconds()..to.seconds();
    let in_period = |batch: &Batch| period.contains(&batch.created_at);
    list_back_to(&api, from.seconds(), wait, |page| {
        listed.extend(page.into_iter().filter(in_period));
    })
    .map_err(|error| CommandError::OpenAi {
        action: "OpenAI's batches cannot be listed".into(),
        error: Box::new(error),
    })?;
    let report = PeriodReport {
        entries: entries(&store, &api, listed, (from, to))?,
        from,
        to,
        accounts,
        synchronous,
        cleaned_jobs,
        ignored,
    };
    match context.output.json {
        true => print_json(&report.to_json())?,
        false => show_text(context, &report)?,
    };
    Ok(Verdict::clean_if(report.balances()))
}

fn show_text(context: &Context, report: &PeriodReport) -> Outcome {
    print(&format!("Accepted from {} to {}\n\n", report.from, report.to))?;
    context.output.show(&accounts_table(&report.accounts))?;
    if report.cleaned_jobs > 0 {
        print(&format!(
            "{} of the jobs are cleaned up: their time is over, or an operator deleted them. Their requests are counted from their headers \
             and from paid answers. Not counted: requests of imported jobs that were not answered here, and \
             translations that a cancelled job wanted.\n",
            report.cleaned_jobs
        ))?;
    }
    print("\n")?;
    context
        .output
        .show(&entries_table(&report.entries, report.synchronous))?;
    if let (1.., lines, cost) = report.without_job() {
        print(&format!(
            "\nWithout a job: {lines} line{} of jobs that are not in this database, as after a restore. OpenAI billed \
             {} USD for that. The clients must send these jobs again.\n",
            if lines == 1 { "" } else { "s" },
            cost_text(cost)
        ))?;
    }
    if !report.ignored.rows.is_empty() {
        print("\nIgnored, although the database's id is in their metadata (recover --ignore):\n\n")?;
        context.output.show(&report.ignored)?;
    }
    print(&match report.balances() {
        true => format!(
            "\nIt balances: everything accepted is accounted for, and each of {} batches has its row.\n",
            report.entries.len()
        ),
        false => format!(
            "\nIT DOES NOT BALANCE: {} unexplained, {} batches without an owner or a batch.\n",
            report.unexplained(),
            report.unowned()
        ),
    })
}

/// Every batch of the period: the batches that OpenAI lists, and rows whose batches it should list. The
/// listing lags behind, so OpenAI is asked for each of the latter before the report calls one lost.
fn entries(
    store: &Store,
    api: &dyn BatchApi,
    listed: Vec<Batch>,
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<Entry>, CommandError> {
    let period = from.seconds()..to.seconds();
    let rows = store.read(|view| batch_costs(view, period.start, period.end))?;
    let mut rows: HashMap<String, BatchCost> = rows
        .into_iter()
        .map(|row| (row.openai_batch_id.clone(), row))
        .collect();
    let mut entries = Vec::new();
    for batch in listed {
        let row = rows.remove(&batch.id);
        entries.push(listed_entry(store, batch, row)?);
    }
    for row in rows.into_values() {
        entries.push(unlisted_entry(api, row)?);
    }
    entries.sort_by_key(|entry| entry.paid.as_ref().map_or(i64::MAX, |paid| paid.id));
    Ok(entries)
}

/// The entry of a batch that OpenAI lists, with its row of the period.
fn listed_entry(store: &Store, batch: Batch, row: Option<BatchCost>) -> Result<Entry, CommandError> {
    let has_row = row.is_some() || store.read(|view| Ok(by_openai_id(view, &batch.id)?.is_some()))?;
    let is_ours = batch
        .metadata
        .get(META_DATABASE)
        .is_some_and(|id| id == store.database_id());
    let is_ignored = is_ours && store.read(|view| ignored::is_ignored(view, &batch.id))?;
    let lines_without_job = row.as_ref().map_or(0, |row| row.lines_without_job);
    let remark = match row.as_ref().and_then(|row| row.duplicate_of) {
        Some(first) => format!("a second batch under the key of row {first}"),
        None if lines_without_job > 0 => {
            format!("{lines_without_job} lines of jobs that are not in this database, as after a restore")
        }
        None if has_row => String::new(),
        None if is_ignored => "ignored by the operator".to_owned(),
        None if is_ours => "OURS, AND NO ROW KNOWS IT: batchkeeper recover".to_owned(),
        None => "not ours".to_owned(),
    };
    Ok(Entry {
        openai_batch_id: batch.id,
        status: batch.status_text,
        paid: row,
        remark,
        balances: has_row || is_ignored || !is_ours,
    })
}

/// The entry of a row whose batch OpenAI does not list.
fn unlisted_entry(api: &dyn BatchApi, row: BatchCost) -> Result<Entry, CommandError> {
    let mut entry = Entry {
        openai_batch_id: row.openai_batch_id.clone(),
        status: String::new(),
        remark: String::new(),
        balances: true,
        paid: None,
    };
    if row.identity != *api.identity() {
        entry.remark = format!("of another account: {}", row.identity.base_url);
    } else if row.is_abandoned {
        entry.remark = "abandoned; OpenAI does not list it".to_owned();
    } else {
        match api.batch(&entry.openai_batch_id) {
            Ok(batch) => entry.status = batch.status_text,
            Err(error) if error.is_not_found() => {
                entry.balances = false;
                entry.remark = format!("OPENAI DOES NOT KNOW IT: batchkeeper batches show {}", row.id);
            }
            Err(error) => {
                let action = format!("OpenAI cannot be asked for {}", entry.openai_batch_id);
                return Err(CommandError::OpenAi {
                    action,
                    error: Box::new(error),
                });
            }
        }
    }
    entry.paid = Some(row);
    Ok(entry)
}

/// The tokens of all batches and of all synchronous calls.
fn total(entries: &[Entry], synchronous: TokenUsage) -> TokenUsage {
    let paid = entries.iter().filter_map(|entry| entry.paid.as_ref());
    synchronous + paid.map(|paid| paid.tokens).sum()
}

/// What all of it cost; `None` if the cost of a part is unknown.
fn total_cost(entries: &[Entry], synchronous: SynchronousCost) -> Option<Money> {
    let paid = entries.iter().filter_map(|entry| entry.paid.as_ref());
    let used = paid.filter(|paid| paid.tokens != TokenUsage::ZERO || paid.usage_unknown > 0);
    used.map(|paid| paid.cost)
        .chain([synchronous.cost])
        .sum::<Option<Money>>()
}

/// An amount in dollars. An unknown amount is never 0.
fn cost_text(cost: Option<Money>) -> String {
    cost.map_or_else(|| "unknown".to_owned(), |cost| cost.to_string())
}

fn tokens_json(tokens: TokenUsage) -> Value {
    json!({
        "input": tokens.input,
        "cached": tokens.cached,
        "output": tokens.output,
        "reasoning": tokens.reasoning,
    })
}

fn account_json(account: &OutcomeCounts) -> Value {
    json!({
        "what": account.what,
        "accepted": account.accepted,
        "answered": account.answered,
        "failed": account.failed,
        "cancelled": account.cancelled,
        "open": account.open,
        "unexplained": account.unexplained(),
    })
}

fn entry_json(entry: &Entry) -> Value {
    let paid = entry.paid.as_ref();
    json!({
        "openai_batch_id": entry.openai_batch_id,
        "openai_status": entry.status,
        "id": paid.map(|paid| paid.id),
        "owner": paid.map(|paid| paid.owner.clone()),
        "stage": paid.map(|paid| paid.stage.clone()),
        "state": paid.map(|paid| paid.state.clone()),
        "model": paid.map(|paid| paid.model.clone()),
        "duplicate_of": paid.and_then(|paid| paid.duplicate_of),
        "lines": paid.map(|paid| paid.lines),
        "lines_without_job": paid.map(|paid| paid.lines_without_job),
        "answered": paid.map(|paid| paid.answered),
        "tokens": paid.map(|paid| tokens_json(paid.tokens)),
        "cost_usd": paid.map(|paid| cost_text(paid.cost)),
        "remark": entry.remark,
        "balances": entry.balances,
    })
}

fn table<const N: usize>(columns: [&str; N], rows: Vec<Vec<Value>>) -> Table {
    Table {
        columns: columns.map(str::to_owned).into(),
        rows,
    }
}

fn accounts_table(accounts: &[OutcomeCounts]) -> Table {
    let columns = [
        "what",
        "accepted",
        "answered",
        "failed",
        "cancelled",
        "open",
        "unexplained",
    ];
    let row = |it: &OutcomeCounts| {
        vec![
            it.what.into(),
            it.accepted.into(),
            it.answered.into(),
            it.failed.into(),
            it.cancelled.into(),
            it.open.into(),
            it.unexplained().into(),
        ]
    };
    table(columns, accounts.iter().map(row).collect())
}

fn entries_table(entries: &[Entry], synchronous: SynchronousCost) -> Table {
    let columns = [
        "batch",
        "row",
        "stage",
        "state",
        "owner",
        "lines",
        "answered",
        "input",
        "cached",
        "output",
        "reasoning",
        "cost_usd",
        "remark",
    ];
    let mut rows: Vec<Vec<Value>> = entries.iter().map(entry_row).collect();
    let line = |name: String, tokens: TokenUsage, cost: Option<Money>| {
        let mut row: Vec<Value> = vec![name.into()];
        row.resize(7, Value::Null);
        row.extend(tokens.to_array().map(Value::from));
        row.extend([cost_text(cost).into(), Value::Null]);
        row
    };
    if synchronous.calls > 0 {
        let name = format!("{} synchronous calls", synchronous.calls);
        rows.push(line(name, synchronous.tokens, synchronous.cost));
    }
    let (tokens, cost) = (
        total(entries, synchronous.tokens),
        total_cost(entries, synchronous),
    );
    rows.push(line("all".to_owned(), tokens, cost));
    table(columns, rows)
}

fn entry_row(entry: &Entry) -> Vec<Value> {
    let mut row: Vec<Value> = vec![entry.openai_batch_id.clone().into()];
    match &entry.paid {
        Some(paid) => {
            row.extend([
                paid.id.into(),
                paid.stage.clone().into(),
                paid.state.clone().into(),
                paid.owner.clone().into(),
                paid.lines.into(),
                paid.answered.into(),
            ]);
            row.extend(paid.tokens.to_array().map(Value::from));
            row.push(cost_text(paid.cost).into());
        }
        None => row.extend(vec![Value::Null; 11]),
    }
    row.push(entry.remark.clone().into());
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_named_by_days_or_times() {
        let read = |text| parse_time(text).ok().map(|it| it.to_string());
        assert_eq!(read("2026-11-24").as_deref(), Some("2026-11-24T00:00:00.000Z"));
        assert_eq!(
            read("2026-11-24T02:24:00Z").as_deref(),
            Some("2026-11-24T02:24:00.000Z")
        );
        assert_eq!(read("yesterday"), None);
    }
}
