//! The auditor: the invariants over what is not final, work that stands still, and OpenAI's listing
//! held against the store. What carries our key is linked by itself, the rest raises an alert, and
//! an alert closes by itself when its cause is gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::BatchState;
use crate::clock::Moment;
use crate::config::Config;
use crate::openai::BatchApi;
use crate::openai::listing::batches_back_to;
use crate::reconcile;
use crate::step::{Next, Step, StepError};
use crate::store::{Store, alerts, batches, inspect};
use crate::trouble;

/// Batches at OpenAI that one reconciliation looks for.
const BATCHES: u32 = 10_000;

/// See the module.
pub struct Auditor {
    store: Arc<Store>,
    api: Arc<dyn BatchApi>,
    config: Arc<Config>,
    /// When the next check is due, on the steady clock.
    audit_at: Duration,
    /// The same of the next reconciliation: the submitter's comparison is the first.
    reconcile_at: Option<Duration>,
}

impl Auditor {
    /// An auditor that looks at once.
    pub fn new(store: Arc<Store>, api: Arc<dyn BatchApi>, config: Arc<Config>) -> Self {
        Self {
            store,
            api,
            config,
            audit_at: Duration::ZERO,
            reconcile_at: None,
        }
    }

    fn audit(&self, now: Moment) -> Result<(), StepError> {
        let patience = self.config.alerts.stuck_after
            + self.config.batch.max_wait
            + self.config.openai.settling_time;
        let (findings, stuck) = self.store.read(|view| {
            Ok((
                inspect::live_findings(view)?,
                inspect::stuck(view, now.wall.before(patience))?,
            ))
        })?;
        let findings: Vec<(String, String)> = findings
            .into_iter()
            .map(|it| {
                (
                    format!("{}:{}", it.invariant, it.subject),
                    format!("{} {}", it.subject, it.finding),
                )
            })
            .collect();
        self.store.write(now.wall, |tx| {
            alerts::only(tx, "invariant", &findings)?;
            alerts::only(tx, "stuck_job", &stuck.jobs)?;
            alerts::only(tx, "stuck_batch", &stuck.batches)
        })?;
        Ok(())
    }

    /// Both directions: batches of ours that no row knows, and rows whose batch is not listed.
    fn reconcile(&self, now: Moment) -> Result<(), StepError> {
        let (running, reach) = self.store.read(|view| {
            let running = batches::in_states(view, &[BatchState::Submitted], BATCHES)?;
            Ok((running, reconcile::reach(view)?))
        })?;
        let ours: Vec<_> = running
            .iter()
            .filter(|row| row.identity == *self.api.identity())
            .collect();
        let from = ours
            .iter()
            .filter_map(|row| row.openai_time)
            .min()
            .map_or(reach, |oldest| oldest.min(reach));
        let listed = match batches_back_to(self.api.as_ref(), from) {
            Ok(listed) => listed,
            Err(error) => {
                log::warn!("event=reconciliation put off error={:?}", error.to_string());
                return Ok(());
            }
        };
        let known: HashSet<&str> = listed.iter().map(|remote| remote.id.as_str()).collect();
        let gone: Vec<(String, String)> = ours
            .iter()
            .filter_map(|row| Some((row, row.openai_batch_id.as_deref()?)))
            .filter(|(_, id)| !known.contains(id))
            .map(|(row, id)| {
                let message = format!(
                    "OpenAI does not list batch {id} (row {}) any more; it is polled on. If it is lost for good: \
                     batchkeeper batches give-up {}",
                    row.id, row.id
                );
                (format!("batch:{}", row.id), message)
            })
            .collect();
        self.store.write(now.wall, |tx| {
            reconcile::with_listing(tx, &self.store, &listed, from)?;
            alerts::only(tx, "batch_not_listed", &gone)
        })?;
        Ok(())
    }
}

impl Step for Auditor {
    fn name(&self) -> &'static str {
        "auditor"
    }

    fn tick(&mut self, now: Moment) -> Result<Next, StepError> {
        if now.steady >= self.audit_at {
            self.audit(now)?;
            self.audit_at = now.steady + self.config.steps.audit;
        }
        let due = *self
            .reconcile_at
            .get_or_insert(now.steady + self.config.steps.reconcile);
        if now.steady >= due && trouble::openai_paused(&self.store, &self.config, now)?.is_none() {
            self.reconcile(now)?;
            self.reconcile_at = Some(now.steady + self.config.steps.reconcile);
        }
        let wait = self
            .audit_at
            .min(self.reconcile_at.unwrap_or(self.audit_at))
            .saturating_sub(now.steady);
        Ok(Next::idle(wait.max(self.config.steps.idle)))
    }
}
