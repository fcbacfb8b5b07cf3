//! `import-legacy`: the earlier service's jobs taken over.

use std::fs::File;
use std::sync::Arc;

use serde_json::{Value, json};

use super::progress::Progress;
use super::{Command, Outcome, Refused, configuration_with_keys, say};
use crate::base::clock::{Clock, SystemClock};
use crate::daemon::openai_client;
use crate::recovery::Recovery;
use crate::recovery::import::read_dump;
use crate::store::{Store, legacy};

pub(super) fn run(command: &Command) -> Outcome {
    let path = command
        .operands
        .first()
        .ok_or_else(|| Refused::Usage("name the dump's file".into()))?;
    let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
    let dump = read_dump(file).map_err(|error| format!("{path}: {error}"))?;
    let config = configuration_with_keys(command)?;
    let now = SystemClock::new().now().wall;
    // Opening makes the database where there is none, and a dry run changes nothing.
    let store = match command.dry_run && !config.database.exists() {
        true => None,
        false => Some(Arc::new(Store::open(&config.database, now)?)),
    };
    let (mut taken, mut lots, mut here) = (0, 0, 0);
    let mut named = Vec::new();
    let all = u64::try_from(dump.jobs.len()).unwrap_or(u64::MAX);
    let mut progress = Progress::new("of the jobs taken");
    for (at, job) in (0..).zip(&dump.jobs) {
        progress.tell(at, all);
        let new = match &store {
            None => true,
            Some(store) if command.dry_run => {
                store.read(|view| Ok(crate::store::jobs::by_id(view, &job.id)?.is_none()))?
            }
            Some(store) => store.write(now, |tx| legacy::insert_job(tx, job))?,
        };
        if new {
            taken += 1;
            lots += job.lots.len();
            if !job.status.is_final() {
                named.extend(
                    job.batches
                        .iter()
                        .map(|batch| (job.id.clone(), batch.clone())),
                );
            }
        } else {
            here += 1;
        }
    }
    progress.end();
    let mut report = String::new();
    for (table, rows) in &dump.read {
        report.push_str(&format!("{table}: {rows} rows read\n"));
    }
    report.push_str(&format!(
        "{taken} jobs with {lots} lots taken, {here} here already, {} rows refused\n",
        dump.refused.len()
    ));
    for line in dump
        .refused
        .iter()
        .map(|why| format!("refused: {why}\n"))
        .chain(dump.notes.iter().map(|note| format!("note: {note}\n")))
    {
        report.push_str(&line);
    }
    if command.dry_run {
        report.push_str("nothing was changed (--dry-run)\n");
    }
    let links = match &store {
        Some(store) if !command.dry_run => confirm(&config, store, &named),
        _ => named
            .iter()
            .map(|(job, batch)| format!("job {job}: OpenAI would be asked for its batch {batch}\n"))
            .collect(),
    };
    report.push_str(&links);
    let told = json!({
        "read": dump.read.iter().map(|(table, rows)| (table.to_string(), json!(rows))).collect::<Value>(),
        "jobs": taken, "lots": lots, "here_already": here,
        "refused": dump.refused, "notes": dump.notes, "links": links.lines().collect::<Vec<_>>(),
        "dry_run": command.dry_run,
    });
    say(command, &told, &report)?;
    Ok(dump.refused.is_empty())
}

/// A job's own link counts where OpenAI confirms it; otherwise the job is an orphan.
fn confirm(
    config: &crate::config::Config,
    store: &Arc<Store>,
    named: &[(String, String)],
) -> String {
    let mut report = String::new();
    if named.is_empty() {
        return report;
    }
    let client = match openai_client(config) {
        Ok(client) => client,
        Err(error) => {
            return format!("links were not confirmed ({error}); run: batchkeeper recover\n");
        }
    };
    let recovery = Recovery::new(store.clone(), Arc::new(client));
    for (job, batch) in named {
        let now = SystemClock::new().now().wall;
        report.push_str(&match recovery.adopt(job, batch, now) {
            Ok(_) => format!("job {job}: its batch {batch} is confirmed and linked\n"),
            Err(error) => {
                format!("job {job}: not linked to {batch}: {error}; run: batchkeeper recover\n")
            }
        });
    }
    report
}
