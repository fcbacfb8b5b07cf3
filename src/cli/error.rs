//! Why a command failed.

use std::path::PathBuf;

use thiserror::Error;

use crate::config::ConfigError;
use crate::daemon::DaemonError;
use crate::openai::CallError;
use crate::recovery::RecoveryError;
use crate::store::StoreError;

/// Why a command failed. Its text is for the operator.
#[derive(Debug, Error)]
pub(super) enum CommandError {
    /// The arguments do not fit together.
    #[error("{0}")]
    Usage(String),
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no database at the configured path.
    #[error("there is no database at {}", .0.display())]
    NoDatabase(PathBuf),
    /// The store refuses or fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The daemon, or a part of it, does not start, or has ended.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A recovery failed.
    #[error(transparent)]
    Recovery(Box<RecoveryError>),
    /// A call to OpenAI failed.
    #[error("{action}: {error}")]
    OpenAi {
        /// The action that cannot be done.
        action: String,
        /// Why the call failed.
        error: Box<CallError>,
    },
    /// A file cannot be read, written or removed.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        error: std::io::Error,
    },
    /// Standard input or standard output fails.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A job, batch, delivery or alert that the command names does not exist.
    #[error("there is no {name} here; what there is: batchkeeper {list} list")]
    NotFound {
        /// The name on the command line.
        name: String,
        /// The command that lists what exists.
        list: &'static str,
    },
    /// The command's work failed for another reason.
    #[error("{0}")]
    Failed(String),
}

impl CommandError {
    /// The error for a name that does not exist; `list` is the command that lists what does.
    pub(super) fn not_found(name: impl ToString, list: &'static str) -> Self {
        Self::NotFound {
            name: name.to_string(),
            list,
        }
    }
}

impl From<RecoveryError> for CommandError {
    fn from(error: RecoveryError) -> Self {
        Self::Recovery(Box::new(error))
    }
}

impl From<String> for CommandError {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}
