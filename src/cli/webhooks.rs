//! `webhooks`: deliveries to clients.

use clap::Subcommand;
use serde_json::json;

use super::Outcome;
use super::context::{Context, now};
use super::output::existing;
use crate::store::{inspect, webhook_deliveries};

/// What `webhooks` does.
#[derive(Subcommand, Default)]
pub(super) enum WebhooksCommand {
    /// List deliveries: at most 200, open ones first (the default)
    #[default]
    List,
    /// Show a delivery and its attempts
    Show {
        /// The delivery's id
        id: i64,
    },
    /// Send a delivery again, as a new one with an id of its own
    Resend {
        /// The delivery's id
        id: i64,
    },
    /// Abandon a delivery that did not arrive, so that its job can be cleaned up
    Abandon {
        /// The delivery's id
        id: i64,
    },
}

pub(super) fn run(context: &Context, command: WebhooksCommand) -> Outcome {
    let (_, store) = context.open()?;
    let find = |id| existing(store.read(|view| inspect::webhook(view, id))?, id, "webhooks");
    match command {
        WebhooksCommand::List => context.output.show_list(&store, &store.read(inspect::webhooks)?),
        WebhooksCommand::Show { id } => {
            let delivery = find(id)?;
            let attempts = store.read(|view| inspect::webhook_attempts(view, id))?;
            context.output.show_with(&delivery, &[("tries", attempts)])
        }
        WebhooksCommand::Resend { id } => {
            find(id)?;
            let new = store.write(now(), |tx| webhook_deliveries::resend(tx, id))?;
            context.output.report(
                &json!({"delivery": id, "again_as": new}),
                &format!("delivery {id} is sent again as delivery {new}\n"),
            )
        }
        WebhooksCommand::Abandon { id } => {
            find(id)?;
            store.write(now(), |tx| webhook_deliveries::abandon(tx, id))?;
            context.output.report(
                &json!({"delivery": id, "abandoned": true}),
                &format!("delivery {id} is abandoned; its job can be cleaned up when its time is over\n"),
            )
        }
    }
}
