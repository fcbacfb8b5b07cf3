//! What the simulated OpenAI keeps of files and batches.

mod batches;
mod files;
mod token_queue;

pub use batches::{BatchRecord, BatchRecords, LineCounts, LineError, SharedBatch, input_name, summary_name};
pub use files::{FileRecord, FileRecords, content_name};
pub use token_queue::TokenQueue;
