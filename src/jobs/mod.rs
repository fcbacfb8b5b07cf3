//! What a job will take and what came of it, from the store's rows.

pub mod estimate;
pub mod results;
