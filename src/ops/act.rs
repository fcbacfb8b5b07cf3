//! `/actions/KIND`: GET states the effect, POST makes the change and leads to its subject.

use super::actions::{Action, Form, FormKey, is_from_own_page};
use super::answers::{RequestError, method_not_allowed, no_such_path};
use super::{Operator, Ops};
use crate::base::clock::Timestamp;
use crate::domain::operator_action::ActionKind;
use crate::http::{Request, Response};
use crate::store::{StoreError, Stored, audit};

/// The outcome of a form.
enum Sent {
    /// The change was made, now or by the same form before.
    Done(String),
    /// The subject is not there any more.
    Gone,
    /// The state is not the one that the page showed.
    Changed(String),
    /// The typed text is not the one that was asked for.
    Mistyped(String),
    /// There is nothing to change.
    Nothing(String),
}

impl Ops {
    /// The answer under `/actions/`, while `ops_actions` is on.
    pub(super) fn action(
        &self,
        kind: &str,
        key: &FormKey,
        request: &Request,
        operator: &Operator,
    ) -> Result<Response, RequestError> {
        let Ok(kind) = kind.parse::<ActionKind>() else {
            return Err(no_such_path(&request.path).into());
        };
        match request.method.as_str() {
            _ if !operator.may_act => self.page(operator)?.refusal(403, "This token may only read."),
            "GET" | "HEAD" => self.confirm(kind, key, request, operator),
            "POST" => self.act(kind, key, request, operator),
            _ => Err(method_not_allowed("GET, HEAD, POST")),
        }
    }

    fn confirm(
        &self,
        kind: ActionKind,
        key: &FormKey,
        request: &Request,
        operator: &Operator,
    ) -> Result<Response, RequestError> {
        let subject = request.parameter("subject").unwrap_or_default();
        let now = self.clock.now().wall;
        let found = self.store.read(|view| {
            let Some(action) = Action::find(view, kind, &subject)? else {
                return Ok(None);
            };
            let preview = action.preview(view, &self.config, now)?;
            Ok(Some((action.place(), preview)))
        })?;
        let Some((place, preview)) = found else {
            return Err(no_such_path(&request.path).into());
        };
        let form = Form {
            kind: kind.to_string(),
            subject,
            seen: preview.state.clone(),
            nonce: uuid::Uuid::new_v4().simple().to_string(),
            at: now.millis(),
        };
        self.page(operator)?.confirmation(&form, key, &preview, &place)
    }

    fn act(
        &self,
        kind: ActionKind,
        key: &FormKey,
        request: &Request,
        operator: &Operator,
    ) -> Result<Response, RequestError> {
        let now = self.clock.now().wall;
        let refuse = |status, message: &str| self.page(operator)?.refusal(status, message);
        if !is_from_own_page(request) {
            return refuse(403, "The form was not sent by a page of this listener.");
        }
        let Some((form, typed)) = Form::read(key, kind.as_str(), &request.body, now) else {
            return refuse(
                403,
                "The form is not one of this installation, or is older than a quarter of an hour.",
            );
        };
        let sent = self.send(kind, (&form, &typed), operator, now);
        let look_again = |place: &str| format!("Look again: {place}");
        match sent {
            Ok(Sent::Done(place)) => {
                let response = Response::bytes(303, "text/plain; charset=utf-8", Vec::new());
                Ok(response.with_header("Location", &place))
            }
            Ok(Sent::Gone) => Err(no_such_path(&request.path).into()),
            Ok(Sent::Changed(state)) => refuse(
                409,
                &format!(
                    "It has changed since the page was made; now: {state}. Nothing was done; look again."
                ),
            ),
            Ok(Sent::Mistyped(wanted)) => {
                refuse(400, &format!("Type {wanted} to confirm. Nothing was done."))
            }
            Ok(Sent::Nothing(place)) => refuse(
                409,
                &format!("There is nothing to change any more. {}", look_again(&place)),
            ),
            Err(StoreError::Conflict(reason)) => refuse(409, &format!("Nothing was done: {reason}")),
            Err(error) => Err(error.into()),
        }
    }

    /// The effect is read before the write: it may take long for a large job. The write compares the state again.
    fn send(
        &self,
        kind: ActionKind,
        (form, typed): (&Form, &str),
        operator: &Operator,
        now: Timestamp,
    ) -> Stored<Sent> {
        let found = self.store.read(|view| {
            let Some(action) = Action::find(view, kind, &form.subject)? else {
                return Ok(None);
            };
            let preview = action.preview(view, &self.config, now)?;
            Ok(Some((action, preview, audit::is_repeat(view, &form.nonce)?)))
        })?;
        let Some((action, preview, is_repeat)) = found else {
            return Ok(Sent::Gone);
        };
        if is_repeat {
            return Ok(Sent::Done(action.place()));
        }
        if preview.state != form.seen {
            return Ok(Sent::Changed(preview.state));
        }
        if let Some(wanted) = preview.typed.as_ref().filter(|wanted| *wanted != typed.trim()) {
            return Ok(Sent::Mistyped(wanted.clone()));
        }
        let made_by = (&operator.actor, form.nonce.as_str());
        let done = self
            .store
            .write(now, |tx| action.perform(tx, &self.config, &preview, made_by))?;
        Ok(match done {
            true => Sent::Done(action.place()),
            false => Sent::Nothing(action.place()),
        })
    }
}
