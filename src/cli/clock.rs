//! `clock`: confirms the machine's clock.

use clap::Subcommand;
use serde_json::json;

use super::Outcome;
use super::context::{Context, now};
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
    store.write(now, clock::confirm_by_operator)?;
    context.output.report(
        &json!({"confirmed_at": now.to_string()}),
        &format!("the clock is confirmed for a day: it is {now}\n"),
    )
}
