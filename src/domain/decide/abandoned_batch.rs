//! An operator abandons a batch: how many of its lines may be billed again, whether OpenAI still ends it, and
//! how long it is watched for late answers.

use std::time::Duration;

use super::polled_batch::is_overdue;
use crate::base::clock::Timestamp;
use crate::domain::batch::BatchState;
use crate::domain::openai::{Batch, BatchStatus, CallError};

/// OpenAI's window for a batch whose end it did not name.
const WINDOW: Duration = Duration::from_hours(24);
/// How long a batch that cannot be read is watched for late answers.
const WATCHED: Duration = Duration::from_hours(7 * 24);

/// A batch that an operator wants to abandon.
#[derive(Clone, Copy, Debug)]
pub struct UnansweredBatch {
    /// How far it is.
    pub state: BatchState,
    /// Whether OpenAI refused it before a line ran.
    pub is_refused: bool,
    /// Whether the file of the answered lines is in the spool, or there is none.
    pub is_output_fetched: bool,
    /// Lines that are sent again: their requests are open, and have no answer here.
    pub unanswered: u64,
    /// Lines with an answer here.
    pub answered: u64,
    /// Lines that OpenAI has answered, by its own count.
    pub completed: u64,
}

impl UnansweredBatch {
    /// The most lines that OpenAI bills a second time if the unanswered ones are sent again.
    pub fn lines_billed_again(&self) -> u64 {
        match self.state {
            // A create may have reached OpenAI, and a batch that cannot be read may run.
            BatchState::Creating | BatchState::Submitted => self.unanswered,
            BatchState::Ended if !self.is_refused && !self.is_output_fetched => {
                self.completed.saturating_sub(self.answered).min(self.unanswered)
            }
            _ => 0,
        }
    }
}

/// What follows from OpenAI's answer to the cancel of a batch that is to be abandoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelledBatchDecision {
    /// OpenAI ends it, or has ended it: what it has not answered is sent again then, and nothing is billed
    /// twice.
    AwaitEnd,
    /// It should have ended long ago: its unanswered requests are sent again now.
    Release,
}

/// Decides on a batch that OpenAI still shows after it was asked to cancel it.
pub fn decide_cancelled(batch: &Batch, now: Timestamp) -> CancelledBatchDecision {
    match batch.status {
        Some(status) if status.is_final() => CancelledBatchDecision::AwaitEnd,
        Some(BatchStatus::Cancelling) if !is_overdue(batch.expires_at, now) => {
            CancelledBatchDecision::AwaitEnd
        }
        _ => CancelledBatchDecision::Release,
    }
}

/// An abandoned batch of which a call has failed.
#[derive(Clone, Copy, Debug)]
pub struct WatchedBatch {
    /// When it was abandoned.
    pub abandoned_at: Timestamp,
    /// When its window closes, OpenAI's clock in seconds.
    pub expires: Option<i64>,
}

impl WatchedBatch {
    /// Whether late answers are still waited for. While it may run, they are.
    pub fn is_watched(&self, error: Option<&CallError>, now: Timestamp) -> bool {
        let expires = self.expires.unwrap_or((self.abandoned_at + WINDOW).seconds());
        let is_gone = error.is_some_and(CallError::is_not_found);
        !is_overdue(Some(expires), now) || !is_gone && now < self.abandoned_at + WATCHED
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::openai::{OpenAiError, RequestCounts};

    const NOW: i64 = 1_795_400_000;
    const HOUR: i64 = 3600;

    #[test]
    fn a_line_is_billed_again_if_openai_may_have_answered_it() {
        use BatchState::{Creating, Ended, Sealed, Submitted, Uploaded};
        for (state, is_refused, is_output_fetched, answered, completed, expected) in [
            (Sealed, false, true, 0, 0, 0),
            (Uploaded, false, true, 0, 0, 0),
            (Creating, false, true, 0, 0, 40),
            (Submitted, false, true, 0, 0, 40),
            (Submitted, false, true, 0, 12, 40),
            (Ended, true, true, 0, 0, 0),
            (Ended, false, true, 39, 39, 0),
            (Ended, false, false, 0, 39, 39),
            (Ended, false, false, 20, 39, 19),
            (Ended, false, false, 0, 99, 40),
        ] {
            let batch = UnansweredBatch {
                state,
                is_refused,
                is_output_fetched,
                unanswered: 40,
                answered,
                completed,
            };
            assert_eq!(batch.lines_billed_again(), expected, "{batch:?}");
        }
    }

    #[test]
    fn a_batch_that_openai_cancels_ends_by_itself() {
        use CancelledBatchDecision::{AwaitEnd, Release};
        for (status, age, expected) in [
            (Some(BatchStatus::Cancelling), HOUR, AwaitEnd),
            (Some(BatchStatus::Cancelling), 25 * HOUR, Release),
            (Some(BatchStatus::Cancelled), 25 * HOUR, AwaitEnd),
            (Some(BatchStatus::Completed), HOUR, AwaitEnd),
            (Some(BatchStatus::InProgress), HOUR, Release),
            (None, HOUR, Release),
        ] {
            let batch = Batch {
                id: "batch_1".into(),
                status_text: String::new(),
                status,
                input_file_id: "file-1".into(),
                output_file_id: None,
                error_file_id: None,
                created_at: NOW - age,
                expires_at: Some(NOW - age + 24 * HOUR),
                model: None,
                counts: RequestCounts::default(),
                usage: None,
                errors: Vec::new(),
                metadata: BTreeMap::new(),
            };
            let decision = decide_cancelled(&batch, Timestamp::from_seconds(NOW));
            assert_eq!(decision, expected, "{status:?} {age}");
        }
    }

    #[test]
    fn a_batch_is_watched_while_it_may_run_and_a_week_if_it_is_not_gone() {
        let refused = |status| {
            CallError::Refused(OpenAiError {
                status,
                ..OpenAiError::default()
            })
        };
        for (hours, expires, error, expected) in [
            (1, Some(24), Some(refused(404)), true),
            (1, None, Some(refused(404)), true),
            (24, Some(24), Some(refused(404)), true),
            (25, Some(24), Some(refused(404)), false),
            (25, None, Some(refused(404)), false),
            (25, Some(24), Some(refused(403)), true),
            (25, Some(24), None, true),
            (168, Some(24), Some(refused(403)), false),
            (168, Some(24), None, false),
        ] {
            let watched = WatchedBatch {
                abandoned_at: Timestamp::from_seconds(NOW),
                expires: expires.map(|hours| NOW + hours * HOUR),
            };
            let now = Timestamp::from_seconds(NOW + hours * HOUR);
            let is_watched = watched.is_watched(error.as_ref(), now);
            assert_eq!(is_watched, expected, "{hours} {expires:?} {error:?}");
        }
    }
}
