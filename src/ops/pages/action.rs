//! The page that states the effect of an action before it is made, and the links that lead there.

use maud::{Markup, html};

use super::components::{Cell, Column, text};
use super::controls::{Query, pager};
use super::tables::ACTIONS;
use super::{Content, RequestError, StatusPage};
use crate::base::clock::Timestamp;
use crate::base::percent;
use crate::domain::job::JobStatus;
use crate::domain::operator_action::{ActionKind, ResendRange};
use crate::http::Response;
use crate::ops::actions::{Form, FormKey, Preview};
use crate::store::status::{Delivery, JobDetails, listing};

/// The page of an action.
pub(super) fn address(kind: ActionKind, subject: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    format!("/actions/{kind}?subject={}", percent::encode(subject, is_plain))
}

impl StatusPage<'_> {
    /// The first step: the effect, and the form that makes the change.
    pub(in crate::ops) fn confirmation(
        &self,
        form: &Form,
        key: &FormKey,
        preview: &Preview,
        back: &str,
    ) -> Result<Response, RequestError> {
        let part = html! {
            h1 { (text(&preview.title)) }
            ul { @for effect in &preview.effects { li { (text(effect)) } } }
            p class="empty" { "Now: " (text(&preview.state)) "." }
            form class="act" method="post" action={ "/actions/" (form.kind) } {
                @for (name, value) in form.fields(key) { input type="hidden" name=(name) value=(value); }
                @if let Some(typed) = &preview.typed {
                    p {
                        label for="typed" { "Type " code { (text(typed)) } " to confirm" } " "
                        input id="typed" name="typed" autocomplete="off" required;
                    }
                }
                p {
                    button class=[preview.typed.as_ref().map(|_| "danger")] { (text(&preview.title)) } " "
                    a href=(back) { "Back, change nothing" }
                }
            }
        };
        self.document(200, "", (&preview.title, true), &[part])
    }

    /// Links to the actions on a job; nothing if the operator may not act.
    pub(super) fn job_actions(&self, job: &JobDetails) -> Markup {
        let status = job.summary.status;
        let id = &job.summary.id;
        let retriable = matches!(status, JobStatus::Completed | JobStatus::Failed);
        let links = [
            (!status.is_final(), ActionKind::CancelJob, "Cancel it …"),
            (retriable, ActionKind::RetryFailedLots, "Send failed lots again …"),
            (
                retriable,
                ActionKind::RetryFailedTranslations,
                "Send failed translations again …",
            ),
            (
                !status.is_final(),
                ActionKind::ReleaseHeld,
                "Send held requests …",
            ),
        ];
        html! {
            @if self.operator.may_act {
                nav class="pager" aria-label="Actions" {
                    @for (is_shown, kind, words) in links {
                        @if is_shown { a href=(address(kind, id)) { (words) } }
                    }
                }
            }
        }
    }

    /// Links that pause and resume the scopes of operators.
    pub(super) fn pause_actions(&self) -> Markup {
        use crate::domain::alert::PauseScope;
        html! {
            @if self.operator.may_act {
                h2 { "Pause and resume" }
                nav class="pager" aria-label="Pause and resume" {
                    @for scope in PauseScope::OPERATORS {
                        @let name = scope.to_string();
                        @if self.figures.pauses.contains(&scope) {
                            a href=(address(ActionKind::Resume, &name)) { "Resume " (name) " …" }
                        } @else {
                            a href=(address(ActionKind::Pause, &name)) { "Pause " (name) " …" }
                        }
                    }
                }
            }
        }
    }

    /// Links to the actions on a receiver: all its webhooks since a day, and a test event to the URL of `newest`.
    pub(super) fn receiver_actions(
        &self,
        receiver: Option<&str>,
        since: Option<Timestamp>,
        newest: Option<&Delivery>,
    ) -> Markup {
        let range = receiver.zip(since).map(|(receiver, since)| ResendRange {
            receiver: receiver.to_owned(),
            since,
            until: self.wall(),
        });
        html! {
            @if self.operator.may_act {
                nav class="pager" aria-label="Actions on a receiver" {
                    @if let Some(range) = range {
                        a href=(address(ActionKind::ResendWebhooks, &range.to_string())) {
                            "Send all of " (text(&range.receiver)) " again …"
                        }
                    } @else {
                        span { "To send all webhooks of a receiver again: filter by receiver and day." }
                    }
                    @if let (Some(receiver), Some(newest)) = (receiver, newest) {
                        a href=(address(ActionKind::SendTestEvent, &newest.id.to_string())) {
                            "Send a test event to " (text(receiver)) " …"
                        }
                    }
                }
            }
        }
    }

    /// A link to the backup; nothing if the operator may not act, or there is no folder for backups.
    pub(super) fn backup_action(&self) -> Markup {
        html! {
            @if self.operator.may_act && self.config.backup.is_on() {
                nav class="pager" aria-label="Actions" {
                    a href=(address(ActionKind::BackUp, "database")) { "Back up now …" }
                }
            }
        }
    }

    /// The columns of deliveries, with their action if the operator may act.
    pub(super) fn with_delivery_action(&self, columns: &[Column<Delivery>]) -> Vec<Column<Delivery>> {
        let mut columns = columns.to_vec();
        if self.operator.may_act {
            columns.push(("action", |delivery| match delivery.state.as_str() {
                "delivered" | "failed" => Cell::Act(ActionKind::ResendWebhook, delivery.id, "Send again …"),
                "due" => Cell::Act(ActionKind::TryWebhook, delivery.id, "Try now …"),
                _ => Cell::Absent,
            }));
        }
        columns
    }

    /// The changes that persons made.
    pub(super) fn audit(&self, query: &Query<'_>) -> Result<Content, RequestError> {
        let subject = query.text("subject");
        let cursor = query.cursor()?;
        let page = self
            .store
            .read(|view| listing::operator_actions_page(view, subject.as_deref(), cursor))?;
        let part = html! {
            (self.table("Changes by persons, newest first", ACTIONS, &page.rows, "No person has changed anything."))
            @if let Some(links) = pager("/audit", &[], &page) { (links) }
        };
        Ok(Content::list("Audit", vec![part]))
    }
}
