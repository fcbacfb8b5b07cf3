//! `webhooks`: deliveries to clients.

use clap::Subcommand;
use serde_json::json;

use super::Outcome;
use super::context::{Context, change};
use super::output::existing;
use crate::base::fields::Fields;
use crate::domain::operator_action::ActionKind;
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
    /// Abandon a delivery that did not arrive: it is not tried again, and its job can be cleaned up
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
            let new = change(&store, ActionKind::ResendWebhook, &id.to_string(), |tx| {
                let new = webhook_deliveries::resend(tx, id)?;
                Ok((new, Some(Fields::new().with("again_as", new))))
            })?;
            context.output.report(
                &json!({"delivery": id, "again_as": new}),
                &format!("delivery {id} is sent again as delivery {new}\n"),
            )
        }
        WebhooksCommand::Abandon { id } => {
            find(id)?;
            change(&store, ActionKind::AbandonWebhook, &id.to_string(), |tx| {
                webhook_deliveries::abandon(tx, id)?;
                Ok(((), Some(Fields::new())))
            })?;
            context.output.report(
                &json!({"delivery": id, "abandoned": true}),
                &format!("delivery {id} is abandoned; its job can be cleaned up when its time is over\n"),
            )
        }
    }
}
