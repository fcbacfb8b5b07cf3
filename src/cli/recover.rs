//! `recover`: compares jobs with the batches at OpenAI, and links those that belong together.

use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::context::{Context, change, now, open_store, record_begin, wait};
use super::{CommandError, Outcome, Verdict};
use crate::base::escape::escape_controls;
use crate::base::fields::Fields;
use crate::daemon::openai_client;
use crate::domain::alert::PauseScope;
use crate::domain::operator_action::ActionKind;
use crate::recovery::{Recovery, RecoveryFinding};
use crate::store::{DaemonLock, alerts, create_count, events, identity};

/// Options of `recover`.
#[derive(Args)]
pub(super) struct RecoverOptions {
    /// Link what can be linked; without this nothing is changed
    #[arg(long)]
    apply: bool,
    /// Leave this batch alone, which carries this database's id and which this program did not make; needs --apply
    #[arg(long, value_name = "BATCH", conflicts_with = "new_identity")]
    ignore: Option<String>,
    /// Repeat the id of a batch to ignore whose input cannot be read
    #[arg(long, value_name = "BATCH", requires = "ignore")]
    unread: Option<String>,
    /// Create batches again after a restore where the server lists none (openai.batch_listing = "none"): what was sent
    /// since the backup is billed again
    #[arg(long, conflicts_with_all = ["apply", "ignore", "new_identity"])]
    accept_unlisted: bool,
    /// Make a copied database another one, which leaves the batches to the original
    #[arg(long, conflicts_with = "apply")]
    new_identity: bool,
}

pub(super) fn run(context: &Context, options: &RecoverOptions) -> Outcome {
    if options.new_identity {
        return take_new_identity(context);
    }
    if options.accept_unlisted {
        return accept_unlisted(context);
    }
    if !context.config()?.openai.lists_batches() {
        return Err(CommandError::Failed(
            "openai.batch_listing is \"none\": this server's batches cannot be compared with the database. After a \
             restore, compare the provider's own pages with `batchkeeper batches`; creates go on after: batchkeeper \
             recover --accept-unlisted"
                .to_owned(),
        ));
    }
    if let Some(batch) = &options.ignore {
        return ignore(context, options, batch);
    }
    let recovery = recovery(context)?;
    let findings = recovery.survey()?;
    if options.apply {
        record_begin(&context.open()?.1, ActionKind::Recover, "--apply")?;
    }
    let linked = match options.apply {
        true => Some(recovery.apply(&findings, now())?),
        false => None,
    };
    let are_creates_stopped = recovery.are_creates_stopped()?;
    context.output.report(
        &json!({"findings": findings.iter().map(as_json).collect::<Value>(), "linked": linked,
                "creates_stopped": are_creates_stopped}),
        &describe(&findings, linked, are_creates_stopped),
    )?;
    Ok(Verdict::clean_if(match linked {
        Some(_) => !are_creates_stopped,
        None => findings.is_empty(),
    }))
}

/// The recovery of this database, with OpenAI's client.
pub(super) fn recovery(context: &Context) -> Result<Recovery, CommandError> {
    let config = context.config_with_keys()?;
    let store = open_store(&config)?;
    let client = openai_client(&config)?;
    Ok(Recovery::new(Arc::new(store), Arc::new(client), wait))
}

fn describe(findings: &[RecoveryFinding], linked: Option<usize>, are_creates_stopped: bool) -> String {
    let linkable = findings.iter().filter(|finding| finding.linkable).count();
    let left = findings.len() - linkable;
    let mut text: String = findings.iter().map(as_line).collect();
    text.push_str(&match linked {
        Some(linked) => format!("{linked} batches linked, {left} findings left as they are\n"),
        None if findings.is_empty() => "nothing is orphaned\n".to_owned(),
        None => {
            format!("{linkable} batches can be linked with --apply, {left} cannot; nothing was changed\n")
        }
    });
    if linked.is_some() && are_creates_stopped {
        text.push_str(
            "creates stay stopped: the batches that stopped them were not found (batchkeeper alerts names \
             them). Did the command use the key of their project?\n",
        );
    }
    text
}

fn as_line(finding: &RecoveryFinding) -> String {
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

fn as_json(finding: &RecoveryFinding) -> Value {
    json!({
        "job": finding.job,
        "batch": finding.batch.as_ref().map(|batch| batch.id.clone()),
        "stage": finding.stage.map(|stage| stage.as_str()),
        "evidence": finding.evidence,
        "linkable": finding.linkable,
    })
}

/// Has one batch ignored, if its input or the operator says that it is not this database's.
fn ignore(context: &Context, options: &RecoverOptions, batch: &str) -> Outcome {
    let recovery = recovery(context)?;
    let ignorable = recovery.examine(batch, options.unread.as_deref())?;
    let evidence = &ignorable.evidence;
    if options.apply {
        record_begin(
            &context.open()?.1,
            ActionKind::Recover,
            &format!("--ignore {batch}"),
        )?;
    }
    let are_creates_stopped = match options.apply {
        true => recovery.ignore(&ignorable, now())?,
        false => recovery.are_creates_stopped()?,
    };
    let text = match (options.apply, are_creates_stopped) {
        (false, _) => format!("{batch} can be ignored with --apply: {evidence}; nothing was changed\n"),
        (true, false) => format!("{batch} is ignored from now on: {evidence}; creates go on\n"),
        (true, true) => format!(
            "{batch} is ignored from now on: {evidence}; creates stay stopped for other batches: batchkeeper recover\n"
        ),
    };
    context.output.report(
        &json!({"batch": batch, "ignored": options.apply, "evidence": evidence, "creates_stopped": are_creates_stopped}),
        &format!("{}\n", escape_controls(text.trim_end())),
    )?;
    Ok(Verdict::clean_if(options.apply && !are_creates_stopped))
}

/// Ends the stop of creates after a restore, where no list shows what was made since.
fn accept_unlisted(context: &Context) -> Outcome {
    let (config, store) = context.open()?;
    if config.openai.lists_batches() {
        return Err(CommandError::Failed(
            "this server lists its batches (openai.batch_listing), so they show what was made since the backup: \
             batchkeeper recover --apply"
                .to_owned(),
        ));
    }
    store.record_creates()?;
    let was_stopped = change(&store, ActionKind::Recover, "--accept-unlisted", |tx| {
        let pause = alerts::paused(tx, &PauseScope::Creates)?;
        alerts::clear_pause(tx, &PauseScope::Creates)?;
        let detail = Fields::new().with("creates", create_count::begun(tx)?);
        events::record(tx, None, None, "unlisted_accepted", detail.clone())?;
        Ok((pause.is_some(), Some(detail)))
    })?;
    let text = match was_stopped {
        true => "creates go on. Requests that were sent since the backup are sent, and billed, again\n",
        false => "creates were not stopped; this database counts as the newest one from now on\n",
    };
    context.output.report(
        &json!({"accepted": true, "creates_were_stopped": was_stopped}),
        text,
    )?;
    Ok(Verdict::clean_if(true))
}

fn take_new_identity(context: &Context) -> Outcome {
    let config = context.config()?;
    // The daemon puts the database's id into batches that it creates, so it must not run.
    let lock = DaemonLock::take(&config.database)?;
    let store = open_store(&config)?;
    let (id, held) = change(&store, ActionKind::Recover, "--new-identity", |tx| {
        let (id, held) = identity::take_new_identity(tx)?;
        let detail = Fields::new().with("database", id.as_str()).with("held", held);
        Ok(((id, held), Some(detail)))
    })?;
    drop(lock);
    context.output.report(
        &json!({"database_id": id, "held": held}),
        &format!(
            "this database is {id} now; the batches and the open work remain with the original. {held} \
             requests are held here. If the original is gone, `batchkeeper jobs retry JOB` sends those of a \
             job, and OpenAI bills them again\n"
        ),
    )
}
