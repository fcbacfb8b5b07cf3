//! The auditor: the invariants over what is not final, work that stands still, and OpenAI's listing
//! held against the store. What carries our key is linked by itself, the rest raises an alert, and
//! an alert closes by itself when its cause is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Moment, Timestamp};
use crate::base::fields::Fields;
use crate::config::Config;
use crate::domain::alert::{AlertCause, AlertKind, AlertSubject, PauseScope};
use crate::domain::batch::{BatchState, Stage};
use crate::domain::money::Money;
use crate::domain::openai::Batch;
use crate::openai::BatchApi;
use crate::openai::listing::batches_back_to;
use crate::recovery::reconcile;
use crate::store::batches::{self, BatchRow, META_SUBMISSION};
use crate::store::money::{self, Standing};
use crate::store::stuck;
use crate::store::{Store, Stored, View, alerts, backup, events, inspect};
use crate::workers::pauses;
use crate::workers::wakeups::Topic;
use crate::workers::worker::{TickOutcome, Worker, WorkerError, backoff};

/// Batches at OpenAI that one reconciliation looks for.
const BATCHES: u32 = 10_000;
/// How long after its window a batch that has not ended is told of.
const OVERDUE: Duration = Duration::from_mins(30);
/// How long it is told of that a notice was given up.
const FORGOTTEN: Duration = Duration::from_hours(24);

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

    /// Mends what the rows themselves say, then looks at every invariant and for work that stands
    /// still.
    fn audit(&self, now: Moment) -> Result<(), WorkerError> {
        self.link(now)?;
        let mut findings = Vec::new();
        for invariant in inspect::live_invariants() {
            let found = self
                .store
                .read(|view| inspect::live_findings(view, invariant))?;
            findings.extend(found.into_iter().map(|it| {
                let message = format!("{} {}. See: batchkeeper doctor", it.subject, it.finding);
                let subject = AlertSubject::Finding {
                    view: invariant.to_owned(),
                    subject: it.subject,
                };
                AlertCause { subject, message }
            }));
        }
        let patience = self.config.alerts.stuck_after
            + self.config.batch.max_wait
            + self.config.openai.settling_time;
        let before = now.wall.before(patience);
        let day_ago = now.wall.before(FORGOTTEN);
        // While OpenAI refuses the account nothing moves there, and a person knows why.
        let paused = pauses::sending_paused(&self.store, &self.config, now)?.is_some();
        let budgets = self.config.spending_limits();
        let told = self.store.read(|view| {
            let standings = money::standings(view, &budgets, now.wall)?;
            let other_identity = stuck::of_other_identity(view, self.api.identity())?;
            let submissions = match paused {
                true => Vec::new(),
                false => stuck::submissions(view, before)?,
            };
            Ok([
                (AlertKind::Invariant, findings),
                (AlertKind::StuckJob, stuck::jobs(view, before)?),
                (AlertKind::StuckBatch, submissions),
                (
                    AlertKind::BatchOverdue,
                    stuck::overdue(view, now.wall.before(OVERDUE))?,
                ),
                (AlertKind::UsageDiffers, money::differences(view, day_ago)?),
                (AlertKind::Budget80, budget_alerts(&standings, 80)),
                (AlertKind::Budget100, budget_alerts(&standings, 100)),
                (
                    AlertKind::NotificationFailed,
                    stuck::notices(view, before, day_ago)?,
                ),
                (AlertKind::DiskLow, self.low_disk()?),
                (AlertKind::BackupLate, self.late_backup(view, now.wall)?),
                (
                    AlertKind::OtherIdentity,
                    other_identity
                        .iter()
                        .map(pauses::of_other_identity)
                        .collect(),
                ),
            ])
        })?;
        let rested = self.rested(now)?;
        self.store.write(now.wall, |tx| {
            for (kind, told) in &told {
                alerts::set_open(tx, *kind, told)?;
            }
            alerts::close_outlived(tx)?;
            rested
                .iter()
                .try_for_each(|scope| pauses::clear_pause(tx, scope))
        })?;
        Ok(())
    }

    /// Tells that the disk fills up, while there is room for what is paid.
    fn low_disk(&self) -> Stored<Vec<AlertCause>> {
        let missing = pauses::missing_free_space(&self.store, &self.config)?;
        let told = missing.map(|missing| {
            let path = self.store.path().display();
            let message = format!(
                "the disk of {path} has {} MB less than limits.disk_reserve: new jobs are refused and no batch is \
                 created, while what is paid is taken in. It goes on by itself once there is room. What takes it: \
                 du -ah \"$(dirname {path})\" | sort -h | tail; results go earlier with a smaller retention.results and: \
                 systemctl restart batchkeeper",
                missing / 1_000_000
            );
            let subject = AlertSubject::Disk;
            AlertCause { subject, message }
        });
        Ok(told.into_iter().collect())
    }

    /// Tells where the newest backup is old, as far as somebody makes backups here.
    fn late_backup(&self, view: &View, now: Timestamp) -> Stored<Vec<AlertCause>> {
        let config = &self.config.backup;
        if !config.is_on() || config.late_after.is_zero() {
            return Ok(Vec::new());
        }
        let newest = backup::newest(view)?;
        let made = match newest {
            Some(newest) if newest > now.before(config.late_after) => return Ok(Vec::new()),
            Some(newest) => format!("the newest backup is of {newest}"),
            None => "there is no backup yet".to_owned(),
        };
        let message = format!(
            "{made}; make one: batchkeeper backup. Why the timer's failed: journalctl -u batchkeeper-backup"
        );
        let subject = AlertSubject::Backup;
        Ok(vec![AlertCause { subject, message }])
    }

    /// Links jobs that do not name the batch which works for them, as its rows say.
    fn link(&self, now: Moment) -> Result<(), WorkerError> {
        let unlinked = self.store.read(stuck::unlinked)?;
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

    /// Models, and the account, whose pause is over and that nothing waits for: whether they are well again
    /// nobody will learn, nor needs to.
    fn rested(&self, now: Moment) -> Result<Vec<PauseScope>, WorkerError> {
        let longest = backoff(self.config.batch.queue_backoff, u32::MAX, None);
        let scopes = self.store.read(alerts::open_scopes)?;
        let mut rested = Vec::new();
        for scope in scopes {
            let model = match &scope {
                PauseScope::Model(model) => Some(model.as_str()),
                PauseScope::Sending => None,
                _ => continue,
            };
            let stages: Vec<Stage> = [
                (Stage::Vision, &self.config.vision.model),
                (Stage::Translation, &self.config.translation.model),
            ]
            .into_iter()
            .filter(|(_, configured)| model.is_none_or(|model| model == *configured))
            .map(|(stage, _)| stage)
            .collect();
            let (pause, wanted) = self.store.read(|view| {
                Ok((
                    alerts::paused(view, &scope)?,
                    stuck::is_wanted(view, model, &stages)?,
                ))
            })?;
            let pausing = pause.is_some_and(|pause| {
                pause
                    .until
                    .is_none_or(|until| !until.due_in(now.wall, longest).is_zero())
            });
            if !pausing && !wanted {
                rested.push(scope);
            }
        }
        Ok(rested)
    }

    /// Both directions: batches of ours that no row knows, and rows whose batch is not listed.
    fn reconcile(&self, now: Moment) -> Result<(), WorkerError> {
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
                log::warn!(event = "reconciliation_put_off", error:%; "");
                if error.is_account_trouble() {
                    let probe = backoff(self.config.openai.retry_interval, u32::MAX, None);
                    self.store
                        .write(now.wall, |tx| pauses::pause_openai(tx, &error, probe))?;
                }
                return Ok(());
            }
        };
        let known: HashMap<&str, &Batch> = listed
            .iter()
            .map(|remote| (remote.id.as_str(), remote))
            .collect();
        let (mut gone, mut wrong) = (Vec::new(), Vec::new());
        // A listing may lag behind a create.
        let lagging = now.wall.before(self.config.openai.settling_time).seconds();
        for row in ours {
            let id = row.openai_batch_id.as_deref().unwrap_or_default();
            let told = match known.get(id) {
                None if row.openai_time.is_some_and(|time| time > lagging) => continue,
                None => &mut gone,
                Some(remote) if !fits(row, remote) => &mut wrong,
                Some(_) => continue,
            };
            let what = match known.get(id) {
                None => "is not listed by OpenAI any more",
                Some(_) => "has another submission's key or input at OpenAI",
            };
            let message = format!(
                "batch {id} (row {}) {what}; it is polled on. If it is lost for good: batchkeeper batches give-up {}",
                row.id, row.id
            );
            let subject = AlertSubject::Batch(row.id);
            told.push(AlertCause { subject, message });
        }
        self.store.write(now.wall, |tx| {
            reconcile::compare_with_listing(tx, &self.store, &listed, from)?;
            alerts::set_open(tx, AlertKind::BatchNotListed, &gone)?;
            alerts::set_open(tx, AlertKind::WrongLink, &wrong)
        })?;
        Ok(())
    }
}

/// The budgets that are used up to so many of a hundred parts.
fn budget_alerts(standings: &[Standing], percent: u64) -> Vec<AlertCause> {
    let reached = standings.iter().filter(|it| {
        let used = (it.spent + it.reserved).times(100);
        used >= it.limit.times(percent) && it.limit > Money::default()
    });
    let told = reached.map(|it| {
        let message = format!(
            "{percent} % of the budget {} are used: {} USD spent and {} reserved of {}. Beyond it jobs are refused or wait, \
             until the next one begins, or [budgets] allows more and systemctl restart batchkeeper has read it. Where it \
             went: batchkeeper report",
            it.subject(),
            it.spent,
            it.reserved,
            it.limit
        );
        AlertCause {
            subject: it.subject(),
            message,
        }
    });
    told.collect()
}

/// Whether what OpenAI has under a row's id was made from that row: by the key in its metadata, where
/// it has one, and by its input file. A second batch under one key has the first one's.
fn fits(row: &BatchRow, remote: &Batch) -> bool {
    let key = remote.metadata.get(META_SUBMISSION);
    let of_key = |key: &String| {
        let rest = row.key.strip_prefix(key.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
    };
    let of_input = row
        .input_file_id
        .as_ref()
        .is_none_or(|input| *input == remote.input_file_id);
    key.is_none_or(of_key) && of_input
}

impl Worker for Auditor {
    fn name(&self) -> &'static str {
        "auditor"
    }

    fn notifies(&self) -> Option<Topic> {
        Some(Topic::Audited)
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        if now.steady >= self.audit_at {
            self.audit(now)?;
            self.audit_at = now.steady + self.config.steps.audit;
        }
        let due = *self
            .reconcile_at
            .get_or_insert(now.steady + self.config.steps.reconcile);
        if now.steady >= due && pauses::openai_paused(&self.store, &self.config, now)?.is_none() {
            self.reconcile(now)?;
            self.reconcile_at = Some(now.steady + self.config.steps.reconcile);
        }
        let wait = self
            .audit_at
            .min(self.reconcile_at.unwrap_or(self.audit_at))
            .saturating_sub(now.steady);
        Ok(TickOutcome::idle(wait.max(self.config.steps.idle)))
    }
}
