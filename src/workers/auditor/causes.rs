//! Causes of alerts that do not concern a single job or batch: disk, backups, budgets, invariants.

use crate::base::clock::Timestamp;
use crate::config::{BackupConfig, Config};
use crate::domain::alert::{AlertCause, AlertSubject};
use crate::domain::decide::audit::{RecentLines, is_backup_late, is_budget_used};
use crate::jobs::budget_waits::{BudgetWait, BudgetWaits};
use crate::store::finding::Finding;
use crate::store::money::BudgetUse;
use crate::store::{Store, StoreError, Stored, View, backup};
use crate::workers::pauses;

/// The disk has less free space than `limits.disk_reserve`.
pub(super) fn low_disk(store: &Store, config: &Config) -> Stored<Vec<AlertCause>> {
    let missing = pauses::missing_free_space(store, config)?;
    let cause = missing.map(|missing| {
        let path = store.path().display();
        let message = format!(
            "the disk of {path} has {} MB less than limits.disk_reserve: new jobs are refused and no \
             batch is created, while paid results are ingested. Work goes on by itself once there is \
             free space. What takes the space: du -ah \"$(dirname {path})\" | sort -h | tail; results go \
             earlier with a smaller retention.results and: systemctl restart batchkeeper",
            missing / 1_000_000
        );
        AlertCause {
            subject: AlertSubject::Disk,
            message,
        }
    });
    Ok(cause.into_iter().collect())
}

/// Too many of the newest lines have no answer. `is_explained`: another alert says why.
pub(super) fn failing_lines(lines: RecentLines, is_explained: bool, percent: u32) -> Vec<AlertCause> {
    if is_explained || !lines.are_failing(percent) {
        return Vec::new();
    }
    let all = lines.answered + lines.failed;
    let message = format!(
        "{} of the {all} lines that were ingested within an hour have no answer, more than \
         alerts.failed_lines_percent = {percent}. A line that failed is sent again up to batch.max_attempts times; then \
         its lot fails. Which batches: batchkeeper batches; what OpenAI says of a lot: batchkeeper jobs",
        lines.failed
    );
    vec![AlertCause {
        subject: AlertSubject::Lines,
        message,
    }]
}

/// The newest backup is too old, if backups are made at all.
pub(super) fn late_backup(view: &View, config: &BackupConfig, now: Timestamp) -> Stored<Vec<AlertCause>> {
    if !config.is_on() {
        return Ok(Vec::new());
    }
    let newest = backup::newest(view)?;
    let database_made = backup::database_made(view)?.unwrap_or(now);
    if !is_backup_late(now, newest, database_made, config.late_after) {
        return Ok(Vec::new());
    }
    let state = match newest {
        Some(newest) => format!("the newest backup is of {newest}"),
        None => "there is no backup yet".to_owned(),
    };
    let message = format!(
        "{state}; make one: batchkeeper backup. Why the timer's failed: journalctl -u batchkeeper-backup"
    );
    Ok(vec![AlertCause {
        subject: AlertSubject::Backup,
        message,
    }])
}

/// The budgets, or the cause of an alert if the costs cannot be added up. That ends no worker.
pub(super) fn of_costs(budgets: Stored<BudgetWaits>) -> Stored<(BudgetWaits, Vec<AlertCause>)> {
    match budgets {
        Ok(budgets) => Ok((budgets, Vec::new())),
        Err(StoreError::Unreadable(error)) => {
            let message = format!(
                "the costs cannot be added up: {error}. No batch is packed under a budget meanwhile; everything else \
                 goes on. Look at them: batchkeeper report"
            );
            let subject = AlertSubject::Costs;
            Ok((BudgetWaits::default(), vec![AlertCause { subject, message }]))
        }
        Err(error) => Err(error),
    }
}

/// The budgets of which at least 80 percent are used.
pub(super) fn mostly_used_budgets(waits: &BudgetWaits) -> Vec<AlertCause> {
    let used = waits.budgets.iter().filter(|it| is_used(it, 80));
    let cause = |it: &BudgetWait| budget_cause(&it.budget, "80 % of it are used");
    used.map(cause).collect()
}

/// The budgets that are used up, or for which requests wait.
pub(super) fn used_up_budgets(waits: &BudgetWaits) -> Vec<AlertCause> {
    let exhausted = waits
        .budgets
        .iter()
        .filter(|it| it.has_requests() || is_used(it, 100));
    let cause = |it: &BudgetWait| match it.requests {
        0 => budget_cause(&it.budget, "it is used up"),
        1 => budget_cause(
            &it.budget,
            "1 request waits, because the rest does not pay for it",
        ),
        many => {
            let what = format!("{many} requests wait, because the rest does not pay for one of them");
            budget_cause(&it.budget, &what)
        }
    };
    exhausted.map(cause).collect()
}

fn is_used(wait: &BudgetWait, percent: u64) -> bool {
    let BudgetUse {
        limit,
        spent,
        reserved,
        ..
    } = wait.budget;
    is_budget_used(percent, limit, spent, reserved)
}

fn budget_cause(budget: &BudgetUse, what: &str) -> AlertCause {
    AlertCause {
        subject: budget.subject(),
        message: format!(
            "budget {}: {what}; {} USD are spent and {} reserved of {}. Beyond it jobs are refused or wait, \
             until the next one begins, or [budgets] allows more and systemctl restart batchkeeper has read \
             it. Where it went: batchkeeper report",
            budget.subject(),
            budget.spent,
            budget.reserved,
            budget.limit
        ),
    }
}

/// A row in a view that must be empty.
pub(super) fn broken_invariant(view: &str, finding: Finding) -> AlertCause {
    let Finding { subject, finding, .. } = finding;
    AlertCause {
        message: format!("{subject} {finding}. See: batchkeeper doctor"),
        subject: AlertSubject::Finding {
            view: view.to_owned(),
            subject,
        },
    }
}
