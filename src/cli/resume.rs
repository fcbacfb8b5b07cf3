//! `resume`: ends a pause.

use serde_json::json;

use super::Outcome;
use super::context::{Context, now};
use super::pause::PauseOptions;
use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::store::alerts;

pub(super) fn run(context: &Context, options: &PauseOptions) -> Outcome {
    let scope = PauseScope::from(options.scope);
    let (_, store) = context.open()?;
    let was_paused = store.write(now(), |tx| {
        alerts::close(tx, AlertKind::Paused, &AlertSubject::Scope(scope.clone()))?;
        alerts::resume(tx, &scope)
    })?;
    let state = match was_paused {
        true => "no longer paused",
        false => "not paused; nothing was changed",
    };
    context.output.report(
        &json!({"scope": scope.to_string(), "paused": false, "was_paused": was_paused}),
        &format!("{scope} {} {state}\n", options.scope.is()),
    )
}
