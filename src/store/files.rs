//! The database's file and the files beside it: mark, names, modes, and the locks of the daemon.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::{StoreError, Stored, cannot};
use crate::base::private_file::private;

/// Marks a file as a database of batchkeeper: "bkpr", SQLite's `application_id`.
pub(super) const APPLICATION_ID: i64 = 0x626b_7072;

/// The lock that lets one daemon at a time serve a database, by the database's name. It is held until it is dropped.
#[derive(Debug)]
pub struct DaemonLock {
    _file: File,
}

impl DaemonLock {
    /// Takes the lock of the database at `path`. It is a file of its own beside the database.
    ///
    /// # Errors
    /// If another daemon holds it, or the file cannot be made.
    pub fn take(path: &Path) -> Stored<Self> {
        make_private_folder_of(path)?;
        let path = lock_path(path);
        let file = private()
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| cannot("open", &path, &error))?;
        try_lock(&file, &path)?;
        Ok(Self { _file: file })
    }
}

/// The file of [`DaemonLock`]. A symbolic link to the database has the lock of the database.
pub(super) fn lock_path(path: &Path) -> PathBuf {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    beside(&path, ".lock")
}

/// Locks the database's file itself until this process exits, so that no second daemon serves it by another name.
///
/// Call it before SQLite opens the file, and in a daemon alone: SQLite's own locks belong to the process, and closing
/// any other descriptor of the file drops them. Therefore this descriptor is never closed.
///
/// # Errors
/// If another daemon holds the lock, or the file has several names or cannot be opened.
pub fn lock_until_exit(path: &Path) -> Stored<()> {
    make_private_file(path)?;
    refuse_hard_links(path)?;
    let file = File::open(path).map_err(|error| cannot("open", path, &error))?;
    try_lock(&file, path)?;
    Box::leak(Box::new(file));
    Ok(())
}

fn try_lock(file: &File, path: &Path) -> Stored<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::Other(format!(
            "another batchkeeper serves this database (it holds {}); stop it first",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(cannot("lock", path, &error)),
    }
}

/// Refuses a database that has several names. SQLite names its log after one of them: a process that opens another
/// one misses what the log holds, and damages the file.
pub(super) fn refuse_hard_links(path: &Path) -> Stored<()> {
    let links = fs::metadata(path)
        .map_err(|error| cannot("read", path, &error))?
        .nlink();
    if links <= 1 {
        return Ok(());
    }
    let path = path.display();
    Err(StoreError::Other(format!(
        "{path} has {links} hard links, and SQLite's log belongs to one name alone. Keep the name that has a -wal file \
         beside it, and remove the others: find / -xdev -samefile {path}"
    )))
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
