//! Brings a database to this program's schema. The schema is in `migrations/`.

use std::path::Path;

use rusqlite::Connection;

use super::backup;
use super::error::{StoreError, Stored};
use super::files::{APPLICATION_ID, beside};
use crate::base::clock::Timestamp;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The first schema of this layout. The schemas before it had other tables; `convert-database` reads the last
/// of them.
const FIRST_SCHEMA: i64 = 11;

/// Runs the migrations that a database does not have yet.
///
/// They run in one transaction: if a crash separated a migration from its row in the history, the next start
/// would fail. Foreign keys are off meanwhile and checked afterwards.
pub(super) fn migrate(connection: &mut Connection, path: &Path, now: Timestamp) -> Stored<()> {
    let migrations = embedded::migrations::runner();
    let known = migrations
        .get_migrations()
        .iter()
        .map(|migration| i64::from(migration.version()))
        .max()
        .unwrap_or(0);
    let found = found_schema(connection, path, known)?;
    if found == known {
        return Ok(());
    }
    if found > 0 {
        back_up_before_upgrade(connection, path, found, now)?;
    }
    // The mark comes first: after a crash in the next lines, the next start continues with this file.
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    migrations
        .set_grouped(true)
        .run(connection)
        .map_err(|error| StoreError::Other(format!("the schema could not be brought up to date: {error}")))?;
    let broken = connection.prepare("PRAGMA foreign_key_check")?.exists([])?;
    if broken {
        return Err(StoreError::Broken(
            "rows refer to rows that are not there (PRAGMA foreign_key_check)".into(),
        ));
    }
    connection.pragma_update(None, "user_version", known)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

/// The version of a database's schema; 0 for an empty file.
///
/// # Errors
/// If this program cannot use the file.
fn found_schema(connection: &Connection, path: &Path, known: i64) -> Stored<i64> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let is_marked = number("PRAGMA application_id")? == APPLICATION_ID;
    if !is_marked && number("SELECT count(*) FROM sqlite_schema")? > 0 {
        return Err(StoreError::Other(
            "this SQLite file is not batchkeeper's; name another database".into(),
        ));
    }
    let found = number("PRAGMA user_version")?;
    if found > known {
        return Err(StoreError::Other(format!(
            "the database has schema {found}, this program knows {known}: start the newer program that made it, \
             or restore a backup from before"
        )));
    }
    if (1..FIRST_SCHEMA).contains(&found) {
        let old = path.display();
        return Err(StoreError::Other(format!(
            "the database has schema {found}, of the program before this one. Stop that program, then convert the \
             database into a new file: batchkeeper convert-database {old} {old}.converted"
        )));
    }
    Ok(found)
}

/// Copies the database to a file beside it, which the operator removes: the way back from an upgrade.
fn back_up_before_upgrade(connection: &Connection, path: &Path, schema: i64, now: Timestamp) -> Stored<()> {
    let to = beside(path, &format!(".schema-{schema}.{}", now.to_compact_text()));
    let snapshot = connection.unchecked_transaction()?;
    let copied = backup::copy(&snapshot, &to, &mut |_, _| {}).map_err(|error| {
        StoreError::Other(format!(
            "no backup could be made, so the schema was not upgraded: {error}"
        ))
    })?;
    log::info!(
        event = "backed_up", before = "upgrade", schema, path:% = copied.path.display(),
        bytes = copied.bytes; ""
    );
    Ok(())
}
