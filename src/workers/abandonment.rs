//! What the workers share of an operator's intent to abandon a batch.

use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::domain::alert::AlertSubject;
use crate::domain::batch::Outcome;
use crate::domain::decide::abandoned_batch::WatchedBatch;
use crate::openai::CallError;
use crate::store::batches::{self, BatchRow};
use crate::store::settle::{self, UnreadLines};
use crate::store::{Store, Stored, Tx, alerts};

/// Requests that are released in one transaction.
const CHUNK: u32 = 200;

/// Releases the next requests of a batch that is abandoned: those without an answer wait to be sent again.
/// Returns whether all are released. The last chunk is followed by a call that finds none.
pub fn release_lines(store: &Store, config: &Config, row: &BatchRow, now: Moment) -> Stored<bool> {
    let rules = config.retry_rules();
    let unread = UnreadLines::all(Outcome::NotRun);
    store.write(now.wall, |tx| {
        let last = settle::settle_lines(tx, row.id, row.settled_to, CHUNK, &unread, rules)?;
        match last {
            Some(last) => batches::record_settled_to(tx, row.id, last).map(|()| false),
            None => Ok(true),
        }
    })
}

/// Stores that all requests of a batch are released. OpenAI is asked for its late answers after `wait`.
pub fn mark_watched(tx: &Tx<'_>, row: &BatchRow, wait: Duration) -> Stored<()> {
    alerts::close_all(tx, &AlertSubject::Batch(row.id))?;
    batches::mark_watched(tx, row, tx.now + wait)
}

/// Stores that an abandoned batch cannot be read: it is asked for again after `wait`, or is over. It pauses
/// nothing and opens no alert, as its requests were sent again.
pub fn watch(tx: &Tx<'_>, row: &BatchRow, error: Option<&CallError>, wait: Duration) -> Stored<()> {
    let watched = WatchedBatch {
        abandoned_at: row.abandoned_at.unwrap_or(tx.now),
        expires: row.openai_expires,
    };
    if watched.is_watched(error, tx.now) {
        return batches::set_next_check(tx, row.id, tx.now + wait);
    }
    let cause = error.map_or_else(|| "not asked for under this account".into(), ToString::to_string);
    batches::mark_abandoned(tx, row.id, &format!("abandoned by the operator: {cause}"))
}
