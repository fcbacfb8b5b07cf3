//! Complete listings of batches: an incomplete listing is an error, since callers rely on the absence of a
//! batch.

use std::collections::HashSet;

use super::api::{BatchApi, CallResult};
use crate::domain::openai::{Batch, CallError};

/// Batches on one page of a listing.
const PAGE_SIZE: u32 = 100;

/// Lists the batches, newest first, back to the first one that was created before `until` (seconds on
/// OpenAI's clock).
///
/// # Errors
/// If a call fails, a batch has no time of creation, or a page has no new batch although more pages follow.
pub fn batches_back_to(api: &dyn BatchApi, until: i64) -> CallResult<Vec<Batch>> {
    let mut seen = HashSet::new();
    let mut listed: Vec<Batch> = Vec::new();
    loop {
        let page = api.batches(listed.last().map(|batch| batch.id.as_str()), PAGE_SIZE)?;
        if page.data.iter().any(|batch| batch.created_at <= 0) {
            return Err(CallError::Unknown {
                message: "the listing of batches does not say when each was made".into(),
            });
        }
        let before = listed.len();
        let reached = page.data.iter().any(|batch| batch.created_at < until);
        listed.extend(
            page.data
                .into_iter()
                .filter(|batch| seen.insert(batch.id.clone())),
        );
        if reached || !page.has_more {
            return Ok(listed);
        }
        if listed.len() == before {
            return Err(CallError::Unknown {
                message: "the listing of batches brings nothing new and does not end".into(),
            });
        }
    }
}
