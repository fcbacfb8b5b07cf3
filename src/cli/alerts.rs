//! `alerts`: what the operator should know.

use std::sync::Arc;

use clap::Subcommand;
use serde_json::json;

use super::context::{Context, now};
use super::output::existing;
use super::{CommandError, Outcome, Verdict};
use crate::base::clock::SystemClock;
use crate::daemon::guarded_client;
use crate::store::inspect::{self, Table};
use crate::workers::alert_notifier::AlertSender;

/// What `alerts` does.
#[derive(Subcommand, Default)]
pub(super) enum AlertsCommand {
    /// List open alerts (the default)
    #[default]
    List,
    /// Show an alert and its notifications
    Show {
        /// The alert's id
        id: i64,
    },
    /// Send a test to every receiver of alerts, and print whether it took it. Exit status 1 if one did not
    Test {
        /// The only receiver that gets it, by its name
        receiver: Option<String>,
    },
}

pub(super) fn run(context: &Context, command: AlertsCommand) -> Outcome {
    match command {
        AlertsCommand::List => {
            let (_, store) = context.open()?;
            let table = store.read(inspect::alerts)?;
            context.output.show(&table)?;
            Ok(Verdict::clean_if(table.rows.is_empty()))
        }
        AlertsCommand::Show { id } => {
            let (_, store) = context.open()?;
            let alert = existing(store.read(|view| inspect::alert(view, id))?, id, "alerts")?;
            let notices = store.read(|view| inspect::alert_notices(view, id))?;
            context.output.show_with(&alert, &[("notices", notices)])
        }
        AlertsCommand::Test { receiver } => test(context, receiver.as_deref()),
    }
}

/// Sends a test to every receiver, or to the one with that name.
fn test(context: &Context, only: Option<&str>) -> Outcome {
    let config = Arc::new(context.config_with_keys()?);
    let client = guarded_client(&config, Arc::new(SystemClock::new()))?;
    let mut receivers = config.alert_receivers();
    if let Some(name) = only {
        receivers.retain(|receiver| receiver.name == name);
    }
    if receivers.is_empty() {
        return Err(CommandError::Usage(match only {
            Some(name) => format!("no receiver of alerts is named {name:?}; all: batchkeeper alerts test"),
            None => "no receiver of alerts is configured: set alerts.webhook_url, or add [[alert_receivers]]"
                .into(),
        }));
    }
    let sender = AlertSender::new(Arc::new(client), config);
    let mut has_failed = false;
    let mut rows = Vec::new();
    for receiver in &receivers {
        let attempt = sender.send_test(receiver, now());
        has_failed |= attempt.error.is_some();
        let outcome = match attempt.error {
            None => "taken",
            Some(_) => "failed",
        };
        rows.push(vec![
            json!(receiver.name),
            json!(outcome),
            json!(attempt.error.unwrap_or_default()),
        ]);
    }
    context.output.show(&Table {
        columns: ["receiver", "outcome", "error"].map(str::to_owned).into(),
        rows,
    })?;
    Ok(Verdict::clean_if(!has_failed))
}
