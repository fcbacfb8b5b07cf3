//! `import-legacy`: imports the jobs of the earlier service.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::context::{Context, now, record_begin, wait};
use super::progress::Progress;
use super::{CommandError, Outcome, Verdict};
use crate::config::Config;
use crate::daemon::openai_client;
use crate::domain::operator_action::ActionKind;
use crate::recovery::Recovery;
use crate::recovery::import::{Dump, read_dump};
use crate::store::{Store, jobs, legacy};

/// Options of `import-legacy`.
#[derive(Args)]
pub(super) struct ImportOptions {
    /// The dump that contrib/export-legacy.sql made
    file: PathBuf,
    /// Say what would be imported, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// The jobs that were imported, or would be.
#[derive(Default)]
struct Imported {
    jobs: u64,
    lots: usize,
    here_already: u64,
    /// Open jobs with the ids of their batches at OpenAI.
    links: Vec<(String, String)>,
}

pub(super) fn run(context: &Context, options: &ImportOptions) -> Outcome {
    let dump = open_dump(&options.file)?;
    let config = context.config_with_keys()?;
    // Opening creates a database that does not exist, and a dry run changes nothing.
    let store = match options.dry_run && !config.database.exists() {
        true => None,
        false => Some(Arc::new(Store::open(&config.database, now())?)),
    };
    if let (Some(store), false) = (&store, options.dry_run) {
        record_begin(
            store,
            ActionKind::ImportLegacy,
            &options.file.display().to_string(),
        )?;
    }
    let imported = import(store.as_deref(), &dump, options.dry_run)?;
    let links = match &store {
        Some(store) if !options.dry_run => confirm_links(&config, store, &imported.links),
        _ => imported
            .links
            .iter()
            .map(|(job, batch)| format!("job {job}: OpenAI would be asked for its batch {batch}\n"))
            .collect(),
    };
    let mut text = describe(&dump, &imported);
    if options.dry_run {
        text.push_str("nothing was changed (--dry-run)\n");
    }
    text.push_str(&links);
    let value = json!({
        "read": dump.read.iter().map(|(table, rows)| (table.to_string(), json!(rows))).collect::<Value>(),
        "jobs": imported.jobs, "lots": imported.lots, "here_already": imported.here_already,
        "refused": dump.refused, "notes": dump.notes, "links": links.lines().collect::<Vec<_>>(),
        "dry_run": options.dry_run,
    });
    context.output.report(&value, &text)?;
    Ok(Verdict::clean_if(dump.refused.is_empty()))
}

fn open_dump(path: &Path) -> Result<Dump, CommandError> {
    let file = File::open(path).map_err(|error| CommandError::File {
        path: path.to_owned(),
        error,
    })?;
    read_dump(file).map_err(|error| CommandError::Failed(format!("{}: {error}", path.display())))
}

/// Inserts the jobs of a dump that the store does not have. `None` counts every job as new.
fn import(store: Option<&Store>, dump: &Dump, dry_run: bool) -> Result<Imported, CommandError> {
    let mut imported = Imported::default();
    let all = u64::try_from(dump.jobs.len()).unwrap_or(u64::MAX);
    let mut progress = Progress::new("of the jobs imported");
    for (done, job) in (0..).zip(&dump.jobs) {
        progress.show(done, all);
        let is_new = match store {
            None => true,
            Some(store) if dry_run => store.read(|view| Ok(jobs::by_id(view, &job.id)?.is_none()))?,
            Some(store) => store.write(now(), |tx| legacy::insert_job(tx, job))?,
        };
        if !is_new {
            imported.here_already += 1;
            continue;
        }
        imported.jobs += 1;
        imported.lots += job.lots.len();
        if !job.status.is_final() {
            let batches = job.batches.iter();
            imported
                .links
                .extend(batches.map(|batch| (job.id.clone(), batch.clone())));
        }
    }
    progress.end();
    Ok(imported)
}

fn describe(dump: &Dump, imported: &Imported) -> String {
    let mut text = String::new();
    for (table, rows) in &dump.read {
        text.push_str(&format!("{table}: {rows} rows read\n"));
    }
    text.push_str(&format!(
        "{} jobs with {} lots imported, {} here already, {} rows refused\n",
        imported.jobs,
        imported.lots,
        imported.here_already,
        dump.refused.len()
    ));
    let refused = dump.refused.iter().map(|why| format!("refused: {why}\n"));
    let notes = dump.notes.iter().map(|note| format!("note: {note}\n"));
    text.extend(refused.chain(notes));
    text
}

/// Links each job to its batch if OpenAI confirms the link. A job without a confirmed link is an orphan.
fn confirm_links(config: &Config, store: &Arc<Store>, links: &[(String, String)]) -> String {
    if links.is_empty() {
        return String::new();
    }
    let client = match openai_client(config) {
        Ok(client) => client,
        Err(error) => {
            return format!("links were not confirmed ({error}); run: batchkeeper recover\n");
        }
    };
    let recovery = Recovery::new(store.clone(), Arc::new(client), wait);
    let confirm = |(job, batch): &(String, String)| match recovery.adopt(job, batch, now()) {
        Ok(_) => format!("job {job}: its batch {batch} is confirmed and linked\n"),
        Err(error) => {
            format!("job {job}: not linked to {batch}: {error}; run: batchkeeper recover\n")
        }
    };
    links.iter().map(confirm).collect()
}
