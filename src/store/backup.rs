//! A copy of the database while it is worked on, verified by reading it back; and which copies there
//! are.
//!
//! SQLite's backup API copies the pages of one snapshot, as they are. Writers go on meanwhile; only
//! their WAL cannot be reset before the copy is whole, which takes seconds a gigabyte. Copying
//! without a snapshot would begin anew at each commit, and `VACUUM INTO` holds its snapshot for as
//! long as it takes to build every table and index again.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, params};

use super::error::{StoreError, Stored, cannot};
use super::files::{beside, make_private_folder_of, private, sync_folder_of};
use super::migrate::APPLICATION_ID;
use super::{Store, Tx, View};
use crate::base::clock::Timestamp;

/// Pages copied between two words on how far it is.
const PAGES: i32 = 4096;
/// What ends the name of a copy that is not verified yet.
const PARTIAL: &str = ".partial";

/// A verified copy.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Where it lies.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// The schema's version.
    pub schema: i64,
    /// Rows of all tables.
    pub rows: u64,
}

/// Told of pages copied, and of all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

impl Store {
    /// Copies the database to a new file at `to`, for its owner alone: under another name until it has
    /// been read back and is on the disk.
    ///
    /// # Errors
    /// When `to` is there already, the copy cannot be written, or it is not what was copied.
    pub fn back_up(&self, to: &Path, progress: Progress<'_>) -> Stored<Copied> {
        self.read(|view| copy(view.connection(), to, progress))
    }
}

/// The schema's version and how many rows each table has.
#[derive(PartialEq, Eq)]
struct Contents {
    schema: i64,
    tables: Vec<(String, u64)>,
}

/// Copies what `source` sees in its transaction.
pub(super) fn copy(source: &Connection, to: &Path, progress: Progress<'_>) -> Stored<Copied> {
    if to.exists() {
        let message = format!("{} is there already; name another file", to.display());
        return Err(StoreError::Other(message));
    }
    make_private_folder_of(to)?;
    let partial = beside(to, PARTIAL);
    let file = private()
        .create(true)
        .truncate(true)
        .open(&partial)
        .map_err(|error| cannot("make", &partial, &error))?;
    // Another's copy to the same file is not written into.
    file.try_lock()
        .map_err(|error| cannot("lock", &partial, &error.into()))?;
    let copied = write_and_verify(source, &partial, progress).and_then(|contents| {
        file.sync_all()
            .map_err(|error| cannot("sync", &partial, &error))?;
        fs::rename(&partial, to).map_err(|error| cannot("rename", &partial, &error))?;
        sync_folder_of(to)?;
        let bytes = file
            .metadata()
            .map_err(|error| cannot("look at", to, &error))?
            .len();
        Ok(Copied {
            path: to.to_owned(),
            bytes,
            schema: contents.schema,
            rows: contents.tables.iter().map(|(_, rows)| rows).sum(),
        })
    });
    if copied.is_err() && partial.exists() {
        fs::remove_file(&partial).map_err(|error| cannot("remove", &partial, &error))?;
    }
    copied
}

fn write_and_verify(
    source: &Connection,
    partial: &Path,
    progress: Progress<'_>,
) -> Stored<Contents> {
    // What is wrong with the copy says nothing of the database.
    let of_copy = |error: rusqlite::Error| match error.into() {
        StoreError::Full => StoreError::Full,
        error => StoreError::Other(format!("{}: {error}", partial.display())),
    };
    let before = contents(source)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut target = Connection::open_with_flags(partial, flags).map_err(of_copy)?;
    target
        .pragma_update(None, "synchronous", "OFF")
        .map_err(of_copy)?;
    let backup = Backup::new(source, &mut target).map_err(of_copy)?;
    loop {
        let step = backup.step(PAGES).map_err(of_copy)?;
        let (all, left) = (backup.progress().pagecount, backup.progress().remaining);
        let number = |pages: i32| u64::try_from(pages).unwrap_or(0);
        progress(number(all - left), number(all));
        if step == StepResult::Done {
            break;
        }
    }
    drop(backup);
    drop(target);
    // One file, without a WAL: whoever opens it next may be read-only.
    let copy = Connection::open_with_flags(partial, flags).map_err(of_copy)?;
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
        .map_err(of_copy)?;
    let found = contents(&copy)?;
    let sound: String = copy
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(of_copy)?;
    let dangling = copy
        .prepare("PRAGMA foreign_key_check")
        .and_then(|mut check| check.exists([]))
        .map_err(of_copy)?;
    let ours: i64 = copy
        .query_row("PRAGMA application_id", [], |row| row.get(0))
        .map_err(of_copy)?;
    let problem = match (sound.as_str(), found == before) {
        ("ok", true) if !dangling && ours == APPLICATION_ID => return Ok(found),
        ("ok", true) if dangling => "rows refer to rows that are not there",
        ("ok", true) => "it is not batchkeeper's",
        ("ok", false) => "it has another schema or other rows than the database",
        (problem, _) => problem,
    };
    Err(StoreError::Other(format!(
        "the copy is no good and was removed: {problem}. Look at the database itself: batchkeeper doctor"
    )))
}

fn contents(of: &Connection) -> Stored<Contents> {
    let schema = of.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let mut names =
        of.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let names: Vec<String> = names
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut tables = Vec::new();
    for name in names {
        let rows = of.query_row(&format!("SELECT count(*) FROM \"{name}\""), [], |row| {
            row.get(0)
        })?;
        tables.push((name, rows));
    }
    Ok(Contents { schema, tables })
}

/// A verified copy in the folder of backups; it shows what was committed before `snapshot_at`.
pub fn note(tx: &Tx<'_>, copied: &Copied, snapshot_at: Timestamp) -> Stored<()> {
    tx.execute(
        "INSERT INTO backups (path, bytes, snapshot_at, verified_at) VALUES (?, ?, ?, ?)",
        params![
            copied.path.to_string_lossy(),
            copied.bytes,
            snapshot_at,
            tx.now
        ],
    )?;
    Ok(())
}

/// Backups in `folder` beyond the newest `keep`, newest first.
pub fn beyond(view: &View, folder: &Path, keep: u32) -> Stored<Vec<PathBuf>> {
    let mut query = view.prepare("SELECT path FROM backups ORDER BY id DESC")?;
    let paths = query.query_map([], |row| row.get(0).map(|path: String| path.into()))?;
    let mut paths: Vec<PathBuf> = paths.collect::<Result<_, _>>()?;
    paths.retain(|path| path.parent() == Some(folder));
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    Ok(paths.split_off(keep.min(paths.len())))
}

/// A backup is no longer there.
pub fn forget(tx: &Tx<'_>, path: &Path) -> Stored<()> {
    tx.execute(
        "DELETE FROM backups WHERE path = ?",
        [path.to_string_lossy()],
    )?;
    Ok(())
}

/// Up to when the newest backup shows everything; none: there is no backup.
pub fn newest(view: &View) -> Stored<Option<Timestamp>> {
    let mut query = view.prepare_cached("SELECT max(snapshot_at) FROM backups")?;
    Ok(query.query_row([], |row| row.get(0))?)
}
