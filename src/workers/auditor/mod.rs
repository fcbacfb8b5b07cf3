//! The auditor: checks the invariants, looks for stalled work, and compares OpenAI's listing with the store.
//! It opens an alert for each cause that it finds, and closes the alert once the cause is gone.

mod causes;
mod listing;

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::base::fields::Fields;
use crate::config::Config;
use crate::domain::alert::{AlertCause, AlertKind, PauseScope};
use crate::domain::batch::Stage;
use crate::domain::decide::audit::{
    PauseState, RECENT_LINES, expiring_between, is_pause_idle, overdue_before, reported_after, stalled_before,
};
use crate::domain::decide::clock_confirmation::ClockVerdict;
use crate::jobs::budget_waits::budget_waits;
use crate::openai::BatchApi;
use crate::store::{
    Store, Stored, View, alerts, batches, clock as store_clock, events, invariants, money, stuck,
    unreadable::{self, UnreadableValue},
};
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, Worker, WorkerError, backoff};
use crate::workers::{clock, pauses};

/// The auditor.
pub struct Auditor {
    store: Arc<Store>,
    api: Arc<dyn BatchApi>,
    config: Arc<Config>,
    /// When the next audit is due, on the steady clock.
    audit_at: Duration,
    /// When the next comparison with OpenAI's listing is due, on the steady clock. The submitter makes the
    /// first one.
    reconcile_at: Option<Duration>,
    /// The comparison that is not finished yet.
    listing: Option<listing::ListingAudit>,
}

impl Auditor {
    /// An auditor whose first audit is due now.
    pub fn new(store: Arc<Store>, api: Arc<dyn BatchApi>, config: Arc<Config>) -> Self {
        Self {
            store,
            api,
            config,
            audit_at: Duration::ZERO,
            reconcile_at: None,
            listing: None,
        }
    }

    /// Links what the rows themselves connect, then looks for the cause of each kind of alert.
    fn audit(&self, now: Moment) -> Result<(), WorkerError> {
        self.link_jobs(now)?;
        let mut found = self.find_causes(now)?;
        found.push((AlertKind::Invariant, self.broken_invariants()?));
        if let Some(unreadable) = self.unreadable_rows()? {
            found.push((AlertKind::UnreadableRow, unreadable));
        }
        let clock = clock::verdict(&self.store, self.api.as_ref(), now)?;
        found.push((AlertKind::ClockSkew, clock::skew(clock)));
        if clock == ClockVerdict::Confirmed && self.store.may_have_future_times(now.wall) {
            self.store.rewrite_future_times(now.wall)?;
        }
        let unconfirmed = self
            .store
            .read(|view| clock::unconfirmed(view, clock, now.wall))?;
        found.push((AlertKind::ClockUnconfirmed, unconfirmed));
        let idle_pauses = self.idle_pauses(now)?;
        self.store.write(now.wall, |tx| {
            for (kind, causes) in &found {
                alerts::set_open(tx, *kind, causes)?;
            }
            alerts::close_outlived(tx)?;
            if clock == ClockVerdict::Confirmed {
                store_clock::mark_confirmed(tx)?;
            }
            idle_pauses
                .iter()
                .try_for_each(|scope| pauses::clear_pause(tx, scope))
        })?;
        Ok(())
    }

    /// The causes of each kind of alert, except those of the invariants.
    fn find_causes(&self, now: Moment) -> Stored<Vec<(AlertKind, Vec<AlertCause>)>> {
        let Config {
            alerts: alert_config,
            batch,
            openai,
            ..
        } = self.config.as_ref();
        let stalled = stalled_before(
            now.wall,
            alert_config.stuck_after,
            batch.max_wait,
            openai.settling_time,
        );
        let overdue = overdue_before(now.wall);
        let reported = reported_after(now.wall);
        let expiring = expiring_between(now.wall, alert_config.expiry_warning);
        self.store.read(|view| {
            let (budgets, costs) = causes::of_costs(budget_waits(view, &self.config, now.wall))?;
            // While OpenAI refuses the account no batch moves, and that has an alert of its own. Between two probes
            // its pause is over, and still there.
            let stalled_batches = match pauses::is_account_refused(view)? {
                true => Vec::new(),
                false => stuck::stalled_batches(view, stalled)?,
            };
            let other_identity = stuck::batches_of_other_identity(view, self.api.identity())?;
            let other_identity = other_identity.iter().map(pauses::of_other_identity);
            let expiring = expiring.map(|times| stuck::expiring_batches(view, times));
            let lines = stuck::recent_lines(view, now.wall.before(RECENT_LINES))?;
            let limit = alert_config.failed_lines_percent;
            let is_explained = alerts::is_any_open(view, AlertKind::ModelFails)?
                || alerts::is_any_open(view, AlertKind::Misconfigured)?;
            Ok(vec![
                (AlertKind::StuckJob, stuck::stalled_jobs(view, stalled)?),
                (AlertKind::StuckBatch, stalled_batches),
                (AlertKind::BatchOverdue, stuck::overdue_batches(view, overdue)?),
                (
                    AlertKind::BatchExpiring,
                    expiring.transpose()?.unwrap_or_default(),
                ),
                (
                    AlertKind::FailedLines,
                    causes::failing_lines(lines, is_explained, limit),
                ),
                (AlertKind::UsageDiffers, money::differences(view, reported)?),
                (AlertKind::UsageUnknown, money::unknown_usage(view, reported)?),
                (AlertKind::CostsUnreadable, costs),
                (AlertKind::Budget80, causes::mostly_used_budgets(&budgets)),
                (AlertKind::Budget100, causes::used_up_budgets(&budgets)),
                (
                    AlertKind::NotificationFailed,
                    stuck::failed_notifications(view, stalled, reported)?,
                ),
                (AlertKind::DiskLow, causes::low_disk(&self.store, &self.config)?),
                (
                    AlertKind::BackupLate,
                    causes::late_backup(view, &self.config.backup, now.wall)?,
                ),
                (AlertKind::OtherIdentity, other_identity.collect()),
            ])
        })
    }

    /// Links jobs to the batches that work for them where the rows say so and the job does not.
    fn link_jobs(&self, now: Moment) -> Result<(), WorkerError> {
        let unlinked = self.store.read(stuck::unlinked_batches)?;
        if unlinked.is_empty() {
            return Ok(());
        }
        self.store.write(now.wall, |tx| {
            for batch in &unlinked {
                batches::link_jobs(tx, *batch)?;
                events::record(
                    tx,
                    None,
                    Some(*batch),
                    "linked_again",
                    Fields::new().with_text("a job did not name it"),
                )?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The models, and the account, whose pause is over and for which no work waits. No call will show
    /// whether the cause is gone, so their alerts close.
    fn idle_pauses(&self, now: Moment) -> Result<Vec<PauseScope>, WorkerError> {
        let longest = backoff(self.config.batch.queue_backoff, u32::MAX, None);
        let scopes = self.store.read(alerts::open_scopes)?;
        let mut idle = Vec::new();
        for scope in scopes {
            let (pause, has_work) = self.store.read(|view| {
                let has_work = match &scope {
                    PauseScope::Model(model) => self.has_work(view, Some(model))?,
                    PauseScope::Stage(stage) => stuck::has_work(view, None, &[*stage])?,
                    PauseScope::Sending => self.has_work(view, None)?,
                    _ => true,
                };
                Ok((alerts::paused(view, &scope)?, has_work))
            })?;
            let pause = match pause {
                None => PauseState::Ended,
                Some(pause) => pause.until.map_or(PauseState::Unlimited, PauseState::Until),
            };
            if is_pause_idle(pause, has_work, now.wall, longest) {
                idle.push(scope);
            }
        }
        Ok(idle)
    }

    /// Whether work waits for a model, or for any model if there is `None`.
    fn has_work(&self, view: &View, model: Option<&str>) -> Stored<bool> {
        let configured = [
            (Stage::Vision, &self.config.vision.model),
            (Stage::Translation, &self.config.translation.model),
        ];
        let stages = configured
            .into_iter()
            .filter(|(_, configured)| model.is_none_or(|model| model == *configured));
        let stages: Vec<Stage> = stages.map(|(stage, _)| stage).collect();
        stuck::has_work(view, model, &stages)
    }

    /// The values that cannot be read, if any was met; `None` if none was since the last were repaired.
    fn unreadable_rows(&self) -> Stored<Option<Vec<AlertCause>>> {
        let is_open = |view: &View| alerts::is_any_open(view, AlertKind::UnreadableRow);
        if !self.store.has_unreadable_rows() && !self.store.read(is_open)? {
            return Ok(None);
        }
        // A row that becomes unreadable meanwhile is met again.
        self.store.forget_unreadable_rows();
        let found = self.store.read(unreadable::find)?;
        Ok(Some(found.iter().map(UnreadableValue::cause).collect()))
    }

    fn broken_invariants(&self) -> Stored<Vec<AlertCause>> {
        let mut broken = Vec::new();
        for invariant in invariants::live_invariants() {
            let findings = self
                .store
                .read(|view| invariants::live_findings(view, invariant))?;
            let findings = findings.into_iter();
            broken.extend(findings.map(|it| causes::broken_invariant(invariant, it)));
        }
        Ok(broken)
    }
}

impl Worker for Auditor {
    fn name(&self) -> &'static str {
        "auditor"
    }

    fn notifies(&self) -> Option<Topic> {
        Some(Topic::Audited)
    }

    fn longest_tick(&self) -> Duration {
        // A page of a listing is bounded by the least rate of a transfer.
        Duration::from_hours(2)
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        if now.steady >= self.audit_at {
            self.audit(now)?;
            self.audit_at = now.steady + self.config.steps.audit;
        }
        let due = *self
            .reconcile_at
            .get_or_insert(now.steady + self.config.steps.reconcile);
        let may_list = self.config.openai.lists_batches();
        if may_list && now.steady >= due && pauses::openai_paused(&self.store, &self.config, now)?.is_none() {
            let wait = self.compare_listing(now)?;
            self.reconcile_at = Some(now.steady + wait);
            if wait.is_zero() {
                return Ok(TickOutcome {
                    worked: false,
                    after: wait,
                });
            }
        }
        let wait = self
            .audit_at
            .min(self.reconcile_at.unwrap_or(self.audit_at))
            .saturating_sub(now.steady);
        Ok(TickOutcome::idle(wait.max(self.config.steps.idle)))
    }
}
