//! The webhooks that an operator sends again together: those of one receiver, of jobs that ended in a period.

use rusqlite::params;

use super::{Stored, View};
use crate::domain::operator_action::ResendRange;

/// Delivery `d` of job `j` is in the range, has ended, and is the newest of its job and URL.
const IN_RANGE: &str = "d.host = ?1 AND d.state IN ('delivered', 'failed')
     AND j.completed_at >= ?2 AND j.completed_at < ?3 AND j.cleaning_since IS NULL
     AND NOT EXISTS (SELECT 1 FROM webhook_deliveries n WHERE n.batch_job_id = d.batch_job_id
                     AND n.url = d.url AND n.resend_number > d.resend_number)";

/// The number of webhooks in a range.
pub fn count(view: &View, range: &ResendRange) -> Stored<u64> {
    let mut query = view.prepare_cached(&format!(
        "SELECT count(*) FROM webhook_deliveries d JOIN batch_jobs j ON j.id = d.batch_job_id WHERE {IN_RANGE}"
    ))?;
    Ok(
        query.query_row(params![range.receiver, range.since, range.until], |row| {
            row.get(0)
        })?,
    )
}

/// The first webhooks of a range after a row, at most `most`.
pub fn next(view: &View, range: &ResendRange, after: i64, most: u32) -> Stored<Vec<i64>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT d.id FROM webhook_deliveries d JOIN batch_jobs j ON j.id = d.batch_job_id
         WHERE {IN_RANGE} AND d.id > ?4 AND d.created_at < ?3 ORDER BY d.id LIMIT ?5"
    ))?;
    let ids = query.query_map(
        params![range.receiver, range.since, range.until, after, most],
        |row| row.get(0),
    )?;
    Ok(ids.collect::<Result<_, _>>()?)
}
