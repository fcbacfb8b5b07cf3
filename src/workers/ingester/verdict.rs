//! Both result files of a batch are read: what its lines say together of the model and of the settings.

use std::time::Duration;

use super::Ingester;
use super::settle::unread_outcome;
use crate::base::clock::Moment;
use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::domain::decide::batch_verdict::{
    BatchLines, BatchVerdict, EndedBatch, FoundPause, ModelDecision, PROBE_LINES, RecentLines,
};
use crate::domain::openai::BatchStatus;
use crate::domain::parameters::{Parameters, Setting};
use crate::store::batches::{self, BatchRow};
use crate::store::{StoreError, Stored, Tx, alerts, queue};
use crate::workers::pauses;
use crate::workers::worker::WorkerError;

impl Ingester {
    /// Stores the verdict of a batch that ran, once. Its model or stage pauses, or its pause ends.
    pub(super) fn judge_batch(&self, row: &BatchRow, now: Moment) -> Result<(), WorkerError> {
        let was_cancelled = row.openai_status.as_deref() == Some(BatchStatus::Cancelled.as_str());
        // OpenAI may not say of which model a batch is that a recovery took up.
        let is_left = row.abandoned_at.is_some() || was_cancelled;
        if row.verdict.is_some() || row.model.is_empty() || is_left {
            return Ok(());
        }
        let (lines, recent, clients) = self.store.read(|view| {
            let lines = batches::batch_lines(view, row.id, unread_outcome(row))?;
            let clients = batches::clients_with_work(view)?;
            let recent = batches::recent_lines(view, row, &lines, clients, now.wall)?;
            Ok((lines, recent, clients))
        })?;
        self.store.write(now.wall, |tx| {
            let model = PauseScope::Model(row.model.clone());
            let batch = EndedBatch {
                lines: &lines,
                recent: &recent,
                clients,
                model: find_pause(tx, &model, row)?,
                first_wait: self.config.batch.queue_backoff,
            };
            let (verdict, decision) = batch.decide();
            match decision {
                ModelDecision::Keep => {}
                ModelDecision::Resume => pauses::clear_pause(tx, &model)?,
                ModelDecision::Pause(next) => {
                    let message = outage_message(row, &recent, next.wait);
                    let kind = AlertKind::ModelFails;
                    pauses::pause_model(tx, &row.model, kind, &message, next.wait, Some(next.lines))?;
                }
            }
            self.judge_stage(tx, row, &batch, verdict)?;
            queue::record_success(tx, &row.model)?;
            batches::set_verdict(tx, row.id, verdict)
        })?;
        Ok(())
    }

    /// Pauses the stage of a batch whose settings are wrong, or ends its pause because a line of it ran.
    fn judge_stage(
        &self,
        tx: &Tx<'_>,
        row: &BatchRow,
        batch: &EndedBatch<'_>,
        verdict: BatchVerdict,
    ) -> Stored<()> {
        let scope = PauseScope::Stage(row.stage);
        let found = find_pause(tx, &scope, row)?;
        let Some(setting) = batch
            .lines
            .wrong_setting()
            .filter(|_| verdict == BatchVerdict::Misconfigured)
        else {
            return match found {
                FoundPause::Probed { .. } if batch.lines.ran > 0 => pauses::clear_pause(tx, &scope),
                _ => Ok(()),
            };
        };
        let is_configured = row.parameters == self.config.parameters(row.stage).to_text()?;
        let Some(wait) = batch.stage_wait(found).filter(|_| is_configured) else {
            return Ok(());
        };
        let message = setting_message(row, setting, batch.lines, wait)?;
        let until = tx.now + wait;
        alerts::pause_for_probe(tx, &scope, &message, until, PROBE_LINES)?;
        alerts::open(
            tx,
            AlertKind::Misconfigured,
            &AlertSubject::Scope(scope),
            &message,
        )
        .map(drop)
    }
}

/// The pause of a scope, as a batch finds it.
fn find_pause(tx: &Tx<'_>, scope: &PauseScope, row: &BatchRow) -> Stored<FoundPause> {
    let pause = alerts::paused(tx, scope)?;
    Ok(match pause.and_then(|pause| Some((pause.since, pause.probe?))) {
        None => FoundPause::None,
        Some((_, probe)) if row.id <= probe.after_batch => FoundPause::Later,
        Some((since, probe)) => FoundPause::Probed {
            size: probe.lines,
            paused: tx.now.since(since.unwrap_or(tx.now)),
        },
    })
}

fn outage_message(row: &BatchRow, recent: &RecentLines, wait: Duration) -> String {
    let counts = recent.counts();
    format!(
        "{} % of the newest lines of {} ({} of {}, of {} jobs) failed with errors of OpenAI's that pass. Its requests \
         wait, and none fails for it before batch.transient_timeout; a small batch tests it in {wait:?}, and the \
         work goes on by itself. The newest batch: batchkeeper batches show {}",
        counts.percent(),
        row.model,
        counts.failed,
        counts.lines,
        recent.jobs.len(),
        row.id
    )
}

fn setting_message(
    row: &BatchRow,
    setting: Setting,
    lines: &BatchLines,
    wait: Duration,
) -> Result<String, StoreError> {
    let parameters = Parameters::parse(row.stage, &row.parameters)?;
    Ok(format!(
        "every line of batch {} failed because of {}: {}. The requests of the {} stage wait, and none has failed. \
         Change the setting, try it with: batchkeeper check-config --probe, and then: systemctl restart batchkeeper. \
         Without that a small batch tests it in {wait:?}",
        row.id,
        parameters.setting_text(setting),
        lines
            .setting_error
            .as_deref()
            .unwrap_or("no message came with it"),
        row.stage
    ))
}
