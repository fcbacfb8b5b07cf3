//! The changes of a transaction to the counters of jobs.

use std::cell::RefCell;
use std::collections::BTreeMap;

use rusqlite::params;

use crate::domain::batch::Stage;
use crate::store::{Stored, Tx};

/// The changes that settled requests and finished lots make to the counters of their job.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct Tally {
    vision: i64,
    translations: i64,
    new_translations: i64,
    finished_lots: i64,
    failed_lots: i64,
}

/// Tallies by job. They are written once, before the transaction commits, as a job's row is wide and its lines
/// come by the hundred.
pub(in crate::store) type Tallies = RefCell<BTreeMap<i64, Tally>>;

/// Writes the tallies of a transaction into the jobs' rows.
pub(in crate::store) fn write_tallies(tx: &Tx<'_>) -> Stored<()> {
    let tallies = tx.tallies.take();
    if tallies.is_empty() {
        return Ok(());
    }
    let mut count = tx.prepare_cached(
        "UPDATE batch_jobs SET open_vision = open_vision - ?1, open_translations = open_translations - ?2 + ?3,
                processed_lots = processed_lots + ?4, failed_lots = failed_lots + ?5, updated_at = ?6,
                status = CASE WHEN status IN ('pending', 'processing') AND open_vision = ?1 AND pending_change IS NULL
                              THEN 'translating' ELSE status END
         WHERE seq = ?7",
    )?;
    for (job, tally) in tallies {
        count.execute(params![
            tally.vision,
            tally.translations,
            tally.new_translations,
            tally.finished_lots,
            tally.failed_lots,
            tx.now,
            job
        ])?;
    }
    Ok(())
}

fn tally(tx: &Tx<'_>, job: i64, add: impl FnOnce(&mut Tally)) {
    add(tx.tallies.borrow_mut().entry(job).or_default());
}

/// Counts that one request of a job is settled and that `translations` new ones are open.
pub(super) fn count_settled(tx: &Tx<'_>, job: i64, stage: Stage, translations: i64) {
    tally(tx, job, |tally| {
        match stage {
            Stage::Vision => tally.vision += 1,
            Stage::Translation => tally.translations += 1,
        }
        tally.new_translations += translations;
    });
}

/// Counts that a lot of a job is finished.
pub(super) fn count_finished_lot(tx: &Tx<'_>, job: i64, has_failed: bool) {
    tally(tx, job, |tally| {
        tally.finished_lots += 1;
        tally.failed_lots += i64::from(has_failed);
    });
}
