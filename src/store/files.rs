//! The database's file and the files beside it: mark, names, modes, and the lock of the daemon.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::{StoreError, Stored, cannot};
use crate::base::private_file::private;

/// Marks a file as a database of batchkeeper: "bkpr", SQLite's `application_id`.
pub(super) const APPLICATION_ID: i64 = 0x626b_7072;

/// The lock that lets one daemon at a time serve a database. It is held until it is dropped.
#[derive(Debug)]
pub struct DaemonLock {
    _file: File,
}

impl DaemonLock {
    /// Takes the lock of the database at `path`.
    ///
    /// The lock is a file of its own: closing a second descriptor of the database would drop SQLite's locks.
    ///
    /// # Errors
    /// If another daemon holds it, or the file cannot be made.
    pub fn take(path: &Path) -> Stored<Self> {
        make_private_folder_of(path)?;
        let path = beside(path, ".lock");
        let file = private()
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| cannot("open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Other(format!(
                "another batchkeeper serves this database (it holds {}); stop it first",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(cannot("lock", &path, &error)),
        }
    }
}

/// A path with a suffix, in the same folder.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Creates the file of an unfinished copy, and locks it. The leftover of a killed process is replaced, so that
/// no other process holds the new file open.
///
/// # Errors
/// If the path is a symbolic link, or another process writes a copy there.
pub(super) fn create_partial(path: &Path) -> Stored<File> {
    let lock = |file: &File| {
        file.try_lock()
            .map_err(|error| cannot("lock", path, &error.into()))
    };
    match private().open(path) {
        Ok(leftover) => {
            lock(&leftover)?;
            fs::remove_file(path).map_err(|error| cannot("remove", path, &error))?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(cannot("open", path, &error)),
    }
    let file = private()
        .create_new(true)
        .open(path)
        .map_err(|error| cannot("make", path, &error))?;
    lock(&file)?;
    Ok(file)
}

/// Makes the folder of a file, if it is not there, for its owner alone.
pub(super) fn make_private_folder_of(path: &Path) -> Stored<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    if let Some(folder) = folder {
        fs::create_dir_all(folder).map_err(|error| cannot("make", folder, &error))?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))
            .map_err(|error| cannot("protect", folder, &error))?;
    }
    Ok(())
}

/// Makes the database's file, if it is not there, for its owner alone. SQLite gives the WAL the same mode.
pub(super) fn make_private_file(path: &Path) -> Stored<()> {
    make_private_folder_of(path)?;
    if !path.exists() {
        private()
            .create_new(true)
            .open(path)
            .map_err(|error| cannot("make", path, &error))?;
    }
    Ok(())
}

/// Writes a folder to the disk, so that a rename in it survives a power cut.
pub(super) fn sync_folder_of(path: &Path) -> Stored<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| cannot("sync", folder, &error))
}
