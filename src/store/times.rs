//! The times in the tables. A time that lies after now is rewritten to now.
//!
//! Such a time was stored before the clock was set back. Compared with it, nothing would be old for as long as
//! the clock was ahead: a submission would be the repeat of an equal one for months. Due times are not
//! rewritten: a worker takes one that is further ahead than its longest wait as due ([`Timestamp::due_in`]).

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Store, Stored, View};
use crate::base::clock::Timestamp;

/// A difference between clocks that agree: a time that is less ahead is left alone.
const TOLERANCE: Duration = Duration::from_mins(5);

/// The columns of a table that hold times.
pub(super) struct Times {
    pub(super) table: &'static str,
    /// How people name a row `t` of it, in SQL.
    pub(super) row: &'static str,
    /// Times that are compared with now.
    pub(super) compared: &'static [&'static str],
    /// Due times, and times that are only shown or tested for NULL.
    pub(super) others: &'static [&'static str],
}

/// Every table with times. Days, and the minutes of `minute_stats`, are names of sums and not times.
pub(super) const TIMES: [Times; 21] = [
    times(
        "instance",
        "t.id",
        &[
            "created_at",
            "clock_confirmed_at",
            "clock_confirmed_by_operator_at",
        ],
        &["compared_at"],
    ),
    times("backups", "t.path", &["snapshot_at"], &["verified_at"]),
    times(
        "batch_jobs",
        "t.id",
        &["created_at", "updated_at", "completed_at"],
        &["cleaning_since", "cleaned_at", "retried_at"],
    ),
    times("batch_lots", "t.id", &[], &["processed_at"]),
    times("requests", "t.id", &["since"], &["retry_at"]),
    times("image_checks", "t.url", &["checked_at"], &[]),
    times("acceptances", "t.job", &["accepted_at"], &[]),
    times("idempotency_keys", "t.client || ' ' || t.key", &["used_at"], &[]),
    times(
        "openai_batches",
        "t.id",
        &[
            "input_file_since",
            "created_at",
            "submitted_at",
            "ended_at",
            "ingested_at",
        ],
        &["next_at", "abandoned_at", "cleaned_at"],
    ),
    times("ignored_batches", "t.openai_batch_id", &[], &["ignored_at"]),
    times("queue_limits", "t.model", &["learned_at", "cap_changed_at"], &[]),
    times(
        "synchronous_calls",
        "t.id",
        &["started_at"],
        &["next_at", "ended_at"],
    ),
    times(
        "webhook_deliveries",
        "t.id",
        &["created_at"],
        &["next_at", "delivered_at"],
    ),
    times(
        "delivery_attempts",
        "t.delivery_id || '/' || t.attempt",
        &[],
        &["started_at", "ended_at"],
    ),
    times("failing_receivers", "t.host", &["since"], &[]),
    times("pauses", "t.scope", &["since"], &["until"]),
    times(
        "alerts",
        "t.id",
        &["opened_at"],
        &["closed_at", "acknowledged_at"],
    ),
    times(
        "alert_notices",
        "t.id",
        &["created_at"],
        &["next_at", "notified_at"],
    ),
    times("events", "t.id", &["at"], &[]),
    times("operator_actions", "t.id", &[], &["at"]),
    times("cleaned_work", "t.job", &[], &["began_at"]),
];

const fn times(
    table: &'static str,
    row: &'static str,
    compared: &'static [&'static str],
    others: &'static [&'static str],
) -> Times {
    Times {
        table,
        row,
        compared,
        others,
    }
}

impl Store {
    /// Whether rows may hold times after `now`: an earlier process may have stored them, or this one stored
    /// later ones already.
    pub fn may_have_future_times(&self, now: Timestamp) -> bool {
        self.latest_write.load(Ordering::Relaxed) > (now + TOLERANCE).millis()
    }

    /// Rewrites every time that is compared with now and lies after it to `now`; gives the number of rows. Must
    /// only be called while the clock is confirmed: by a clock that is behind, everything would become old.
    ///
    /// # Errors
    /// The store's. The columns that were rewritten before it stay so.
    pub fn rewrite_future_times(&self, now: Timestamp) -> Stored<usize> {
        let latest = now + TOLERANCE;
        let mut rewritten = 0;
        for times in &TIMES {
            for column in times.compared {
                let (table, is_after) = (times.table, format!("{column} > ?1 AND {}", is_time(column)));
                let exists = |view: &View| {
                    let sql = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {is_after})");
                    Ok(view.query_row(&sql, [latest], |row| row.get::<_, bool>(0))?)
                };
                // Usually there is none, and a read keeps no other write waiting.
                if self.read(exists)? {
                    rewritten += self.write(now, |tx| {
                        let sql = format!("UPDATE {table} SET {column} = ?2 WHERE {is_after}");
                        Ok(tx.execute(&sql, [latest, now])?)
                    })?;
                }
            }
        }
        self.latest_write.store(now.millis(), Ordering::Relaxed);
        if rewritten > 0 {
            log::warn!(event = "future_times_rewritten", rows = rewritten; "");
        }
        Ok(rewritten)
    }
}

/// The condition that an expression's text is a time in our form.
pub(super) fn is_time(of: &str) -> String {
    format!("{of} IS strftime('%Y-%m-%dT%H:%M:%fZ', {of})")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_700_000_000 + seconds)
    }

    #[test]
    fn every_time_of_the_schema_is_listed() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("a.db"), at(0)).expect("a store");
        let named = store.read(|view| {
            let mut query = view.prepare(
                "SELECT m.name || '.' || c.name FROM sqlite_schema m, pragma_table_info(m.name) c
                 WHERE m.type = 'table' AND c.type = 'TEXT' AND m.name NOT IN ('prices', 'providers')
                   AND (c.name LIKE '%\\_at' ESCAPE '\\' OR c.name LIKE '%since' OR c.name IN ('at', 'until'))",
            )?;
            let names = query.query_map([], |row| row.get::<_, String>(0))?;
            Ok(names.collect::<Result<BTreeSet<_>, _>>()?)
        });
        let listed = TIMES.iter().flat_map(|times| {
            let columns = times.compared.iter().chain(times.others);
            columns.map(|column| format!("{}.{column}", times.table))
        });
        assert_eq!(listed.collect::<BTreeSet<_>>(), named.expect("a read"));
    }

    #[test]
    fn sqlite_and_the_program_agree_on_the_form_of_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("a.db"), at(0)).expect("a store");
        let accepted = |text: &str| {
            let sql = format!("SELECT {}", is_time("?1"));
            store.read(|view| Ok(view.query_row(&sql, [text], |row| row.get::<_, bool>(0))?))
        };
        for millis in (0..200_000)
            .map(|step: i64| step * 7_919_311)
            .chain([0, 999, 253_402_207_200_000])
        {
            let text = Timestamp::from_millis(millis).to_string();
            assert!(accepted(&text).expect("a read"), "{text}");
        }
        for text in [
            "",
            "now",
            "2026-11-24 02:24:00",
            "2026-11-24T02:24:00Z",
            "2026-02-30T00:00:00.000Z",
        ] {
            assert!(!accepted(text).expect("a read"), "{text}");
        }
    }

    #[test]
    fn a_time_after_now_becomes_now_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let learn = |store: &Store, model: &str, now| {
            let learned = store.write(now, |tx| super::super::queue::learn(tx, model, 7));
            learned.expect("a write");
        };
        let learned = |store: &Store, model: &str| {
            let sql = "SELECT learned_at FROM queue_limits WHERE model = ?";
            let time = store.read(|view| Ok(view.query_row(sql, [model], |row| row.get::<_, Timestamp>(0))?));
            time.expect("a read")
        };
        let store = Store::open(&path, at(0)).expect("a store");
        // An earlier process may have left anything.
        assert!(store.may_have_future_times(at(0)));
        store.rewrite_future_times(at(0)).expect("rewritten");
        assert!(!store.may_have_future_times(at(0)));
        learn(&store, "early", at(-50));
        learn(&store, "soon", at(300));
        assert!(!store.may_have_future_times(at(0)));
        learn(&store, "late", at(301));
        assert!(store.may_have_future_times(at(0)));
        assert_eq!(store.rewrite_future_times(at(0)).expect("rewritten"), 1);
        assert!(!store.may_have_future_times(at(0)));
        let times = ["early", "soon", "late"].map(|model| learned(&store, model));
        assert_eq!(times, [at(-50), at(300), at(0)]);
    }
}
