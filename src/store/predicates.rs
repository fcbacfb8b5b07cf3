//! Conditions that stand in several queries, as SQL. `b.{LIVE_BATCH}` in a format string names the table too.

/// A batch that is neither ingested nor failed. The text is that of the index `openai_batches_live`, which
/// SQLite uses only if the query has the same condition.
pub(super) const LIVE_BATCH: &str = "state NOT IN ('ingested', 'failed')";

/// A job that is not final.
pub(super) const LIVE_JOB: &str = "status IN ('pending', 'processing', 'translating')";

/// A request that has no outcome yet.
pub(super) const OPEN_REQUEST: &str = "state IN ('waiting', 'claimed', 'held')";
