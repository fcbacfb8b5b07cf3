//! The intake: a submission whose signature holds is checked and stored whole, in one transaction.

use crate::clock::Timestamp;
use crate::config::Config;
use crate::job::{self, Mode, Rules, Submission};
use crate::json::Json;
use crate::net::Guard;
use crate::refusal::Refusal;
use crate::store::jobs::{self, JobRow, NewJob};
use crate::store::{Store, StoreError, Stored};

/// Checks what was sent.
///
/// # Errors
/// The contract's refusal of the first thing that is wrong; nothing is stored then.
pub fn check<'a>(
    body: &Json<'a>,
    config: &Config,
    guard: &Guard,
) -> Result<Submission<'a>, Refusal> {
    let url = |url: &str| {
        guard
            .check_url(url)
            .map(drop)
            .map_err(|problem| problem.to_string())
    };
    let rules = Rules {
        languages: usize::try_from(config.limits.languages).unwrap_or(usize::MAX),
        images: usize::try_from(config.images.max_per_lot).unwrap_or(usize::MAX),
        url: &url,
    };
    job::check_submission(body, &rules)
}

/// Stores a job durably, with its lots, requests and deliveries; gives the row as it stands then.
///
/// # Errors
/// The store's; nothing is stored then.
pub fn store(
    store: &Store,
    config: &Config,
    client: &str,
    submission: &Submission<'_>,
    mode: Mode,
    now: Timestamp,
) -> Stored<JobRow> {
    let id = uuid::Uuid::new_v4().to_string();
    let new = NewJob {
        id: &id,
        client,
        submission,
        check_images: config.images.check,
        mode,
    };
    store.write(now, |tx| {
        jobs::insert(tx, &new)?;
        jobs::by_id(tx, &id)?.ok_or_else(|| StoreError::Conflict(format!("job {id} is gone")))
    })
}
