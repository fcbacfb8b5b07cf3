//! `resume`: ends a pause.

use serde_json::json;

use super::Outcome;
use super::context::{Context, change};
use super::pause::PauseOptions;
use crate::base::fields::Fields;
use crate::domain::alert::PauseScope;
use crate::domain::operator_action::ActionKind;
use crate::store::alerts;

pub(super) fn run(context: &Context, options: &PauseOptions) -> Outcome {
    let scope = PauseScope::from(options.scope);
    let (_, store) = context.open()?;
    let was_paused = change(&store, ActionKind::Resume, &scope.to_string(), |tx| {
        let was_paused = alerts::resume_by_operator(tx, &scope)?;
        Ok((was_paused, was_paused.then(Fields::new)))
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
