//! `jobs`: jobs of clients.

use clap::Subcommand;
use serde_json::json;

use super::context::{Context, now};
use super::output::existing;
use super::{CommandError, Outcome};
use crate::config::Config;
use crate::domain::batch::Stage;
use crate::domain::job::{JobStatus, is_english};
use crate::domain::money::Money;
use crate::jobs::budget_waits::budget_waits;
use crate::jobs::reservation;
use crate::store::jobs::{self, JobRow};
use crate::store::retry::{self, RetryScope, RetrySize};
use crate::store::{Store, cancel, inspect, job_changes};

/// The reason that is stored with a cancelled job.
const CANCELLED: &str = "cancelled by the operator";

/// What `jobs` does.
#[derive(Subcommand, Default)]
pub(super) enum JobsCommand {
    /// List jobs: at most 200, open ones first (the default)
    #[default]
    List,
    /// Show a job and its events
    Show {
        /// The job's id
        job: String,
    },
    /// Cancel a job
    Cancel {
        /// The job's id
        job: String,
    },
    /// Send the held requests of an orphaned job, or what failed of a job that has ended
    Retry {
        /// The job's id
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

pub(super) fn run(context: &Context, command: JobsCommand) -> Outcome {
    let (config, store) = context.open()?;
    match command {
        JobsCommand::List => context.output.show_list(&store, &store.read(inspect::jobs)?),
        JobsCommand::Show { job } => show(context, &config, &store, &job),
        JobsCommand::Cancel { job } => cancel(context, &store, &job),
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
    let (job, events) = store.read(|view| Ok((inspect::job(view, id)?, inspect::job_events(view, id)?)))?;
    let mut job = existing(job, id, "jobs")?;
    let seq = find(store, id)?.seq;
    let waits = store.read(|view| budget_waits(view, config, now()))?;
    let budget = waits.budgets.iter().find(|wait| wait.has_job(seq));
    job.columns.push("waits_for_budget".into());
    job.rows[0].push(json!(budget.map(|wait| wait.budget.subject().to_string())));
    context.output.show_with(&job, "events", &events)
}

fn cancel(context: &Context, store: &Store, id: &str) -> Outcome {
    let job = find(store, id)?;
    store.write(now(), |tx| cancel::cancel(tx, &job, CANCELLED, job_changes::LOTS))?;
    context.output.report(
        &json!({"job": job.id, "status": JobStatus::Cancelled.as_str()}),
        &format!("job {} is cancelled\n", job.id),
    )
}

fn release_held(context: &Context, config: &Config, store: &Store, id: &str) -> Outcome {
    let job = find(store, id)?;
    let sent = store.write(now(), |tx| job_changes::release(tx, &job, config.images.check))?;
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
    let size = match dry_run {
        true => store.read(|view| retry::retry_size(view, &job, scope))?,
        false => store.write(now(), |tx| retry::retry(tx, &job, scope, config.images.check))?,
    };
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
    let job = store.read(|view| jobs::by_id(view, id))?;
    job.ok_or_else(|| CommandError::Failed(format!("there is no job {id} here")))
}
