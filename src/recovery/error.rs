//! Why recovery refuses or cannot go on.

use thiserror::Error;

use crate::domain::job::JobStatus;
use crate::openai::CallError;
use crate::store::StoreError;

/// Why recovery refuses or cannot go on.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// OpenAI's batches cannot be listed.
    #[error("OpenAI's batches cannot be listed: {0}")]
    Listing(Box<CallError>),
    /// OpenAI does not give a batch or its files.
    #[error("batch {batch}: {error}")]
    Batch {
        /// OpenAI's id of the batch.
        batch: String,
        /// What the call came to.
        error: Box<CallError>,
    },
    /// The database has no such job.
    #[error("there is no job {0}")]
    UnknownJob(String),
    /// The batch has its row already.
    #[error("batch {batch} has its row already: batchkeeper batches show {row}")]
    BatchIsKnown {
        /// OpenAI's id of the batch.
        batch: String,
        /// Its row.
        row: i64,
    },
    /// The row does not wait for an operator.
    #[error(
        "batch {0} waits for no decision: either its create was answered, or the daemon has not reported it yet. Look at \
         `batchkeeper alerts` and: batchkeeper batches show {0}"
    )]
    NotUnanswered(i64),
    /// The batch was made from another input, or is ignored.
    #[error("{batch} was not made from the input of batch {row}; nothing is linked")]
    AnotherBatch {
        /// The server's id of the batch.
        batch: String,
        /// The row.
        row: i64,
    },
    /// The batch does not carry this database's id.
    #[error("batch {0} does not carry this database's id, so it stops nothing; nothing is ignored")]
    NotOwn(String),
    /// The batch is this database's own.
    #[error("batch {batch} is not ignored: {evidence}. Give it its row with: batchkeeper recover --apply")]
    IsOurs {
        /// OpenAI's id of the batch.
        batch: String,
        /// What shows it.
        evidence: String,
    },
    /// The input of the batch cannot be read.
    #[error(
        "batch {batch} is not ignored: its input cannot be read ({reason}). After a restore the batch may be this \
         database's own. Its {lines} requests would then be sent again, and billed twice. If you are certain that this \
         program did not make it, repeat its id: batchkeeper recover --ignore {batch} --unread {batch} --apply"
    )]
    InputUnread {
        /// OpenAI's id of the batch.
        batch: String,
        /// OpenAI's number of its lines.
        lines: u64,
        /// Why its input cannot be read.
        reason: String,
    },
    /// The job is final.
    #[error("job {job} is {status} for good; nothing is linked")]
    JobIsFinal {
        /// The job's id.
        job: String,
        /// Its final status.
        status: JobStatus,
    },
    /// OpenAI has none of the batch's files any more.
    #[error("the files of batch {0} are gone; nothing is linked")]
    FilesAreGone(String),
    /// The custom ids of the batch are not lines of the job.
    #[error("the custom ids of batch {batch} don't fit job {job}; nothing is linked")]
    CustomIdsDiffer {
        /// OpenAI's id of the batch.
        batch: String,
        /// The job's id.
        job: String,
    },
}
