//! What operators may change on the pages. An action is found, previewed with its effect in numbers, and performed
//! in one transaction with its row of the audit. What needs evidence that is read (recover, adopt, abandoning a
//! batch) stays on the command line.

mod form;
mod later;

pub(super) use form::{Form, FormKey, is_from_own_page};

use crate::base::clock::Timestamp;
use crate::base::fields::Fields;
use crate::base::percent;
use crate::config::Config;
use crate::domain::alert::PauseScope;
use crate::domain::batch::Stage;
use crate::domain::job::is_english;
use crate::domain::money::Money;
use crate::domain::operator_action::{ActionKind, Actor, ResendRange};
use crate::jobs::reservation;
use crate::store::alerts::AlertRow;
use crate::store::audit::{self, OperatorAction};
use crate::store::jobs::JobRow;
use crate::store::retry::{self, RetryScope, RetrySize};
use crate::store::status::{self, Delivery};
use crate::store::{
    StoreError, Stored, Tx, View, alerts, cancel, job_changes, jobs, operator_tasks, webhook_deliveries,
};

/// An action on something that exists.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Cancel a job.
    Cancel(JobRow),
    /// Send again what failed of a job.
    Retry(JobRow, RetryScope),
    /// Send the held requests of a job.
    Release(JobRow),
    /// Send a webhook again.
    Resend(Delivery),
    /// Try a due webhook at once.
    TryNow(Delivery),
    /// Send all webhooks of a receiver again, of jobs that ended in a period.
    ResendAll(ResendRange),
    /// Send a test event to the receiver of a delivery.
    TestEvent(Delivery),
    /// Make a backup.
    BackUp,
    /// Pause a scope.
    Pause(PauseScope),
    /// End the pause of a scope.
    Resume(PauseScope),
    /// Say that an alert is looked after.
    Acknowledge(AlertRow),
}

/// What an action would do.
#[derive(Clone, Debug)]
pub(super) struct Preview {
    /// The action as a heading.
    pub(super) title: String,
    /// The effect, one sentence each.
    pub(super) effects: Vec<String>,
    /// The state that it starts from. The action is refused if it has changed.
    pub(super) state: String,
    /// The most that it costs.
    pub(super) cost: Option<Money>,
    /// The requests of a retry.
    pub(super) size: RetrySize,
    /// What must be typed, if money is spent or nothing brings it back.
    pub(super) typed: Option<String>,
}

impl Action {
    /// The action of that kind on a subject; `None` if there is no such subject, or no such action on the pages.
    pub(super) fn find(view: &View, kind: ActionKind, subject: &str) -> Stored<Option<Self>> {
        let job = || jobs::by_id(view, subject);
        let delivery = || match subject.parse() {
            Ok(id) => status::delivery(view, id),
            Err(_) => Ok(None),
        };
        let scope = || {
            subject
                .parse()
                .ok()
                .filter(|scope| PauseScope::OPERATORS.contains(scope))
        };
        Ok(match kind {
            ActionKind::CancelJob => job()?.map(Self::Cancel),
            ActionKind::RetryFailedLots => job()?.map(|job| Self::Retry(job, RetryScope::FailedLots)),
            ActionKind::RetryFailedTranslations => {
                job()?.map(|job| Self::Retry(job, RetryScope::FailedTranslations))
            }
            ActionKind::ReleaseHeld => job()?.map(Self::Release),
            ActionKind::ResendWebhook => delivery()?.map(Self::Resend),
            ActionKind::TryWebhook => delivery()?.map(Self::TryNow),
            ActionKind::ResendWebhooks => subject.parse().ok().map(Self::ResendAll),
            ActionKind::SendTestEvent => delivery()?.map(Self::TestEvent),
            ActionKind::BackUp => (subject == later::DATABASE).then_some(Self::BackUp),
            ActionKind::Pause => scope().map(Self::Pause),
            ActionKind::Resume => scope().map(Self::Resume),
            ActionKind::AcknowledgeAlert => match subject.parse() {
                Ok(id) => alerts::by_id(view, id)?.map(Self::Acknowledge),
                Err(_) => None,
            },
            _ => None,
        })
    }

    fn kind(&self) -> ActionKind {
        match self {
            Self::Cancel(_) => ActionKind::CancelJob,
            Self::Retry(_, scope) => scope.action(),
            Self::Release(_) => ActionKind::ReleaseHeld,
            Self::Resend(_) => ActionKind::ResendWebhook,
            Self::TryNow(_) => ActionKind::TryWebhook,
            Self::ResendAll(_) => ActionKind::ResendWebhooks,
            Self::TestEvent(_) => ActionKind::SendTestEvent,
            Self::BackUp => ActionKind::BackUp,
            Self::Pause(_) => ActionKind::Pause,
            Self::Resume(_) => ActionKind::Resume,
            Self::Acknowledge(_) => ActionKind::AcknowledgeAlert,
        }
    }

    /// The page of the subject.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Cancel(job) | Self::Retry(job, _) | Self::Release(job) => format!("/jobs/{}", job.id),
            Self::Resend(delivery) | Self::TryNow(delivery) => format!("/jobs/{}", delivery.job),
            Self::Pause(_) | Self::Resume(_) | Self::Acknowledge(_) => "/alerts".to_owned(),
            // The outcome will be there.
            Self::ResendAll(_) | Self::TestEvent(_) | Self::BackUp => {
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
                format!("/audit?subject={}", percent::encode(&self.subject(), is_plain))
            }
        }
    }

    /// What the action would do now.
    pub(super) fn preview(&self, view: &View, config: &Config, now: Timestamp) -> Stored<Preview> {
        let state = self.state(view)?;
        let simple = |title: String, effect: String, state: String| Preview {
            title,
            effects: vec![effect],
            state,
            cost: None,
            size: RetrySize::default(),
            typed: None,
        };
        Ok(match self {
            Self::Cancel(job) => preview_cancel(job),
            Self::Retry(job, scope) => preview_retry(view, config, job, *scope, now)?,
            Self::Release(job) => preview_release(view, config, job, now)?,
            Self::Resend(delivery) => simple(
                format!("Send webhook {} again", delivery.id),
                format!(
                    "{} gets the end of job {} once more, under a new id.",
                    delivery.receiver, delivery.job
                ),
                state,
            ),
            Self::TryNow(delivery) => simple(
                format!("Try webhook {} now", delivery.id),
                format!(
                    "{} is called now instead of at the time of its next attempt.",
                    delivery.receiver
                ),
                state,
            ),
            Self::ResendAll(range) => later::preview_resend(view, range, state)?,
            Self::TestEvent(delivery) => later::preview_test_event(delivery, state),
            Self::BackUp => later::preview_backup(config, state),
            Self::Pause(scope) => simple(
                format!("Pause {scope}"),
                format!(
                    "From then on {} stopped, also across restarts, until it is resumed.",
                    scope.in_words()
                ),
                state,
            ),
            Self::Resume(scope) => simple(
                format!("Resume {scope}"),
                format!("From then on {} no longer stopped.", scope.in_words()),
                state,
            ),
            Self::Acknowledge(alert) => simple(
                format!("Acknowledge: {}", alert.kind.title()),
                "Everyone sees that the alert is being looked after. It closes once its cause is gone."
                    .to_owned(),
                state,
            ),
        })
    }

    /// The state of the subject.
    fn state(&self, view: &View) -> Stored<String> {
        Ok(match self {
            Self::Cancel(job) | Self::Retry(job, _) | Self::Release(job) => of_job(job),
            Self::Resend(delivery) | Self::TryNow(delivery) => {
                format!("{} after {} attempts", delivery.state, delivery.attempts)
            }
            Self::ResendAll(range) => later::state_of_resend(view, range)?,
            Self::TestEvent(_) => {
                later::state(view, self.kind(), &self.subject(), "not asked for".to_owned())?
            }
            Self::BackUp => later::state_of_backup(view)?,
            Self::Pause(scope) | Self::Resume(scope) => match alerts::paused(view, scope)? {
                Some(_) => "paused".to_owned(),
                None => "not paused".to_owned(),
            },
            Self::Acknowledge(alert) => {
                let is = |time: Option<Timestamp>, word| if time.is_some() { word } else { "" };
                let acknowledged = is(alert.acknowledged_at, "acknowledged");
                let words = [is(alert.closed_at, "closed"), acknowledged].join(" ");
                match words.trim() {
                    "" => "open".to_owned(),
                    words => words.to_owned(),
                }
            }
        })
    }

    fn subject(&self) -> String {
        match self {
            Self::Cancel(job) | Self::Retry(job, _) | Self::Release(job) => job.id.clone(),
            Self::Resend(delivery) | Self::TryNow(delivery) | Self::TestEvent(delivery) => {
                delivery.id.to_string()
            }
            Self::ResendAll(range) => range.to_string(),
            Self::BackUp => later::DATABASE.to_owned(),
            Self::Pause(scope) | Self::Resume(scope) => scope.to_string(),
            Self::Acknowledge(alert) => alert.id.to_string(),
        }
    }

    /// Performs the action and records it. Returns whether there was something to change. A form that comes a
    /// second time changes nothing more.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the state is not that of `preview` any more.
    pub(super) fn perform(
        &self,
        tx: &Tx<'_>,
        config: &Config,
        preview: &Preview,
        (actor, nonce): (&Actor, &str),
    ) -> Stored<bool> {
        if audit::is_repeat(tx, nonce)? {
            return Ok(true);
        }
        let subject = self.subject();
        let current = Self::find(tx, self.kind(), &subject)?
            .map(|it| it.state(tx))
            .transpose()?;
        if !current.is_some_and(|state| preview.state.starts_with(&state)) {
            return Err(StoreError::Conflict(
                "it has changed since the page was made; look again".to_owned(),
            ));
        }
        let Some(effect) = self.apply(tx, config, preview)? else {
            return Ok(false);
        };
        let action = OperatorAction {
            actor,
            kind: self.kind(),
            subject: &subject,
            detail: Fields::new()
                .with("seen", preview.state.as_str())
                .followed_by(effect),
            cost: preview.cost,
            nonce: Some(nonce),
        };
        let id = audit::record(tx, action)?;
        if self.is_carried_out_later() {
            operator_tasks::add(tx, id, self.kind(), &subject)?;
        }
        Ok(true)
    }

    /// The effect of asking for what a worker carries out; `None` if that is asked for already.
    fn ask_once(&self, tx: &Tx<'_>) -> Stored<Option<Fields>> {
        let is_pending = operator_tasks::is_pending(tx, self.kind(), &self.subject())?;
        Ok((!is_pending).then(Fields::new))
    }

    /// Whether a worker carries it out.
    fn is_carried_out_later(&self) -> bool {
        matches!(self, Self::ResendAll(_) | Self::TestEvent(_) | Self::BackUp)
    }

    /// Makes the change; returns its effect, or `None` if there was nothing to change.
    fn apply(&self, tx: &Tx<'_>, config: &Config, preview: &Preview) -> Stored<Option<Fields>> {
        let (lots, check_images) = (job_changes::LOTS, config.images.check);
        Ok(match self {
            Self::Cancel(job) => {
                cancel::cancel(tx, job, cancel::BY_OPERATOR, lots)?;
                Some(Fields::new().with("lots", job.total_lots))
            }
            Self::Retry(job, scope) => {
                let size = &preview.size;
                retry::retry(tx, job, *scope, size, lots, check_images)?;
                (size.lots > 0).then(|| size.fields())
            }
            Self::Release(job) => {
                let sent = job_changes::release(tx, job, lots, check_images)?;
                (sent > 0).then(|| Fields::new().with("requests", sent))
            }
            Self::Resend(delivery) => {
                let new = webhook_deliveries::resend(tx, delivery.id)?;
                Some(Fields::new().with("again_as", new))
            }
            Self::TryNow(delivery) => webhook_deliveries::try_now(tx, delivery.id)?.then(Fields::new),
            Self::ResendAll(_) | Self::TestEvent(_) => self.ask_once(tx)?,
            Self::BackUp if config.backup.is_on() => self.ask_once(tx)?,
            Self::BackUp => None,
            Self::Pause(scope) => {
                alerts::pause_by_operator(tx, scope)?;
                Some(Fields::new())
            }
            Self::Resume(scope) => alerts::resume_by_operator(tx, scope)?.then(Fields::new),
            Self::Acknowledge(alert) => alerts::acknowledge(tx, alert.id)?.then(Fields::new),
        })
    }
}

fn of_job(job: &JobRow) -> String {
    format!(
        "{}, {} of {} lots processed, {} failed",
        job.status, job.processed_lots, job.total_lots, job.failed_lots
    )
}

/// The beginning of a job's id, which must be typed.
fn beginning(job: &JobRow) -> String {
    job.id.chars().take(8).collect()
}

fn preview_cancel(job: &JobRow) -> Preview {
    let open = job.total_lots.saturating_sub(job.processed_lots);
    Preview {
        title: format!("Cancel job {}", job.id),
        effects: vec![
            format!("{open} of {} lots get no further text; texts that are there stay.", job.total_lots),
            "Its batches are cancelled at OpenAI, unless another job needs them. OpenAI bills what it has answered."
                .to_owned(),
            "Its webhooks report the end. Nothing brings the job back: its client would have to send it again."
                .to_owned(),
        ],
        state: of_job(job),
        cost: None,
        size: RetrySize::default(),
        typed: Some(beginning(job)),
    }
}

/// A number of things: `1 lot`, `2 lots`.
fn count(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

fn cost_in_words(cost: Option<Money>) -> String {
    match cost {
        Some(cost) => format!("OpenAI bills them: at most some {cost} USD."),
        None => "OpenAI bills them: an unknown amount, as a model has no price.".to_owned(),
    }
}

fn preview_retry(
    view: &View,
    config: &Config,
    job: &JobRow,
    scope: RetryScope,
    now: Timestamp,
) -> Stored<Preview> {
    let size = retry::retry_size(view, job, scope)?;
    let others = job.languages.iter().filter(|tag| !is_english(tag)).count();
    let vision = u64::from(size.vision);
    let translations = u64::from(size.translations) + vision * u64::try_from(others).unwrap_or(u64::MAX);
    let requests = [(Stage::Vision, vision), (Stage::Translation, translations)];
    let cost = reservation::cost_of_requests(view, config, requests, now)?;
    let what = match scope {
        RetryScope::FailedLots => "failed lots",
        RetryScope::FailedTranslations => "failed translations",
    };
    Ok(Preview {
        title: format!("Send the {what} of job {} again", job.id),
        effects: vec![
            format!(
                "{}: {} and {} are sent.",
                count(u64::from(size.lots), "lot"),
                count(vision, "description"),
                count(translations, "translation")
            ),
            cost_in_words(cost),
            "The job is open again, and its webhooks report the new end under new ids.".to_owned(),
        ],
        state: format!("{}; {} to send", of_job(job), size.fields()),
        cost,
        size,
        typed: Some(beginning(job)),
    })
}

fn preview_release(view: &View, config: &Config, job: &JobRow, now: Timestamp) -> Stored<Preview> {
    let held = job_changes::count_held(view, job.seq)?;
    let cost = reservation::cost_of_requests(
        view,
        config,
        [(Stage::Vision, held), (Stage::Translation, 0)],
        now,
    )?;
    Ok(Preview {
        title: format!("Send the held requests of job {}", job.id),
        effects: vec![
            format!(
                "{} sent; a batch of the earlier service may have answered them already.",
                match held {
                    1 => "1 request is".to_owned(),
                    _ => format!("{held} requests are"),
                }
            ),
            cost_in_words(cost),
        ],
        state: format!("{}; {held} held", of_job(job)),
        cost,
        size: RetrySize::default(),
        typed: Some(beginning(job)),
    })
}
