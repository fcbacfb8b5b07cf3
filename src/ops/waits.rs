//! Why work waits, for people: reads what stops the submitter and the webhook sender, and lets
//! `decide::waiting_requests` attribute the work.

use std::time::Duration;

use crate::base::clock::{Moment, Timestamp};
use crate::config::Config;
use crate::domain::alert::PauseScope;
use crate::domain::batch::Stage;
use crate::domain::decide::waiting_requests::{StageWaits, Stop, Wait, WaitCause, attribute};
use crate::domain::job::RequestState;
use crate::jobs::budget_waits::{BudgetWait, budget_waits_of};
use crate::store::figures::Figures;
use crate::store::queue::{self, QueueSpace};
use crate::store::status::{self, Obstacle, PausedScope};
use crate::store::{Store, Stored, View, batches, calls};
use crate::workers::pauses::missing_free_space;

/// Reads the work that waits, each part with its cause.
pub(super) fn waiting_work(
    store: &Store,
    config: &Config,
    figures: &Figures,
    now: Moment,
) -> Stored<Vec<Obstacle>> {
    let is_disk_low = missing_free_space(store, config)?.is_some();
    store.read(|view| {
        let paused = status::paused_scopes(view)?;
        let mut waits = Vec::new();
        let all = stop_of_all(view, config, &paused, is_disk_low, now.wall)?;
        for stage in [Stage::Vision, Stage::Translation] {
            let of_stage = stage_waits(view, config, figures, &paused, stage, now.wall)?;
            waits.extend(attribute(of_stage, all.as_ref(), config.batch.max_wait));
        }
        let held = figures
            .requests
            .iter()
            .find(|(state, _)| *state == RequestState::Held);
        waits.extend(held.map(|(_, requests)| Wait {
            stage: None,
            requests: *requests,
            cause: WaitCause::Held,
            since: None,
            until: None,
        }));
        let mut work: Vec<Obstacle> = waits.iter().map(of_requests).collect();
        work.extend(webhooks(view, figures, &paused, now.wall)?);
        work.extend(
            paused
                .iter()
                .filter(|pause| !is_said(pause, &waits))
                .map(of_pause),
        );
        work.extend(status::batch_obstacles(view)?);
        Ok(work)
    })
}

fn find(paused: &[PausedScope], scope: &PauseScope) -> Option<Stop> {
    let pause = paused.iter().find(|pause| pause.scope == *scope)?;
    Some((WaitCause::Paused(pause.scope.clone()), pause.until))
}

/// What keeps every new batch waiting, in the order in which the submitter looks at it.
fn stop_of_all(
    view: &View,
    config: &Config,
    paused: &[PausedScope],
    is_disk_low: bool,
    now: Timestamp,
) -> Stored<Option<Stop>> {
    let lasting = |scope| find(paused, scope).filter(|(_, until)| until.is_some_and(|until| until > now));
    if let Some(stop) = lasting(&PauseScope::OpenAi).or_else(|| lasting(&PauseScope::Sending)) {
        return Ok(Some(stop));
    }
    if !batches::is_compared(view)? {
        return Ok(Some((WaitCause::NotCompared, None)));
    }
    if let Some(stop) = find(paused, &PauseScope::Submissions) {
        return Ok(Some(stop));
    }
    if calls::is_probing(view)? {
        return Ok(Some((WaitCause::RefusedCalls, None)));
    }
    if let Some(stop) = find(paused, &PauseScope::Creates) {
        return Ok(Some(stop));
    }
    if is_disk_low {
        return Ok(Some((WaitCause::DiskLow, None)));
    }
    let most = config.batch.max_active;
    if most > 0 && batches::count_active(view)? >= most {
        return Ok(Some((WaitCause::MaxActive(most), None)));
    }
    Ok(match queue::creates_wait(view, now)? {
        Duration::ZERO => None,
        wait => Some((WaitCause::CreateRate, Some(now + wait))),
    })
}

fn stage_waits(
    view: &View,
    config: &Config,
    figures: &Figures,
    paused: &[PausedScope],
    stage: Stage,
    now: Timestamp,
) -> Stored<StageWaits> {
    let of_stage = || figures.waiting.iter().filter(move |it| it.stage == stage);
    let sum = |images_due, is_after_failure| {
        let found =
            of_stage().filter(|it| (it.images_due, it.is_after_failure) == (images_due, is_after_failure));
        found.map(|it| it.number).sum()
    };
    let queued = sum(false, false);
    let mut waits = StageWaits {
        stage,
        queued,
        since: None,
        unchecked: sum(true, false) + sum(true, true),
        failed: sum(false, true),
        retry_at: of_stage().filter_map(|it| it.retry_at).min(),
        stop: None,
        budgets: Vec::new(),
    };
    if queued > 0 {
        waits.since = status::queued_since(view, stage)?;
        waits.stop = stop_of_stage(view, config, paused, stage, now)?;
        let budgets = budget_waits_of(view, config, &[stage], now)?.budgets;
        let waiting = budgets.iter().filter(|wait| wait.has_requests());
        waits.budgets = waiting.map(|wait| of_budget(stage, wait)).collect();
    }
    Ok(waits)
}

fn stop_of_stage(
    view: &View,
    config: &Config,
    paused: &[PausedScope],
    stage: Stage,
    now: Timestamp,
) -> Stored<Option<Stop>> {
    let parameters = config.parameters(stage);
    let model = parameters.model();
    for scope in [PauseScope::Model(model.to_owned()), PauseScope::Stage(stage)] {
        if let Some(stop) = find(paused, &scope) {
            return Ok(Some(stop));
        }
    }
    Ok(match queue::space(view, &config.openai.identity(), model, now)? {
        QueueSpace::Full => Some((WaitCause::QueueFull(model.to_owned()), None)),
        QueueSpace::Limited { .. } | QueueSpace::Unlimited => None,
    })
}

fn of_budget(stage: Stage, wait: &BudgetWait) -> Wait {
    let budget = &wait.budget;
    Wait {
        stage: Some(stage),
        requests: wait.requests,
        cause: WaitCause::Budget(format!(
            "for the budget {}: {} USD are left of {}, which does not pay for one of them",
            budget.subject(),
            budget.left(),
            budget.limit
        )),
        since: wait.since,
        until: budget.ends_at(),
    }
}

fn of_requests(wait: &Wait) -> Obstacle {
    let what = match (wait.stage, wait.requests) {
        (Some(stage), 1) => format!("1 {stage} request"),
        (Some(stage), number) => format!("{number} {stage} requests"),
        (None, 1) => "1 request held".to_owned(),
        (None, number) => format!("{number} requests held"),
    };
    Obstacle {
        what,
        why: wait.cause.to_words(),
        since: wait.since,
        until: wait.until,
    }
}

/// Whether a line about requests or an open alert names the pause.
fn is_said(pause: &PausedScope, waits: &[Wait]) -> bool {
    let named = WaitCause::Paused(pause.scope.clone());
    pause.has_alert || waits.iter().any(|wait| wait.cause == named)
}

fn of_pause(pause: &PausedScope) -> Obstacle {
    Obstacle {
        what: format!("Paused: {}", pause.scope),
        why: pause.reason.clone(),
        since: Some(pause.since),
        until: pause.until,
    }
}

/// The webhooks that are due: those to each failing receiver, and the others.
fn webhooks(view: &View, figures: &Figures, paused: &[PausedScope], now: Timestamp) -> Stored<Vec<Obstacle>> {
    let count = |number: u64| match number {
        1 => "1 webhook".to_owned(),
        number => format!("{number} webhooks"),
    };
    let due = figures.deliveries.iter().find(|(state, _)| state == "due");
    let mut rest = due.map_or(0, |(_, number)| *number);
    let mut found = Vec::new();
    for receiver in status::failing_receivers(view)? {
        rest = rest.saturating_sub(receiver.due);
        let failures = match receiver.failures {
            1 => "the last attempt failed".to_owned(),
            number => format!("{number} attempts in a row failed"),
        };
        found.push(Obstacle {
            what: format!("{} to {}", count(receiver.due), receiver.host),
            why: failures,
            since: Some(receiver.since),
            until: receiver.next_at.filter(|at| *at > now),
        });
    }
    if rest > 0 {
        let why = match find(paused, &PauseScope::Webhooks) {
            Some((cause, _)) => cause.to_words(),
            None => "they are being sent, or are tried again after a failure".to_owned(),
        };
        let until = figures.due_since.filter(|at| *at > now);
        found.push(Obstacle {
            what: count(rest),
            why,
            since: figures.due_since.filter(|at| *at <= now),
            until,
        });
    }
    Ok(found)
}
