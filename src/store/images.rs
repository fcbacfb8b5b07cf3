//! Lots whose images are to be checked before they are sent to OpenAI.

use rusqlite::params;
use serde_json::json;

use super::lots::list;
use super::{Stored, Tx, View};

/// A lot whose images are due.
#[derive(Clone, Debug)]
pub struct DueLot {
    /// Its vision request.
    pub request: i64,
    /// Its row.
    pub lot: i64,
    /// Every image URL of it.
    pub images: Vec<String>,
}

/// Up to `limit` lots whose images are due.
pub fn due(view: &View, limit: u32) -> Stored<Vec<DueLot>> {
    let mut query = view.prepare_cached(
        "SELECT r.id, r.lot, l.images FROM requests r JOIN batch_lots l ON l.id = r.lot
         WHERE r.images_due = 1 AND r.state = 'waiting' LIMIT ?",
    )?;
    let rows = query.query_and_then([limit], |row| {
        Ok(DueLot {
            request: row.get(0)?,
            lot: row.get(1)?,
            images: list(row.get(2)?)?,
        })
    })?;
    rows.collect()
}

/// A lot's images are checked: those `missing` are not sent, the request may be.
pub fn checked(tx: &Tx<'_>, lot: &DueLot, missing: &[String]) -> Stored<()> {
    let missing = (!missing.is_empty()).then(|| json!(missing).to_string());
    tx.prepare_cached("UPDATE batch_lots SET missing_images = ? WHERE id = ?")?
        .execute(params![missing, lot.lot])?;
    tx.prepare_cached(
        "UPDATE requests SET images_due = 0, since = ? WHERE id = ? AND state = 'waiting'",
    )?
    .execute(params![tx.now, lot.request])?;
    Ok(())
}
