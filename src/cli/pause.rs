//! `pause`: stops a part of the work until `resume`, also across restarts.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Outcome;
use super::context::{Context, now};
use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::store::alerts;

/// Options of `pause` and `resume`.
#[derive(Args)]
pub(super) struct PauseOptions {
    /// What the pause stops
    #[arg(value_enum)]
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
    let message = format!("{scope} paused by the operator; go on with: batchkeeper resume {scope}");
    store.write(now(), |tx| {
        alerts::pause(tx, &scope, &message, None)?;
        let subject = AlertSubject::Scope(scope.clone());
        alerts::open(tx, AlertKind::Paused, &subject, &message).map(drop)
    })?;
    context.output.report(
        &json!({"scope": scope.to_string(), "paused": true}),
        &format!("{scope} {} paused\n", options.scope.is()),
    )
}
