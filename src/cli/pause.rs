//! `pause`: stops a part of the work until `resume`, also across restarts.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Outcome;
use super::context::{Context, change};
use crate::base::fields::Fields;
use crate::domain::alert::PauseScope;
use crate::domain::operator_action::ActionKind;
use crate::store::alerts;

/// Options of `pause` and `resume`.
#[derive(Args)]
pub(super) struct PauseOptions {
    /// What the pause stops
    #[arg(value_enum, value_name = "intake|submissions|webhooks")]
    pub(super) scope: OperatorScope,
}

/// What an operator can pause.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum OperatorScope {
    /// New jobs: clients are refused
    Intake,
    /// Everything that is sent to OpenAI for the first time
    Submissions,
    /// Webhooks
    Webhooks,
}

impl OperatorScope {
    /// `is` or `are`, as the scope's name wants it.
    pub(super) fn is(self) -> &'static str {
        match self {
            Self::Intake => "is",
            Self::Submissions | Self::Webhooks => "are",
        }
    }
}

impl From<OperatorScope> for PauseScope {
    fn from(scope: OperatorScope) -> Self {
        match scope {
            OperatorScope::Intake => Self::Intake,
            OperatorScope::Submissions => Self::Submissions,
            OperatorScope::Webhooks => Self::Webhooks,
        }
    }
}

pub(super) fn run(context: &Context, options: &PauseOptions) -> Outcome {
    let scope = PauseScope::from(options.scope);
    let (_, store) = context.open()?;
    change(&store, ActionKind::Pause, &scope.to_string(), |tx| {
        alerts::pause_by_operator(tx, &scope)?;
        Ok(((), Some(Fields::new())))
    })?;
    context.output.report(
        &json!({"scope": scope.to_string(), "paused": true}),
        &format!("{scope} {} paused\n", options.scope.is()),
    )
}
