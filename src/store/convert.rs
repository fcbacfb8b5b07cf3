//! Copies a database of the program before this one into a new file of this program's schema.
//!
//! The old file is only read. Its rows keep their ids, so submission keys, frozen parameters, identities and
//! OpenAI's ids stay the same. Only names change: those of tables and columns, and a few stored words.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::{StoreError, Stored, cannot};
use super::files::{
    APPLICATION_ID, DaemonLock, beside, create_partial, lock_path, make_private_folder_of, refuse_hard_links,
    sync_folder_of,
};
use super::invariants::INVARIANTS;
use super::migrate::migrate;
use crate::base::clock::Timestamp;
use crate::domain::alert::{AlertKind, PauseScope};

/// The schema that is converted: the last one of the earlier layout.
const OLD_SCHEMA: i64 = 10;
/// The ending of a file that is not complete yet.
const PARTIAL: &str = ".partial";

/// The tables that have a new name: old, new.
const TABLES: [(&str, &str); 7] = [
    ("appliance", "instance"),
    ("direct_calls", "synchronous_calls"),
    ("lots_taken", "daily_lots"),
    ("minutes", "minute_stats"),
    ("once", "idempotency_keys"),
    ("sums", "counters"),
    ("totals", "state_counts"),
];

/// The columns that have a new name: the new table, old, new.
const COLUMNS: [(&str, &str, &str); 15] = [
    ("alert_notices", "told_at", "notified_at"),
    ("alert_notices", "what", "change"),
    ("idempotency_keys", "at", "used_at"),
    ("idempotency_keys", "token", "key"),
    ("instance", "listed_to", "listed_until"),
    ("openai_batches", "error_taken", "error_ingested"),
    ("openai_batches", "output_taken", "output_ingested"),
    ("openai_batches", "said_cached_tokens", "openai_cached_tokens"),
    ("openai_batches", "said_input_tokens", "openai_input_tokens"),
    ("openai_batches", "said_output_tokens", "openai_output_tokens"),
    (
        "openai_batches",
        "said_reasoning_tokens",
        "openai_reasoning_tokens",
    ),
    ("requests", "image_rounds", "image_failures"),
    ("requests", "raised", "cap_raised"),
    ("webhook_deliveries", "again", "resend_number"),
    ("webhook_deliveries", "under_way", "in_flight"),
];

/// The columns in which stored words change: the new table, the new column, the value from the old row.
const VALUES: [(&str, &str, &str); 6] = [
    (
        "alert_notices",
        "state",
        "CASE state WHEN 'told' THEN 'notified' ELSE state END",
    ),
    (
        "alerts",
        "kind",
        "CASE kind WHEN 'alerts_not_told' THEN 'notification_failed' ELSE kind END",
    ),
    (
        "alerts",
        "message",
        "replace(replace(message, 'batches give-up', 'batches abandon'), 'webhooks give-up', 'webhooks abandon')",
    ),
    (
        "alerts",
        "subject",
        "replace(subject, 'v_bad_totals:', 'v_bad_state_counts:')",
    ),
    // Less the time by which the new program's listings may lag.
    ("instance", "listed_until", "listed_to - 3600"),
    (
        "pauses",
        "scope",
        "CASE scope WHEN 'direct' THEN 'synchronous' ELSE scope END",
    ),
];

/// The columns that the old schema does not have. Their default is the value of a new database.
const NEW_COLUMNS: [(&str, &str); 32] = [
    ("alert_notices", "receiver"),
    ("alerts", "acknowledged_at"),
    ("batch_jobs", "pending_change"),
    ("batch_jobs", "changed_to"),
    ("batch_jobs", "retried_at"),
    ("batch_lines", "setting"),
    ("batch_lines", "usage_unknown"),
    ("cleaned_work", "usage_unknown"),
    ("client_usage", "usage_unknown"),
    ("batch_lots", "missing_reasons"),
    ("batch_lots", "reference"),
    ("instance", "compared_at"),
    ("instance", "creates"),
    ("instance", "clock_confirmed_at"),
    ("instance", "clock_confirmed_by_operator_at"),
    ("job_usage", "usage_unknown"),
    ("openai_batches", "abandon_wanted"),
    ("openai_batches", "abandoned_at"),
    ("openai_batches", "lines_without_job"),
    ("openai_batches", "queue_caps"),
    ("openai_batches", "refused_after"),
    ("openai_batches", "usage_unknown"),
    ("openai_batches", "verdict"),
    ("pauses", "after_batch"),
    ("pauses", "probe_lines"),
    ("queue_limits", "cap_changed_at"),
    ("queue_limits", "cap_percent"),
    ("requests", "refusals"),
    ("requests", "retry_at"),
    ("requests", "transient_failures"),
    ("requests", "transient_wait_ms"),
    ("synchronous_calls", "usage_unknown"),
];

/// The columns that this schema does not have: the new table, the column.
const DROPPED_COLUMNS: [(&str, &str); 1] = [("openai_batches", "uniform_error")];

/// A converted database.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The new file.
    pub path: PathBuf,
    /// The number of tables.
    pub tables: usize,
    /// The rows of all tables.
    pub rows: usize,
    /// What the invariants find, in the old file as in the new one: the view and its number of rows.
    pub findings: Vec<(&'static str, u64)>,
}

/// Converts the database at `old` into a new file at `new`.
///
/// # Errors
/// If a daemon serves `old`, `old` has another schema, `new` is there already, or the copy does not hold what
/// `old` holds. There is no file at `new` then.
pub fn convert(old: &Path, new: &Path, now: Timestamp) -> Stored<Converted> {
    if !old.exists() {
        let message = format!("there is no file {}", old.display());
        return Err(StoreError::Other(message));
    }
    if new.exists() {
        let message = format!("{} is there already; name another file", new.display());
        return Err(StoreError::Other(message));
    }
    // A daemon makes this file at its start. A copy in a folder of backups has none, and gets none.
    let lock = lock_path(old).exists();
    let _lock = lock.then(|| DaemonLock::take(old)).transpose()?;
    refuse_hard_links(old)?;
    check_schema(old)?;
    make_private_folder_of(new)?;
    let partial = beside(new, PARTIAL);
    let file = create_partial(&partial)?;
    let converted = fill(&partial, old, new, now).and_then(|converted| {
        file.sync_all()
            .map_err(|error| cannot("sync", &partial, &error))?;
        fs::rename(&partial, new).map_err(|error| cannot("rename", &partial, &error))?;
        sync_folder_of(new)?;
        Ok(converted)
    });
    if converted.is_err() && partial.exists() {
        fs::remove_file(&partial).map_err(|error| cannot("remove", &partial, &error))?;
    }
    converted
}

/// Checks that the file is a database of the schema that can be converted.
fn check_schema(old: &Path) -> Stored<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(old, flags)?;
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let name = old.display();
    if number("PRAGMA application_id")? != APPLICATION_ID {
        let message = format!("{name} is not a database of batchkeeper");
        return Err(StoreError::Other(message));
    }
    match number("PRAGMA user_version")? {
        OLD_SCHEMA => Ok(()),
        found if found < OLD_SCHEMA => Err(StoreError::Other(format!(
            "{name} has schema {found}, and schema {OLD_SCHEMA} can be converted: start the last program before this \
             one on it once, which upgrades it"
        ))),
        found => Err(StoreError::Other(format!(
            "{name} has schema {found}: it needs no conversion"
        ))),
    }
}

fn fill(partial: &Path, old: &Path, new: &Path, now: Timestamp) -> Stored<Converted> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(partial, flags)?;
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA synchronous = OFF;")?;
    migrate(&mut connection, partial, now)?;
    connection.execute("ATTACH ? AS old", [read_only_uri(old)])?;
    // The counters are copied as they are: a trigger would count each row a second time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    let copying = connection.transaction()?;
    let tables = tables(&copying)?;
    let mut rows = 0;
    for table in &tables {
        rows += copy_table(&copying, table)?;
    }
    check_words(&copying)?;
    let findings = compare_findings(&copying)?;
    copying.commit()?;
    check_file(&connection)?;
    connection.execute_batch("DETACH old")?;
    Ok(Converted {
        path: new.to_owned(),
        tables: tables.len(),
        rows,
        findings,
    })
}

/// The URI that opens a file for reading alone.
fn read_only_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            byte => uri += &format!("%{byte:02X}"),
        }
    }
    uri + "?mode=ro"
}

/// The tables that are not copied. The history of the migrations is the new file's own, each start of the daemon
/// writes the prices with their providers, and the old schema does not have the others.
const NOT_COPIED: &str = "'refinery_schema_history', 'prices', 'providers', 'call_kinds', 'ignored_batches', 'unclaimed_lines', 'operator_actions', 'operator_tasks', 'job_metadata', 'alert_receivers'";

/// The tables that are copied.
fn tables(connection: &Connection) -> Stored<Vec<String>> {
    let mut query = connection.prepare(&format!(
        "SELECT name FROM main.sqlite_schema
         WHERE type = 'table' AND name NOT IN ({NOT_COPIED}) AND name NOT LIKE 'sqlite_%' ORDER BY name"
    ))?;
    let names = query.query_map([], |row| row.get("name"))?;
    Ok(names.collect::<Result<_, _>>()?)
}

fn columns(connection: &Connection, schema: &str, table: &str) -> Stored<Vec<String>> {
    let mut query = connection.prepare("SELECT name FROM pragma_table_info(?, ?) ORDER BY cid")?;
    let names = query.query_map([table, schema], |row| row.get("name"))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// Copies all rows of a table; returns how many.
///
/// # Errors
/// If a column of either file has no partner in the other one.
fn copy_table(connection: &Connection, table: &str) -> Stored<usize> {
    let old_table = TABLES.iter().find(|(_, new)| *new == table);
    let old_table = old_table.map_or(table, |(old, _)| *old);
    let mut left = columns(connection, "old", old_table)?;
    let mut targets = Vec::new();
    let mut values = Vec::new();
    for column in columns(connection, "main", table)? {
        if NEW_COLUMNS.contains(&(table, &column)) {
            continue;
        }
        let renamed = COLUMNS.iter().find(|(of, _, new)| *of == table && *new == column);
        let old_column = renamed.map_or(column.as_str(), |(_, old, _)| *old);
        let before = left.len();
        left.retain(|name| name != old_column);
        if left.len() == before {
            return Err(StoreError::Other(format!(
                "the old table {old_table} has no column {old_column}"
            )));
        }
        let value = VALUES
            .iter()
            .find(|(of, name, _)| *of == table && *name == column);
        values.push(value.map_or_else(|| format!("\"{old_column}\""), |(.., sql)| (*sql).to_owned()));
        targets.push(format!("\"{column}\""));
    }
    left.retain(|column| !DROPPED_COLUMNS.contains(&(table, column)));
    if let Some(column) = left.first() {
        return Err(StoreError::Other(format!(
            "the old column {old_table}.{column} has no place in the new schema"
        )));
    }
    let (targets, values) = (targets.join(", "), values.join(", "));
    let copied = connection.execute(
        &format!("INSERT INTO main.\"{table}\" ({targets}) SELECT {values} FROM old.\"{old_table}\""),
        [],
    )?;
    Ok(copied)
}

/// Checks that this program knows every kind of alert and every scope of a pause.
fn check_words(connection: &Connection) -> Stored<()> {
    let mut kinds = connection.prepare("SELECT DISTINCT kind FROM main.alerts")?;
    kinds
        .query_map([], |row| row.get::<_, AlertKind>("kind"))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut scopes = connection.prepare("SELECT scope FROM main.pauses")?;
    scopes
        .query_map([], |row| row.get::<_, PauseScope>("scope"))?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(())
}

/// Reads the invariants of both files: the conversion must not add a finding.
fn compare_findings(connection: &Connection) -> Stored<Vec<(&'static str, u64)>> {
    let count = |schema: &str, view: &str| -> Stored<u64> {
        let sql = format!("SELECT count(*) FROM {schema}.{view}");
        Ok(connection.query_row(&sql, [], |row| row.get(0))?)
    };
    let mut findings = Vec::new();
    for (view, _) in INVARIANTS {
        let old_view = match view {
            "v_bad_state_counts" => "v_bad_totals",
            view => view,
        };
        let (before, after) = (count("old", old_view)?, count("main", view)?);
        if before != after {
            return Err(StoreError::Other(format!(
                "{view} finds {after} rows in the copy, and {before} in the old database; nothing was converted"
            )));
        }
        if after > 0 {
            findings.push((view, after));
        }
    }
    Ok(findings)
}

fn check_file(connection: &Connection) -> Stored<()> {
    let sound: String = connection.query_row("PRAGMA main.integrity_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(StoreError::Other(format!("the copy is damaged: {sound}")));
    }
    let dangling = "SELECT EXISTS (SELECT 1 FROM pragma_foreign_key_check(NULL, 'main'))";
    if connection.query_row(dangling, [], |row| row.get(0))? {
        return Err(StoreError::Other(
            "rows of the old database refer to rows that are not there; nothing was converted".into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
