//! `batches`: rows of batches at OpenAI.

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::{Context, change, now, record_begin};
use super::output::existing;
use super::{CommandError, Outcome};
use crate::base::fields::Fields;
use crate::config::Config;
use crate::daemon::openai_client;
use crate::domain::batch::BatchState;
use crate::domain::decide::abandoned_batch::UnansweredBatch;
use crate::domain::money::Money;
use crate::domain::operator_action::ActionKind;
use crate::jobs::reservation;
use crate::recovery::unlisted;
use crate::store::{Store, batches, inspect};

/// What `batches` does.
#[derive(Subcommand, Default)]
pub(super) enum BatchesCommand {
    /// List batches: at most 200, open ones first (the default)
    #[default]
    List,
    /// Show a batch and its events
    Show {
        /// The id of the batch's row
        id: i64,
    },
    /// Abandon a batch that cannot be read: it is cancelled if possible, its unanswered requests are sent again
    Abandon {
        /// The id of the batch's row
        id: i64,
        /// The number of lines that may be billed a second time, as this command said without it
        #[arg(long, value_name = "LINES")]
        bill_again: Option<u64>,
    },
    /// Say whether the server made a batch of a create that was not answered; for servers that list no batches
    Resolve(ResolveOptions),
}

/// Options of `batches resolve`.
#[derive(Args)]
pub(super) struct ResolveOptions {
    /// The id of the batch's row
    id: i64,
    /// The server made this batch; it is asked for first
    #[arg(long, value_name = "BATCH", required_unless_present = "not_created")]
    created: Option<String>,
    /// The server made none: the batch is created again, and billed twice if that is wrong
    #[arg(long, conflicts_with = "created")]
    not_created: bool,
}

pub(super) fn run(context: &Context, command: BatchesCommand) -> Outcome {
    let (config, store) = context.open()?;
    match command {
        BatchesCommand::List => context.output.show_list(&store, &store.read(inspect::batches)?),
        BatchesCommand::Show { id } => {
            let (batch, events) =
                store.read(|view| Ok((inspect::batch(view, id)?, inspect::batch_events(view, id)?)))?;
            let batch = existing(batch, id, "batches")?;
            context.output.show_with(&batch, &[("events", events)])
        }
        BatchesCommand::Abandon { id, bill_again } => abandon(context, &config, &store, id, bill_again),
        BatchesCommand::Resolve(options) => resolve(context, &store, &options),
    }
}

/// Stores what an operator knows of a create that was not answered.
fn resolve(context: &Context, store: &Store, options: &ResolveOptions) -> Outcome {
    let id = options.id;
    existing(store.read(|view| inspect::batch(view, id))?, id, "batches")?;
    let config = context.config_with_keys()?;
    let client = openai_client(&config)?;
    let decision = match &options.created {
        Some(batch) => format!("{id} --created {batch}"),
        None => format!("{id} --not-created"),
    };
    record_begin(store, ActionKind::ResolveCreate, &decision)?;
    let resolved = match &options.created {
        Some(batch) => unlisted::resolve_created(store, &client, id, batch, now()),
        None => unlisted::resolve_not_created(store, &client, id, now()),
    };
    resolved?;
    let text = match &options.created {
        Some(batch) => format!("batch {id} is {batch}; the daemon polls it\n"),
        None => format!("batch {id} is created again\n"),
    };
    context
        .output
        .report(&json!({"batch": id, "created": options.created}), &text)
}

/// Stores the intent to abandon a batch. The daemon, which alone has the files of the spool, carries it out.
fn abandon(context: &Context, config: &Config, store: &Store, id: i64, bill_again: Option<u64>) -> Outcome {
    existing(store.read(|view| inspect::batch(view, id))?, id, "batches")?;
    let stage = store.read(|view| batches::get(view, id))?.stage;
    let (batch, is_confirmed) = change(store, ActionKind::AbandonBatch, &id.to_string(), |tx| {
        let batch = batches::unanswered(tx, id)?;
        let lines = batch.lines_billed_again();
        let is_confirmed = lines == 0 || bill_again == Some(lines);
        if is_confirmed {
            batches::request_abandonment(tx, id, lines)?;
        }
        let detail = is_confirmed.then(|| Fields::new().with("billed_again_at_most", lines));
        Ok(((batch, is_confirmed), detail))
    })?;
    let lines = batch.lines_billed_again();
    let cost = store
        .read(|view| reservation::cost_of_requests(view, config, [(stage, lines), (stage, 0)], now()))?;
    if !is_confirmed {
        return Err(CommandError::Failed(refuse(id, &batch, cost)));
    }
    context.output.report(
        &json!({"batch": id, "abandon_wanted": true, "unanswered": batch.unanswered, "billed_again_at_most": lines,
                "estimated_cost": cost.map(|cost| json!({"usd": cost.to_string()}))}),
        &format!(
            "the daemon abandons batch {id}: OpenAI is asked to cancel it, what is here is ingested, and at most {} \
             requests wait to be sent again. Watch it: batchkeeper batches show {id}\n",
            batch.unanswered
        ),
    )
}

/// Why a batch is not abandoned without its number of lines, and the command that does it.
fn refuse(id: i64, batch: &UnansweredBatch, cost: Option<Money>) -> String {
    let lines = batch.lines_billed_again();
    let what = match batch.state {
        BatchState::Ended => format!(
            "OpenAI has answered {} lines of batch {id}, and {lines} of these answers could not be fetched",
            batch.completed
        ),
        _ => format!("batch {id} may still run at OpenAI"),
    };
    let cost = match cost {
        Some(cost) => format!("at most some {cost} USD"),
        None => "an unknown amount, as its model has no price".to_owned(),
    };
    format!(
        "{what}. Abandoning it sends {} requests again, and OpenAI bills up to {lines} of them a second time: {cost}. If \
         that is right: batchkeeper batches abandon {id} --bill-again {lines}",
        batch.unanswered
    )
}
