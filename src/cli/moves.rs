//! The small moves of an operator: a job retried or cancelled, a webhook sent again, work stopped.

use serde_json::json;

use super::look::{open, operand};
use super::{Command, Outcome, Refused, say};
use crate::base::clock::{Clock, SystemClock, Timestamp};
use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::domain::batch::Stage;
use crate::domain::job::{JobStatus, is_english};
use crate::jobs::reservation;
use crate::store::jobs::{self, JobRow};
use crate::store::{Store, alerts, cancel, retry, settle, webhook_deliveries};

/// Why a job has no further results that an operator cancelled.
const CANCELLED: &str = "cancelled by the operator";

fn now() -> Timestamp {
    SystemClock::new().now().wall
}

fn job(store: &Store, id: &str) -> Result<JobRow, Refused> {
    let job = store.read(|view| jobs::by_id(view, id))?;
    job.ok_or_else(|| Refused::Failed(format!("there is no job {id} here")))
}

/// `jobs retry JOB`: an orphan's held requests are sent.
pub(super) fn release_held(command: &Command) -> Outcome {
    let (config, store) = open(command)?;
    let job = job(&store, &operand(command, "job")?)?;
    let sent = store.write(now(), |tx| {
        settle::release_held(tx, &job.id, config.images.check)
    })?;
    if sent == 0 {
        return Err(Refused::Failed(format!(
            "job {} has no held requests: nothing to send (of its failed lots: --failed-lots)",
            job.id
        )));
    }
    say(
        command,
        &json!({"job": job.id, "sent": sent}),
        &format!(
            "{sent} held requests of job {} wait to be sent now\n",
            job.id
        ),
    )
}

/// `jobs retry JOB --failed-lots`, with what it takes.
pub(super) fn retry_failed_lots(command: &Command) -> Outcome {
    let (config, store) = open(command)?;
    let job = job(&store, &operand(command, "job")?)?;
    let (cost, how) = if command.dry_run {
        let cost = store.read(|view| retry::cost(view, &job))?;
        (cost, "would be sent; nothing was changed (--dry-run)")
    } else {
        let cost = store.write(now(), |tx| {
            retry::retry_failed_lots(tx, &job, config.images.check)
        })?;
        (cost, "wait to be sent now")
    };
    let others = job.languages.iter().filter(|tag| !is_english(tag)).count();
    let vision = u64::from(cost.vision);
    let translations =
        u64::from(cost.translations) + vision * u64::try_from(others).unwrap_or(u64::MAX);
    let requests = [(Stage::Vision, vision), (Stage::Translation, translations)];
    let money = store.read(|view| reservation::cost_of_requests(view, &config, requests, now()))?;
    let at_most = money.map_or_else(
        || "what nobody knows: a model has no price".to_owned(),
        |money| format!("some {money} USD at most"),
    );
    let text = if cost.lots == 0 {
        format!(
            "0 failed lots of job {}: there is nothing to send\n",
            job.id
        )
    } else {
        format!(
            "{} failed lots of job {}: {} vision and {} translation requests {how}; each new description is translated \
             into {others} languages. All of them are paid anew, with {at_most}.\n",
            cost.lots, job.id, cost.vision, cost.translations
        )
    };
    say(
        command,
        &json!({"job": job.id, "lots": cost.lots, "vision": cost.vision, "translations": cost.translations,
                "languages_of_each_description": others, "dry_run": command.dry_run,
                "estimated_cost": money.map(|money| json!({"usd": money.to_string()}))}),
        &text,
    )
}

/// `jobs cancel JOB`
pub(super) fn cancel(command: &Command) -> Outcome {
    let (_, store) = open(command)?;
    let job = job(&store, &operand(command, "job")?)?;
    store.write(now(), |tx| cancel::cancel(tx, &job, CANCELLED))?;
    say(
        command,
        &json!({"job": job.id, "status": JobStatus::Cancelled.as_str()}),
        &format!("job {} is cancelled\n", job.id),
    )
}

/// `webhooks resend ID`
pub(super) fn resend(command: &Command, store: &Store, id: i64) -> Outcome {
    let new = store.write(now(), |tx| webhook_deliveries::resend(tx, id))?;
    say(
        command,
        &json!({"delivery": id, "again_as": new}),
        &format!("delivery {id} is sent again as delivery {new}\n"),
    )
}

/// `webhooks give-up ID`
pub(super) fn let_go(command: &Command, store: &Store, id: i64) -> Outcome {
    store.write(now(), |tx| webhook_deliveries::abandon(tx, id))?;
    say(
        command,
        &json!({"delivery": id, "given_up": true}),
        &format!("delivery {id} is given up; its job goes after its time\n"),
    )
}

fn scope(command: &Command) -> Result<PauseScope, Refused> {
    let scopes = PauseScope::OPERATORS;
    let named = command
        .operands
        .first()
        .and_then(|named| named.parse().ok());
    named.filter(|scope| scopes.contains(scope)).ok_or_else(|| {
        let names = scopes.map(|scope| scope.to_string());
        Refused::Usage(format!("name one of {}", names.join(", ")))
    })
}

/// `pause intake|submissions|webhooks`: until `resume`, also across restarts.
pub(super) fn pause(command: &Command) -> Outcome {
    let scope = scope(command)?;
    let (_, store) = open(command)?;
    let message = format!("{scope} paused by the operator; go on with: batchkeeper resume {scope}");
    store.write(now(), |tx| {
        alerts::pause(tx, &scope, &message, None)?;
        let subject = AlertSubject::Scope(scope.clone());
        alerts::open(tx, AlertKind::Paused, &subject, &message).map(drop)
    })?;
    say(
        command,
        &json!({"scope": scope.to_string(), "paused": true}),
        &format!("{scope} is paused\n"),
    )
}

/// `resume intake|submissions|webhooks`
pub(super) fn resume(command: &Command) -> Outcome {
    let scope = scope(command)?;
    let (_, store) = open(command)?;
    let was = store.write(now(), |tx| {
        alerts::close(tx, AlertKind::Paused, &AlertSubject::Scope(scope.clone()))?;
        alerts::resume(tx, &scope)
    })?;
    let how = if was { "goes on" } else { "was not paused" };
    say(
        command,
        &json!({"scope": scope.to_string(), "paused": false, "was_paused": was}),
        &format!("{scope} {how}\n"),
    )
}
