//! Named predicates over states. The alias of the table is the letter that begins each.

/// A job that is not final.
pub(super) const LIVE_JOB: &str = "j.status IN ('pending', 'processing', 'translating')";

/// A batch that may still answer its requests.
pub(super) const LIVE_BATCH: &str = "b.state NOT IN ('ingested', 'failed')";
