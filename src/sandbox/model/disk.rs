//! The sandbox's state on disk: whole files by temporary name and rename.
//!
//! It survives `kill -9` at any instruction. It does not call `fsync`: a power cut may cost a
//! sandbox its memory, which is nobody's money.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The state folder cannot be used.
#[derive(Debug)]
pub struct StateFolderError {
    path: PathBuf,
    message: String,
}

impl StateFolderError {
    pub(in crate::sandbox) fn new(path: &Path, why: &dyn fmt::Display) -> Self {
        Self {
            path: path.to_owned(),
            message: why.to_string(),
        }
    }
}

impl fmt::Display for StateFolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sandbox state {}: {}", self.path.display(), self.message)
    }
}

impl std::error::Error for StateFolderError {}

/// Writes a whole file, or leaves the one before.
pub(in crate::sandbox) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    File::create(&temporary)?.write_all(bytes)?;
    fs::rename(&temporary, path)
}

/// The same for a record as JSON.
pub(in crate::sandbox) fn write_json(path: &Path, record: &impl Serialize) -> io::Result<()> {
    write(path, &serde_json::to_vec(record)?)
}

/// Where a file is written before it gets its name.
pub(in crate::sandbox) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// Removes a file that may be gone already.
pub(in crate::sandbox) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the folder where needed and reads every `*.json` record in it.
pub(in crate::sandbox) fn read_records<T: DeserializeOwned>(
    folder: &Path,
) -> Result<Vec<T>, StateFolderError> {
    let failed = |error: io::Error| StateFolderError::new(folder, &error);
    fs::create_dir_all(folder).map_err(failed)?;
    let mut records = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|end| end == "json") {
            records.push(read_json(&path)?);
        }
    }
    Ok(records)
}

/// Reads one record.
pub(in crate::sandbox) fn read_json<T: DeserializeOwned>(
    path: &Path,
) -> Result<T, StateFolderError> {
    let bytes = fs::read(path).map_err(|error| StateFolderError::new(path, &error))?;
    serde_json::from_slice(&bytes).map_err(|error| StateFolderError::new(path, &error))
}
