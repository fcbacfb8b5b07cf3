//! Why the daemon does not start, or why it ended.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::base::thread_group::ThreadEnd;
use crate::openai::client::SettingsError;
use crate::store::StoreError;

/// Why the daemon does not start, or why it ended. Its text is for the operator.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The database cannot be opened.
    #[error("{}: {error}", path.display())]
    Database {
        /// The database's file.
        path: PathBuf,
        /// What the store reports.
        error: StoreError,
    },
    /// The store refuses or fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The spool's folder cannot be made or its old files cannot be removed.
    #[error("cannot prepare {}: {error}", path.display())]
    Spool {
        /// The folder.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// There is no key for OpenAI's API.
    #[error("no OpenAI API key: set openai.api_key_file, or OPENAI_API_KEY in the environment")]
    NoOpenAiKey,
    /// OpenAI's client cannot be made.
    #[error(transparent)]
    OpenAiClient(SettingsError),
    /// A value of the configuration cannot be used for outgoing calls.
    #[error("{key}: {problem}")]
    Config {
        /// The configuration's key, or a variable of the environment.
        key: String,
        /// The problem with its value.
        problem: String,
    },
    /// The system refuses a thread.
    #[error("cannot start thread {name}: {error}")]
    Thread {
        /// The thread's name.
        name: String,
        /// What the system answered.
        error: io::Error,
    },
    /// A listener's address cannot be bound or served.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address in the configuration.
        address: String,
        /// What the system answered.
        error: io::Error,
    },
    /// The system does not report signals.
    #[error("cannot watch signals: {0}")]
    Signals(io::Error),
    /// A thread that must not end has ended.
    #[error("thread {} {}; the daemon ends and must be started again", .0.name, how(.0))]
    ThreadEnded(ThreadEnd),
    /// No thread runs any more.
    #[error("all threads ended")]
    AllThreadsEnded,
    /// The database returned data that cannot be right.
    #[error("the database cannot be relied on: {0}; the daemon ends and must be started again")]
    DatabaseBroken(String),
}

fn how(end: &ThreadEnd) -> &'static str {
    match end.panicked {
        true => "panicked",
        false => "ended",
    }
}
