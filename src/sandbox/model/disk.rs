//! Reads and writes the sandbox's state: each file is written under a temporary name and renamed.
//!
//! The state survives `kill -9` at any instruction. There is no `fsync`: a power cut may cost the sandbox its
//! state, which is worth no money.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The state folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("sandbox state {}: {message}", path.display())]
pub struct StateFolderError {
    path: PathBuf,
    message: String,
}

impl StateFolderError {
    /// The error of one path.
    pub(super) fn new(path: &Path, why: &dyn Display) -> Self {
        Self {
            path: path.to_owned(),
            message: why.to_string(),
        }
    }
}

/// Replaces a whole file, or leaves the old one.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    File::create(&temporary)?.write_all(bytes)?;
    fs::rename(&temporary, path)
}

/// Replaces a file with a record as JSON.
pub fn write_json(path: &Path, record: &impl Serialize) -> io::Result<()> {
    write(path, &serde_json::to_vec(record)?)
}

/// The temporary name under which a file is written.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// Removes a file; it is no error if there is none.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads every `*.json` record of a folder, which it creates where needed.
pub fn read_records<T: DeserializeOwned>(folder: &Path) -> Result<Vec<T>, StateFolderError> {
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
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StateFolderError> {
    let bytes = fs::read(path).map_err(|error| StateFolderError::new(path, &error))?;
    serde_json::from_slice(&bytes).map_err(|error| StateFolderError::new(path, &error))
}
