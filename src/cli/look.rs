//! Commands that look: `jobs`, `batches`, `webhooks`, `alerts`, `doctor`.

use serde_json::{Value, json};

use super::{Command, Outcome, Refused, complain, configuration, moves, open_store, print, say};
use crate::base::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::domain::batch::BatchState;
use crate::store::batches::{self, BatchRow};
use crate::store::{Store, inspect, settle};

/// One thing and what happened to it, as two tables or one object.
fn show_both(
    command: &Command,
    thing: &inspect::Table,
    name: &str,
    happened: &inspect::Table,
) -> Outcome {
    if command.json {
        let mut object = thing.objects()[0].take();
        object[name] = happened.objects();
        return print(&format!("{object}\n"));
    }
    show(command, thing)?;
    show(command, happened)
}

/// A table from the store, printed for people or as JSON.
pub(super) fn show(command: &Command, table: &inspect::Table) -> Outcome {
    if command.json {
        return print(&format!("{}\n", table.objects()));
    }
    let mut widths: Vec<usize> = table
        .columns
        .iter()
        .map(|column| column.chars().count())
        .collect();
    let rows: Vec<Vec<String>> = table
        .rows
        .iter()
        .map(|row| row.iter().map(inspect::plain).collect())
        .collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&table.columns).chain(&rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    print(&text)
}

/// A list, and what of it is left out: programs are told apart from it.
fn show_list(command: &Command, store: &Store, list: &inspect::Listed) -> Outcome {
    show(command, &list.table)?;
    let shown = list.table.rows.len();
    if u64::try_from(shown).is_ok_and(|shown| shown >= list.all) {
        return Ok(true);
    }
    let told = format!(
        "{shown} of {}, open ones first, then the newest; all: sqlite3 -readonly {} 'SELECT * FROM {}'",
        list.all,
        store.path().display(),
        list.of
    );
    if command.json {
        complain(&told);
        return Ok(true);
    }
    print(&format!("{told}\n"))
}

pub(super) fn operand(command: &Command, what: &str) -> Result<String, Refused> {
    command
        .operands
        .get(1)
        .cloned()
        .ok_or_else(|| Refused::Usage(format!("name the {what}")))
}

/// The operand that names a row of the command's list.
fn row_id(command: &Command, what: &str) -> Result<i64, Refused> {
    let id = operand(command, what)?;
    id.parse()
        .map_err(|_| Refused::Usage(format!("{id:?} is no id of `{} list`", command.name)))
}

/// The table of one thing, where there is that thing.
fn found(command: &Command, table: inspect::Table) -> Result<inspect::Table, Refused> {
    let named = command.operands.get(1).map_or("", String::as_str);
    match table.rows.is_empty() {
        true => Err(Refused::Failed(format!(
            "there is no {named} here; what there is: batchkeeper {} list",
            command.name
        ))),
        false => Ok(table),
    }
}

fn verb(command: &Command) -> &str {
    command.operands.first().map_or("list", String::as_str)
}

pub(super) fn open(command: &Command) -> Result<(crate::config::Config, Store), Refused> {
    let config = configuration(command)?;
    let store = open_store(&config)?;
    Ok((config, store))
}

pub(super) fn jobs(command: &Command) -> Outcome {
    let (_, store) = open(command)?;
    match verb(command) {
        "list" => show_list(command, &store, &store.read(inspect::jobs)?),
        "show" => {
            let id = operand(command, "job")?;
            let (job, events) = store
                .read(|view| Ok((inspect::job(view, &id)?, inspect::job_events(view, &id)?)))?;
            show_both(command, &found(command, job)?, "events", &events)
        }
        "retry" if command.failed_lots => moves::retry_failed_lots(command),
        "retry" => moves::release_held(command),
        "cancel" => moves::cancel(command),
        other => Err(Refused::Usage(format!("there is no `jobs {other}`"))),
    }
}

pub(super) fn batches(command: &Command) -> Outcome {
    let (config, store) = open(command)?;
    let id = |command| row_id(command, "batch by its row's id");
    match verb(command) {
        "list" => show_list(command, &store, &store.read(inspect::batches)?),
        "show" => {
            let id = id(command)?;
            let (batch, events) = store
                .read(|view| Ok((inspect::batch(view, id)?, inspect::batch_events(view, id)?)))?;
            show_both(command, &found(command, batch)?, "events", &events)
        }
        "give-up" => {
            let id = id(command)?;
            found(command, store.read(|view| inspect::batch(view, id))?)?;
            let row = store.read(|view| batches::get(view, id))?;
            if is_alive(&row, &config) {
                return Err(Refused::Failed(format!(
                    "batch {id} is not lost: OpenAI answers for it ({}), and what it does is paid. Cancel it there, and \
                     what it has not answered is sent again by itself",
                    row.openai_status.as_deref().unwrap_or("being created")
                )));
            }
            let rules = settle::RetryRules {
                max_attempts: config.batch.max_attempts,
                check_images: config.images.check,
                batch_cap: None,
            };
            let reason = "given up by the operator";
            store.write(SystemClock::new().now().wall, |tx| {
                settle::abandon(tx, id, reason, rules)
            })?;
            say(
                command,
                &json!({"batch": id, "state": BatchState::Failed.as_str()}),
                &format!("batch {id} is given up; its unanswered requests wait to be sent again\n"),
            )
        }
        other => Err(Refused::Usage(format!("there is no `batches {other}`"))),
    }
}

/// Whether OpenAI may still run a batch or has its results, as far as the last call tells: its
/// requests would be paid twice if they were sent again.
fn is_alive(row: &BatchRow, config: &Config) -> bool {
    let ours = row.identity.base_url == config.openai.base_url.trim_end_matches('/')
        && row.identity.organization == config.openai.organization
        && row.identity.project == config.openai.project;
    let there = matches!(
        row.state,
        BatchState::Creating | BatchState::Submitted | BatchState::Ended
    );
    ours && there && row.failures == 0
}

pub(super) fn webhooks(command: &Command) -> Outcome {
    let (_, store) = open(command)?;
    if verb(command) == "list" {
        return show_list(command, &store, &store.read(inspect::webhooks)?);
    }
    let id = row_id(command, "delivery by its id")?;
    let table = found(command, store.read(|view| inspect::webhook(view, id))?)?;
    match verb(command) {
        "resend" => return moves::resend(command, &store, id),
        "give-up" => return moves::let_go(command, &store, id),
        _ => {}
    }
    let attempts = store.read(|view| inspect::webhook_attempts(view, id))?;
    show_both(command, &table, "tries", &attempts)
}

pub(super) fn alerts(command: &Command) -> Outcome {
    let (_, store) = open(command)?;
    if verb(command) == "show" {
        let id = row_id(command, "alert by its id")?;
        let alert = found(command, store.read(|view| inspect::alert(view, id))?)?;
        let notices = store.read(|view| inspect::alert_notices(view, id))?;
        return show_both(command, &alert, "notices", &notices);
    }
    let table = store.read(inspect::alerts)?;
    show(command, &table)?;
    Ok(table.rows.is_empty())
}

pub(super) fn doctor(command: &Command) -> Outcome {
    let (_, store) = open(command)?;
    let findings = store.read(inspect::findings)?;
    let rows = findings
        .into_iter()
        .map(|it| {
            [it.invariant.to_owned(), it.subject, it.finding]
                .map(Value::from)
                .into()
        })
        .collect();
    let table = inspect::Table {
        columns: ["invariant", "subject", "finding"]
            .map(str::to_owned)
            .into(),
        rows,
    };
    if table.rows.is_empty() && !command.json {
        return print(
            "nothing found: the file is whole, every link holds, every counter equals its rows\n",
        );
    }
    show(command, &table)?;
    Ok(table.rows.is_empty())
}
