//! Actions that a worker carries out after the form: its outcome is a second row of the audit.

use super::{Preview, count};
use crate::config::Config;
use crate::domain::operator_action::{ActionKind, ResendRange};
use crate::store::retry::RetrySize;
use crate::store::status::Delivery;
use crate::store::{Stored, View, backup, operator_tasks, resends};

/// The subject of a backup.
pub(super) const DATABASE: &str = "database";

/// The state of a task: whether it is asked for already, else `otherwise`.
pub(super) fn state(view: &View, kind: ActionKind, subject: &str, otherwise: String) -> Stored<String> {
    Ok(match operator_tasks::is_pending(view, kind, subject)? {
        true => "asked for, and not finished".to_owned(),
        false => otherwise,
    })
}

pub(super) fn state_of_resend(view: &View, range: &ResendRange) -> Stored<String> {
    let number = resends::count(view, range)?;
    let otherwise = format!("{} to send again", count(number, "webhook"));
    state(view, ActionKind::ResendWebhooks, &range.to_string(), otherwise)
}

pub(super) fn state_of_backup(view: &View) -> Stored<String> {
    let otherwise = match backup::newest(view)? {
        Some(newest) => format!("the newest backup is of {newest}"),
        None => "there is no backup".to_owned(),
    };
    state(view, ActionKind::BackUp, DATABASE, otherwise)
}

fn preview(title: String, effects: Vec<String>, state: String, typed: Option<String>) -> Preview {
    Preview {
        title,
        effects,
        state,
        cost: None,
        size: RetrySize::default(),
        typed,
    }
}

pub(super) fn preview_resend(view: &View, range: &ResendRange, state: String) -> Stored<Preview> {
    let number = resends::count(view, range)?;
    let effects = vec![
        format!(
            "{} of jobs that ended from {} on and before {}: each is sent once more, under a new id.",
            count(number, "webhook"),
            range.since,
            range.until
        ),
        "The receiver gets each end a second time. Nothing takes a webhook back.".to_owned(),
    ];
    let title = format!("Send all webhooks of {} again", range.receiver);
    Ok(preview(title, effects, state, Some(number.to_string())))
}

pub(super) fn preview_test_event(delivery: &Delivery, state: String) -> Preview {
    let effects = vec![format!(
        "{} gets one test event, signed as the webhooks of its client. It reports no job, and is not repeated.",
        delivery.receiver
    )];
    preview("Send a test event".to_owned(), effects, state, None)
}

pub(super) fn preview_backup(config: &Config, state: String) -> Preview {
    let effect = match config.backup.is_on() {
        true => format!(
            "A verified copy of the database is made in {}. More copies than {} are removed, the oldest first.",
            config.backup.dir.display(),
            config.backup.keep
        ),
        false => "backup.dir is not set: there is no folder for a copy.".to_owned(),
    };
    preview("Back up now".to_owned(), vec![effect], state, None)
}
