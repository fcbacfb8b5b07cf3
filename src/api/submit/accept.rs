//! Checks a signed submission, and stores it with everything that belongs to it in one transaction.

use std::time::Duration;

use serde_json::Value;

use crate::api::idempotency::{IdempotencyKeys, Replay, remember, replay};
use crate::base::clock::Timestamp;
use crate::config::{BudgetPolicy, ClientConfig, Config};
use crate::domain::api_error::ApiError;
use crate::domain::job::{self, Mode, Submission, SubmissionRules, UnusableUrl};
use crate::domain::money::Money;
use crate::jobs::estimate::{self, Estimate};
use crate::outbound::SsrfGuard;
use crate::python_json::Json;
use crate::store::idempotency as stored;
use crate::store::jobs::{self, JobRow, NewJob};
use crate::store::money::{self, BudgetUse};
use crate::store::{Store, StoreError, Stored, Tx};

/// Checks the body of a submission of a client. `is_legacy`: its signature is that of the earlier service.
///
/// # Errors
/// The contract's error for the first thing that is wrong.
pub fn check<'a>(
    body: Json<'a>,
    (client, is_legacy): (&ClientConfig, bool),
    mode: Mode,
    config: &Config,
    guard: &SsrfGuard,
) -> Result<Submission<'a>, ApiError> {
    let image = |url: &str| {
        let checked = guard.check_url(url);
        checked
            .map(drop)
            .map_err(|problem| UnusableUrl(problem.to_string()))
    };
    let webhook = |url: &str| check_receiver(url, client, guard);
    let images = match mode {
        Mode::Batch => config.images.max_per_lot,
        Mode::Synchronous => config.synchronous.max_images,
    };
    let rules = SubmissionRules {
        max_languages: usize::try_from(config.limits.languages).unwrap_or(usize::MAX),
        max_images: usize::try_from(images).unwrap_or(usize::MAX),
        ignores_invalid_own_fields: is_legacy,
        check_image_url: &image,
        check_webhook_url: &webhook,
    };
    job::check_submission(body, &rules)
}

/// Checks the URL of a receiver of a client's webhooks.
pub(in crate::api) fn check_receiver(
    url: &str,
    client: &ClientConfig,
    guard: &SsrfGuard,
) -> Result<(), UnusableUrl> {
    let checked = guard
        .check_url(url)
        .map_err(|problem| UnusableUrl(problem.to_string()))?;
    if client.may_notify(&checked.host) {
        Ok(())
    } else {
        let reason = format!("this client's webhooks do not go to {}", checked.host);
        Err(UnusableUrl(reason))
    }
}

/// A submission that was checked, with what its repeats are recognized by.
pub struct CheckedSubmission<'a> {
    /// The client's name.
    pub client: &'a str,
    /// What the client sent.
    pub submission: &'a Submission<'a>,
    /// The keys of the request.
    pub keys: &'a IdempotencyKeys,
    /// The result of [`content_sha256`](crate::api::idempotency::content_sha256).
    pub content_sha256: &'a str,
    /// How it is answered.
    pub mode: Mode,
    /// Warnings for the answer: what was ignored.
    pub warnings: &'a [String],
}

/// What became of a checked submission.
#[derive(Debug)]
pub enum SubmissionOutcome {
    /// It is a job now: the row, and the answer as JSON.
    Accepted(Box<JobRow>, String),
    /// It repeats an earlier request.
    Repeated(Replay),
    /// Nothing was stored.
    Refused(Refusal),
}

/// Why a checked submission was refused.
#[derive(Debug)]
pub enum Refusal {
    /// No permit for another synchronous job is free.
    NoPermit,
    /// Its estimated cost would exceed a budget.
    OverBudget {
        /// The budget, with what was spent of it.
        standing: Box<BudgetUse>,
        /// The estimated cost.
        cost: Money,
    },
    /// It would exceed the lots that a client may send in a day.
    DailyLimit {
        /// Lots that were accepted today.
        accepted: u64,
    },
}

/// Stores a job durably with its lots, requests, deliveries and answer, unless it repeats an earlier one.
///
/// `admit` decides on a new job by its id; `answer` makes the client's answer from the row.
///
/// # Errors
/// The store's. Nothing is stored then.
pub fn accept(
    store: &Store,
    config: &Config,
    checked: &CheckedSubmission<'_>,
    admit: impl FnOnce(&str) -> bool,
    answer: impl FnOnce(&JobRow) -> Value,
    now: Timestamp,
) -> Stored<SubmissionOutcome> {
    let id = uuid::Uuid::new_v4().to_string();
    store.write(now, |tx| {
        if let Some(replay) = find_repeat(tx, config, checked)? {
            return Ok(SubmissionOutcome::Repeated(replay));
        }
        if !admit(&id) {
            return Ok(SubmissionOutcome::Refused(Refusal::NoPermit));
        }
        if let Some(refusal) = exceeded_daily_limit(tx, config, checked)? {
            return Ok(SubmissionOutcome::Refused(refusal));
        }
        let CheckedSubmission { submission, mode, .. } = *checked;
        let estimate = estimate::estimate_submission(tx, config, submission, mode, tx.now)?;
        if let Some(refusal) = exceeded_budget(tx, config, checked, &estimate)? {
            return Ok(SubmissionOutcome::Refused(refusal));
        }
        let new = NewJob {
            id: &id,
            client: checked.client,
            submission,
            check_images: config.images.check,
            mode,
        };
        jobs::insert(tx, &new)?;
        let row = jobs::by_id(tx, &id)?;
        let row = row.ok_or_else(|| StoreError::Conflict(format!("job {id} is gone")))?;
        let answer = answer(&row).to_string();
        money::keep_estimate(tx, row.seq, estimate.cost, estimate.tokens)?;
        stored::record_acceptance(tx, row.seq, checked.client, checked.content_sha256, &answer)?;
        remember(tx, checked.client, checked.keys, Some(row.seq), None)?;
        stored::add_daily_lots(tx, checked.client, submission.lots.len())?;
        Ok(SubmissionOutcome::Accepted(Box::new(row), answer))
    })
}

/// The replay of a submission that was sent before: with the same key, or without a key and with equal
/// content within `limits.dedupe_window`.
fn find_repeat(tx: &Tx<'_>, config: &Config, checked: &CheckedSubmission<'_>) -> Stored<Option<Replay>> {
    let CheckedSubmission { client, keys, .. } = *checked;
    if let Some(replay) = replay(tx, client, keys)? {
        return Ok(Some(replay));
    }
    let window = config.limits.dedupe_window;
    if keys.header.is_some() || window == Duration::ZERO {
        return Ok(None);
    }
    let since = tx.now.before(window);
    let Some((job, answer)) = stored::accepted_with_content(tx, client, checked.content_sha256, since)?
    else {
        return Ok(None);
    };
    remember(tx, client, keys, Some(job), None)?;
    Ok(Some(Replay::Answer(answer)))
}

fn exceeded_daily_limit(
    tx: &Tx<'_>,
    config: &Config,
    checked: &CheckedSubmission<'_>,
) -> Stored<Option<Refusal>> {
    let most = u64::from(config.limits.lots_per_day);
    let accepted = stored::daily_lots(tx, checked.client, tx.now)?;
    let lots = u64::try_from(checked.submission.lots.len()).unwrap_or(u64::MAX);
    let exceeds = most > 0 && accepted.saturating_add(lots) > most;
    Ok(exceeds.then_some(Refusal::DailyLimit { accepted }))
}

/// A batch job may wait for its budget where the configuration says so; a synchronous job may not.
fn exceeded_budget(
    tx: &Tx<'_>,
    config: &Config,
    checked: &CheckedSubmission<'_>,
    estimate: &Estimate,
) -> Stored<Option<Refusal>> {
    let budgets = config.spending_limits();
    let refuses = config.budgets.on_exceeded == BudgetPolicy::Refuse || checked.mode == Mode::Synchronous;
    let Some(cost) = estimate.cost.filter(|_| refuses && !budgets.is_unlimited()) else {
        return Ok(None);
    };
    let standing = money::exceeded_budget(tx, &budgets, checked.client, cost, tx.now)?;
    Ok(standing.map(|standing| Refusal::OverBudget {
        standing: Box::new(standing),
        cost,
    }))
}
