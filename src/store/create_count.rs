//! How many creates were begun: in the database, and in a small file beside it. A database that is older than the
//! file was restored from a backup. Where the server lists no batches, nothing else shows that.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use super::error::cannot;
use super::files::{beside, sync_folder_of};
use super::{Store, Stored, View};
use crate::base::private_file::create_private;

/// The ending of the file's name.
const SUFFIX: &str = ".creates";

/// How many creates this database has begun.
pub fn begun(view: &View) -> Stored<u64> {
    Ok(view.query_row("SELECT creates FROM instance", [], |row| row.get(0))?)
}

impl Store {
    /// The path of the file.
    pub fn create_count_path(&self) -> PathBuf {
        beside(self.path(), SUFFIX)
    }

    /// The number in the file; `None` if there is no file, or it is another database's.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn recorded_creates(&self) -> Stored<Option<u64>> {
        let path = self.create_count_path();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text
                .trim()
                .split_once(' ')
                .filter(|(id, _)| *id == self.database_id())
                .and_then(|(_, count)| count.parse().ok())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot("read", &path, &error)),
        }
    }

    /// Writes the database's number into the file, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_creates(&self) -> Stored<()> {
        let creates = self.read(begun)?;
        let path = self.create_count_path();
        let partial = beside(&path, ".partial");
        let text = format!("{} {creates}\n", self.database_id());
        create_private(&partial)
            .and_then(|mut file: File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(|error| cannot("write", &path, &error))?;
        sync_folder_of(&path)
    }
}
