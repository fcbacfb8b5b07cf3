//! Why the store could not do something.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode;
use thiserror::Error;

/// Why the store could not do something.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk is full: nothing was changed. The same works again once there is free space.
    #[error("the disk is full")]
    Full,
    /// Another process holds the write lock of this file for too long.
    #[error(
        "{0} is locked by another process; try again, and if that lasts, end the process that holds it (a transaction \
         left open in sqlite3, for example)"
    )]
    Busy(String),
    /// The user of this process may not write to this file.
    #[error(
        "{0} cannot be written by this user; run it as the file's owner, such as runuser -u batchkeeper -- \
         batchkeeper ..."
    )]
    ReadOnly(String),
    /// The file cannot be opened now. Usually the process has no file descriptor left.
    #[error("the database cannot be opened now: {0}")]
    Unreachable(String),
    /// An I/O error or a corrupt file: the process must stop using it.
    #[error("the database cannot be relied on: {0}")]
    Broken(String),
    /// A value of a row cannot be read. The auditor finds the row, and everything else goes on.
    #[error("a row cannot be read: {0}")]
    Unreadable(String),
    /// A row was not in the state that the change starts from, because something else changed it.
    #[error("{0}")]
    Conflict(String),
    /// A mistake of the program, or a database that this program cannot use.
    #[error("{0}")]
    Other(String),
}

/// The result of a store function.
pub type Stored<T> = Result<T, StoreError>;

impl StoreError {
    /// Whether the same may work a little later.
    pub fn passes(&self) -> bool {
        matches!(
            self,
            Self::Full | Self::Busy(_) | Self::Unreachable(_) | Self::Unreadable(_) | Self::Conflict(_)
        )
    }

    /// The same error with the file's name where the operator needs it: SQLite does not give it.
    pub(super) fn of_file(self, path: &Path) -> Self {
        match self {
            Self::Busy(_) => Self::Busy(path.display().to_string()),
            Self::ReadOnly(_) => Self::ReadOnly(path.display().to_string()),
            error => error,
        }
    }
}

/// The error of a file that cannot be opened, made, renamed, …
pub(super) fn cannot(what: &str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::Other(format!("cannot {what} {}: {error}", path.display()))
}

/// Asserts that a change found its row in the state that it starts from.
pub(super) fn moved(changed: usize, what: impl FnOnce() -> String) -> Stored<()> {
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::Conflict(what()))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
        };
        if let FromSqlConversionFailure(..)
        | IntegralValueOutOfRange(..)
        | InvalidColumnType(..)
        | Utf8Error(..) = error
        {
            return Self::Unreadable(error.to_string());
        }
        // SQLite has no code of its own for what its JSON functions cannot read, and for a sum that is too large.
        let message = error.to_string();
        if message.contains("malformed JSON") || message.contains("integer overflow") {
            return Self::Unreadable(message);
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::CannotOpen) => Self::Unreachable(error.to_string()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy("the database".into()),
            Some(ErrorCode::ReadOnly) => Self::ReadOnly("the database".into()),
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Broken(error.to_string())
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Unreadable(format!("a JSON column does not parse: {error}"))
    }
}
