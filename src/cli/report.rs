//! `report`: the accounts of a period. What was accepted was answered or failed with a reason, and
//! every batch that OpenAI made for us has its owner here; otherwise it does not balance.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::look::show;
use super::{Command, Outcome, Refused, configuration_with_keys, open_store, print};
use crate::base::clock::{Clock, SystemClock, Timestamp};
use crate::daemon::openai_client;
use crate::domain::batch::BatchState;
use crate::domain::money::Money;
use crate::domain::usage::TokenUsage;
use crate::openai::listing::batches_back_to;
use crate::openai::{Batch, BatchApi};
use crate::store::Store;
use crate::store::batches::{META_DATABASE, by_openai_id};
use crate::store::inspect::Table;
use crate::store::report::{Account, Calls, Paid, accounts, batches, cleaned_jobs, direct_calls};

/// The period, where none is named.
const LATELY: Duration = Duration::from_hours(24);

/// The owner of a batch that works for none of the jobs here.
const NOBODY: &str = "0 jobs";

/// A batch of the period, as OpenAI and the store have it.
struct Entry {
    openai_batch_id: String,
    paid: Option<Paid>,
    /// OpenAI's word of it.
    status: String,
    remark: String,
    balances: bool,
}

pub(super) fn run(command: &Command) -> Outcome {
    let config = configuration_with_keys(command)?;
    let store = open_store(&config)?;
    // OpenAI's times are whole seconds: the one that is not over counts.
    let now = Timestamp::from_seconds(SystemClock::new().now().wall.seconds() + 1);
    let to = moment("to", command.to.as_deref(), now)?;
    let from = moment("from", command.from.as_deref(), to.before(LATELY))?;
    if from >= to {
        return Err(Refused::Usage("--from must be before --to".into()));
    }
    let (accounts, direct, cleaned) = store.read(|view| {
        Ok((
            accounts(view, from, to)?,
            direct_calls(view, from, to)?,
            cleaned_jobs(view, from, to)?,
        ))
    })?;
    let api = openai_client(&config)?;
    let listed = batches_back_to(&api, from.seconds())
        .map_err(|error| format!("OpenAI's batches cannot be listed: {error}"))?;
    let entries = entries(&store, &api, listed, (from, to))?;
    let unexplained: u64 = accounts.iter().map(Account::unexplained).sum();
    let unowned = entries.iter().filter(|entry| !entry.balances).count();
    let balances = unexplained == 0 && unowned == 0;
    if command.json {
        let report = json!({
            "from": from.to_string(),
            "to": to.to_string(),
            "accounts": accounts.iter().map(account_json).collect::<Value>(),
            "cleaned_jobs": cleaned,
            "batches": entries.iter().map(entry_json).collect::<Value>(),
            "direct_calls": json!({
                "calls": direct.number,
                "tokens": tokens_json(direct.tokens),
                "cost_usd": cost_text(direct.cost),
            }),
            "tokens": tokens_json(total(&entries, direct.tokens)),
            "cost_usd": cost_text(total_cost(&entries, direct)),
            "balances": balances,
        });
        print(&format!("{report}\n"))?;
        return Ok(balances);
    }
    print(&format!("Accepted from {from} to {to}\n\n"))?;
    show(command, &accounts_table(&accounts))?;
    if cleaned > 0 {
        print(&format!(
            "{cleaned} of the jobs are cleaned after their time: their requests are told by headers and paid answers. \
             What nobody knows any more is not counted: what of an imported job was not answered here, which \
             translations of a cancelled one were wanted.\n"
        ))?;
    }
    print("\n")?;
    show(command, &entries_table(&entries, direct))?;
    print(&if balances {
        format!(
            "\nIt balances: everything accepted is accounted for, and each of {} batches has its owner.\n",
            entries.len()
        )
    } else {
        format!(
            "\nIT DOES NOT BALANCE: {unexplained} unexplained, {unowned} batches without an owner or a batch.\n"
        )
    })?;
    Ok(balances)
}

/// A time of the command line: RFC 3339, or a day (UTC, its beginning).
fn moment(name: &str, text: Option<&str>, otherwise: Timestamp) -> Result<Timestamp, Refused> {
    let Some(text) = text else {
        return Ok(otherwise);
    };
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ => text.to_owned(),
    };
    whole.parse().map_err(|_| {
        Refused::Usage(format!(
            "--{name} {text:?} is no day (2026-11-24) and no time (2026-11-24T02:24:00Z)"
        ))
    })
}

/// Every batch of the period: those that OpenAI lists, and those that it does not and should. A
/// listing lags behind, so it is asked for each of these before it is said to have lost one.
fn entries(
    store: &Store,
    api: &dyn BatchApi,
    listed: Vec<Batch>,
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<Entry>, Refused> {
    let period = from.seconds()..to.seconds();
    let rows = store.read(|view| batches(view, period.start, period.end))?;
    let mut rows: HashMap<String, Paid> = rows
        .into_iter()
        .map(|row| (row.openai_batch_id.clone(), row))
        .collect();
    let mut entries = Vec::new();
    for remote in listed {
        if !period.contains(&remote.created_at) {
            continue;
        }
        let paid = rows.remove(&remote.id);
        let known =
            paid.is_some() || store.read(|view| Ok(by_openai_id(view, &remote.id)?.is_some()))?;
        let ours = remote
            .metadata
            .get(META_DATABASE)
            .is_some_and(|id| id == store.database_id());
        let remark = match paid.as_ref().and_then(|paid| paid.duplicate_of) {
            Some(first) => format!("a second batch under the key of row {first}"),
            None if paid.as_ref().is_some_and(|paid| paid.owner == NOBODY) => {
                "of jobs that are not in this database, as after a restore".to_owned()
            }
            None if known => String::new(),
            None if ours => "OURS, AND NO ROW KNOWS IT: batchkeeper recover".to_owned(),
            None => "not ours".to_owned(),
        };
        entries.push(Entry {
            openai_batch_id: remote.id,
            status: remote.status_text,
            paid,
            remark,
            balances: known || !ours,
        });
    }
    for (id, row) in rows {
        let mut status = String::new();
        let mut balances = true;
        let remark = if row.identity != *api.identity() {
            format!("of another account: {}", row.identity.base_url)
        } else if row.state == BatchState::Failed.as_str() {
            "given up; OpenAI does not list it".to_owned()
        } else {
            match api.batch(&id) {
                Ok(remote) => {
                    status = remote.status_text;
                    String::new()
                }
                Err(error) if error.is_not_found() => {
                    balances = false;
                    format!(
                        "OPENAI DOES NOT KNOW IT: batchkeeper batches show {}",
                        row.id
                    )
                }
                Err(error) => {
                    return Err(format!("OpenAI cannot be asked for {id}: {error}").into());
                }
            }
        };
        entries.push(Entry {
            openai_batch_id: id,
            paid: Some(row),
            status,
            remark,
            balances,
        });
    }
    entries.sort_by_key(|entry| entry.paid.as_ref().map_or(i64::MAX, |paid| paid.id));
    Ok(entries)
}

/// The tokens of all batches and of calls beside them.
fn total(entries: &[Entry], direct: TokenUsage) -> TokenUsage {
    let paid = entries.iter().filter_map(|entry| entry.paid.as_ref());
    direct + paid.map(|paid| paid.tokens).sum()
}

/// What all of it cost; none: of a part nobody knows.
fn total_cost(entries: &[Entry], direct: Calls) -> Option<Money> {
    let paid = entries.iter().filter_map(|entry| entry.paid.as_ref());
    let used = paid.filter(|paid| paid.tokens != TokenUsage::ZERO);
    used.map(|paid| paid.cost)
        .chain([direct.cost])
        .sum::<Option<Money>>()
}

/// An amount in dollars, for people and programs: never 0 where it is not known.
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

fn account_json(account: &Account) -> Value {
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

fn accounts_table(accounts: &[Account]) -> Table {
    let columns = [
        "what",
        "accepted",
        "answered",
        "failed",
        "cancelled",
        "open",
        "unexplained",
    ];
    let row = |it: &Account| {
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

fn entries_table(entries: &[Entry], direct: Calls) -> Table {
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
    if direct.number > 0 {
        let name = format!("{} direct calls", direct.number);
        rows.push(line(name, direct.tokens, direct.cost));
    }
    let (tokens, cost) = (total(entries, direct.tokens), total_cost(entries, direct));
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
        let now = Timestamp::from_seconds(1_795_400_000);
        let read = |text: Option<&str>| moment("from", text, now).ok();
        assert_eq!(read(None), Some(now));
        assert_eq!(
            read(Some("2026-11-24")).map(|it| it.to_string()).as_deref(),
            Some("2026-11-24T00:00:00.000Z")
        );
        assert_eq!(
            read(Some("2026-11-24T02:24:00Z"))
                .map(|it| it.to_string())
                .as_deref(),
            Some("2026-11-24T02:24:00.000Z")
        );
        assert_eq!(read(Some("yesterday")), None);
    }
}
