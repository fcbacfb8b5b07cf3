//! `recover` and `adopt`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Command, Outcome, Refused, configuration, configuration_with_keys, open_store, say};
use crate::base::clock::{Clock, SystemClock};
use crate::base::escape::escape_controls;
use crate::daemon::openai_client;
use crate::recovery::{Finding, Recovery};
use crate::store::{DaemonLock, Store, identity};

fn recovery(command: &Command) -> Result<Recovery, Refused> {
    let config = configuration_with_keys(command)?;
    let store: Store = open_store(&config)?;
    Ok(Recovery::new(
        Arc::new(store),
        Arc::new(openai_client(&config)?),
    ))
}

pub(super) fn recover(command: &Command) -> Outcome {
    if command.new_identity {
        return new_identity(command);
    }
    let recovery = recovery(command)?;
    let findings = recovery.survey()?;
    let linkable = findings.iter().filter(|finding| finding.linkable).count();
    let left = findings.len() - linkable;
    let mut text: String = findings.iter().map(as_line).collect();
    let linked = match command.apply {
        true => Some(recovery.apply(&findings, SystemClock::new().now().wall)?),
        false => None,
    };
    text.push_str(&match linked {
        Some(linked) => format!("{linked} batches linked, {left} findings left as they are\n"),
        None if findings.is_empty() => "nothing is orphaned\n".to_owned(),
        None => format!(
            "{linkable} batches can be linked with --apply, {left} cannot; nothing was changed\n"
        ),
    });
    let stopped = recovery.are_creates_stopped()?;
    if linked.is_some() && stopped {
        text.push_str(
            "creates stay stopped: what stopped them was not taken up (batchkeeper alerts says what it is). Was OpenAI \
             asked with the key of the project that it is in?\n",
        );
    }
    let findings: Value = findings.iter().map(as_json).collect();
    let is_well = match linked {
        Some(_) => !stopped,
        None => findings.as_array().is_none_or(Vec::is_empty),
    };
    say(
        command,
        &json!({"findings": findings, "linked": linked, "creates_stopped": stopped}),
        &text,
    )?;
    Ok(is_well)
}

fn as_line(finding: &Finding) -> String {
    let batch = finding
        .batch
        .as_ref()
        .map_or("(no batch)", |batch| batch.id.as_str());
    let job = finding.job.as_deref().unwrap_or("(no one job)");
    let stage = finding.stage.map_or("", |stage| stage.as_str());
    let mark = if finding.linkable { "link " } else { "leave" };
    let line = format!("{mark}  {job}  {stage:11}  {batch}  {}", finding.evidence);
    format!("{}\n", escape_controls(&line))
}

fn as_json(finding: &Finding) -> Value {
    json!({
        "job": finding.job,
        "batch": finding.batch.as_ref().map(|batch| batch.id.clone()),
        "stage": finding.stage.map(|stage| stage.as_str()),
        "evidence": finding.evidence,
        "linkable": finding.linkable,
    })
}

fn new_identity(command: &Command) -> Outcome {
    let config = configuration(command)?;
    // The daemon puts the id into what it creates: it must not run.
    let lock = DaemonLock::take(&config.database)?;
    let store = open_store(&config)?;
    let (id, held) = store.write(SystemClock::new().now().wall, identity::take_new_identity)?;
    drop(lock);
    say(
        command,
        &json!({"database_id": id, "held": held}),
        &format!(
            "this database is {id} now; the original's batches and open work are left to it. {held} requests are held \
             here; if the original is gone, `batchkeeper jobs retry JOB` sends a job's, billed again\n"
        ),
    )
}

pub(super) fn adopt(command: &Command) -> Outcome {
    let (Some(job), Some(batch)) = (&command.job, &command.batch) else {
        return Err(Refused::Usage(
            "adopt needs --job JOB and --batch BATCH".into(),
        ));
    };
    recovery(command)?.adopt(job, batch, SystemClock::new().now().wall)?;
    say(
        command,
        &json!({"job": job, "batch": batch}),
        &format!("batch {batch} is linked to job {job}\n"),
    )
}
