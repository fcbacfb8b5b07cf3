//! When the machine's clock was confirmed, in the row of `instance`.

use std::time::Duration;

use super::{Stored, Tx, View, events};
use crate::base::clock::Timestamp;
use crate::base::fields::Fields;

/// When an operator last confirmed the clock; `None` if no operator has.
pub fn confirmed_by_operator(view: &View) -> Stored<Option<Timestamp>> {
    let mut query = view.prepare_cached("SELECT clock_confirmed_by_operator_at FROM instance")?;
    view.readable_value(query.query_row([], |row| row.get(0)))
}

/// When the clock was confirmed last, or else when the database was made; `None` if that cannot be read.
pub fn last_confirmed(view: &View) -> Stored<Option<Timestamp>> {
    let mut query = view.prepare_cached("SELECT coalesce(clock_confirmed_at, created_at) FROM instance")?;
    view.readable_value(query.query_row([], |row| row.get(0)))
}

/// Stores that the clock is confirmed, once an hour.
pub fn mark_confirmed(tx: &Tx<'_>) -> Stored<()> {
    tx.execute(
        "UPDATE instance SET clock_confirmed_at = ?1
         WHERE clock_confirmed_at IS NULL OR clock_confirmed_at NOT BETWEEN ?2 AND ?1",
        [tx.now, tx.now.before(Duration::from_hours(1))],
    )?;
    Ok(())
}

/// Stores that an operator confirms the clock.
pub fn confirm_by_operator(tx: &Tx<'_>) -> Stored<()> {
    tx.execute(
        "UPDATE instance SET clock_confirmed_at = ?1, clock_confirmed_by_operator_at = ?1",
        [tx.now],
    )?;
    events::record(tx, None, None, "clock_confirmed", Fields::new())
}
