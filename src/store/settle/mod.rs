//! Answers reach their lots: a line is ingested, its request is settled, its lot is finished.
//!
//! The counters of `batch_jobs` change here and in [`super::jobs`] only, in the transaction that changes the
//! rows they count. `open_vision` and `open_translations` count a job's requests that are waiting, claimed
//! or held. `processed_lots` and `failed_lots` count its finished lots.

mod batch;
mod cancelled;
mod languages;
mod lines;
mod request;
mod tally;
mod verdict;

pub use batch::*;
pub(super) use cancelled::{CANCELLED, cancel_lot};
pub(super) use languages::JobLanguages;
pub use lines::*;
pub use request::fail_unsent;
pub(super) use request::{AnswerOrigin, RequestRow, get_request, release_lot, settle_answered, succeed};
pub(super) use tally::{Tallies, write_tallies};
pub use verdict::RetryRules;
pub(super) use verdict::{Failure, Judged, judge};
