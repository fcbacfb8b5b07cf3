//! Brings a database to this program's schema. The schema is in `migrations/`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rusqlite::Connection;

use super::backup;
use super::error::{StoreError, Stored, cannot};
use super::files::{APPLICATION_ID, beside};
use crate::base::clock::Timestamp;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The first schema of this layout. The schemas before it had other tables; `convert-database` reads the last
/// of them.
const FIRST_SCHEMA: i64 = 11;

/// The schema that this program makes.
pub fn schema_version() -> i64 {
    let migrations = embedded::migrations::runner();
    let versions = migrations.get_migrations().iter();
    versions
        .map(|migration| i64::from(migration.version()))
        .max()
        .unwrap_or(0)
}

/// The version of the SQLite library.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// Makes the tables, views and triggers that a database does not have yet.
pub(super) fn make_schema(connection: &mut Connection) -> Stored<()> {
    let made = embedded::migrations::runner().set_grouped(true).run(connection);
    let made = made.map(drop);
    made.map_err(|error| StoreError::Other(format!("the schema could not be brought up to date: {error}")))
}

/// Runs the migrations that a database does not have yet.
///
/// They run in one transaction: if a crash separated a migration from its row in the history, the next start
/// would fail. Foreign keys are off meanwhile and checked afterwards.
pub(super) fn migrate(connection: &mut Connection, path: &Path, now: Timestamp) -> Stored<()> {
    let known = schema_version();
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
    make_schema(connection)?;
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

/// Copies the database to a file beside it, which the operator removes: the way back from an upgrade. There is
/// one copy for a schema: while an upgrade fails at each start, the copy of the first start is used again.
fn back_up_before_upgrade(connection: &Connection, path: &Path, schema: i64, now: Timestamp) -> Stored<()> {
    let prefix = format!(".schema-{schema}.");
    let earlier = files_beside(path, &prefix)?;
    for copy in &earlier {
        if backup::is_copy_of(copy, connection, path)? {
            log::info!(event = "backup_reused", before = "upgrade", schema, path:% = copy.display(); "");
            return Ok(());
        }
    }
    let to = beside(path, &format!("{prefix}{}", now.to_compact_text()));
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
    // The program of that schema has changed the database since they were made.
    for copy in &earlier {
        fs::remove_file(copy).map_err(|error| cannot("remove", copy, &error))?;
    }
    Ok(())
}

/// The files in a database's folder whose names are the database's with a suffix that begins with `prefix`.
/// Incomplete copies are none of them.
fn files_beside(path: &Path, prefix: &str) -> Stored<Vec<PathBuf>> {
    let start = beside(path, prefix);
    let (Some(folder), Some(start)) = (start.parent(), start.file_name()) else {
        return Ok(Vec::new());
    };
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    let failed = |error: io::Error| cannot("read", folder, &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let name = file.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
        if name.starts_with(start.as_encoded_bytes()) && !name.ends_with(backup::PARTIAL.as_bytes()) {
            found.push(file);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    /// A database whose next upgrade, from schema 12, fails.
    fn broken_upgrade(path: &Path, now: Timestamp) {
        drop(Store::open(path, now).expect("a store"));
        let connection = Connection::open(path).expect("a database");
        let sql = "DELETE FROM refinery_schema_history WHERE version = 13; PRAGMA user_version = 12";
        connection.execute_batch(sql).expect("another schema");
    }

    #[test]
    fn an_upgrade_that_fails_again_and_again_leaves_one_copy() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let at = |seconds: i64| Timestamp::from_seconds(1_700_000_000 + seconds);
        broken_upgrade(&path, at(0));
        let copies = || files_beside(&path, ".schema-12.").expect("a folder");
        for start in 1..4 {
            let error = Store::open(&path, at(start)).err().expect("it fails").to_string();
            assert!(error.contains("could not be brought up to date"), "{error}");
            let first = beside(&path, &format!(".schema-12.{}", at(1).to_compact_text()));
            assert_eq!(copies(), [first], "start {start}");
        }
        // The program of schema 12 ran again: the way back is to what it left.
        let connection = Connection::open(&path).expect("a database");
        let sql = "UPDATE instance SET listed_until = 7";
        connection.execute_batch(sql).expect("a change");
        drop(connection);
        assert!(Store::open(&path, at(9)).is_err());
        let [copy] = copies().try_into().expect("one copy");
        let copy = Connection::open(copy).expect("a copy");
        let listed = copy.query_row("SELECT listed_until FROM instance", [], |row| row.get(0));
        assert_eq!(listed, Ok(7));
    }
}
