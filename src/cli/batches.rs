//! `batches`: rows of batches at OpenAI.

use clap::Subcommand;
use serde_json::json;

use super::context::{Context, now};
use super::output::existing;
use super::{CommandError, Outcome};
use crate::config::Config;
use crate::domain::batch::BatchState;
use crate::store::batches::{self, BatchRow};
use crate::store::{Store, inspect, settle};

/// The reason that is stored with an abandoned batch.
const ABANDONED: &str = "abandoned by the operator";

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
    /// Abandon a batch that OpenAI has lost; its unanswered requests are sent again
    Abandon {
        /// The id of the batch's row
        id: i64,
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
            context.output.show_with(&batch, "events", &events)
        }
        BatchesCommand::Abandon { id } => abandon(context, &config, &store, id),
    }
}

fn abandon(context: &Context, config: &Config, store: &Store, id: i64) -> Outcome {
    existing(store.read(|view| inspect::batch(view, id))?, id, "batches")?;
    let row = store.read(|view| batches::get(view, id))?;
    if may_be_answered(&row, config) {
        return Err(CommandError::Failed(format!(
            "batch {id} is not lost: OpenAI answers for it ({}), and bills its work. Cancel it there; \
             requests that it has not answered are then sent again by themselves",
            row.openai_status.as_deref().unwrap_or("being created")
        )));
    }
    let rules = settle::RetryRules {
        max_attempts: config.batch.max_attempts,
        check_images: config.images.check,
        batch_cap: None,
    };
    store.write(now(), |tx| settle::abandon(tx, id, ABANDONED, rules))?;
    context.output.report(
        &json!({"batch": id, "state": BatchState::Failed.as_str()}),
        &format!("batch {id} is abandoned; its unanswered requests wait to be sent again\n"),
    )
}

/// Whether OpenAI may still run a batch or have its results, as far as the last call tells. If its requests
/// were sent again, they would be billed again.
fn may_be_answered(row: &BatchRow, config: &Config) -> bool {
    let openai = &config.openai;
    let is_same_account = row.identity.base_url == openai.base_url.trim_end_matches('/')
        && row.identity.organization == openai.organization
        && row.identity.project == openai.project;
    let is_at_openai = matches!(
        row.state,
        BatchState::Creating | BatchState::Submitted | BatchState::Ended
    );
    is_same_account && is_at_openai && row.failures == 0
}
