//! `clock`: confirms the machine's clock.

use clap::Subcommand;
use serde_json::json;

use super::Outcome;
use super::context::{Context, change, now};
use crate::base::fields::Fields;
use crate::domain::operator_action::ActionKind;
use crate::store::clock;

/// What `clock` does.
#[derive(Subcommand)]
pub(super) enum ClockCommand {
    /// Say that this machine's clock is right: old rows and files may be deleted for a day
    Confirm,
}

pub(super) fn run(context: &Context, command: &ClockCommand) -> Outcome {
    let ClockCommand::Confirm = command;
    let (_, store) = context.open()?;
    let now = now();
    change(&store, ActionKind::ConfirmClock, "clock", |tx| {
        clock::confirm_by_operator(tx)?;
        Ok(((), Some(Fields::new())))
    })?;
    context.output.report(
        &json!({"confirmed_at": now.to_string()}),
        &format!("the clock is confirmed for a day: it is {now}\n"),
    )
}
