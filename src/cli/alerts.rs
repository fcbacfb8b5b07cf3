//! `alerts`: what the operator should know.

use clap::Subcommand;

use super::context::Context;
use super::output::existing;
use super::{Outcome, Verdict};
use crate::store::inspect;

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
}

pub(super) fn run(context: &Context, command: AlertsCommand) -> Outcome {
    let (_, store) = context.open()?;
    match command {
        AlertsCommand::List => {
            let table = store.read(inspect::alerts)?;
            context.output.show(&table)?;
            Ok(Verdict::clean_if(table.rows.is_empty()))
        }
        AlertsCommand::Show { id } => {
            let alert = existing(store.read(|view| inspect::alert(view, id))?, id, "alerts")?;
            let notices = store.read(|view| inspect::alert_notices(view, id))?;
            context.output.show_with(&alert, &[("notices", notices)])
        }
    }
}
