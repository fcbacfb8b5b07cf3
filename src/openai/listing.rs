//! Listings that can be relied on: complete back to a time, or an error.

use std::collections::HashSet;

use super::{Batch, BatchApi, Call, CallError};

/// Batches on one page of a listing.
const PAGE: u32 = 100;

/// Every batch that OpenAI lists, newest first, back to those made before `until` (OpenAI's clock,
/// seconds).
///
/// # Errors
/// A call's, or when the listing goes round in circles (a page brings nothing new) or has no times:
/// then it says nothing about what is not in it.
pub fn batches_back_to(api: &dyn BatchApi, until: i64) -> Call<Vec<Batch>> {
    let mut seen = HashSet::new();
    let mut listed: Vec<Batch> = Vec::new();
    loop {
        let page = api.batches(listed.last().map(|batch| batch.id.as_str()), PAGE)?;
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
