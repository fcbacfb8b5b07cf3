//! What the simulated OpenAI keeps of files and batches.

mod batches;
mod files;
mod token_queue;

pub use batches::{BatchRecord, BatchRecords, LineCounts, LineError, SharedBatch};
pub use files::{FileRecord, FileRecords};
pub use token_queue::TokenQueue;
