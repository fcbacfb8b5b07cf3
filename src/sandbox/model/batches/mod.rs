//! The Batches API: its calls, and the way of a batch from `validating` to a final state.

mod create;
mod execution;
mod operations;
mod past;
mod progress;
mod result_lines;
mod validation;
mod view;

pub use create::{LateCreate, cannot_find_file};
pub use operations::BatchListQuery;
pub use past::{PastBatch, PastLine};
pub use view::{BatchErrors, BatchView};
