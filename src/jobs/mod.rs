//! What a job is expected to cost, and the JSON of its results. Used by the API, the webhook sender, the
//! submitter and the CLI.

pub mod budget_waits;
pub mod estimate;
mod learned;
pub mod lot_json;
pub mod reservation;
pub mod results_stream;
pub mod test_event;
pub mod webhook_body;

/// Lots that are read from the store in one transaction.
const PAGE: u32 = 100;
