//! Conditions over states that stand in several queries, as SQL. A query that names its tables by an alias
//! writes it before the condition: `b.{LIVE_BATCH}`.

/// A batch that is neither ingested nor failed. The text is that of the index `openai_batches_live`, which
/// SQLite uses only if the query has the same condition.
pub(super) const LIVE_BATCH: &str = "state NOT IN ('ingested', 'failed')";

/// A batch that runs at OpenAI, or may do so soon.
pub(super) const ACTIVE_BATCH: &str = "state IN ('planned', 'sealed', 'uploaded', 'creating', 'submitted')";

/// A batch that OpenAI does not have yet, as far as is certain: its input may still be sent.
pub(super) const UNSUBMITTED_BATCH: &str = "state IN ('planned', 'sealed', 'uploaded', 'creating')";

/// A job that is not final.
pub(super) const LIVE_JOB: &str = "status IN ('pending', 'processing', 'translating')";

/// A request that has no outcome yet.
pub(super) const OPEN_REQUEST: &str = "state IN ('waiting', 'claimed', 'held')";
