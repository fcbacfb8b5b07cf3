//! Backups: a verified copy of the database while the daemon runs, and the list of the copies.
//!
//! SQLite's backup API copies the pages of one snapshot. Writers continue meanwhile; only their WAL cannot be
//! reset before the copy is complete, which takes some seconds for a gigabyte. A copy without a snapshot
//! would start again at each commit. `VACUUM INTO` would hold its snapshot until every table and index is
//! built again.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, params};

use super::error::{StoreError, Stored, cannot};
use super::files::{APPLICATION_ID, beside, create_partial, make_private_folder_of, sync_folder_of};

use super::{Store, Tx, View};
use crate::base::clock::{Clock, Timestamp};

/// Pages that are copied between two reports of progress.
const PAGES: i32 = 4096;
/// The ending of a copy that is not verified yet.
pub(super) const PARTIAL: &str = ".partial";
/// The first bytes of a file in which a copy differs from its database: the journal's mode, counters and
/// SQLite's version (<https://www.sqlite.org/fileformat2.html#the_database_header>).
const HEADER: usize = 100;

/// A verified copy.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Its file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The version of its schema.
    pub schema: i64,
    /// The rows of all its tables.
    pub rows: u64,
}

/// Is called with the number of pages that are copied, and the number of all pages.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

impl Store {
    /// Copies the database to a new file at `to`, for its owner alone. The copy has another name until it has
    /// been read back and is on the disk.
    ///
    /// # Errors
    /// If `to` is there already, the copy cannot be written, or it differs from the database.
    pub fn back_up(&self, to: &Path, progress: Progress<'_>) -> Stored<Copied> {
        self.read(|view| copy(view.connection(), to, progress))
    }
}

impl Store {
    /// Makes a copy in a folder, with its time as its name, and stores that it is there. Once it is verified, the copies
    /// beyond the newest `keep` are removed. Gives the copy, and what was removed.
    ///
    /// # Errors
    /// As [`Store::back_up`]; also if an old copy cannot be removed.
    pub fn back_up_into(
        &self,
        folder: &Path,
        keep: u32,
        clock: &dyn Clock,
        progress: Progress<'_>,
    ) -> Stored<(Copied, Vec<PathBuf>)> {
        let began = clock.now().wall;
        let stem = self.path().file_stem();
        let stem = stem.map_or("batchkeeper".into(), |stem| stem.to_string_lossy());
        let folder = std::path::absolute(folder).map_err(|error| cannot("find", folder, &error))?;
        let copied = self.back_up(
            &folder.join(format!("{stem}-{}.db", began.to_compact_text())),
            progress,
        )?;
        let surplus = self.write(clock.now().wall, |tx| {
            record(tx, &copied, began)?;
            surplus(tx, &folder, keep)
        })?;
        for path in &surplus {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(cannot("remove", path, &error));
                }
                _ => self.write(clock.now().wall, |tx| forget(tx, path))?,
            }
        }
        Ok((copied, surplus))
    }
}

/// The version of the schema, and the number of rows of each table.
#[derive(PartialEq, Eq)]
struct Contents {
    schema: i64,
    tables: Vec<(String, u64)>,
}

/// Copies the snapshot of `source`.
pub(super) fn copy(source: &Connection, to: &Path, progress: Progress<'_>) -> Stored<Copied> {
    if to.exists() {
        let message = format!("{} is there already; name another file", to.display());
        return Err(StoreError::Other(message));
    }
    make_private_folder_of(to)?;
    let partial = beside(to, PARTIAL);
    let file = create_partial(&partial)?;
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

fn write_and_verify(source: &Connection, partial: &Path, progress: Progress<'_>) -> Stored<Contents> {
    // An error of the copy says nothing of the database.
    let of_copy = |error: rusqlite::Error| match error.into() {
        StoreError::Full => StoreError::Full,
        error => StoreError::Other(format!("{}: {error}", partial.display())),
    };
    let before = contents(source)?;
    write_pages(source, partial, progress).map_err(of_copy)?;
    let copy = Connection::open_with_flags(partial, flags()).map_err(of_copy)?;
    // One file without a WAL: the next process that opens it may be read-only.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
        .map_err(of_copy)?;
    let found = contents(&copy)?;
    match problem(&copy, found == before).map_err(of_copy)? {
        None => Ok(found),
        Some(problem) => Err(StoreError::Other(format!(
            "the copy is no good and was removed: {problem}. Look at the database itself: batchkeeper doctor"
        ))),
    }
}

/// Whether a file is a copy of the database at `path` as it is now, to the byte.
pub(super) fn is_copy_of(copy: &Path, database: &Connection, path: &Path) -> Stored<bool> {
    // Then everything is in the main file.
    let is_busy: bool = database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if is_busy {
        return Ok(false);
    }
    let read = |path: &Path| fs::File::open(path).map_err(|error| cannot("open", path, &error));
    let (mut ours, mut theirs) = (read(path)?, read(copy)?);
    let mut buffers = [vec![0; 1 << 16], vec![0; 1 << 16]];
    let mut skip = HEADER;
    loop {
        let [left, right] = &mut buffers;
        let read = |file: &mut fs::File, buffer: &mut [u8]| {
            let mut length = 0;
            while length < buffer.len() {
                match file.read(&mut buffer[length..])? {
                    0 => break,
                    read => length += read,
                }
            }
            Ok(length)
        };
        let failed = |error: io::Error| cannot("read", copy, &error);
        let ours = read(&mut ours, left).map_err(failed)?;
        let theirs = read(&mut theirs, right).map_err(failed)?;
        if left[..ours].get(skip..) != right[..theirs].get(skip..) {
            return Ok(false);
        }
        if ours == 0 {
            return Ok(true);
        }
        skip = 0;
    }
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn write_pages(source: &Connection, partial: &Path, progress: Progress<'_>) -> rusqlite::Result<()> {
    let mut target = Connection::open_with_flags(partial, flags())?;
    target.pragma_update(None, "synchronous", "OFF")?;
    let backup = Backup::new(source, &mut target)?;
    loop {
        let step = backup.step(PAGES)?;
        let (all, left) = (backup.progress().pagecount, backup.progress().remaining);
        let number = |pages: i32| u64::try_from(pages).unwrap_or(0);
        progress(number(all - left), number(all));
        if step == StepResult::Done {
            return Ok(());
        }
    }
}

/// The problem of a copy; `None` if it is good.
fn problem(copy: &Connection, has_same_contents: bool) -> rusqlite::Result<Option<String>> {
    let integrity: String =
        copy.query_row("PRAGMA integrity_check(1)", [], |row| row.get("integrity_check"))?;
    if integrity != "ok" {
        return Ok(Some(integrity));
    }
    let problem = if !has_same_contents {
        Some("it has another schema or other rows than the database")
    } else if copy.prepare("PRAGMA foreign_key_check")?.exists([])? {
        Some("rows refer to rows that are not there")
    } else {
        let mark: i64 = copy.query_row("PRAGMA application_id", [], |row| row.get("application_id"))?;
        (mark != APPLICATION_ID).then_some("it is not batchkeeper's")
    };
    Ok(problem.map(str::to_owned))
}

fn contents(of: &Connection) -> Stored<Contents> {
    let schema = of.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let mut names = of.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let names: Vec<String> = names
        .query_map([], |row| row.get("name"))?
        .collect::<Result<_, _>>()?;
    let mut tables = Vec::new();
    for name in names {
        let rows = of.query_row(&format!("SELECT count(*) FROM \"{name}\""), [], |row| row.get(0))?;
        tables.push((name, rows));
    }
    Ok(Contents { schema, tables })
}

/// Stores that there is a verified copy. Everything that was committed before `snapshot_at` is in it.
fn record(tx: &Tx<'_>, copied: &Copied, snapshot_at: Timestamp) -> Stored<()> {
    tx.execute(
        "INSERT INTO backups (path, bytes, snapshot_at, verified_at) VALUES (?, ?, ?, ?)",
        params![copied.path.to_string_lossy(), copied.bytes, snapshot_at, tx.now],
    )?;
    Ok(())
}

/// The backups in `folder` except the newest `keep`, newest first.
fn surplus(view: &View, folder: &Path, keep: u32) -> Stored<Vec<PathBuf>> {
    let mut query = view.prepare("SELECT path FROM backups ORDER BY id DESC")?;
    let paths = query.query_map([], |row| row.get("path").map(|path: String| path.into()))?;
    let mut paths: Vec<PathBuf> = paths.collect::<Result<_, _>>()?;
    paths.retain(|path| path.parent() == Some(folder));
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    Ok(paths.split_off(keep.min(paths.len())))
}

/// Removes a backup from the list.
fn forget(tx: &Tx<'_>, path: &Path) -> Stored<()> {
    tx.execute("DELETE FROM backups WHERE path = ?", [path.to_string_lossy()])?;
    Ok(())
}

/// When the database was made; `None` if that cannot be read.
pub fn database_made(view: &View) -> Stored<Option<Timestamp>> {
    let mut query = view.prepare_cached("SELECT created_at FROM instance")?;
    view.readable_value(query.query_row([], |row| row.get("created_at")))
}

/// The time of the newest backup's snapshot; `None` if there is no backup.
pub fn newest(view: &View) -> Stored<Option<Timestamp>> {
    let mut query = view.prepare_cached("SELECT snapshot_at FROM backups ORDER BY snapshot_at DESC")?;
    let times = query.query_and_then([], |row| Ok(row.get("snapshot_at")?))?;
    view.readable(times).next().transpose()
}
