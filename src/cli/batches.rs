//! `batches`: rows of batches at OpenAI.

use clap::Subcommand;
use serde_json::json;

use super::context::{Context, now};
use super::output::existing;
use super::{CommandError, Outcome};
use crate::config::Config;
use crate::domain::batch::BatchState;
use crate::domain::decide::abandoned_batch::UnansweredBatch;
use crate::domain::money::Money;
use crate::jobs::reservation;
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
    }
}

/// Stores the intent to abandon a batch. The daemon, which alone has the files of the spool, carries it out.
fn abandon(context: &Context, config: &Config, store: &Store, id: i64, bill_again: Option<u64>) -> Outcome {
    existing(store.read(|view| inspect::batch(view, id))?, id, "batches")?;
    let stage = store.read(|view| batches::get(view, id))?.stage;
    let (batch, is_confirmed) = store.write(now(), |tx| {
        let batch = batches::unanswered(tx, id)?;
        let lines = batch.lines_billed_again();
        let is_confirmed = lines == 0 || bill_again == Some(lines);
        if is_confirmed {
            batches::request_abandonment(tx, id, lines)?;
        }
        Ok((batch, is_confirmed))
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
