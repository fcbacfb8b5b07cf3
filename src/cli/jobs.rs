//! `jobs`: jobs of clients.

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::{Context, change, now};
use super::{CommandError, Outcome};
use crate::base::fields::Fields;
use crate::config::Config;
use crate::domain::batch::Stage;
use crate::domain::job::{JobStatus, is_english};
use crate::domain::money::Money;
use crate::domain::operator_action::ActionKind;
use crate::jobs::budget_waits::budget_waits;
use crate::jobs::reservation;
use crate::store::jobs::{self, JobRow};
use crate::store::retention::{self, ExpiredJob};
use crate::store::retry::{self, RetryScope, RetrySize};
use crate::store::{Store, cancel, inspect, job_changes};

/// The least characters of an id that name a job.
const SHORTEST_PREFIX: usize = 8;
/// Which jobs are listed.
#[derive(Args, Default)]
pub(super) struct ListOptions {
    /// Only jobs with this status, such as failed
    #[arg(long)]
    status: Option<JobStatus>,
    /// Only jobs of this client
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// The most jobs that are listed
    #[arg(long, value_name = "N", default_value_t = inspect::MOST)]
    limit: u64,
}

/// What `jobs` does.
#[derive(Subcommand)]
pub(super) enum JobsCommand {
    /// List jobs, open ones first (the default)
    List(ListOptions),
    /// Show a job with its batches, its webhooks, its failed lots and its events
    Show {
        /// The job's id, or its first eight characters or more
        job: String,
    },
    /// Cancel a job
    Cancel {
        /// The job's id, or its first eight characters or more
        job: String,
    },
    /// Delete the lots and texts of a job that has ended, before its time; the job's row and its costs stay
    Delete {
        /// The job's id, or its first eight characters or more
        job: String,
        /// The number of its lots, as this command said without it
        #[arg(long, value_name = "LOTS")]
        lots: Option<u64>,
    },
    /// Send the held requests of an orphaned job, or what failed of a job that has ended
    Retry {
        /// The job's id, or its first eight characters or more
        job: String,
        /// Send the failed lots of a job that has ended; OpenAI bills them again
        #[arg(long, group = "scope")]
        failed_lots: bool,
        /// Send the failed translations of a job that has ended, also of lots with other texts; OpenAI bills
        /// them again
        #[arg(long, group = "scope")]
        failed_translations: bool,
        /// Say what would be sent and what it costs, and change nothing
        #[arg(long, requires = "scope")]
        dry_run: bool,
    },
}

impl Default for JobsCommand {
    fn default() -> Self {
        Self::List(ListOptions {
            limit: inspect::MOST,
            ..ListOptions::default()
        })
    }
}

pub(super) fn run(context: &Context, command: JobsCommand) -> Outcome {
    let (config, store) = context.open()?;
    match command {
        JobsCommand::List(ListOptions {
            status,
            client,
            limit,
        }) => {
            let client = client.as_deref();
            let list = store.read(|view| inspect::jobs(view, status, client, limit))?;
            context.output.show_list(&store, &list)
        }
        JobsCommand::Show { job } => show(context, &config, &store, &job),
        JobsCommand::Cancel { job } => cancel(context, &store, &job),
        JobsCommand::Delete { job, lots } => delete(context, &store, &job, lots),
        JobsCommand::Retry {
            job,
            failed_lots: true,
            dry_run,
            ..
        } => retry(context, &config, &store, &job, RetryScope::FailedLots, dry_run),
        JobsCommand::Retry {
            job,
            failed_translations: true,
            dry_run,
            ..
        } => {
            let scope = RetryScope::FailedTranslations;
            retry(context, &config, &store, &job, scope, dry_run)
        }
        JobsCommand::Retry { job, .. } => release_held(context, &config, &store, &job),
    }
}

fn show(context: &Context, config: &Config, store: &Store, id: &str) -> Outcome {
    let row = find(store, id)?;
    let (id, seq) = (row.id.as_str(), row.seq);
    let (mut job, parts) = store.read(|view| {
        let parts = [
            ("batches", inspect::job_batches(view, seq)?),
            ("webhooks", inspect::job_webhooks(view, id)?),
            ("failed_lots", inspect::failed_lots(view, id)?),
            ("events", inspect::job_events(view, id)?),
        ];
        Ok((inspect::job(view, id)?, parts))
    })?;
    let waits = store.read(|view| budget_waits(view, config, now()))?;
    let budget = waits.budgets.iter().find(|wait| wait.has_job(seq));
    job.columns.push("waits_for_budget".into());
    job.rows[0].push(json!(budget.map(|wait| wait.budget.subject().to_string())));
    context.output.show_with(&job, &parts)
}

fn cancel(context: &Context, store: &Store, id: &str) -> Outcome {
    let job = find(store, id)?;
    change(store, ActionKind::CancelJob, &job.id, |tx| {
        cancel::cancel(tx, &job, cancel::BY_OPERATOR, job_changes::LOTS)?;
        Ok(((), Some(Fields::new().with("lots", job.total_lots))))
    })?;
    context.output.report(
        &json!({"job": job.id, "status": JobStatus::Cancelled.as_str()}),
        &format!("job {} is cancelled\n", job.id),
    )
}

fn delete(context: &Context, store: &Store, id: &str, confirmed: Option<u64>) -> Outcome {
    let row = find(store, id)?;
    let (id, lots) = (row.id.as_str(), u64::from(row.total_lots));
    let job = ExpiredJob {
        seq: row.seq,
        id: row.id.clone(),
    };
    if let Some(since) = row.cleaning_since {
        return Err(CommandError::Failed(format!(
            "the texts of job {id} are deleted already, since {since}"
        )));
    }
    let obstacle = store.read(|view| retention::obstacle(view, job.seq))?;
    if let Some(obstacle) = obstacle {
        return Err(CommandError::Failed(format!(
            "the texts of job {id} cannot be deleted yet: {obstacle}"
        )));
    }
    if confirmed != Some(lots) {
        return Err(CommandError::Failed(format!(
            "this deletes {lots} lots of job {id} with their texts, image URLs and requests, and the client's metadata. Nothing brings them back. \
             Its row, events, webhooks' addresses and costs stay, and so do backups; its files at OpenAI are deleted after \
             retention.remote_files. Delete them: batchkeeper jobs delete {id} --lots {lots}"
        )));
    }
    let is_requested = change(store, ActionKind::DeleteJob, id, |tx| {
        let is_requested = retention::request_deletion(tx, &job, lots)?;
        Ok((
            is_requested,
            is_requested.then(|| Fields::new().with("lots", lots)),
        ))
    })?;
    if !is_requested {
        return Err(CommandError::Failed(format!("job {id} has changed; try again")));
    }
    context.output.report(
        &json!({"job": id, "lots": lots, "deletion_requested": true}),
        &format!("the daemon deletes {lots} lots of job {id}. Watch it: batchkeeper jobs show {id}\n"),
    )
}

fn release_held(context: &Context, config: &Config, store: &Store, id: &str) -> Outcome {
    let job = find(store, id)?;
    let sent = change(store, ActionKind::ReleaseHeld, &job.id, |tx| {
        let sent = job_changes::release(tx, &job, job_changes::LOTS, config.images.check)?;
        Ok((sent, (sent > 0).then(|| Fields::new().with("requests", sent))))
    })?;
    if sent == 0 {
        return Err(CommandError::Failed(format!(
            "job {} has no held requests: nothing to send (of what failed: --failed-lots, --failed-translations)",
            job.id
        )));
    }
    context.output.report(
        &json!({"job": job.id, "sent": sent}),
        &format!("{sent} held requests of job {} wait to be sent now\n", job.id),
    )
}

fn retry(
    context: &Context,
    config: &Config,
    store: &Store,
    id: &str,
    scope: RetryScope,
    dry_run: bool,
) -> Outcome {
    let job = find(store, id)?;
    let size = store.read(|view| retry::retry_size(view, &job, scope))?;
    if !dry_run {
        let (lots, check_images) = (job_changes::LOTS, config.images.check);
        change(store, scope.action(), &job.id, |tx| {
            retry::retry(tx, &job, scope, &size, lots, check_images)?;
            Ok(((), (size.lots > 0).then(|| size.fields())))
        })?;
    }
    let others = job.languages.iter().filter(|tag| !is_english(tag)).count();
    let vision = u64::from(size.vision);
    let translations = u64::from(size.translations) + vision * u64::try_from(others).unwrap_or(u64::MAX);
    let requests = [(Stage::Vision, vision), (Stage::Translation, translations)];
    let money = store.read(|view| reservation::cost_of_requests(view, config, requests, now()))?;
    context.output.report(
        &json!({"job": job.id, "lots": size.lots, "vision": size.vision, "translations": size.translations,
                "languages_of_each_description": others, "dry_run": dry_run,
                "estimated_cost": money.map(|money| json!({"usd": money.to_string()}))}),
        &describe_retry(&job, scope, &size, others, money, dry_run),
    )
}

fn describe_retry(
    job: &JobRow,
    scope: RetryScope,
    size: &RetrySize,
    languages: usize,
    money: Option<Money>,
    dry_run: bool,
) -> String {
    if size.lots == 0 {
        let what = match scope {
            RetryScope::FailedLots => "lots",
            RetryScope::FailedTranslations => "translations",
        };
        return format!("0 failed {what} of job {}: there is nothing to send\n", job.id);
    }
    let state = match dry_run {
        true => "would be sent; nothing was changed (--dry-run)",
        false => "wait to be sent now",
    };
    let at_most = match money {
        Some(money) => format!("at most some {money} USD"),
        None => "an unknown amount, as a model has no price".to_owned(),
    };
    if scope == RetryScope::FailedTranslations {
        return format!(
            "{} failed translations of {} lots of job {} {state}. OpenAI bills them again: {at_most}.\n",
            size.translations, size.lots, job.id
        );
    }
    format!(
        "{} failed lots of job {}: {} vision and {} translation requests {state}; each new description is \
         translated into {languages} languages. OpenAI bills all of them again: {at_most}.\n",
        size.lots, job.id, size.vision, size.translations
    )
}

fn find(store: &Store, id: &str) -> Result<JobRow, CommandError> {
    let found = store.read(|view| jobs::by_id_or_prefix(view, id, SHORTEST_PREFIX))?;
    match found.as_slice() {
        [_] => {}
        [] if id.len() < SHORTEST_PREFIX => {
            return Err(CommandError::Failed(format!(
                "there is no job {id}; give its id, or the first {SHORTEST_PREFIX} characters of it"
            )));
        }
        [] => return Err(CommandError::not_found(id, "jobs")),
        several => {
            let ids: Vec<&str> = several.iter().map(|job| job.id.as_str()).collect();
            return Err(CommandError::Failed(format!(
                "several jobs begin with {id}: {}; write more of the id",
                ids.join(", ")
            )));
        }
    }
    let job = found.into_iter().next();
    job.ok_or_else(|| CommandError::not_found(id, "jobs"))
}
