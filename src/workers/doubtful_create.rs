//! The answer of a create names another batch: it counts as lost.

use crate::config::OpenAiConfig;
use crate::domain::alert::{AlertKind, AlertSubject};
use crate::store::{Stored, Tx, alerts, batches};

/// Treats the answer of a create as lost, because `named` is another batch: OpenAI may have made a batch of its own
/// for this row. The row is `creating`, and a listing shows whether there is one.
pub fn doubt_create(tx: &Tx<'_>, row: i64, named: &str, config: &OpenAiConfig) -> Stored<()> {
    let error = format!("the create was answered with {named}, which is another batch");
    if !config.lists_batches() {
        // An operator decides; the alert follows with the next look at the row.
        return batches::postpone(tx, row, tx.now, &error);
    }
    let message = format!(
        "batch {row}: {error}. The answer counts as lost: OpenAI's list of batches shows whether a batch was made, and \
         it is created again only if none was. Look at it: batchkeeper batches show {row}"
    );
    alerts::open(tx, AlertKind::CreateUnclear, &AlertSubject::Batch(row), &message)?;
    batches::postpone(tx, row, tx.now + config.retry_interval, &error)
}
